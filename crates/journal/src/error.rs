use std::path::{Path, PathBuf};

use stapes_model::ErrorKind;

/// Why the journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("operation {operation} is in the journal already")]
    Begun { operation: String },
    #[error("operation {operation} is not open in the journal")]
    NotOpen { operation: String },
    #[error(
        "the journal {path} is damaged; stop the daemon and move the file away: the next start checks everything \
         on this host against the store instead"
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Option<rusqlite::Error>,
    },
    #[error("the journal {path} was written by a newer Stapes (schema {found}, this one knows {known})")]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("the journal {path} is in use by another process; stop the other daemon first")]
    Locked { path: PathBuf },
    #[error("no space left for the journal {path}; free some and try again")]
    Full {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("failed to {doing} in {path}")]
    Sqlite {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("failed to open {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl JournalError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Begun { .. } => ErrorKind::Conflict,
            Self::NotOpen { .. } => ErrorKind::NotFound,
            Self::Full { .. } => ErrorKind::Exhausted,
            Self::Locked { .. } => ErrorKind::Unavailable,
            Self::Damaged { .. } | Self::NewerSchema { .. } | Self::Sqlite { .. } | Self::Open { .. } => {
                ErrorKind::Internal
            }
        }
    }

    pub(crate) fn sqlite(doing: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => Self::Damaged { path, source: Some(source) },
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Locked { path },
            Some(Code::DiskFull) => Self::Full { path, source },
            _ => Self::Sqlite { doing, path, source },
        }
    }
}
