//! Errors of work that is a list of steps: which one, on what, and the kernel's word.

use std::{fmt, io};

use stapes_shim_api::{Failure, FailureKind};

#[derive(Debug)]
pub struct StepError {
    pub step: String,
    pub source: io::Error,
}

impl StepError {
    pub fn new(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { step: step.into(), source: source.into() }
    }

    pub fn failure(&self, kind: FailureKind) -> Failure {
        Failure { kind, message: self.to_string(), errno: self.source.raw_os_error().unwrap_or(0), code: 0 }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

pub trait Step<T> {
    /// Names what was being done, for the error.
    fn step(self, name: impl FnOnce() -> String) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T, StepError> {
        self.map_err(|error| StepError::new(name(), error))
    }
}
