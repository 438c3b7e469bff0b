//! The one loop: the host's channel, commands, and the process that serves files.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use stapes_agent_api::{Failure, FailureKind, Reply, Request};
use stapes_sys::process;

use crate::{
    execs::{Channel, Execs},
    helper::Helper,
    link::{Link, Read},
    outbox::Outbox,
    power,
    session::{Heard, Session},
};

/// What is read from the host at a time.
const CHUNK: usize = 64 * 1024;

#[derive(Debug)]
pub struct Agent {
    link: Link,
    session: Session,
    out: Outbox,
    execs: Execs,
    helper: Helper,
    /// Tells that a child has ended.
    signals: OwnedFd,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Link,
    Helper,
    Exec(u32, Channel),
}

impl Agent {
    pub fn new(link: Link, session: Session) -> io::Result<Self> {
        const SIGCHLD: i32 = rustix::process::Signal::CHILD.as_raw();
        let signals = process::signal_fd(&[SIGCHLD])?;
        let (out, execs, helper) = (Outbox::default(), Execs::default(), Helper::default());
        Ok(Self { link, session, out, execs, helper, signals })
    }

    /// Serves hosts until something fails that waiting does not mend.
    pub fn run(&mut self) -> io::Result<std::convert::Infallible> {
        loop {
            let now = Instant::now();
            self.link.ensure(now);
            for (source, flags) in self.wait(now)? {
                self.ready(source, flags);
            }
            self.execs.tick(Instant::now(), &mut self.out);
            self.out.flush(|bytes| self.link.write(bytes));
        }
    }

    fn wait(&self, now: Instant) -> io::Result<Vec<(Source, PollFlags)>> {
        let is_full = self.out.is_full();
        let mut interests: Vec<(Source, BorrowedFd<'_>, PollFlags)> =
            vec![(Source::Signals, self.signals.as_fd(), PollFlags::IN)];
        if let Some(listener) = self.link.listener() {
            interests.push((Source::Listener, listener, PollFlags::IN));
        }
        if let Some(fd) = self.link.fd() {
            // A host that does not read is not listened to either.
            let flags = if is_full { PollFlags::empty() } else { PollFlags::IN };
            let flags = if self.out.is_empty() { flags } else { flags | PollFlags::OUT };
            interests.push((Source::Link, fd, flags));
        }
        if let Some(fd) = self.helper.fd().filter(|_| !is_full) {
            interests.push((Source::Helper, fd, PollFlags::IN));
        }
        for ((exec, channel), fd, flags) in self.execs.interests(is_full) {
            interests.push((Source::Exec(exec, channel), fd, flags));
        }
        let mut fds: Vec<_> = interests.iter().map(|(_, fd, flags)| PollFd::new(fd, *flags)).collect();
        let deadline = [self.link.deadline(), self.execs.deadline(is_full)].into_iter().flatten().min();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(now)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = interests.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, _, _), fd)| (*source, fd.revents())).collect())
    }

    fn ready(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Signals => self.reap(),
            Source::Listener => {
                if self.link.accept() {
                    self.cut();
                }
            }
            // Room to write is used after every turn.
            Source::Link if flags == PollFlags::OUT => {}
            Source::Link => self.hear(),
            Source::Helper => self.helper.ready(&mut self.out),
            Source::Exec(exec, channel) => self.execs.ready(exec, channel, &mut self.out),
        }
    }

    fn reap(&mut self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|count| count > 0) {}
        while let Some((pid, exit)) = process::reap_any() {
            if !self.execs.ended(pid, exit, &mut self.out) {
                self.helper.ended(pid, &mut self.out);
            }
        }
    }

    fn hear(&mut self) {
        let mut buffer = vec![0; CHUNK];
        match self.link.read(&mut buffer, Instant::now()) {
            Read::Nothing => {}
            Read::Gone => self.cut(),
            Read::Bytes(count) => {
                for heard in self.session.feed(&buffer[..count]) {
                    self.heard(heard);
                }
            }
        }
    }

    /// The host has gone.
    fn cut(&mut self) {
        self.session.close();
        self.end_session();
    }

    fn end_session(&mut self) {
        self.out.begin(false);
        self.execs.lose_streams();
        self.helper.release();
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Hello(answer) => {
                self.end_session();
                self.out.raw(&answer);
            }
            Heard::Answer(answer) => {
                self.out.raw(&answer);
                self.out.begin(true);
            }
            Heard::Request { id, request, bytes } => self.request(id, &request, bytes),
            Heard::Data { stream, bytes } => self.execs.data(stream, &bytes, &mut self.out),
            Heard::End { stream } => self.execs.end(stream, &mut self.out),
            Heard::Credit { stream, bytes } => self.execs.credit(stream, bytes),
        }
    }

    fn request(&mut self, id: u64, request: &Request, bytes: Vec<u8>) {
        let done = |result: Result<(), Failure>| match result {
            Ok(()) => Reply::Done,
            Err(failure) => Reply::Failed(failure),
        };
        let failed = |doing: &'static str| {
            move |error: io::Error| Failure {
                errno: error.raw_os_error().unwrap_or(0),
                ..Failure::new(FailureKind::Other, format!("failed to {doing}: {error}"))
            }
        };
        let reply = match request {
            Request::Ping => Reply::Done,
            Request::Exec(exec) => return self.execs.start(id, exec, &mut self.out),
            Request::ExecSignal { exec, signal } => done(self.execs.signal(*exec, *signal)),
            Request::ExecResize { exec, columns, rows } => done(self.execs.resize(*exec, *columns, *rows)),
            Request::ExecStatus { exec } => Reply::Exec { status: self.execs.status(*exec) },
            Request::Power { action } => done(power::power(*action).map_err(failed("ask for the end"))),
            Request::SetTime { nanoseconds } => done(power::set_time(*nanoseconds).map_err(failed("set the clock"))),
            Request::File { .. }
            | Request::FileRead { .. }
            | Request::FileWrite { .. }
            | Request::FileClose { .. }
            | Request::State
            | Request::Mount(_)
            | Request::Unmount { .. } => return self.helper.submit(id, request, bytes, &mut self.out),
        };
        self.out.reply(id, reply);
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up: a deadline that is nearly there must not be polled for with 0.
    let duration = duration + Duration::from_micros(500);
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
