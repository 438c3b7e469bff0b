use std::{path::PathBuf, sync::Arc};

use stapes_model::ErrorKind;

use crate::Revision;

/// Which way a [`Check`](crate::Check) failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckFailure {
    #[error("it exists already")]
    Exists,
    #[error("it does not exist")]
    Missing,
    #[error("it was changed meanwhile")]
    Changed { current: Revision },
}

/// Why the store refused or failed. Cloneable, because one failed flush answers every commit of its group.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written.
    #[error("{key}: {why}")]
    CheckFailed { key: String, why: CheckFailure },
    #[error("the change log starts after revision {oldest}; scan again and watch from there")]
    Compacted { oldest: Revision },
    #[error(
        "the state file {path} was written by a newer Stapes (schema {found}, this one knows {known}); \
         install that version again, or restore a backup made before the upgrade"
    )]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("the state file {path} is damaged; stop the daemon, move the file away and restore a backup in its place")]
    Damaged {
        path: PathBuf,
        #[source]
        source: Option<Arc<rusqlite::Error>>,
    },
    #[error("{path} is not a Stapes state file; point the daemon at another directory or move the file away")]
    Foreign { path: PathBuf },
    #[error("the state file {path} is in use by another process; stop the other daemon first")]
    Locked { path: PathBuf },
    #[error("no space left for the state file {path}; free some and try again")]
    Full {
        path: PathBuf,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    #[error("failed to {doing} in {path}")]
    Sqlite {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    #[error("failed to {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("stored object {key} cannot be read")]
    Decode {
        key: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("a watch of the store tried to commit to it or to start another watch")]
    Reentrant,
    #[error("the store has stopped")]
    Closed,
}

impl StoreError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::CheckFailed { why: CheckFailure::Missing, .. } => ErrorKind::NotFound,
            Self::CheckFailed { why: CheckFailure::Exists | CheckFailure::Changed { .. }, .. } => ErrorKind::Conflict,
            Self::Full { .. } => ErrorKind::Exhausted,
            Self::Locked { .. } | Self::Closed => ErrorKind::Unavailable,
            Self::Compacted { .. }
            | Self::NewerSchema { .. }
            | Self::Damaged { .. }
            | Self::Foreign { .. }
            | Self::Sqlite { .. }
            | Self::Io { .. }
            | Self::Decode { .. }
            | Self::Reentrant => ErrorKind::Internal,
        }
    }

    pub(crate) fn sqlite(doing: &'static str, path: &std::path::Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => Self::Damaged { path, source: Some(Arc::new(source)) },
            Some(Code::DiskFull) => Self::Full { path, source: Arc::new(source) },
            _ => Self::Sqlite { doing, path, source: Arc::new(source) },
        }
    }

    pub(crate) fn io(doing: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source: Arc::new(source) }
    }
}
