use stapes_model::{ErrorKind, InstanceId};

/// Why a driver could not do what it was asked. The text names the subject; the chain says why.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The instance's init could not be set up or executed: which step failed, on what, and the kernel's word.
    #[error("failed to start instance {id}: {step}")]
    Start {
        id: InstanceId,
        step: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The command of an exec does not exist or is not executable inside the instance. `code` is what a shell would
    /// answer: 127 (not found) or 126 (found, cannot be executed).
    #[error("command {command:?} cannot be executed: {reason}")]
    Command { command: String, reason: String, code: i32 },
    /// A file request failed inside the instance; `errno` is the kernel's.
    #[error("{path}: {reason}")]
    File { path: String, reason: String, errno: i32 },
    /// The process that holds the instance is gone or does not answer.
    #[error("the shim of instance {id} is gone")]
    ShimGone { id: InstanceId },
    #[error("the shim did not answer within {seconds} s")]
    ShimSilent { seconds: u64 },
    /// The instance is not in the state that the call needs.
    #[error("instance {id} is not running")]
    NotRunning { id: InstanceId },
    /// The program inside a virtual machine that does it for the host does not answer.
    #[error("the agent in instance {id} is needed and does not answer: {reason}")]
    Agent { id: InstanceId, reason: String },
    /// This kernel, host or instance type cannot do it.
    #[error("{what} is not supported: {reason}")]
    Unsupported { what: String, reason: String },
    #[error("{doing}")]
    Other {
        doing: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl DriverError {
    /// An error with its cause: `doing` reads "failed to …" and names the subject.
    pub fn other(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other { doing: doing.into(), source: Some(source.into()) }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Start { .. } | Self::ShimGone { .. } | Self::Other { .. } => ErrorKind::Internal,
            Self::ShimSilent { .. } | Self::Agent { .. } => ErrorKind::Unavailable,
            Self::Command { .. } | Self::NotRunning { .. } => ErrorKind::BadRequest,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::File { errno, .. } => match *errno {
                2 | 20 => ErrorKind::NotFound,
                1 | 13 => ErrorKind::Forbidden,
                17 | 39 => ErrorKind::Conflict,
                28 | 122 => ErrorKind::Exhausted,
                _ => ErrorKind::BadRequest,
            },
        }
    }
}
