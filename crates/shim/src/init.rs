//! What the container's first process does between its birth and `execve` of init.
//!
//! It talks to the shim on one channel: it receives the plan with the detached mounts, sends the console, learns that
//! its interfaces exist, and sends a last message before `execve`. The channel closes by `execve` itself; a failure is
//! sent as text before.

use std::{
    convert::Infallible,
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
};

use stapes_shim_api::{Failure, FailureKind, ResourceLimit, Start};
use stapes_sys::{command, privilege, process, pty, socket};

use crate::{
    SIGPIPE, links, mounts,
    step::{Step, StepError},
};

/// The console's master and slave come with it.
pub const CONSOLE: u8 = b'C';
/// Setup is done: the next thing is `execve`. Followed by the resolved path of init.
pub const EXECUTING: u8 = b'E';
/// Followed by a [`Failure`].
pub const FAILED: u8 = b'F';
/// A pty's master comes with it.
pub const PTY: u8 = b'P';

pub fn run(channel: OwnedFd) -> ! {
    let Err(error) = become_init(&channel);
    report(&channel, &error.failure(FailureKind::Start));
    process::exit_now(1)
}

/// Sends a failure to the shim.
pub fn report(channel: &OwnedFd, failure: &Failure) {
    let mut bytes = vec![FAILED];
    bytes.extend(stapes_shim_api::encode(failure));
    let _ = socket::send(channel.as_fd(), &bytes, &[], true);
}

fn become_init(channel: &OwnedFd) -> Result<Infallible, StepError> {
    let datagram = socket::receive(channel.as_fd(), stapes_shim_api::MAX_FRAME, true)
        .and_then(|datagram| datagram.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .step(|| "failed to receive the plan".to_owned())?;
    let plan: Start = stapes_shim_api::decode(&datagram.bytes).step(|| "failed to read the plan".to_owned())?;
    label(&plan.lsm)?;
    process::set_ids(0, 0, &[]).step(|| "failed to become root inside".to_owned())?;
    let _ = rustix::process::umask(rustix::fs::Mode::empty());
    let console = mounts::build(&plan, datagram.fds)?;
    socket::send(channel.as_fd(), &[CONSOLE], &[console.master.as_fd(), console.slave.as_fd()], true)
        .step(|| "failed to hand over the console".to_owned())?;
    let _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::system::sethostname(plan.hostname.as_bytes())
        .step(|| format!("failed to set host name {}", plan.hostname))?;
    links::wait_and_finish(channel, &plan.links)?;
    apply_rlimits(&plan.rlimits)?;
    take_terminal(&console.slave)?;
    drop(console);
    restrict(plan.bounding, &plan.seccomp)?;
    execute(channel, &plan)
}

pub fn apply_rlimits(limits: &[ResourceLimit]) -> Result<(), StepError> {
    for limit in limits {
        let step = || format!("failed to set limits.kernel.{} (the host must allow it)", limit.name);
        let resource = process::rlimit_by_name(&limit.name)
            .ok_or_else(|| StepError::new(step(), io::Error::from(io::ErrorKind::InvalidInput)))?;
        process::set_rlimit(0, resource, limit.soft, limit.hard).step(step)?;
    }
    Ok(())
}

/// Starts a session with `slave` as its terminal and as standard input, output and error.
pub fn take_terminal(slave: &OwnedFd) -> Result<(), StepError> {
    pty::lead_session(slave.as_fd()).step(|| "failed to make the pty the controlling terminal".to_owned())
}

/// Says under which label the next `execve` is to run. While the host's /proc is still there: the guest can put anything
/// in the place of its own, and the kernel refuses a file that was opened before a change of credentials.
pub fn label(lsm: &Option<(String, String)>) -> Result<(), StepError> {
    let Some((file, label)) = lsm else { return Ok(()) };
    std::fs::write(format!("/proc/self/attr/{file}"), label)
        .step(|| format!("failed to set the security label {label}"))
}

/// Gives up what the guest may not have, in the order in which each step is still allowed to do the next.
pub fn restrict(bounding: u64, seccomp: &str) -> Result<(), StepError> {
    process::reset_signals([SIGPIPE]);
    process::close_on_exec_all().step(|| "failed to mark descriptors close-on-exec".to_owned())?;
    let errno = |error: privilege::PrivilegeError| {
        io::Error::from_raw_os_error(error.source_error().raw_os_error().unwrap_or(22))
    };
    privilege::drop_bounding(bounding).map_err(errno).step(|| "failed to drop capabilities".to_owned())?;
    if seccomp.is_empty() {
        return Ok(());
    }
    let filter =
        stapes_shim_api::from_hex(seccomp).and_then(|bytes| privilege::filter_from_bytes(&bytes)).ok_or_else(|| {
            StepError::new("failed to read the seccomp filter", io::Error::from(io::ErrorKind::InvalidData))
        })?;
    privilege::install_filter(&filter, 0).map_err(errno).step(|| "failed to install the seccomp filter".to_owned())
}

fn execute(channel: &OwnedFd, plan: &Start) -> Result<Infallible, StepError> {
    let program = plan.init.first().map_or("/sbin/init", String::as_str);
    let step = || format!("failed to execute init {program}");
    let resolved = std::fs::canonicalize(program).step(step)?;
    let argv = if plan.init.is_empty() { vec![program.to_owned()] } else { plan.init.clone() };
    let argv = command::c_strings(&argv).step(step)?;
    let environment: Vec<String> = plan.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let environment = command::c_strings(&environment).step(step)?;
    let mut last = vec![EXECUTING];
    last.extend_from_slice(resolved.to_string_lossy().as_bytes());
    socket::send(channel.as_fd(), &last, &[], true).step(step)?;
    let path = CString::new(program).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput)).step(step)?;
    Err(StepError::new(step(), process::execve(&path, &argv, &environment)))
}
