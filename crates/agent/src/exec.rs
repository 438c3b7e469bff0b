//! A command's process: its birth, and what it does until `execve`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, pipe_with};
use stapes_agent_api::{Exec, Failure, FailureKind};
use stapes_sys::{
    command::{self, Refusal},
    process::{self, Forked},
    pty,
};

/// What the process says last before `execve`, which closes the pipe; a failure as JSON may follow.
pub const EXECUTING: u8 = b'E';

/// The agent's ends, none of which blocks.
#[derive(Debug)]
pub struct Born {
    pub pid: i32,
    /// Ends by `execve` or by the process's end.
    pub report: OwnedFd,
    pub input: OwnedFd,
    pub output: OwnedFd,
    /// `None` on a terminal.
    pub error: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
}

#[derive(Debug)]
enum Theirs {
    Terminal(OwnedFd),
    Pipes([OwnedFd; 3]),
}

impl Theirs {
    fn all(&self) -> &[OwnedFd] {
        match self {
            Self::Terminal(slave) => std::slice::from_ref(slave),
            Self::Pipes(pipes) => pipes,
        }
    }
}

pub fn spawn(exec: &Exec) -> io::Result<Born> {
    let (report, report_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let (input, output, error, terminal, theirs) = match exec.pty {
        Some((columns, rows)) => {
            let pty = pty::open("/dev/pts/ptmx").or_else(|_| pty::open("/dev/ptmx"))?;
            pty::resize(pty.master.as_fd(), columns, rows)?;
            rustix::fs::fchown(&pty.slave, Some(rustix::fs::Uid::from_raw(exec.uid)), None)?;
            let (output, terminal) = (pty.master.try_clone()?, pty.master.try_clone()?);
            (pty.master, output, None, Some(terminal), Theirs::Terminal(pty.slave))
        }
        None => {
            let (stdin, input) = pipe_with(PipeFlags::CLOEXEC)?;
            let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
            let (error, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
            (input, output, Some(error), None, Theirs::Pipes([stdin, stdout, stderr]))
        }
    };
    for fd in [&report, &input, &output].into_iter().chain(&error) {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    match process::fork()? {
        Forked::Parent { pid } => Ok(Born { pid, report, input, output, error, terminal }),
        Forked::Child => become_command(exec, &theirs, &report_theirs),
    }
}

fn become_command(exec: &Exec, theirs: &Theirs, report: &OwnedFd) -> ! {
    let failure = match prepare(exec, theirs, report) {
        Err(error) => {
            Failure { errno: error.raw_os_error().unwrap_or(0), ..Failure::new(FailureKind::Other, error.to_string()) }
        }
        Ok(()) => execute(exec, report),
    };
    let _ = rustix::io::write(report, &serde_json::to_vec(&failure).unwrap_or_default());
    process::exit_now(126)
}

fn prepare(exec: &Exec, theirs: &Theirs, report: &OwnedFd) -> io::Result<()> {
    // Other commands' pipes must not wait for this process to be done.
    let keep: Vec<_> = theirs.all().iter().chain([report]).map(AsRawFd::as_raw_fd).collect();
    process::close_all_but(&keep)?;
    let _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    match theirs {
        Theirs::Terminal(slave) => pty::lead_session(slave.as_fd())?,
        Theirs::Pipes([stdin, stdout, stderr]) => {
            rustix::process::setsid()?;
            rustix::stdio::dup2_stdin(stdin)?;
            rustix::stdio::dup2_stdout(stdout)?;
            rustix::stdio::dup2_stderr(stderr)?;
        }
    }
    process::reset_signals(1..=64);
    process::set_ids(exec.uid, exec.gid, &[])
}

/// Returns only the reason why it could not.
fn execute(exec: &Exec, report: &OwnedFd) -> Failure {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let environment = command::environment(&exec.environment, exec.uid, exec.pty.is_some(), &passwd);
    if let Err(refusal) = command::enter_directory(exec.cwd.as_deref(), &environment) {
        return refused(refusal);
    }
    let _ = rustix::io::write(report, &[EXECUTING]);
    refused(command::execute(&exec.command, &environment))
}

fn refused(refusal: Refusal) -> Failure {
    let Refusal { message, errno, code } = refusal;
    Failure { kind: FailureKind::Command, message, errno, code }
}
