//! Running other people's programs, with an error that keeps the argument list, the status and what they said.

use std::{
    ffi::OsStr,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// An external command that could not be run or did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("failed to run {argv}")]
    Spawn {
        argv: String,
        #[source]
        source: io::Error,
    },
    #[error("{argv} failed ({status}): {stderr}")]
    Failed { argv: String, status: ExitStatus, stderr: String },
    #[error("{argv} did not end within {}s and was killed", patience.as_secs())]
    TimedOut { argv: String, patience: Duration },
}

impl ExecError {
    /// The program is not installed.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Lets the kernel kill what `command` starts when the thread that started it ends, be it with its whole process: nothing
/// goes on writing where a successor cleans up. That thread has to wait for the program. Only the program itself: what it
/// starts in turn goes on, unless it sits in a pid namespace whose init dies. prctl(2), PR_SET_PDEATHSIG.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    let bind = move || {
        crate::confine::die_with_parent()?;
        // It may have died in the meantime, and then no signal comes.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::CHILD.into()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory but its own copy of a number.
    unsafe { command.pre_exec(bind) }
}

/// One command line, run to its end with nothing on standard input unless said otherwise; it is killed with the caller.
#[derive(Debug)]
pub struct Exec {
    command: Command,
    argv: String,
    input: Vec<u8>,
    patience: Duration,
}

impl Exec {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8");
        Self {
            command,
            argv: program.to_string_lossy().into_owned(),
            input: Vec::new(),
            patience: Duration::from_secs(60),
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(' ');
        self.argv.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Bytes for the command's standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Longest time to wait before the command is killed; 60 seconds unless set.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs the command and returns its standard output; a status other than zero is an error.
    pub fn run(mut self) -> Result<Vec<u8>, ExecError> {
        let spawn_error = |argv: &str, source| ExecError::Spawn { argv: argv.to_owned(), source };
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = die_with_parent(&mut self.command).spawn().map_err(|source| spawn_error(&self.argv, source))?;

        // Each pipe has its own thread: a child that fills one while we wait on another would hang for ever.
        let (stdin, input) = (child.stdin.take(), std::mem::take(&mut self.input));
        let writer = std::thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());

        let deadline = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(pause),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(ExecError::TimedOut { argv: self.argv, patience: self.patience });
                }
                Err(source) => return Err(spawn_error(&self.argv, source)),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        let _ = writer.join();
        let stdout = stdout.join().unwrap_or_default();
        let stderr = stderr.join().unwrap_or_default();
        if status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(ExecError::Failed { argv: self.argv, status, stderr })
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error ends the text early; the exit status still decides.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_keeps_command_status_and_complaint() {
        let error = Exec::new("sh").args(["-c", "echo broken >&2; exit 3"]).run().unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo broken >&2; exit 3 failed (exit status: 3): broken");
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        assert!(Exec::new("/nonexistent/program").run().unwrap_err().is_missing());
    }

    #[test]
    fn a_megabyte_goes_through_both_pipes() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(Exec::new("cat").input(input.clone()).run().unwrap(), input);
    }

    #[test]
    fn a_program_dies_with_the_thread_that_started_it() {
        use std::os::unix::process::ExitStatusExt;
        let mut command = Command::new("sleep");
        let start = move || die_with_parent(command.arg("1000")).spawn().unwrap();
        let mut child = std::thread::spawn(start).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_command_that_never_ends_is_killed() {
        let error = Exec::new("sleep").arg("60").patience(Duration::from_millis(50)).run().unwrap_err();
        assert!(matches!(error, ExecError::TimedOut { .. }));
    }
}
