use std::{io, path::PathBuf, sync::Arc};

use stapes_model::{ErrorKind, NameError, keys::KeyError};

/// Why a device, or a set of them, is refused; always names the device, and the key where one is at fault.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeviceError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("device {device}: key \"type\" is missing; it is one of {}", crate::TYPES.join(", "))]
    NoType { device: String },
    #[error("device {device}: unknown type {found:?}; it is one of {}", crate::TYPES.join(", "))]
    UnknownType { device: String, found: String },
    #[error("device {device}: {what} is not supported: it is not built yet")]
    NotBuilt { device: String, what: String },
    #[error("device {device}: {error}")]
    Key { device: String, error: KeyError },
    #[error("device {device}: key {key:?} is missing: {why}")]
    Missing { device: String, key: &'static str, why: &'static str },
    #[error("device {device}: invalid {key}={value:?}: {why}")]
    Invalid { device: String, key: &'static str, value: String, why: String },
    #[error("devices {first} and {second} have the same {key}={value:?}")]
    Same { first: String, second: String, key: &'static str, value: String },
    #[error(
        "the instance has no root disk; add a device of type disk with path=/ and pool=<pool>, or a profile with one; \
         on a new host `stapes admin init --auto` makes a pool and that profile"
    )]
    NoRoot,
    #[error("device {device}: {path} does not exist on the host; create it or set required=false")]
    NoSource { device: String, path: PathBuf },
    #[error("device {device}: {path} on the host is no {expected} device")]
    WrongNode { device: String, path: PathBuf, expected: &'static str },
    #[error("device {device}: failed to look at {path} on the host")]
    Stat {
        device: String,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
}

impl DeviceError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
            Self::Key { error, .. } => error.kind(),
            Self::Stat { .. } => ErrorKind::Internal,
            Self::Name(_)
            | Self::NoType { .. }
            | Self::UnknownType { .. }
            | Self::Missing { .. }
            | Self::Invalid { .. }
            | Self::Same { .. }
            | Self::NoRoot
            | Self::NoSource { .. }
            | Self::WrongNode { .. } => ErrorKind::BadRequest,
        }
    }

    pub(crate) fn invalid(device: &str, key: &'static str, value: &str, why: impl Into<String>) -> Self {
        let value = value.chars().take(80).collect();
        Self::Invalid { device: device.to_owned(), key, value, why: why.into() }
    }

    pub(crate) fn not_built(device: &str, what: impl Into<String>) -> Self {
        Self::NotBuilt { device: device.to_owned(), what: what.into() }
    }
}
