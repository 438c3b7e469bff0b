use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use stapes_sys::socket;

use super::{Codec, Incoming, QmpError};

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// QEMU understood and declined.
    #[error("QEMU refused {command}: {description}")]
    Refused { command: String, class: String, description: String },
    #[error("QEMU did not answer {command} within {seconds} s")]
    Silent { command: String, seconds: u64 },
    #[error("QEMU closed its monitor")]
    Gone,
    #[error(transparent)]
    Protocol(#[from] QmpError),
    #[error("failed to talk to QEMU's monitor")]
    Io(#[from] io::Error),
}

impl MonitorError {
    /// QEMU's own class of refusal, such as `DeviceNotFound`.
    pub fn class(&self) -> Option<&str> {
        match self {
            Self::Refused { class, .. } => Some(class),
            _ => None,
        }
    }
}

/// A connection that asks one command at a time. QEMU answers from its main loop and never waits for the guest, so an
/// answer that takes longer than some seconds means a QEMU that hangs.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    codec: Codec,
    waiting: Vec<Incoming>,
}

impl Monitor {
    /// Greets QEMU on a connected socket.
    pub fn open(socket: OwnedFd, patience: Duration) -> Result<Self, MonitorError> {
        let mut monitor = Self { stream: UnixStream::from(socket), codec: Codec::default(), waiting: Vec::new() };
        let deadline = Instant::now() + patience;
        loop {
            match monitor.next("its greeting", deadline, patience)? {
                Incoming::Greeting { .. } => break,
                _ => continue,
            }
        }
        monitor.execute("qmp_capabilities", &Value::Null, patience)?;
        Ok(monitor)
    }

    pub fn execute(&mut self, command: &str, arguments: &Value, patience: Duration) -> Result<Value, MonitorError> {
        self.execute_with(command, arguments, &[], patience)
    }

    /// Sends descriptors along, for `getfd` and `add-fd`.
    pub fn execute_with(
        &mut self,
        command: &str,
        arguments: &Value,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<Value, MonitorError> {
        let deadline = Instant::now() + patience;
        let (asked, bytes) = self.codec.command(command, arguments);
        socket::send_stream(self.stream.as_fd(), &bytes, fds).map_err(closed)?;
        loop {
            match self.next(command, deadline, patience)? {
                Incoming::Return { id, value } if id == Some(asked) => return Ok(value),
                Incoming::Error { id, class, description } if id == Some(asked) => {
                    return Err(MonitorError::Refused { command: command.to_owned(), class, description });
                }
                // An event, or the late answer to a command that was given up.
                _ => {}
            }
        }
    }

    fn next(&mut self, doing: &str, deadline: Instant, patience: Duration) -> Result<Incoming, MonitorError> {
        while self.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if !socket::wait_readable(&self.stream, left)? {
                return Err(MonitorError::Silent { command: doing.to_owned(), seconds: patience.as_secs() });
            }
            self.waiting = read(&mut self.stream, &mut self.codec)?;
        }
        Ok(self.waiting.remove(0))
    }
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Map<String, Value>,
    /// As of [`Incoming::Event`].
    pub at: i64,
}

/// A connection that only listens; non-blocking.
#[derive(Debug)]
pub struct Events {
    stream: UnixStream,
    codec: Codec,
}

impl Events {
    pub fn open(socket: OwnedFd, patience: Duration) -> Result<Self, MonitorError> {
        let Monitor { stream, codec, .. } = Monitor::open(socket, patience)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, codec })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Name of what [`take`](Self::take) makes of the answer to something that was told.
    pub const ANSWER: &str = "";

    /// Has QEMU do something; its answer, where it is an object, comes among the events. Only for what is safe to lose.
    pub fn tell(&mut self, command: &str) -> Result<(), MonitorError> {
        let (_, bytes) = self.codec.command(command, &Value::Null);
        socket::send_stream(self.stream.as_fd(), &bytes, &[]).map_err(closed)
    }

    /// The events that came since; empty when there are none.
    pub fn take(&mut self) -> Result<Vec<Event>, MonitorError> {
        let lines = match read(&mut self.stream, &mut self.codec) {
            Err(MonitorError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            other => other?,
        };
        let event = |line| match line {
            Incoming::Event { name, data, at } => Some(Event { name, data, at }),
            Incoming::Return { value: Value::Object(data), .. } => {
                Some(Event { name: Self::ANSWER.to_owned(), data, at: 0 })
            }
            _ => None,
        };
        Ok(lines.into_iter().filter_map(event).collect())
    }
}

fn closed(error: io::Error) -> MonitorError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => MonitorError::Gone,
        _ => MonitorError::Io(error),
    }
}

fn read(stream: &mut UnixStream, codec: &mut Codec) -> Result<Vec<Incoming>, MonitorError> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer).map_err(closed)? {
        0 => Err(MonitorError::Gone),
        count => Ok(codec.feed(&buffer[..count])?),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, thread};

    use serde_json::json;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A monitor that answers each line it gets with the next text.
    fn qemu(answers: &'static [&'static str]) -> OwnedFd {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut stream = theirs;
            stream.write_all(b"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10}}}}\r\n").unwrap();
            for answer in [&"{\"return\": {}, \"id\": 1}"].into_iter().chain(answers) {
                let mut line = Vec::new();
                let mut byte = [0];
                while line.last() != Some(&b'\n') && stream.read(&mut byte).unwrap_or(0) == 1 {
                    line.push(byte[0]);
                }
                stream.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
            }
        });
        ours.into()
    }

    #[test]
    fn an_answer_is_found_behind_events_and_late_answers() {
        let mut monitor = Monitor::open(
            qemu(&["{\"event\": \"RESUME\"}\r\n{\"return\": 7, \"id\": 99}\r\n{\"return\": {\"status\": \"running\"}, \"id\": 2}"]),
            PATIENCE,
        )
        .unwrap();
        let status = monitor.execute("query-status", &Value::Null, PATIENCE).unwrap();
        assert_eq!(status, json!({ "status": "running" }));
    }

    #[test]
    fn a_refusal_names_the_command_and_an_end_is_told() {
        let answers = &["{\"id\": 2, \"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'x' not found\"}}"];
        let mut monitor = Monitor::open(qemu(answers), PATIENCE).unwrap();
        let error = monitor.execute("device_del", &json!({ "id": "x" }), PATIENCE).unwrap_err();
        assert_eq!(error.class(), Some("DeviceNotFound"));
        assert_eq!(error.to_string(), "QEMU refused device_del: Device 'x' not found");
        let error = monitor.execute("quit", &Value::Null, PATIENCE).unwrap_err();
        assert!(matches!(error, MonitorError::Gone), "{error}");
    }

    #[test]
    fn what_a_listener_tells_is_answered_among_the_events() {
        let answers = &["{\"event\": \"STOP\"}\r\n{\"return\": {\"status\": \"internal-error\"}, \"id\": 2}"];
        let mut events = Events::open(qemu(answers), PATIENCE).unwrap();
        assert!(events.take().unwrap().is_empty());
        events.tell("query-status").unwrap();
        let mut heard = Vec::new();
        while heard.len() < 2 {
            assert!(socket::wait_readable(events.fd(), PATIENCE).unwrap());
            heard.extend(events.take().unwrap());
        }
        assert_eq!((heard[0].name.as_str(), heard[1].name.as_str()), ("STOP", Events::ANSWER));
        assert_eq!(heard[1].data["status"], "internal-error");
    }

    #[test]
    fn a_qemu_that_hangs_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Monitor::open(ours.into(), Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, MonitorError::Silent { .. }), "{error}");
    }
}
