//! What an exec'd command's process does between its birth and `execve`.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
};

use serde::{Deserialize, Serialize};
use stapes_shim_api::{Exec, Failure, FailureKind, Remembered};
use stapes_sys::{
    namespace::{self, NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWUSER, NEWUTS},
    process, pty, socket,
};

use crate::{
    init::{EXECUTING, PTY, label, report, restrict, strings, take_terminal},
    step::{Step, StepError},
};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    let program = exec.command.first().map(String::as_str).unwrap_or_default();
    let environment = environment(exec, std::fs::read_to_string("/etc/passwd").unwrap_or_default().as_str());
    let home = environment.get("HOME").map_or("/", String::as_str);
    let entered = match &exec.cwd {
        Some(cwd) => rustix::process::chdir(cwd.as_str()).map_err(|error| (cwd.clone(), error)),
        None => rustix::process::chdir(home)
            .or_else(|_| rustix::process::chdir("/"))
            .map_err(|error| (home.to_owned(), error)),
    };
    if let Err((cwd, error)) = entered {
        let errno = error.raw_os_error();
        let message = format!("failed to enter working directory {cwd}: {}", io::Error::from(error));
        return Failure { kind: FailureKind::Command, message, errno, code: 126 };
    }
    if let Err(error) = socket::send(channel.as_fd(), &[EXECUTING], &[], true) {
        return Failure::new(FailureKind::Other, format!("failed to report: {error}"));
    }
    let error = match (strings(&exec.command), pairs(&environment)) {
        (Ok(argv), Ok(environment)) if !argv.is_empty() => {
            let path = environment_path(exec);
            search(program, &path, &argv, &environment)
        }
        _ => io::ErrorKind::InvalidInput.into(),
    };
    let missing = matches!(error.raw_os_error(), Some(2 | 20));
    let code = if missing { 127 } else { 126 };
    let message = if missing && !program.contains('/') { "not found in PATH".to_owned() } else { error.to_string() };
    Failure { kind: FailureKind::Command, message, errno: error.raw_os_error().unwrap_or(0), code }
}

fn environment_path(exec: &Exec) -> String {
    exec.environment.get("PATH").cloned().unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

fn pairs(environment: &BTreeMap<String, String>) -> io::Result<Vec<CString>> {
    strings(&environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
}

/// Tries each directory as execvp(3) does: a refusal is remembered, a missing file is not.
fn search(program: &str, path: &str, argv: &[CString], environment: &[CString]) -> io::Error {
    let attempt = |path: String| match CString::new(path) {
        Ok(path) => process::execve(&path, argv, environment),
        Err(_) => io::ErrorKind::InvalidInput.into(),
    };
    if program.contains('/') {
        return attempt(program.to_owned());
    }
    let mut verdict = io::Error::from_raw_os_error(2);
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let error = attempt(format!("{directory}/{program}"));
        if !matches!(error.raw_os_error(), Some(2 | 20)) {
            verdict = error;
        }
    }
    verdict
}

/// Adds what is missing of PATH, HOME, USER, LANG and TERM. `passwd` is read by hand: name services load code.
fn environment(exec: &Exec, passwd: &str) -> BTreeMap<String, String> {
    let mut environment = exec.environment.clone();
    let uid = exec.uid.to_string();
    let entry: Option<Vec<&str>> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && fields[2] == uid);
    let (user, home) = match &entry {
        Some(fields) => (Some(fields[0]), fields[5]),
        None if exec.uid == 0 => (Some("root"), "/root"),
        None => (None, "/"),
    };
    let mut fill = |name: &str, value: &str| {
        environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    fill("PATH", DEFAULT_PATH);
    fill("HOME", home);
    fill("LANG", "C.UTF-8");
    if let Some(user) = user {
        fill("USER", user);
    }
    if exec.pty.is_some() {
        fill("TERM", "xterm-256color");
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_and_user_come_from_the_passwd_inside() {
        let exec = Exec { uid: 1000, ..Exec::default() };
        let filled = environment(&exec, "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n");
        assert_eq!((filled["HOME"].as_str(), filled["USER"].as_str()), ("/home/ann", "ann"));
        assert!(!filled.contains_key("TERM"));
    }

    #[test]
    fn what_the_caller_set_stays() {
        let mut exec = Exec { pty: Some((80, 25)), ..Exec::default() };
        exec.environment.insert("TERM".into(), "dumb".into());
        assert_eq!(environment(&exec, "")["TERM"], "dumb");
        assert_eq!(environment(&exec, "")["HOME"], "/root");
    }
}
