//! What can go wrong with an image, and what a caller may do about it.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};
use stapes_model::{ErrorKind, Fingerprint};

/// Why an image could not be read, stored, unpacked or built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("failed to {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{file}: {reason}")]
    Format { file: String, reason: String },
    #[error("metadata.yaml: {field}: {reason}")]
    Metadata { field: String, reason: String },
    #[error("the image has fingerprint {found}, but {wanted} was expected")]
    WrongFingerprint { wanted: Fingerprint, found: Fingerprint },
    #[error("template {template}: {reason}")]
    Template { template: String, reason: String },
    #[error("failed to unpack the image")]
    Unpack(#[source] UnpackFault),
    #[error("failed to run the unpacking worker {program}: {reason}")]
    Worker { program: String, reason: String },
    #[error("{} is not empty; an image is unpacked into an empty directory only", .0.display())]
    NotEmpty(PathBuf),
    #[error("{program} is not installed; install the package {package}")]
    MissingTool { program: &'static str, package: &'static str },
    #[error("unknown Debian release {asked:?}; known are {known}")]
    UnknownRelease { asked: String, known: String },
    #[error("failed to build {what}: {reason}")]
    Build { what: String, reason: String },
}

impl ImageError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// What a caller may act on; the REST layer maps each kind to one status code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
                _ => ErrorKind::Internal,
            },
            Self::Format { .. } | Self::Metadata { .. } | Self::WrongFingerprint { .. } | Self::Template { .. } => {
                ErrorKind::BadRequest
            }
            Self::Unpack(fault) => fault.kind(),
            Self::Worker { .. } | Self::NotEmpty(_) => ErrorKind::Internal,
            Self::MissingTool { .. } => ErrorKind::Unavailable,
            Self::UnknownRelease { .. } => ErrorKind::NotFound,
            Self::Build { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Why the confined worker gave up. It crosses a pipe, so causes are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum UnpackFault {
    /// The archive asks for something that no image may do.
    #[error("{file}: entry {entry:?} is refused: {reason}")]
    Refused { file: String, entry: String, reason: String },
    /// The bytes are no archive, or not one we can read.
    #[error("{file}: {reason}")]
    Corrupt { file: String, reason: String },
    #[error("{file} is cut short: {reason}")]
    Truncated { file: String, reason: String },
    #[error("{file} is larger than allowed: {what} exceeds {limit}")]
    Limit { file: String, what: String, limit: u64 },
    #[error("no space left while writing {entry:?}")]
    NoSpace { entry: String },
    #[error("failed to {doing} {entry:?}: {reason}")]
    Write { doing: String, entry: String, reason: String },
    #[error("{file}: {reason}")]
    Read { file: String, reason: String },
    #[error("{program} is not installed; install the package {package}")]
    MissingTool { program: String, package: String },
    #[error("the worker could not be confined: {0}")]
    Confine(String),
}

impl UnpackFault {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { .. } | Self::Corrupt { .. } | Self::Truncated { .. } | Self::Limit { .. } => {
                ErrorKind::BadRequest
            }
            Self::NoSpace { .. } => ErrorKind::Exhausted,
            Self::MissingTool { .. } => ErrorKind::Unavailable,
            Self::Confine(_) => ErrorKind::Unsupported,
            Self::Write { .. } | Self::Read { .. } => ErrorKind::Internal,
        }
    }
}
