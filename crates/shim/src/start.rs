//! The start of a container, from the shim's side.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use serde::Serialize;
use stapes_shim_api::{
    BindMount, DeviceNode, Failure, FailureKind, MAX_FRAME, Remembered, ResourceLimit, Start, Status,
};
use stapes_sys::{
    mount::{self, NOEXEC, NOSUID, RDONLY},
    namespace, process, socket,
};

use crate::{
    console::Console,
    embryo::{Embryo, First},
    init::{CONSOLE, EXECUTING, FAILED},
    instance::{Instance, V2Groups, shutdown_signal},
    links,
    step::{Step, StepError},
};

/// Longest that the first process may take up to `execve`. The guest has no hand in it but for a slow file system.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first process.
pub struct Born {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Starts init and returns once its first instruction runs. On an error the process is gone.
pub fn start(embryo: &Embryo, mut plan: Start, mut fds: Vec<OwnedFd>) -> Result<Instance, Failure> {
    let as_failure = |error: StepError| error.failure(FailureKind::Start);
    let v2 = if plan.cgroup.v2_directories { V2Groups::from_last(&mut fds) } else { None };
    let (channel, theirs) =
        socket::seqpacket_pair().step(|| "failed to make a socket pair".to_owned()).map_err(as_failure)?;
    let born = clone(embryo, &plan, theirs, v2.as_ref().map(|v2| v2.payload.as_fd())).map_err(as_failure)?;
    let done = set_up(&born, &mut plan, channel.as_fd());
    let outcome = follow(channel.as_fd(), done).and_then(|said| console(said, &plan));
    match outcome {
        Ok((console, init)) => Ok(Instance {
            status: status(plan, born.pid, &init),
            pidfd: born.pidfd,
            console: Some(console),
            output: None,
            v2,
            is_child: true,
            ended: None,
        }),
        Err(failure) => Err(born.end(failure)),
    }
}

impl Born {
    /// Kills and reaps it, because of `failure`.
    pub fn end(self, failure: Failure) -> Failure {
        let _ = process::pidfd_send_signal(self.pidfd.as_fd(), 9);
        let _ = process::reap(self.pid);
        failure
    }
}

fn clone(embryo: &Embryo, plan: &Start, channel: OwnedFd, v2: Option<BorrowedFd<'_>>) -> Result<Born, StepError> {
    use namespace::{NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS};
    let step = || "failed to make the instance's namespaces".to_owned();
    let user = if plan.ids.is_some() { NEWUSER } else { 0 };
    let flags = user | NEWCGROUP | NEWIPC | NEWNET | NEWNS | NEWPID | NEWUTS;
    let euid = plan.ids.map_or(0, |ids| ids.base);
    embryo.clone_first(First::Init, channel.as_fd(), v2, flags, euid).step(step)?;
    born(embryo).step(step)
}

/// Waits for what the embryo was asked to clone.
pub fn born(embryo: &Embryo) -> io::Result<Born> {
    if !socket::wait_readable(&embryo.socket, PATIENCE)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let born = embryo.next_born(true)?.ok_or(io::ErrorKind::BrokenPipe)?;
    let (pid, pidfd) = born.child?;
    Ok(Born { pid, pidfd })
}

/// Maps ids, opens what is mounted, hands all of it over, and makes the interfaces while the tree is built inside.
fn set_up(born: &Born, plan: &mut Start, channel: BorrowedFd<'_>) -> Result<(), StepError> {
    let pid = born.pid;
    let mut users = None;
    if let Some(ids) = plan.ids {
        namespace::write_id_maps(pid, ids.base, ids.size)
            .step(|| format!("failed to map {} ids from {}", ids.size, ids.base))?;
        users = Some(namespace::open(pid, "user").step(|| "failed to open the user namespace".to_owned())?);
    }
    limit(pid, plan.oom_score_adj, &mut plan.rlimits);
    let mut mounts = vec![root(plan, users.as_ref())?];
    binds(&mut plan.mounts, users.as_ref(), &mut mounts)?;
    nodes(&plan.nodes, plan.ids.map_or(0, |ids| ids.base), &mut mounts)?;
    hand_over(channel, plan, &mounts)?;
    let guest = namespace::open(pid, "net").step(|| "failed to open the network namespace".to_owned())?;
    links::create(&plan.links, guest.as_fd())?;
    links::announce(channel).step(|| "failed to announce the interfaces".to_owned())
}

/// Sets limits that belong to processes; those that take rights of the process's own stay in the list.
pub fn limit(pid: i32, oom_score_adj: Option<i32>, rlimits: &mut Vec<ResourceLimit>) {
    if let Some(score) = oom_score_adj {
        // Below zero needs CAP_SYS_RESOURCE, which a host may not have: the instance then starts with the host's.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
    }
    rlimits.retain(|limit| {
        process::rlimit_by_name(&limit.name)
            .is_none_or(|resource| process::set_rlimit(pid, resource, limit.soft, limit.hard).is_err())
    });
}

/// Sends the first process what it is to become, with its descriptors.
pub fn hand_over(channel: BorrowedFd<'_>, plan: &impl Serialize, fds: &[OwnedFd]) -> Result<(), StepError> {
    let step = || "failed to hand the plan over".to_owned();
    let bytes = stapes_shim_api::encode(plan);
    if bytes.len() > MAX_FRAME {
        return Err(StepError::new(step(), io::Error::from_raw_os_error(7)));
    }
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    socket::send(channel, &bytes, &fds, true).step(step)
}

fn root(plan: &Start, users: Option<&OwnedFd>) -> Result<OwnedFd, StepError> {
    let root = mount::clone_tree(Path::new(&plan.root), false).step(|| format!("failed to open root {}", plan.root))?;
    if let Some(users) = users.filter(|_| !plan.root_shifted) {
        mount::set_idmap(root.as_fd(), users.as_fd(), false)
            .step(|| format!("failed to map the owners of {} (can its file system be idmapped?)", plan.root))?;
    }
    Ok(root)
}

/// Opens the sources of bind mounts; optional ones that are missing leave the list.
pub fn binds(binds: &mut Vec<BindMount>, users: Option<&OwnedFd>, into: &mut Vec<OwnedFd>) -> Result<(), StepError> {
    let mut kept = Vec::with_capacity(binds.len());
    for bind in std::mem::take(binds) {
        let step = || format!("failed to open {} of device {}", bind.source, bind.device);
        let from = match mount::clone_tree(Path::new(&bind.source), bind.recursive) {
            Err(error) if bind.optional && error.kind() == io::ErrorKind::NotFound => continue,
            other => other.step(step)?,
        };
        if let (Some(users), true) = (users, bind.shift) {
            mount::set_idmap(from.as_fd(), users.as_fd(), bind.recursive)
                .step(|| format!("failed to map the owners of {} of device {}", bind.source, bind.device))?;
        }
        if bind.read_only {
            mount::set_attributes(from.as_fd(), RDONLY, bind.recursive).step(step)?;
        }
        into.push(from);
        kept.push(bind);
    }
    *binds = kept;
    Ok(())
}

/// Makes device nodes in a file system of the host's user namespace (one of a container's would not let them be opened),
/// with the owners that they are to have, of which 0 is `base`.
pub fn nodes(nodes: &[DeviceNode], base: u32, into: &mut Vec<OwnedFd>) -> Result<(), StepError> {
    if nodes.is_empty() {
        return Ok(());
    }
    let place = mount::new_file_system("tmpfs", &[], NOSUID | NOEXEC)
        .step(|| "failed to make a place for device nodes".to_owned())?;
    for (number, node) in nodes.iter().enumerate() {
        let step = || format!("failed to make node {} of device {}", node.target, node.device);
        into.push(make_node(place.as_fd(), &number.to_string(), node, base).step(step)?);
    }
    Ok(())
}

fn make_node(place: BorrowedFd<'_>, name: &str, node: &DeviceNode, base: u32) -> io::Result<OwnedFd> {
    let kind = if node.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(node.mode & 0o7777);
    rustix::fs::mknodat(place, name, kind, mode, rustix::fs::makedev(node.major, node.minor))?;
    rustix::fs::chmodat(place, name, mode, rustix::fs::AtFlags::empty())?;
    let (uid, gid) = (Uid::from_raw(base + node.uid), Gid::from_raw(base + node.gid));
    rustix::fs::chownat(place, name, Some(uid), Some(gid), rustix::fs::AtFlags::empty())?;
    let open = rustix::fs::openat(place, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::clone_tree_at(open.as_fd(), false)
}

/// A failure that the first process has already reported.
fn said(channel: BorrowedFd<'_>) -> Option<Failure> {
    for _ in 0..4 {
        let datagram = socket::receive(channel, MAX_FRAME, false).ok()??;
        if datagram.bytes.first() == Some(&FAILED) {
            return stapes_shim_api::decode(&datagram.bytes[1..]).ok();
        }
    }
    None
}

/// What the first process said up to `execve`.
pub struct Said {
    /// Master and slave.
    console: Option<(OwnedFd, Option<OwnedFd>)>,
    /// The resolved path of what is executed.
    pub executed: String,
}

/// Reads what the first process says until its channel closes by `execve`, unless the work of this side was not `done`.
pub fn follow(channel: BorrowedFd<'_>, done: Result<(), StepError>) -> Result<Said, Failure> {
    if let Err(error) = done {
        // The first process may have stopped with a reason of its own, of which we only saw the broken channel.
        return Err(said(channel).unwrap_or_else(|| error.failure(FailureKind::Start)));
    }
    let (mut console, mut executed) = (None, None);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if !socket::wait_readable(channel, left).unwrap_or(false) {
            return Err(Failure::new(FailureKind::TimedOut, "the instance's first process did not finish its setup"));
        }
        let message = socket::receive(channel, MAX_FRAME, true)
            .map_err(|error| broken(&format!("failed to hear the first process: {error}")))?;
        let Some(mut message) = message else { break };
        match message.bytes.first() {
            Some(&CONSOLE) => console = Some((message.fds.remove(0), message.fds.pop())),
            Some(&EXECUTING) => executed = Some(String::from_utf8_lossy(&message.bytes[1..]).into_owned()),
            Some(&FAILED) => {
                let failure = stapes_shim_api::decode(&message.bytes[1..]);
                return Err(failure.unwrap_or_else(|_| broken("the first process failed")));
            }
            _ => {}
        }
    }
    let executed = executed.ok_or_else(killed)?;
    Ok(Said { console, executed })
}

fn broken(text: &str) -> Failure {
    Failure::new(FailureKind::Start, text)
}

fn killed() -> Failure {
    broken("the instance's first process was killed during its setup (out of memory?)")
}

fn console(said: Said, plan: &Start) -> Result<(Console, String), Failure> {
    let (master, slave) = said.console.ok_or_else(killed)?;
    let console = Console::new(master, slave, &plan.log_dir, false)
        .map_err(|error| broken(&format!("failed to set up the console: {error}")))?;
    Ok((console, said.executed))
}

fn status(plan: Start, pid: i32, init: &str) -> Status {
    Status {
        id: plan.id,
        pid: pid as u32,
        started_at: now(),
        shutdown_signal: shutdown_signal(init),
        exited: None,
        remembered: Remembered {
            ids: plan.ids,
            bounding: plan.bounding,
            seccomp: plan.seccomp,
            exec_join: plan.cgroup.exec_join,
            log_dir: plan.log_dir,
            run_dir: plan.run_dir,
            lsm: plan.lsm,
            rlimits: plan.rlimits,
            program: false,
        },
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64
}
