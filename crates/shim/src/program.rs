//! What a program's process does between its birth and `execve`: it leaves the host's files behind but for those that it
//! is to see, and every right.

use std::{
    convert::Infallible,
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags};
use stapes_shim_api::{FailureKind, Launch, Program};
use stapes_sys::{
    command, fs,
    mount::{self, FsOption, NODEV, NOEXEC, NOSUID, RDONLY},
    privilege, process, socket,
};

use crate::{
    SIGPIPE,
    init::{EXECUTING, apply_rlimits, report},
    mounts::{attach_root, is_directory, put},
    step::{Step, StepError},
};

/// Number of the first descriptor that the program is born with.
const FIRST: i32 = 3;

pub fn run(channel: OwnedFd) -> ! {
    let (plan, fds) = match prepare(&channel) {
        Ok(ready) => ready,
        Err(error) => fail(&channel, &error),
    };
    let placed = channel.try_clone().and_then(|copy| process::place_descriptors(fds, FIRST, copy));
    match placed.step(|| "failed to place the program's descriptors".to_owned()) {
        Ok(placed) => {
            // Its number may be the program's by now.
            std::mem::forget(channel);
            let Err(error) = execute(&placed, &plan.program);
            fail(&placed, &error)
        }
        Err(error) => fail(&channel, &error),
    }
}

fn fail(channel: &OwnedFd, error: &StepError) -> ! {
    report(channel, &error.failure(FailureKind::Start));
    process::exit_now(1)
}

/// Everything that can be done with the channel where it is; what is left are the program's own descriptors.
fn prepare(channel: &OwnedFd) -> Result<(Launch, Vec<OwnedFd>), StepError> {
    let datagram = socket::receive(channel.as_fd(), stapes_shim_api::MAX_FRAME, true)
        .and_then(|datagram| datagram.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .step(|| "failed to receive the plan".to_owned())?;
    let plan: Launch = stapes_shim_api::decode(&datagram.bytes).step(|| "failed to read the plan".to_owned())?;
    let mut fds = datagram.fds;
    let mounts = plan.program.view.len() + plan.program.nodes.len();
    if fds.len() <= mounts {
        return Err(StepError::new("failed to receive its descriptors", io::Error::from(io::ErrorKind::InvalidData)));
    }
    let mut own = fds.split_off(mounts);
    streams(own.remove(0))?;
    let _ = rustix::process::umask(Mode::from_raw_mode(0o022));
    build(&plan.program, fds)?;
    let _ = rustix::process::umask(Mode::from_raw_mode(0o077));
    apply_rlimits(&plan.rlimits)?;
    Ok((plan, own))
}

fn streams(log: OwnedFd) -> Result<(), StepError> {
    let step = || "failed to set up the standard streams".to_owned();
    rustix::process::setsid().step(step)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    rustix::stdio::dup2_stdin(null).step(step)?;
    rustix::stdio::dup2_stdout(&log).step(step)?;
    rustix::stdio::dup2_stderr(&log).step(step)
}

/// A root in memory with nothing but the view and the nodes, and read-only itself.
fn build(program: &Program, mounts: Vec<OwnedFd>) -> Result<(), StepError> {
    mount::make_all_private().step(|| "failed to leave the host's mount propagation".to_owned())?;
    let options = [FsOption::Value("mode", "755"), FsOption::Value("size", "256k")];
    let root = mount::new_file_system("tmpfs", &options, NOSUID | NODEV | NOEXEC)
        .step(|| "failed to make the program's root".to_owned())?;
    attach_root(&root)?;
    for (path, target) in &program.links {
        let step = || format!("failed to link {path}");
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = fs::make_directories(root.as_fd(), &format!("/{parent}"), 0o755).step(step)?;
        rustix::fs::symlinkat(target, &parent, name).step(step)?;
    }
    let views = program.view.iter().map(|bind| &bind.target);
    for (target, from) in views.chain(program.nodes.iter().map(|node| &node.target)).zip(mounts) {
        let is_directory = is_directory(from.as_fd());
        put(root.as_fd(), target, from.as_fd(), is_directory).step(|| format!("failed to mount on {target}"))?;
    }
    mount::set_attributes(root.as_fd(), RDONLY, false).step(|| "failed to make its root read-only".to_owned())?;
    mount::enter_root(root.as_fd()).step(|| "failed to change to its root".to_owned())
}

/// Gives up every right and becomes the program.
fn execute(channel: &OwnedFd, program: &Program) -> Result<Infallible, StepError> {
    let errno = |error: privilege::PrivilegeError| {
        io::Error::from_raw_os_error(error.source_error().raw_os_error().unwrap_or(22))
    };
    let rights = || "failed to drop capabilities".to_owned();
    process::reset_signals([SIGPIPE]);
    privilege::drop_bounding(0).map_err(errno).step(rights)?;
    process::set_ids(program.uid, program.gid, &[])
        .step(|| format!("failed to become user {} and group {}", program.uid, program.gid))?;
    // The change of ids has done it already, unless the embryo has served a container, whose start keeps them.
    privilege::set_thread_caps(0, 0, 0).map_err(errno).step(rights)?;
    privilege::set_no_new_privs().map_err(errno).step(rights)?;
    let step = || format!("failed to execute {}", program.path);
    let argv = command::c_strings(&program.argv).step(step)?;
    let environment: Vec<String> = program.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let environment = command::c_strings(&environment).step(step)?;
    let path =
        CString::new(program.path.as_str()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput)).step(step)?;
    let mut last = vec![EXECUTING];
    last.extend_from_slice(program.path.as_bytes());
    socket::send(channel.as_fd(), &last, &[], true).step(step)?;
    Err(StepError::new(step(), process::execve(&path, &argv, &environment)))
}
