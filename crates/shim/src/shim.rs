//! The shim's loop: one thread, one poll.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stapes_shim_api::{Event, ExitStatus, Failure, FailureKind, MAX_FRAME, Reply};
use stapes_sys::{
    process::{self, Exit},
    socket,
};

use crate::{
    embryo::Embryo,
    events::{Queue, Results},
    execs::Execs,
    instance::{Instance, exit_status, reason},
    wire,
};

/// Longest that a file request may take before its child is killed.
pub const FILE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a replacement shim waits for the kernel to tell the exit code of an init that is not its child.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Connection {
    pub fd: OwnedFd,
    /// A request of it is under way; the next one is not read until it is answered.
    pub busy: bool,
    /// It listens to events; these are still to be sent.
    pub queue: Option<Queue>,
}

/// A forked child that answers a connection by itself.
#[derive(Debug)]
pub struct Helper {
    pub pid: i32,
    pub connection: u64,
    pub deadline: Instant,
}

#[derive(Debug)]
pub struct Shim {
    pub connections: BTreeMap<u64, Connection>,
    pub next_connection: u64,
    /// Clones init, and then commands.
    pub embryo: Embryo,
    pub listener: Option<OwnedFd>,
    signals: OwnedFd,
    pub instance: Option<Instance>,
    pub execs: Execs,
    pub results: Results,
    /// Events before the first listener, and after the last.
    pub unheard: Queue,
    pub helpers: Vec<Helper>,
    /// Children that ended before their birth was announced.
    pub orphans: Vec<(i32, Exit)>,
    pub leave: bool,
    /// Whether the embryo is in its groups.
    pub parked: io::Result<()>,
    /// There was work that used memory which is not needed any more.
    pub untidy: bool,
    /// The far end of the idle socket that stands in for an embryo that died.
    pub quiet: Option<OwnedFd>,
}

/// What a readable descriptor is.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Embryo,
    Listener,
    Init,
    Console,
    Output,
    Viewer,
    Exec(u64),
    Connection(u64),
}

/// Serves `first` and whoever connects later. Called in a process forked for this purpose; never returns.
pub fn run(first: OwnedFd, join: &[String]) -> ! {
    let _ = rustix::thread::set_name(c"stapes-shim");
    let made = Embryo::fork(join).and_then(|embryo| Ok((embryo, process::signal_fd(&[17])?)));
    let Ok((embryo, signals)) = made else { process::exit_now(1) };
    // Nobody waits for anything else yet. The driver renames the groups once it has heard that the embryo is in them.
    let parked = embryo.wait_ready();
    let first = Connection { fd: first, busy: false, queue: None };
    let mut shim = Shim {
        connections: BTreeMap::from([(0, first)]),
        next_connection: 1,
        embryo,
        listener: None,
        signals,
        instance: None,
        execs: Execs::default(),
        results: Results::default(),
        unheard: Queue::default(),
        helpers: Vec::new(),
        orphans: Vec::new(),
        leave: false,
        parked,
        untidy: true,
        quiet: None,
    };
    while !shim.leave {
        if shim.turn().is_err() {
            break;
        }
    }
    shim.clean_up();
    process::exit_now(0)
}

impl Shim {
    fn turn(&mut self) -> io::Result<()> {
        for source in self.wait()? {
            match source {
                Source::Signals => self.reap(),
                Source::Embryo => self.embryo_spoke(),
                Source::Listener => self.accept(),
                Source::Init => self.init_ended(),
                Source::Console => self.console_output(),
                Source::Output => self.program_output(),
                Source::Viewer => {}
                Source::Exec(exec) => self.exec_spoke(exec),
                Source::Connection(id) => self.connection_ready(id),
            }
        }
        if let Some(console) = self.instance.as_mut().and_then(|instance| instance.console.as_mut()) {
            console.input();
        }
        self.expire();
        if std::mem::take(&mut self.untidy) {
            process::give_memory_back();
        }
        // Nobody is left who could start something here.
        if self.instance.is_none() && self.connections.is_empty() {
            self.leave = true;
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![(Source::Signals, self.signals.as_fd(), PollFlags::IN)];
        sources.push((Source::Embryo, self.embryo.socket.as_fd(), PollFlags::IN));
        sources.extend(self.listener.iter().map(|fd| (Source::Listener, fd.as_fd(), PollFlags::IN)));
        if let Some(instance) = &self.instance {
            if !instance.is_child && instance.status.exited.is_none() && instance.ended.is_none() {
                sources.push((Source::Init, instance.pidfd.as_fd(), PollFlags::IN));
            }
            if let Some(console) = &instance.console {
                sources.push((Source::Console, console.master(), PollFlags::IN));
                sources.extend(console.viewers().map(|fd| (Source::Viewer, fd, PollFlags::IN)));
            }
            sources.extend(instance.output.iter().map(|output| (Source::Output, output.fd(), PollFlags::IN)));
        }
        sources.extend(self.execs.channels().map(|(exec, fd)| (Source::Exec(exec), fd, PollFlags::IN)));
        for (id, connection) in &self.connections {
            let unsent = connection.queue.as_ref().is_some_and(|queue| !queue.is_empty());
            let wanted = if connection.busy { PollFlags::empty() } else { PollFlags::IN };
            let wanted = if unsent { wanted | PollFlags::OUT } else { wanted };
            sources.push((Source::Connection(*id), connection.fd.as_fd(), wanted));
        }
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd, wanted)| PollFd::from_borrowed_fd(*fd, *wanted)).collect();
        match poll(&mut fds, self.timeout().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().zip(&sources).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(_, (source, ..))| *source).collect())
    }

    fn timeout(&self) -> Option<Timespec> {
        let viewed = self.instance.as_ref().and_then(|one| one.console.as_ref()).is_some_and(|one| one.has_viewers());
        let ending = self.instance.as_ref().is_some_and(|one| one.ended.is_some() && one.status.exited.is_none());
        let milliseconds = match () {
            () if ending => 20,
            // A viewer's changed size is only seen by asking.
            () if viewed => 250,
            () if !self.helpers.is_empty() || self.execs.any_waiting() => 1000,
            () => return None,
        };
        Some(Timespec { tv_sec: milliseconds / 1000, tv_nsec: (milliseconds % 1000) * 1_000_000 })
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok(Some(fd)) = socket::accept(listener.as_fd()) {
            if socket::peer_uid(fd.as_fd()).is_ok_and(|uid| uid == 0) {
                self.connections.insert(self.next_connection, Connection { fd, busy: false, queue: None });
                self.next_connection += 1;
            }
        }
    }

    fn connection_ready(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(queue) = &mut connection.queue
            && let Err(error) = queue.flush(|bytes| socket::send(connection.fd.as_fd(), bytes, &[], false))
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.disconnect(id);
            return;
        }
        match socket::receive(connection.fd.as_fd(), MAX_FRAME, false) {
            Ok(Some(message)) if !connection.busy => self.request(id, &message.bytes, message.fds),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.disconnect(id),
        }
    }

    /// What it had not heard yet is kept for the next listener.
    pub fn disconnect(&mut self, id: u64) {
        if let Some(Connection { queue: Some(queue), .. }) = self.connections.remove(&id)
            && self.connections.values().all(|other| other.queue.is_none())
            && self.unheard.is_empty()
        {
            self.unheard = queue;
        }
    }

    pub fn reply(&mut self, id: u64, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.busy = false;
        if wire::send(&connection.fd, reply, fds).is_err() {
            self.disconnect(id);
        }
    }

    pub fn announce(&mut self, event: &Event) {
        let mut heard = false;
        let mut lost = Vec::new();
        for (id, connection) in &mut self.connections {
            let Some(queue) = &mut connection.queue else { continue };
            heard = true;
            queue.push(event);
            if let Err(error) = queue.flush(|bytes| socket::send(connection.fd.as_fd(), bytes, &[], false))
                && error.kind() != io::ErrorKind::WouldBlock
            {
                lost.push(*id);
            }
        }
        lost.into_iter().for_each(|id| self.disconnect(id));
        if !heard {
            self.unheard.push(event);
        }
    }

    fn reap(&mut self) {
        let mut buffer = [0; 128];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
        while let Some((pid, exit)) = process::reap_any() {
            if !self.child_ended(pid, exit) {
                // Its birth may be announced but not read yet.
                self.embryo_spoke();
                if !self.child_ended(pid, exit) {
                    self.orphans.push((pid, exit));
                    let surplus = self.orphans.len().saturating_sub(64);
                    self.orphans.drain(..surplus);
                }
            }
        }
    }

    fn child_ended(&mut self, pid: i32, exit: Exit) -> bool {
        if let Some(instance) = &self.instance
            && instance.is_child
            && instance.status.pid as i32 == pid
        {
            self.exited(exit_status(exit));
            return true;
        }
        if let Some(at) = self.helpers.iter().position(|helper| helper.pid == pid) {
            let helper = self.helpers.swap_remove(at);
            match exit {
                // It has answered by itself.
                Exit::Code(0) => drop(self.connections.get_mut(&helper.connection).map(|one| one.busy = false)),
                _ => {
                    let failure = Failure::new(FailureKind::TimedOut, "the file request did not end in time");
                    self.reply(helper.connection, &Reply::Failed(failure), &[]);
                }
            }
            return true;
        }
        if pid == self.embryo.pid {
            self.embryo.pid = 0;
            return true;
        }
        if let Some(exec) = self.execs.by_pid(pid) {
            self.exec_ended(exec, exit_status(exit));
            return true;
        }
        false
    }

    pub fn take_orphan(&mut self, pid: i32) -> Option<Exit> {
        let at = self.orphans.iter().position(|(orphan, _)| *orphan == pid)?;
        Some(self.orphans.swap_remove(at).1)
    }

    fn console_output(&mut self) {
        let Some(instance) = &mut self.instance else { return };
        if instance.console.as_mut().is_some_and(|console| !console.output()) {
            instance.console = None;
        }
    }

    fn program_output(&mut self) {
        let Some(instance) = &mut self.instance else { return };
        if instance.output.as_mut().is_some_and(|output| !output.take()) {
            instance.output = None;
        }
    }

    /// Init is not our child and its pidfd says that it ended.
    fn init_ended(&mut self) {
        if let Some(instance) = &mut self.instance {
            instance.ended = Some(Instant::now());
        }
    }

    fn exited(&mut self, status: ExitStatus) {
        let Some(instance) = &mut self.instance else { return };
        let reason = reason(status);
        instance.status.exited = Some((reason, status));
        if let Some(mut console) = instance.console.take() {
            console.drain();
        }
        if let Some(mut output) = instance.output.take() {
            output.take();
        }
        self.announce(&Event::Exited { reason, status });
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for helper in self.helpers.iter().filter(|helper| helper.deadline < now) {
            let _ = process::kill(helper.pid, 9);
        }
        self.expire_execs(now);
        if let Some(instance) = &self.instance
            && let Some(since) = instance.ended
            && instance.status.exited.is_none()
        {
            // The kernel tells once whoever is the parent now has reaped it.
            match process::pidfd_exit(instance.pidfd.as_fd()) {
                Some(exit) => self.exited(exit_status(exit)),
                None if now > since + EXIT_PATIENCE => self.exited(ExitStatus::Unknown),
                None => {}
            }
        }
    }

    fn clean_up(&mut self) {
        if self.embryo.pid != 0 {
            let _ = process::kill(self.embryo.pid, 9);
        }
        self.withdraw();
    }

    /// Is not to be found any more; whoever is connected stays so.
    pub fn withdraw(&mut self) {
        if let (Some(_), Some(instance)) = (self.listener.take(), &self.instance) {
            let path = std::path::Path::new(&instance.status.remembered.run_dir).join(stapes_shim_api::SHIM_SOCKET);
            let _ = std::fs::remove_file(path);
        }
    }
}
