//! What an exec'd command's process does between its birth and `execve`.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use serde::{Deserialize, Serialize};
use stapes_shim_api::{Exec, Failure, FailureKind, Remembered};
use stapes_sys::{
    command::{self, Refusal},
    namespace::{self, NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWUSER, NEWUTS},
    process, pty, socket,
};

use crate::{
    init::{EXECUTING, PTY, label, report, restrict, take_terminal},
    step::{Step, StepError},
};

/// What the shim sends to the new process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub exec: Exec,
    pub remembered: Remembered,
}

pub fn run(channel: OwnedFd, init: OwnedFd, stdio: Vec<OwnedFd>) -> ! {
    // From here on nothing inside may look into this process, which still has the host's program and memory.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let failure = match enter(&channel, &init, stdio) {
        Err(error) => error.failure(FailureKind::Other),
        Ok(order) => execute(&channel, &order.exec),
    };
    report(&channel, &failure);
    process::exit_now(126)
}

fn enter(channel: &OwnedFd, init: &OwnedFd, stdio: Vec<OwnedFd>) -> Result<Order, StepError> {
    let datagram = socket::receive(channel.as_fd(), stapes_shim_api::MAX_FRAME, true)
        .and_then(|datagram| datagram.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .step(|| "failed to receive the command".to_owned())?;
    let order: Order = stapes_shim_api::decode(&datagram.bytes).step(|| "failed to read the command".to_owned())?;
    label(&order.remembered.lsm)?;
    let user = if order.remembered.ids.is_some() { NEWUSER } else { 0 };
    namespace::setns(init.as_fd(), user | NEWNS | NEWNET | NEWIPC | NEWUTS | NEWCGROUP)
        .step(|| "failed to join the instance's namespaces".to_owned())?;
    process::set_ids(0, 0, &[]).step(|| "failed to become root inside".to_owned())?;
    let _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for limit in &order.remembered.rlimits {
        if let Some(resource) = process::rlimit_by_name(&limit.name) {
            let _ = process::set_rlimit(0, resource, limit.soft, limit.hard);
        }
    }
    streams(channel, &order.exec, stdio)?;
    restrict(order.remembered.bounding, &order.remembered.seccomp)?;
    let exec = &order.exec;
    process::set_ids(exec.uid, exec.gid, &[])
        .step(|| format!("failed to become user {} and group {}", exec.uid, exec.gid))?;
    Ok(order)
}

fn streams(channel: &OwnedFd, exec: &Exec, stdio: Vec<OwnedFd>) -> Result<(), StepError> {
    let Some((columns, rows)) = exec.pty else {
        let step = || "failed to set up the standard streams".to_owned();
        let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(stdio)
            .map_err(|_| StepError::new(step(), io::Error::from(io::ErrorKind::InvalidInput)))?;
        rustix::process::setsid().step(step)?;
        rustix::stdio::dup2_stdin(stdin).step(step)?;
        rustix::stdio::dup2_stdout(stdout).step(step)?;
        return rustix::stdio::dup2_stderr(stderr).step(step);
    };
    let step = || "failed to make a pty inside".to_owned();
    let pty = pty::open("/dev/pts/ptmx").step(step)?;
    pty::resize(pty.master.as_fd(), columns, rows).step(step)?;
    let owner = Some(rustix::fs::Uid::from_raw(exec.uid));
    rustix::fs::fchown(&pty.slave, owner, None).step(step)?;
    take_terminal(&pty.slave)?;
    socket::send(channel.as_fd(), &[PTY], &[pty.master.as_fd()], true).step(step)
}

/// Returns only the reason why it could not.
fn execute(channel: &OwnedFd, exec: &Exec) -> Failure {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let environment = command::environment(&exec.environment, exec.uid, exec.pty.is_some(), &passwd);
    if let Err(refusal) = command::enter_directory(exec.cwd.as_deref(), &environment) {
        return refused(refusal);
    }
    if let Err(error) = socket::send(channel.as_fd(), &[EXECUTING], &[], true) {
        return Failure::new(FailureKind::Other, format!("failed to report: {error}"));
    }
    refused(command::execute(&exec.command, &environment))
}

fn refused(refusal: Refusal) -> Failure {
    let Refusal { message, errno, code } = refusal;
    Failure { kind: FailureKind::Command, message, errno, code }
}
