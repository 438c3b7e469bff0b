//! Commands: from the request over their streams to the exit.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, io::Errno};
use stapes_agent_api::{
    Event, Exec, ExitStatus, Failure, FailureKind, Frame, GuestMessage, MAX_PAYLOAD, Reply, StreamId, StreamKind,
    WINDOW, encode,
};
use stapes_sys::{
    process::{self, Exit},
    pty,
};

use crate::{
    exec::{self, EXECUTING},
    outbox::Outbox,
};

/// Most commands at a time, each with four descriptors: fewer than a process has unless told otherwise.
const MOST: usize = 200;
/// Newest results that can be asked for.
const KEPT: usize = 1024;
/// Longest from the request to `execve`: a PATH may lie on a file system that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long after its end a command's children are listened to that hold its streams.
const LINGER: Duration = Duration::from_secs(1);
/// All that an ended command can have left in a stream; what comes after it is from others.
const LEFT_BEHIND: usize = 64 * 1024;
/// Grants are given in steps of this size.
const GRANT: u32 = WINDOW / 4;

/// A descriptor of a command that can become ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Report,
    Input,
    Output,
    Error,
}

#[derive(Debug)]
struct Inlet {
    fd: OwnedFd,
    pending: VecDeque<u8>,
    ended: bool,
}

#[derive(Debug)]
struct Outlet {
    fd: OwnedFd,
    stream: StreamId,
    /// How much may still be sent.
    credit: u64,
    /// Its session is over: the command may go on writing, nobody reads it.
    lost: bool,
    /// Read since the command ended.
    left: usize,
}

impl Outlet {
    fn new(fd: OwnedFd, exec: u32, kind: StreamKind) -> Self {
        Self { fd, stream: StreamId::new(exec, kind), credit: u64::from(WINDOW), lost: false, left: 0 }
    }

    fn may_be_read(&self) -> bool {
        self.lost || self.credit > 0
    }
}

#[derive(Debug)]
struct Running {
    pid: i32,
    /// The request that still waits for an answer.
    waiting: Option<u64>,
    /// Open until `execve` or failure.
    report: Option<OwnedFd>,
    said: Vec<u8>,
    deadline: Instant,
    failed: bool,
    input: Option<Inlet>,
    /// Taken from the host and not yet granted again.
    owed: u32,
    output: Option<Outlet>,
    error: Option<Outlet>,
    terminal: Option<OwnedFd>,
    ended: Option<(ExitStatus, Instant)>,
}

#[derive(Debug, Default)]
pub struct Execs {
    running: BTreeMap<u32, Running>,
    results: VecDeque<(u32, ExitStatus)>,
}

/// What a read from a command brought.
#[derive(Debug, PartialEq, Eq)]
enum Pumped {
    Some,
    Nothing,
    End,
}

fn unknown(exec: u32) -> Failure {
    Failure::new(FailureKind::Other, format!("command {exec} has ended or was never started"))
}

fn failed(doing: &str, error: &std::io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(0);
    Failure { errno, ..Failure::new(FailureKind::Other, format!("failed to {doing}: {error}")) }
}

impl Execs {
    /// Answers now if it cannot be started, else once it is executed.
    pub fn start(&mut self, id: u64, exec: &Exec, out: &mut Outbox) {
        let number = exec.exec;
        let known = self.running.contains_key(&number) || self.result(number).is_some();
        let refusal = if exec.command.is_empty() {
            Some("a command needs a program".to_owned())
        } else if known || number >= u32::MAX / 4 {
            Some(format!("the command number {number} cannot be used (again)"))
        } else if self.running.len() >= MOST {
            Some(format!("{MOST} commands are running; let one end first"))
        } else {
            None
        };
        if let Some(message) = refusal {
            return out.fail(id, Failure::new(FailureKind::Other, message));
        }
        let born = match exec::spawn(exec) {
            Ok(born) => born,
            Err(error) => return out.fail(id, failed("start a process", &error)),
        };
        let running = Running {
            pid: born.pid,
            waiting: Some(id),
            report: Some(born.report),
            said: Vec::new(),
            deadline: Instant::now() + PATIENCE,
            failed: false,
            input: Some(Inlet { fd: born.input, pending: VecDeque::new(), ended: false }),
            owed: 0,
            output: Some(Outlet::new(born.output, number, StreamKind::Output)),
            error: born.error.map(|fd| Outlet::new(fd, number, StreamKind::Error)),
            terminal: born.terminal,
            ended: None,
        };
        self.running.insert(number, running);
    }

    fn result(&self, exec: u32) -> Option<ExitStatus> {
        self.results.iter().rev().find(|(number, _)| *number == exec).map(|(_, status)| *status)
    }

    /// `None` while it runs.
    pub fn status(&self, exec: u32) -> Option<ExitStatus> {
        match self.running.get(&exec) {
            Some(running) if running.ended.is_none() => None,
            _ => Some(self.result(exec).unwrap_or(ExitStatus::Unknown)),
        }
    }

    pub fn signal(&self, exec: u32, signal: i32) -> Result<(), Failure> {
        let running = self.running.get(&exec).filter(|one| one.ended.is_none()).ok_or_else(|| unknown(exec))?;
        process::kill(running.pid, signal).map_err(|error| failed("signal the command", &error))
    }

    pub fn resize(&self, exec: u32, columns: u16, rows: u16) -> Result<(), Failure> {
        let running = self.running.get(&exec).ok_or_else(|| unknown(exec))?;
        let terminal = running.terminal.as_ref();
        let terminal =
            terminal.ok_or_else(|| Failure::new(FailureKind::Other, format!("command {exec} has no terminal")))?;
        pty::resize(terminal.as_fd(), columns, rows).map_err(|error| failed("resize the terminal", &error))
    }

    /// Bytes for a command. What goes over the window is not taken, and nothing after it: a stream has no holes.
    pub fn data(&mut self, stream: StreamId, bytes: &[u8], out: &mut Outbox) {
        let Some(running) = self.input_of(stream) else { return };
        match &mut running.input {
            Some(inlet) if inlet.ended => {}
            Some(inlet) if inlet.pending.len() + bytes.len() > WINDOW as usize => inlet.ended = true,
            Some(inlet) => inlet.pending.extend(bytes),
            // It reads no more; the host need not know, and must not wait.
            None => grant(running, bytes.len(), stream.exec(), out),
        }
        self.push_input(stream.exec(), out);
    }

    pub fn end(&mut self, stream: StreamId, out: &mut Outbox) {
        let Some(running) = self.input_of(stream) else { return };
        if let Some(inlet) = &mut running.input {
            inlet.ended = true;
        }
        self.push_input(stream.exec(), out);
    }

    pub fn credit(&mut self, stream: StreamId, bytes: u32) {
        let outlets = self.running.get_mut(&stream.exec()).map(|one| [one.output.as_mut(), one.error.as_mut()]);
        for outlet in outlets.into_iter().flatten().flatten().filter(|outlet| outlet.stream == stream) {
            outlet.credit = outlet.credit.saturating_add(u64::from(bytes));
        }
    }

    fn input_of(&mut self, stream: StreamId) -> Option<&mut Running> {
        self.running.get_mut(&stream.exec()).filter(|_| stream.kind() == Some(StreamKind::Input))
    }

    fn push_input(&mut self, exec: u32, out: &mut Outbox) {
        let Some(running) = self.running.get_mut(&exec) else { return };
        let Some(inlet) = &mut running.input else { return };
        let (mut taken, mut broken) = (0, false);
        while !inlet.pending.is_empty() && !broken {
            match rustix::io::write(&inlet.fd, inlet.pending.as_slices().0) {
                Ok(count) => {
                    inlet.pending.drain(..count);
                    taken += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => broken = true,
            }
        }
        if broken {
            taken += inlet.pending.len();
        }
        if broken || (inlet.ended && inlet.pending.is_empty()) {
            running.input = None;
        }
        grant(running, taken, exec, out);
    }

    pub fn ready(&mut self, exec: u32, channel: Channel, out: &mut Outbox) {
        match channel {
            Channel::Report => self.read_report(exec, out),
            Channel::Input => self.push_input(exec, out),
            Channel::Output | Channel::Error => {
                let Some(running) = self.running.get_mut(&exec) else { return };
                let outlet = if channel == Channel::Output { &mut running.output } else { &mut running.error };
                pump(outlet, out);
                self.finish(exec, out);
            }
        }
    }

    fn read_report(&mut self, exec: u32, out: &mut Outbox) {
        let Some(running) = self.running.get_mut(&exec) else { return };
        let mut buffer = [0; 4096];
        while let Some(report) = &running.report {
            match rustix::io::read(report, &mut buffer) {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => running.report = None,
                Ok(count) => running.said.extend_from_slice(&buffer[..count]),
            }
        }
        self.settle(exec, out);
    }

    /// Answers the request once the process's setup is over.
    fn settle(&mut self, exec: u32, out: &mut Outbox) {
        let Some(running) = self.running.get_mut(&exec) else { return };
        let is_executing = running.said.first() == Some(&EXECUTING);
        let said = running.said.strip_prefix(&[EXECUTING]).unwrap_or(&running.said);
        let failure = match serde_json::from_slice(said) {
            Ok(failure) => Some(failure),
            Err(_) if is_executing => None,
            Err(_) => Some(Failure::new(FailureKind::Other, "the command's process was killed during its setup")),
        };
        let waiting = running.waiting.take();
        if failure.is_some() {
            running.failed = true;
            (running.input, running.output, running.error, running.terminal) = (None, None, None, None);
        }
        if let Some(id) = waiting {
            let pid = running.pid as u32;
            match failure {
                Some(failure) => out.fail(id, failure),
                None => out.reply(id, Reply::Executed { pid }),
            }
        }
    }

    /// A child of the agent has ended; false if it was no command.
    pub fn ended(&mut self, pid: i32, exit: Exit, out: &mut Outbox) -> bool {
        // One that has ended may have had the same number.
        let is_it = |one: &Running| one.pid == pid && one.ended.is_none();
        let Some(exec) = self.running.iter().find(|(_, one)| is_it(one)).map(|(exec, _)| *exec) else {
            return false;
        };
        // The dead process has said all that it will say: the answer goes out before the exit.
        self.read_report(exec, out);
        let status = match exit {
            Exit::Code(code) => ExitStatus::Code(code),
            Exit::Signal(signal) => ExitStatus::Signal(signal),
        };
        if self.running.get(&exec).is_some_and(|running| running.failed) {
            self.running.remove(&exec);
            return true;
        }
        if let Some(running) = self.running.get_mut(&exec) {
            running.ended = Some((status, Instant::now()));
            for outlet in [&mut running.output, &mut running.error].into_iter().flatten() {
                outlet.left = 0;
            }
        }
        if self.results.len() == KEPT {
            self.results.pop_front();
        }
        self.results.push_back((exec, status));
        self.finish(exec, out);
        true
    }

    /// Tells the end of a command that has ended, once nothing is left in its streams.
    fn finish(&mut self, exec: u32, out: &mut Outbox) {
        let Some(running) = self.running.get(&exec) else { return };
        if running.output.is_some() || running.error.is_some() {
            return;
        }
        if let Some((status, _)) = running.ended {
            self.running.remove(&exec);
            out.send(&encode(&GuestMessage::Event(Event::ExecExited { exec, status }), Vec::new()));
        }
    }

    /// The session is over: commands run on. A terminal without a user is hung up; a pipe is emptied into nothing, so that
    /// the command does not die of writing to it.
    pub fn lose_streams(&mut self) {
        for running in self.running.values_mut() {
            (running.waiting, running.input, running.owed) = (None, None, 0);
            if running.terminal.take().is_some() {
                running.output = None;
            }
            for outlet in [&mut running.output, &mut running.error].into_iter().flatten() {
                outlet.lost = true;
            }
        }
        let ended = |one: &Running| one.ended.is_some() && one.output.is_none() && one.error.is_none();
        self.running.retain(|_, one| !ended(one));
    }

    /// What to wait for; with a full outbox no output is read that would have to be sent.
    pub fn interests(&self, is_full: bool) -> Vec<((u32, Channel), BorrowedFd<'_>, PollFlags)> {
        let mut interests = Vec::new();
        for (exec, one) in &self.running {
            let mut add = |channel, fd, flags| interests.push(((*exec, channel), fd, flags));
            if let Some(report) = &one.report {
                add(Channel::Report, report.as_fd(), PollFlags::IN);
            }
            if let Some(inlet) = one.input.as_ref().filter(|inlet| !inlet.pending.is_empty()) {
                add(Channel::Input, inlet.fd.as_fd(), PollFlags::OUT);
            }
            for (channel, outlet) in [(Channel::Output, &one.output), (Channel::Error, &one.error)] {
                let outlet = outlet.as_ref().filter(|outlet| outlet.lost || (outlet.credit > 0 && !is_full));
                if let Some(outlet) = outlet {
                    add(channel, outlet.fd.as_fd(), PollFlags::IN);
                }
            }
        }
        interests
    }

    pub fn deadline(&self, is_full: bool) -> Option<Instant> {
        let deadlines = self.running.values().filter_map(|one| {
            let mut outlets = [&one.output, &one.error].into_iter().flatten();
            match one.ended {
                Some((_, at)) if !is_full && outlets.any(Outlet::may_be_read) => Some(at + LINGER),
                None if one.waiting.is_some() => Some(one.deadline),
                _ => None,
            }
        });
        deadlines.min()
    }

    /// Does what is due: gives up setups that take too long, and streams that only others hold.
    pub fn tick(&mut self, now: Instant, out: &mut Outbox) {
        let mut done = Vec::new();
        for (exec, one) in &mut self.running {
            match one.ended {
                Some((_, at)) if at + LINGER <= now => {
                    for outlet in [&mut one.output, &mut one.error] {
                        close_if_others(outlet, out);
                    }
                    done.push(*exec);
                }
                None if one.waiting.is_some() && one.deadline <= now => {
                    let _ = process::kill(one.pid, 9);
                    let message = "the command could not be executed in time (is a file system stalled?)";
                    if let Some(id) = one.waiting.take() {
                        out.fail(id, Failure::new(FailureKind::Other, message));
                    }
                }
                _ => {}
            }
        }
        for exec in done {
            self.finish(exec, out);
        }
    }
}

/// Grants the host what was taken from it, in large steps.
fn grant(running: &mut Running, taken: usize, exec: u32, out: &mut Outbox) {
    running.owed = running.owed.saturating_add(taken as u32);
    if running.owed >= GRANT {
        let stream = StreamId::new(exec, StreamKind::Input);
        out.send(&Frame::Credit { stream, bytes: std::mem::take(&mut running.owed) });
    }
}

/// Reads once and sends what came; a stream at its end is closed.
fn pump(slot: &mut Option<Outlet>, out: &mut Outbox) -> Pumped {
    let Some(outlet) = slot.as_mut().filter(|outlet| outlet.lost || !out.is_full()) else { return Pumped::Nothing };
    let allowed = if outlet.lost { u64::MAX } else { outlet.credit };
    let mut buffer = vec![0; (MAX_PAYLOAD as u64).min(allowed) as usize];
    if buffer.is_empty() {
        return Pumped::Nothing;
    }
    match rustix::io::read(&outlet.fd, &mut buffer) {
        Err(Errno::AGAIN | Errno::INTR) => Pumped::Nothing,
        // A terminal whose last program has gone answers EIO.
        Ok(0) | Err(_) => {
            close(slot, out);
            Pumped::End
        }
        Ok(count) => {
            outlet.left += count;
            if !outlet.lost {
                outlet.credit -= count as u64;
                buffer.truncate(count);
                out.send(&Frame::Data { stream: outlet.stream, bytes: buffer });
            }
            Pumped::Some
        }
    }
}

fn close(slot: &mut Option<Outlet>, out: &mut Outbox) {
    if let Some(outlet) = slot.take().filter(|outlet| !outlet.lost) {
        out.send(&Frame::End { stream: outlet.stream });
    }
}

/// Once nothing is left of what the command wrote itself.
fn close_if_others(slot: &mut Option<Outlet>, out: &mut Outbox) {
    let may_be_read = slot.as_ref().is_some_and(|outlet| outlet.lost || (outlet.credit > 0 && !out.is_full()));
    if !may_be_read {
        return;
    }
    let pumped = pump(slot, out);
    if pumped == Pumped::Nothing || slot.as_ref().is_some_and(|outlet| outlet.left >= LEFT_BEHIND) {
        close(slot, out);
    }
}
