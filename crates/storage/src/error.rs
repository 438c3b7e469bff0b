use std::{io, path::PathBuf};

use stapes_model::{ErrorKind, PoolName, keys::KeyError};
use stapes_sys::exec::ExecError;

use crate::VolumeRef;

/// What can go wrong with a pool or a volume in it.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("unknown storage driver {driver:?}: this build has btrfs and dir")]
    UnknownDriver { driver: String },
    #[error("storage pool {pool} ({driver}): {error}")]
    Key { pool: PoolName, driver: &'static str, error: KeyError },
    #[error("storage pool {pool}: invalid value {value:?} for {key}: {reason}")]
    InvalidValue { pool: PoolName, key: &'static str, value: String, reason: String },
    #[error("storage pool {pool}: {program} is not installed; install the package {package}")]
    MissingTool { pool: PoolName, program: &'static str, package: &'static str },
    #[error("storage pool {pool}: {what} is not possible: {reason}")]
    Unsupported { pool: PoolName, what: &'static str, reason: String },
    #[error("storage pool {pool}: {path} is taken: {reason}")]
    Taken { pool: PoolName, path: PathBuf, reason: String },
    #[error("storage pool {pool}: there is no volume {volume}")]
    NoVolume { pool: PoolName, volume: VolumeRef },
    #[error("storage pool {pool}: volume {volume} exists already")]
    VolumeExists { pool: PoolName, volume: VolumeRef },
    #[error("storage pool {pool}: volume {volume} has no snapshot {snapshot}")]
    NoSnapshot { pool: PoolName, volume: VolumeRef, snapshot: String },
    #[error("storage pool {pool}: volume {volume} has a snapshot {snapshot} already")]
    SnapshotExists { pool: PoolName, volume: VolumeRef, snapshot: String },
    #[error("storage pool {pool} still has volumes ({count}, {first} among them): delete them first")]
    NotEmpty { pool: PoolName, count: usize, first: String },
    #[error("storage pool {pool} is in use: stop the instances on it first")]
    InUse {
        pool: PoolName,
        #[source]
        source: io::Error,
    },
    #[error("storage pool {pool} is full: delete something on it, or free space on the host beneath it")]
    Full {
        pool: PoolName,
        #[source]
        source: io::Error,
    },
    #[error("storage pool {pool} has vanished: {reason}")]
    Vanished { pool: PoolName, reason: String },
    #[error("storage pool {pool} has become read-only: free space on the host, stop its instances and restart stapesd")]
    ReadOnly {
        pool: PoolName,
        #[source]
        source: io::Error,
    },
    #[error("storage pool {pool}: failed to {action}")]
    Tool {
        pool: PoolName,
        action: &'static str,
        #[source]
        source: ExecError,
    },
    #[error("storage pool {pool}: failed to {action} {path}")]
    Io {
        pool: PoolName,
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("invalid volume id {id:?}: {rule}")]
    InvalidId { id: String, rule: &'static str },
}

impl PoolError {
    /// What a caller may act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Key { error, .. } => error.kind(),
            Self::UnknownDriver { .. } | Self::InvalidValue { .. } | Self::InvalidId { .. } => ErrorKind::BadRequest,
            Self::MissingTool { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NoVolume { .. } | Self::NoSnapshot { .. } => ErrorKind::NotFound,
            Self::Taken { .. }
            | Self::VolumeExists { .. }
            | Self::SnapshotExists { .. }
            | Self::NotEmpty { .. }
            | Self::InUse { .. } => ErrorKind::Conflict,
            Self::Full { .. } => ErrorKind::Exhausted,
            Self::Vanished { .. } | Self::ReadOnly { .. } => ErrorKind::Unavailable,
            Self::Tool { .. } | Self::Io { .. } => ErrorKind::Internal,
        }
    }

    /// Turns a failed call on `path` into the error that says what to do about it, where something can be done.
    pub(crate) fn io(pool: &PoolName, action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        use rustix::io::Errno;
        let (pool, path) = (pool.clone(), path.into());
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full { pool, source },
            Some(Errno::ROFS) => Self::ReadOnly { pool, source },
            Some(Errno::NODEV | Errno::NXIO | Errno::NOTCONN | Errno::STALE | Errno::IO) => {
                let reason = format!("could not {action} {}: {source}; bring its device back", path.display());
                Self::Vanished { pool, reason }
            }
            _ => Self::Io { pool, action, path, source },
        }
    }
}
