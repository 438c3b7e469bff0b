//! Commands run inside: from the request over the birth to the exit.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use stapes_shim_api::{Event, Exec, ExitStatus, Failure, FailureKind, MAX_FRAME, Reply};
use stapes_sys::{process, socket};

use crate::{
    embryo::Embryo,
    exec::Order,
    init::{EXECUTING, FAILED, PTY},
    instance::{V2Groups, exit_status},
    shim::Shim,
};

/// Longest from the request to `execve`: a PATH inside may lie on a file system that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub struct Execs {
    running: BTreeMap<u64, Running>,
    last: u64,
}

#[derive(Debug)]
struct Running {
    /// 0 until the embryo has told.
    pid: i32,
    pidfd: Option<OwnedFd>,
    /// The connection that still waits for an answer.
    waiting: Option<u64>,
    /// Open until `execve` or failure.
    channel: Option<OwnedFd>,
    executing: bool,
    pty: Option<OwnedFd>,
    failure: Option<Failure>,
    deadline: Instant,
}

impl Execs {
    pub fn channels(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        self.running.iter().filter_map(|(id, one)| Some((*id, one.channel.as_ref()?.as_fd())))
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub fn any_waiting(&self) -> bool {
        self.running.values().any(|one| one.waiting.is_some())
    }

    pub fn by_pid(&self, pid: i32) -> Option<u64> {
        self.running.iter().find(|(_, one)| one.pid == pid).map(|(id, _)| *id)
    }

    pub fn pidfd(&self, exec: u64) -> Option<BorrowedFd<'_>> {
        self.running.get(&exec)?.pidfd.as_ref().map(AsFd::as_fd)
    }
}

fn not_running() -> Failure {
    Failure::new(FailureKind::State, "the instance is not running")
}

impl Shim {
    pub fn exec(&mut self, connection: u64, exec: Exec, stdio: Vec<OwnedFd>) -> Result<(), Failure> {
        let other =
            |error: std::io::Error| Failure::new(FailureKind::Other, format!("failed to run a command: {error}"));
        if self.instance.as_ref().is_none_or(|one| one.status.exited.is_some()) {
            return Err(not_running());
        }
        if exec.command.is_empty() || (exec.pty.is_none()) != (stdio.len() == 3) {
            return Err(Failure::new(
                FailureKind::Other,
                "a command needs a program and either a pty or three streams",
            ));
        }
        self.ensure_embryo().map_err(other)?;
        let instance = self.instance.as_mut().ok_or_else(not_running)?;
        let (channel, theirs) = socket::seqpacket_pair().map_err(other)?;
        let id = self.execs.last + 1;
        let order = Order { exec, remembered: instance.status.remembered.clone() };
        let bytes = stapes_shim_api::encode(&order);
        if bytes.len() > MAX_FRAME {
            return Err(Failure { errno: 7, ..Failure::new(FailureKind::Command, "the arguments are too long") });
        }
        let v2 = instance.v2.as_mut().and_then(V2Groups::exec);
        self.embryo
            .clone_exec(id, theirs.as_fd(), instance.pidfd.as_fd(), v2, &stdio)
            .and_then(|()| socket::send(channel.as_fd(), &bytes, &[], false))
            .map_err(other)?;
        self.execs.last = id;
        let running = Running {
            pid: 0,
            pidfd: None,
            waiting: Some(connection),
            channel: Some(channel),
            executing: false,
            pty: None,
            failure: None,
            deadline: Instant::now() + PATIENCE,
        };
        self.execs.running.insert(id, running);
        Ok(())
    }

    pub fn embryo_spoke(&mut self) {
        loop {
            match self.embryo.next_born(false) {
                Ok(Some(born)) => {
                    let Some(running) = self.execs.running.get_mut(&born.ticket) else { continue };
                    match born.child {
                        Ok((pid, pidfd)) => {
                            running.pid = pid;
                            running.pidfd = Some(pidfd);
                        }
                        Err(error) => {
                            let message = format!("failed to clone a process: {error}");
                            running.failure = Some(Failure::new(FailureKind::Other, message));
                            running.channel = None;
                        }
                    }
                    self.settle(born.ticket);
                    if let Some(exit) = self.execs.running.get(&born.ticket).map(|one| one.pid)
                        && let Some(exit) = self.take_orphan(exit)
                    {
                        self.exec_ended(born.ticket, exit_status(exit));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => return self.replace_embryo(),
            }
        }
    }

    /// The embryo died: whoever waited for it is told.
    fn replace_embryo(&mut self) {
        let unborn: Vec<u64> = self.execs.running.iter().filter(|(_, one)| one.pid == 0).map(|(id, _)| *id).collect();
        for id in unborn {
            if let Some(running) = self.execs.running.get_mut(&id) {
                running.failure =
                    Some(Failure::new(FailureKind::Other, "the process that starts commands died; try again"));
                running.channel = None;
            }
            self.settle(id);
        }
        if self.instance.is_none() {
            self.leave = true;
        } else if let Ok((ours, theirs)) = socket::seqpacket_pair() {
            // A silent socket takes its place.
            self.embryo = Embryo { socket: ours, pid: 0 };
            self.quiet = Some(theirs);
        }
    }

    /// Puts another in the place of an embryo that died. Not before somebody wants it: whoever kills the whole group would
    /// find a new process in it.
    fn ensure_embryo(&mut self) -> std::io::Result<()> {
        if let (Some(_), Some(instance)) = (&self.quiet, &self.instance) {
            let embryo = Embryo::fork(&instance.status.remembered.exec_join)?;
            embryo.enter(instance.pidfd.as_fd())?;
            self.embryo = embryo;
            self.quiet = None;
        }
        Ok(())
    }

    pub fn exec_spoke(&mut self, exec: u64) {
        let Some(running) = self.execs.running.get_mut(&exec) else { return };
        while let Some(channel) = &running.channel {
            match socket::receive(channel.as_fd(), MAX_FRAME, false) {
                Ok(Some(mut message)) => match message.bytes.first() {
                    Some(&PTY) => running.pty = message.fds.pop(),
                    Some(&EXECUTING) => running.executing = true,
                    Some(&FAILED) => running.failure = stapes_shim_api::decode(&message.bytes[1..]).ok(),
                    _ => {}
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => running.channel = None,
            }
        }
        self.settle(exec);
    }

    /// Answers the request once both the birth and the end of the setup are known.
    fn settle(&mut self, exec: u64) {
        let Some(running) = self.execs.running.get_mut(&exec) else { return };
        if running.channel.is_some() || (running.pid == 0 && running.failure.is_none()) {
            return;
        }
        let Some(connection) = running.waiting.take() else { return };
        let pid = running.pid;
        if running.failure.is_none() && !running.executing {
            running.failure =
                Some(Failure::new(FailureKind::Other, "the command's process was killed during its setup"));
        }
        if let Some(failure) = running.failure.clone() {
            if pid == 0 {
                self.execs.running.remove(&exec);
            }
            self.reply(connection, &Reply::Failed(failure), &[]);
            return;
        }
        let pty = running.pty.take();
        let fds: Vec<_> = pty.iter().map(AsFd::as_fd).collect();
        self.reply(connection, &Reply::Executed { exec, pid: pid as u32 }, &fds);
    }

    pub fn exec_ended(&mut self, exec: u64, status: ExitStatus) {
        // The dead process has said all that it will say: the answer goes out before the exit.
        self.exec_spoke(exec);
        let Some(running) = self.execs.running.remove(&exec) else { return };
        if running.failure.is_none() {
            self.results.add(exec, status);
            self.announce(&Event::ExecExited { exec, status });
        }
    }

    pub fn expire_execs(&mut self, now: Instant) {
        let late: Vec<u64> = self
            .execs
            .running
            .iter()
            .filter(|(_, one)| one.waiting.is_some() && one.deadline < now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let Some(running) = self.execs.running.get_mut(&id) else { continue };
            if let Some(pidfd) = &running.pidfd {
                let _ = process::pidfd_send_signal(pidfd.as_fd(), 9);
            }
            let message = "the command could not be executed in time (is a file system inside stalled?)";
            running.failure = Some(Failure::new(FailureKind::TimedOut, message));
            running.channel = None;
            self.settle(id);
        }
    }
}
