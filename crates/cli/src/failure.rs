//! What the user sees when something fails: one line, its causes, a hint that can be typed.

use std::fmt::Write;
use std::io;

use stapes_client::{Error, ErrorKind};

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug, Default)]
pub struct Failure {
    pub line: String,
    /// Outermost first.
    pub causes: Vec<String>,
    pub hint: Option<String>,
    /// What the daemon's answer was, where it was one.
    pub kind: Option<ErrorKind>,
}

impl Failure {
    pub fn new(line: impl Into<String>) -> Self {
        Failure { line: line.into(), ..Failure::default() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn cause(mut self, cause: impl ToString) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Puts this failure below a line that says what was being done.
    pub fn within(mut self, line: impl Into<String>) -> Self {
        self.causes.insert(0, std::mem::replace(&mut self.line, line.into()));
        self
    }

    /// As it is printed on stderr.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.line);
        for cause in &self.causes {
            _ = writeln!(text, "  cause: {cause}");
        }
        if let Some(hint) = &self.hint {
            _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { line: error.message, causes: error.causes, hint: error.hint, kind: Some(error.kind) }
    }
}

/// `Err` with a formatted line.
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::failure::Failure::new(format!($($arg)*))) };
}
pub(crate) use fail;

/// Says what was attempted when the system refuses.
pub trait About<T> {
    fn about(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> About<T> for io::Result<T> {
    fn about(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Failure::new(what()).cause(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;
    use expect_test::expect;

    #[test]
    fn a_failure_reads_as_line_causes_hint() {
        let failure =
            Failure::new("pool fast is offline").cause("device not found").hint("see `stapes storage show fast`");
        expect![[r#"
            error: cannot start web1
              cause: pool fast is offline
              cause: device not found
            hint: see `stapes storage show fast`
        "#]]
        .assert_eq(&failure.within("cannot start web1").render());
    }
}
