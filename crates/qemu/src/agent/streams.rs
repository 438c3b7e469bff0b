//! The streams of commands: bytes between descriptors of the daemon's and frames, within their windows.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{event::PollFlags, io::Errno};
use stapes_agent_api::{Frame, MAX_PAYLOAD, StreamId, StreamKind, WINDOW};
use stapes_sys::{pty, socket};

/// Both ways of one command.
#[derive(Debug, Default)]
pub struct Streams {
    inputs: BTreeMap<StreamId, Input>,
    outputs: BTreeMap<StreamId, Output>,
    /// Slaves of terminals, whose size is watched.
    terminals: BTreeMap<u32, Terminal>,
}

/// What the daemon writes and the guest reads.
#[derive(Debug)]
struct Input {
    fd: Arc<OwnedFd>,
    window: u32,
    /// The descriptor is a terminal's, which output goes to as well.
    is_terminal: bool,
}

/// What the guest writes and the daemon reads.
#[derive(Debug)]
struct Output {
    fd: Arc<OwnedFd>,
    waiting: VecDeque<u8>,
    /// Bytes that the guest may still send; one that sends more is cut off.
    window: u32,
    /// Written since the last grant.
    owed: u32,
    ended: bool,
    /// The reader has left: what comes is dropped.
    deaf: bool,
}

#[derive(Debug)]
struct Terminal {
    slave: Arc<OwnedFd>,
    size: (u16, u16),
}

impl Streams {
    /// Three pipes.
    pub fn add_pipes(&mut self, exec: u32, stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> std::io::Result<()> {
        for fd in [&stdin, &stdout, &stderr] {
            socket::set_nonblocking(fd.as_fd())?;
        }
        self.inputs.insert(
            StreamId::new(exec, StreamKind::Input),
            Input { fd: Arc::new(stdin), window: WINDOW, is_terminal: false },
        );
        self.outputs.insert(StreamId::new(exec, StreamKind::Output), Output::new(Arc::new(stdout)));
        self.outputs.insert(StreamId::new(exec, StreamKind::Error), Output::new(Arc::new(stderr)));
        Ok(())
    }

    /// A terminal whose other end the guest has; returns the master.
    pub fn add_terminal(&mut self, exec: u32, size: (u16, u16)) -> std::io::Result<OwnedFd> {
        let pair = pty::open("/dev/ptmx")?;
        pty::set_raw(pair.slave.as_fd())?;
        pty::resize(pair.master.as_fd(), size.0, size.1)?;
        socket::set_nonblocking(pair.slave.as_fd())?;
        let slave = Arc::new(pair.slave);
        let input = Input { fd: Arc::clone(&slave), window: WINDOW, is_terminal: true };
        self.inputs.insert(StreamId::new(exec, StreamKind::Input), input);
        self.outputs.insert(StreamId::new(exec, StreamKind::Output), Output::new(Arc::clone(&slave)));
        self.terminals.insert(exec, Terminal { slave, size });
        Ok(pair.master)
    }

    /// Forgets a command; what it had is closed.
    pub fn remove(&mut self, exec: u32) {
        self.inputs.retain(|stream, _| stream.exec() != exec);
        self.outputs.retain(|stream, _| stream.exec() != exec);
        self.terminals.remove(&exec);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn has_terminals(&self) -> bool {
        !self.terminals.is_empty()
    }

    /// Terminals whose size has changed: the command, columns and rows.
    pub fn resized(&mut self) -> Vec<(u32, u16, u16)> {
        let mut changed = Vec::new();
        for (exec, terminal) in &mut self.terminals {
            if let Ok(size) = pty::size(terminal.slave.as_fd())
                && size != terminal.size
            {
                terminal.size = size;
                changed.push((*exec, size.0, size.1));
            }
        }
        changed
    }

    /// Descriptors to watch. Inputs are left alone while `full`: the channel has enough to carry.
    pub fn watched(&self, full: bool) -> Vec<(StreamId, BorrowedFd<'_>, PollFlags)> {
        let inputs = self.inputs.iter().filter(|(_, input)| !full && input.window > 0);
        let outputs = self.outputs.iter().filter(|(_, output)| !output.waiting.is_empty());
        inputs
            .map(|(stream, input)| (*stream, input.fd.as_fd(), PollFlags::IN))
            .chain(outputs.map(|(stream, output)| (*stream, output.fd.as_fd(), PollFlags::OUT)))
            .collect()
    }

    /// Reads an input that is ready; what to send.
    pub fn read(&mut self, stream: StreamId) -> Option<Frame> {
        let input = self.inputs.get_mut(&stream)?;
        let mut buffer = vec![0; MAX_PAYLOAD.min(input.window as usize)];
        match rustix::io::read(&input.fd, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(count) if count > 0 => {
                buffer.truncate(count);
                input.window -= count as u32;
                Some(Frame::Data { stream, bytes: buffer })
            }
            // A terminal whose master was closed reads as EIO.
            Ok(_) | Err(_) => {
                self.inputs.remove(&stream);
                Some(Frame::End { stream })
            }
        }
    }

    /// Takes what the guest sent. False: it sent more than it may, and is not to be listened to.
    pub fn arrived(&mut self, stream: StreamId, bytes: &[u8]) -> bool {
        let Some(output) = self.outputs.get_mut(&stream) else { return true };
        let Some(left) = output.window.checked_sub(bytes.len() as u32) else { return false };
        output.window = left;
        if output.deaf {
            output.owed += bytes.len() as u32;
        } else {
            output.waiting.extend(bytes);
        }
        true
    }

    pub fn ended(&mut self, stream: StreamId) {
        if let Some(output) = self.outputs.get_mut(&stream) {
            output.ended = true;
        }
        // The guest's program closed its input.
        self.inputs.remove(&stream);
    }

    /// The command is gone: what its children still print is not waited for.
    pub fn finish(&mut self, exec: u32) {
        for (stream, output) in &mut self.outputs {
            output.ended |= stream.exec() == exec;
        }
        self.inputs.retain(|stream, _| stream.exec() != exec);
    }

    pub fn granted(&mut self, stream: StreamId, bytes: u32) {
        if let Some(input) = self.inputs.get_mut(&stream) {
            // Never more than a whole window, whatever the guest says.
            input.window = input.window.saturating_add(bytes).min(WINDOW);
        }
    }

    /// Writes what waits as far as it goes; what to grant the guest for it.
    pub fn flush(&mut self) -> Vec<Frame> {
        let mut grants = Vec::new();
        self.outputs.retain(|stream, output| {
            output.write();
            if output.owed >= WINDOW / 4 || (output.owed > 0 && output.waiting.is_empty()) {
                output.window += output.owed;
                grants.push(Frame::Credit { stream: *stream, bytes: std::mem::take(&mut output.owed) });
            }
            !(output.ended && output.waiting.is_empty())
        });
        // A terminal is closed when nothing more comes out of it.
        let outputs = &self.outputs;
        self.terminals.retain(|exec, _| outputs.contains_key(&StreamId::new(*exec, StreamKind::Output)));
        let terminals = &self.terminals;
        self.inputs.retain(|stream, input| !input.is_terminal || terminals.contains_key(&stream.exec()));
        grants
    }

    /// Whether everything that a command printed has been handed on.
    pub fn is_drained(&self, exec: u32) -> bool {
        !self.outputs.keys().any(|stream| stream.exec() == exec)
    }
}

impl Output {
    fn new(fd: Arc<OwnedFd>) -> Self {
        Self { fd, waiting: VecDeque::new(), window: WINDOW, owed: 0, ended: false, deaf: false }
    }

    fn write(&mut self) {
        while !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match rustix::io::write(&self.fd, first) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.owed += count as u32;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.deaf = true;
                    self.owed += self.waiting.len() as u32;
                    self.waiting.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
        std::io::pipe().unwrap()
    }

    #[test]
    fn a_window_limits_what_is_read_and_what_is_taken() {
        let ((stdin, mut input), (mut output, stdout), (_errors, stderr)) = (pipe(), pipe(), pipe());
        let mut streams = Streams::default();
        streams.add_pipes(1, stdin.into(), stdout.into(), stderr.into()).unwrap();
        let (stdin, stdout) = (StreamId::new(1, StreamKind::Input), StreamId::new(1, StreamKind::Output));
        let writer = std::thread::spawn(move || input.write_all(&vec![7; 2 * WINDOW as usize]).is_ok());
        let mut sent = 0;
        while sent < WINDOW as usize {
            if let Some(Frame::Data { bytes, .. }) = streams.read(stdin) {
                sent += bytes.len();
            }
        }
        assert!(streams.watched(false).iter().all(|(stream, ..)| *stream != stdin), "the window is used up");
        streams.granted(stdin, u32::MAX);
        assert_eq!(streams.inputs[&stdin].window, WINDOW, "no guest grants more than a window");
        streams.inputs.clear();
        drop(writer.join());

        assert!(streams.arrived(stdout, &vec![1; WINDOW as usize]));
        assert!(!streams.arrived(stdout, &[1]), "more than was granted");
        let mut read = vec![0; 4096];
        let (mut got, mut granted) = (0, 0);
        while got < WINDOW as usize {
            for grant in streams.flush() {
                if let Frame::Credit { bytes, .. } = grant {
                    granted += bytes;
                }
            }
            got += output.read(&mut read).unwrap();
        }
        assert_eq!(granted, WINDOW);
        streams.ended(stdout);
        streams.flush();
        assert_eq!(output.read(&mut read).unwrap(), 0, "closed once the guest ended it");
    }

    #[test]
    fn a_reader_that_left_does_not_stop_the_guest() {
        let ((stdin, _input), (output, stdout), (_errors, stderr)) = (pipe(), pipe(), pipe());
        let mut streams = Streams::default();
        streams.add_pipes(2, stdin.into(), stdout.into(), stderr.into()).unwrap();
        drop(output);
        let stdout = StreamId::new(2, StreamKind::Output);
        assert!(streams.arrived(stdout, &[1; 100]));
        let grants = streams.flush();
        assert_eq!(grants, [Frame::Credit { stream: stdout, bytes: 100 }]);
        assert!(streams.arrived(stdout, &[1; 50]));
        assert_eq!(streams.flush(), [Frame::Credit { stream: stdout, bytes: 50 }]);
    }

    #[test]
    fn a_terminal_tells_its_size_and_closes_with_its_output() {
        let mut streams = Streams::default();
        let master = streams.add_terminal(3, (80, 24)).unwrap();
        assert!(streams.resized().is_empty());
        pty::resize(master.as_fd(), 100, 30).unwrap();
        assert_eq!(streams.resized(), [(3, 100, 30)]);
        let stdout = StreamId::new(3, StreamKind::Output);
        streams.arrived(stdout, b"x");
        streams.ended(stdout);
        streams.flush();
        assert!(streams.is_drained(3));
        let mut byte = [0; 8];
        assert_eq!(rustix::io::read(&master, &mut byte).unwrap(), 1);
        assert_eq!(rustix::io::read(&master, &mut byte), Err(Errno::IO), "no slave is open any more");
    }
}
