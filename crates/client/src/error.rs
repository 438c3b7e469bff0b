//! What can go wrong between a client and the daemon.

use std::io;
use std::path::Path;

use stapes_api::{ErrorDetails, Operation, StatusCode};

/// What a caller may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nobody answers at the socket, or the connection broke.
    Unreachable,
    BadRequest,
    Forbidden,
    NotFound,
    /// The name exists, or the object is busy.
    Conflict,
    /// The object changed since it was read (`If-Match`).
    Changed,
    /// The daemon failed, or answered with another status.
    Server,
    /// An operation ended in failure.
    Operation,
    /// An operation was cancelled.
    Cancelled,
    /// The answer is not what the API promises.
    Protocol,
    /// Reading or writing on this side failed.
    Local,
}

/// A failure: one line, the causes below it, and what to do about it where that is known.
#[derive(Debug)]
pub struct Error {
    pub kind: ErrorKind,
    /// HTTP status, or 0 where no answer came.
    pub code: u16,
    pub message: String,
    /// Outermost first.
    pub causes: Vec<String>,
    pub hint: Option<String>,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, code: 0, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Adds the causes of `source`, itself first.
    pub fn because(mut self, source: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(source);
        while let Some(cause) = next {
            let text = cause.to_string();
            // hyper repeats an inner error's text in its own; one line of it is enough.
            if self.causes.last().is_none_or(|last| !last.contains(&text)) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    pub(crate) fn unreachable(socket: &Path, cause: &io::Error) -> Self {
        let mut error = Error::new(ErrorKind::Unreachable, format!("cannot reach stapesd at {}", socket.display()));
        error.causes.push(cause.to_string());
        error.hint = Some(match cause.kind() {
            io::ErrorKind::PermissionDenied => "run as root, or join the group `stapes` and log in again".to_owned(),
            _ => "start it with `systemctl start stapes`, or run `stapesd` as root; STAPES_SOCKET or STAPES_DIR name another place"
                .to_owned(),
        });
        error
    }

    pub(crate) fn broken(what: &str, cause: &(dyn std::error::Error + 'static)) -> Self {
        Error::new(ErrorKind::Unreachable, format!("lost the connection to stapesd {what}")).because(cause)
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Error::new(ErrorKind::Protocol, what)
    }

    pub(crate) fn local(what: impl Into<String>, cause: &io::Error) -> Self {
        Error::new(ErrorKind::Local, what).because(cause)
    }

    /// From an error envelope. `code` is the HTTP status.
    pub(crate) fn answered(code: u16, message: String, details: ErrorDetails) -> Self {
        let kind = match code {
            400 => ErrorKind::BadRequest,
            401 | 403 => ErrorKind::Forbidden,
            404 => ErrorKind::NotFound,
            409 | 423 => ErrorKind::Conflict,
            412 => ErrorKind::Changed,
            _ => ErrorKind::Server,
        };
        let hint = (!details.hint.is_empty()).then_some(details.hint);
        Error { kind, code, message, causes: details.causes, hint }
    }

    /// From an operation that is over; `None` where it succeeded.
    pub(crate) fn of_operation(operation: &Operation) -> Option<Self> {
        let kind = match operation.status_code {
            StatusCode::FAILURE => ErrorKind::Operation,
            StatusCode::CANCELLED => ErrorKind::Cancelled,
            _ => return None,
        };
        let details = operation.metadata.as_ref().and_then(|m| m.get(ErrorDetails::OPERATION_KEY));
        let details: ErrorDetails = details.and_then(|d| serde_json::from_value(d.clone()).ok()).unwrap_or_default();
        let message = match (operation.err.is_empty(), kind) {
            (false, _) => operation.err.clone(),
            (true, ErrorKind::Cancelled) => "the operation was cancelled".to_owned(),
            (true, _) => "the operation failed and did not say why".to_owned(),
        };
        let mut error = Error::answered(operation.status_code.0, message, details);
        error.kind = kind;
        Some(error)
    }
}
