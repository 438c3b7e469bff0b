//! One thread that carries the conversations with all guests: it waits for descriptors, never for a guest.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use stapes_agent_api::{Event, Exec, Failure, KEY_BYTES, Reply, Request, StreamId};

use super::{Greeting, Heard, Session, streams::Streams};

/// More unsent bytes than this, and inputs wait.
const FULL: usize = 256 * 1024;

/// How often an open terminal's size is looked at: a change of it can only be seen by asking.
const TERMINAL_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Why there is no answer from a guest.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    #[error("the agent in the virtual machine is not running (is it installed, and has the guest booted?)")]
    Absent,
    #[error("the agent in the virtual machine did not answer within {seconds} s")]
    Silent { seconds: u64 },
    #[error("the agent in the virtual machine was refused: {0}")]
    Refused(String),
    #[error("{}", .0.message)]
    Failed(Failure),
    #[error("the agent in the virtual machine gave an answer to another question")]
    Strange,
    #[error("the agent in the virtual machine is not the one that was asked before")]
    Another,
    #[error("{0}")]
    Io(String),
}

/// What a guest says unasked, told on the thread of all conversations: to be passed on, without waiting.
#[derive(Debug)]
pub enum Told {
    Opened(Greeting),
    Closed,
    Event(Event),
}

type Listener = Box<dyn Fn(Told) + Send>;
type Answer = mpsc::SyncSender<Result<(Reply, Vec<u8>), AgentError>>;

enum Order {
    Add {
        link: u64,
        stream: UnixStream,
        key: [u8; KEY_BYTES],
        listener: Listener,
        state: Arc<LinkState>,
    },
    /// Somebody opened the port in the guest, or closed it.
    Port {
        link: u64,
        open: bool,
    },
    Ask {
        link: u64,
        /// Only this one may be asked.
        session: Option<u64>,
        request: Box<Request>,
        bytes: Vec<u8>,
        answer: Answer,
    },
    Exec {
        link: u64,
        exec: Box<Exec>,
        stdio: Option<[OwnedFd; 3]>,
        master: mpsc::SyncSender<io::Result<Option<OwnedFd>>>,
        answer: Answer,
    },
    Remove {
        link: u64,
    },
}

#[derive(Debug, Default)]
struct LinkState {
    open: AtomicBool,
    /// Counts up whenever an agent is greeted with success: what an earlier one had open is not this one's.
    session: AtomicU64,
    /// It left a request without an answer and has not been heard since.
    silent: AtomicBool,
}

struct Shared {
    orders: Mutex<Vec<Order>>,
    bell: OwnedFd,
}

impl Shared {
    fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// All conversations of this process.
pub struct Agents {
    shared: Arc<Shared>,
    last: AtomicU64,
}

/// The conversation with one guest. Dropping it ends it, on the host's side.
pub struct Link {
    shared: Arc<Shared>,
    id: u64,
    state: Arc<LinkState>,
}

impl Agents {
    /// Starts the thread.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { orders: Mutex::default(), bell });
        let reactor = Reactor { shared: Arc::clone(&shared), guests: BTreeMap::new() };
        std::thread::Builder::new().name("guest agents".to_owned()).spawn(move || reactor.run())?;
        Ok(Self { shared, last: AtomicU64::new(0) })
    }

    /// Talks to the guest behind `stream`, the host's end of its port, from now on.
    pub fn link(&self, stream: UnixStream, key: [u8; KEY_BYTES], listener: Listener) -> io::Result<Link> {
        stream.set_nonblocking(true)?;
        let (id, state) = (self.last.fetch_add(1, Ordering::Relaxed) + 1, Arc::<LinkState>::default());
        self.shared.order(Order::Add { link: id, stream, key, listener, state: Arc::clone(&state) });
        Ok(Link { shared: Arc::clone(&self.shared), id, state })
    }
}

impl Link {
    pub fn is_open(&self) -> bool {
        self.state.open.load(Ordering::Acquire)
    }

    /// QEMU says that the guest opened its port, or closed it.
    pub fn port_changed(&self, open: bool) {
        self.shared.order(Order::Port { link: self.id, open });
    }

    /// Names the agent that is there now, for [`Link::ask_in`].
    pub fn session(&self) -> u64 {
        self.state.session.load(Ordering::Acquire)
    }

    /// One request and its answer. A guest that left one unanswered is not waited for again until it is heard.
    pub fn ask(&self, request: Request, bytes: Vec<u8>, patience: Duration) -> Result<(Reply, Vec<u8>), AgentError> {
        self.put(None, request, bytes, patience)
    }

    /// One request whose answer is not waited for here, nor missed: a guest that takes its time counts as silent to nobody.
    pub fn begin(&self, request: Request) -> mpsc::Receiver<Result<(Reply, Vec<u8>), AgentError>> {
        let (answer, answered) = mpsc::sync_channel(1);
        let (link, request) = (self.id, Box::new(request));
        self.shared.order(Order::Ask { link, session: None, request, bytes: Vec::new(), answer });
        answered
    }

    /// [`Link::ask`] of this agent and no later one.
    pub fn ask_in(
        &self,
        session: u64,
        request: Request,
        bytes: Vec<u8>,
        patience: Duration,
    ) -> Result<(Reply, Vec<u8>), AgentError> {
        self.put(Some(session), request, bytes, patience)
    }

    /// One request to this agent and no later one, without an answer: returns at once.
    pub fn tell_in(&self, session: u64, request: Request) {
        let (answer, _) = mpsc::sync_channel(1);
        let (link, request) = (self.id, Box::new(request));
        self.shared.order(Order::Ask { link, session: Some(session), request, bytes: Vec::new(), answer });
    }

    fn put(
        &self,
        session: Option<u64>,
        request: Request,
        bytes: Vec<u8>,
        patience: Duration,
    ) -> Result<(Reply, Vec<u8>), AgentError> {
        self.check()?;
        let (answer, answered) = mpsc::sync_channel(1);
        self.shared.order(Order::Ask { link: self.id, session, request: Box::new(request), bytes, answer });
        self.wait(&answered, patience)
    }

    /// Runs a command; its streams are `stdio`, or a new terminal whose master comes back.
    pub fn exec(
        &self,
        exec: Exec,
        stdio: Option<[OwnedFd; 3]>,
        patience: Duration,
    ) -> Result<(u32, Option<OwnedFd>), AgentError> {
        self.check()?;
        let ((answer, answered), (master, made)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
        self.shared.order(Order::Exec { link: self.id, exec: Box::new(exec), stdio, master, answer });
        let master = match made.recv() {
            Ok(Ok(master)) => master,
            Ok(Err(error)) => return Err(AgentError::Io(format!("failed to make a terminal: {error}"))),
            Err(_) => return Err(AgentError::Absent),
        };
        match self.wait(&answered, patience)?.0 {
            Reply::Executed { pid } => Ok((pid, master)),
            _ => Err(AgentError::Strange),
        }
    }

    fn check(&self) -> Result<(), AgentError> {
        if !self.is_open() {
            return Err(AgentError::Absent);
        }
        if self.state.silent.load(Ordering::Relaxed) {
            return Err(AgentError::Silent { seconds: 0 });
        }
        Ok(())
    }

    fn wait(
        &self,
        answered: &mpsc::Receiver<Result<(Reply, Vec<u8>), AgentError>>,
        patience: Duration,
    ) -> Result<(Reply, Vec<u8>), AgentError> {
        match answered.recv_timeout(patience) {
            Ok(Ok((Reply::Failed(failure), _))) => Err(AgentError::Failed(failure)),
            Ok(other) => other,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(AgentError::Absent),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.state.silent.store(true, Ordering::Relaxed);
                Err(AgentError::Silent { seconds: patience.as_secs() })
            }
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "link {} to an agent", self.id)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.order(Order::Remove { link: self.id });
    }
}

struct Pending {
    answer: Answer,
    /// The command that is to be forgotten if the answer is a failure.
    exec: Option<u32>,
}

struct Guest {
    stream: UnixStream,
    session: Session,
    unsent: Vec<u8>,
    pending: HashMap<u64, Pending>,
    streams: Streams,
    /// Commands that ended while their last output is on its way to a slow reader.
    ended: Vec<Event>,
    listener: Listener,
    state: Arc<LinkState>,
}

struct Reactor {
    shared: Arc<Shared>,
    guests: BTreeMap<u64, Guest>,
}

/// What a watched descriptor is.
#[derive(Clone, Copy)]
enum Source {
    Bell,
    Channel(u64),
    Stream(u64, StreamId),
}

impl Reactor {
    fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "the thread that talks to guests stops");
                    return;
                }
            };
            for source in ready {
                match source {
                    Source::Bell => {
                        let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
                        let orders =
                            std::mem::take(&mut *self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner));
                        orders.into_iter().for_each(|order| self.obey(order));
                    }
                    Source::Channel(link) => {
                        let lost = self.guests.get_mut(&link).is_some_and(|guest| guest.channel().is_err());
                        if lost && let Some(mut guest) = self.guests.remove(&link) {
                            guest.closed();
                        }
                    }
                    Source::Stream(link, stream) => {
                        if let Some(guest) = self.guests.get_mut(&link)
                            && let Some(frame) = guest.streams.read(stream)
                        {
                            guest.unsent.extend(frame.to_bytes());
                        }
                    }
                }
            }
            self.guests.values_mut().for_each(Guest::settle);
            // The daemon ended every use of this thread.
            if self.guests.is_empty() && Arc::strong_count(&self.shared) == 1 {
                return;
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![(Source::Bell, self.shared.bell.as_fd(), PollFlags::IN)];
        for (id, guest) in &self.guests {
            let wanted = if guest.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            sources.push((Source::Channel(*id), guest.stream.as_fd(), wanted));
            let watched = guest.streams.watched(guest.unsent.len() > FULL);
            sources.extend(watched.into_iter().map(|(stream, fd, wanted)| (Source::Stream(*id, stream), fd, wanted)));
        }
        let watches_terminals = self.guests.values().any(|guest| guest.streams.has_terminals());
        let pause = watches_terminals.then_some(&TERMINAL_PAUSE);
        let mut fds: Vec<_> = sources.iter().map(|(_, fd, wanted)| PollFd::from_borrowed_fd(*fd, *wanted)).collect();
        match poll(&mut fds, pause) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().zip(&sources).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(_, (source, ..))| *source).collect())
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Add { link, stream, key, listener, state } => {
                let mut guest = Guest {
                    stream,
                    session: Session::new(key),
                    unsent: Vec::new(),
                    pending: HashMap::new(),
                    streams: Streams::default(),
                    ended: Vec::new(),
                    listener,
                    state,
                };
                guest.greet();
                self.guests.insert(link, guest);
            }
            Order::Remove { link } => drop(self.guests.remove(&link)),
            Order::Port { link, open } => {
                if let Some(guest) = self.guests.get_mut(&link) {
                    guest.closed();
                    if open {
                        guest.greet();
                    }
                }
            }
            Order::Ask { link, session, request, bytes, answer } => match self.guests.get_mut(&link) {
                Some(guest) if session.is_some_and(|session| !guest.is_in(session)) => {
                    let _ = answer.try_send(Err(AgentError::Another));
                }
                Some(guest) => guest.ask(*request, bytes, answer),
                None => drop(answer),
            },
            Order::Exec { link, exec, stdio, master, answer } => {
                let Some(guest) = self.guests.get_mut(&link) else { return };
                let number = exec.exec;
                let made = match (stdio, exec.pty) {
                    (Some([stdin, stdout, stderr]), _) => {
                        guest.streams.add_pipes(number, stdin, stdout, stderr).map(|()| None)
                    }
                    (None, size) => guest.streams.add_terminal(number, size.unwrap_or((80, 24))).map(Some),
                };
                let failed = made.is_err();
                let _ = master.send(made);
                if !failed {
                    guest.ask(Request::Exec(*exec), Vec::new(), answer);
                }
            }
        }
    }
}

impl Guest {
    fn greet(&mut self) {
        // Half a frame that was not sent yet would end the greeting's own.
        self.unsent.clear();
        match nonce() {
            Ok(nonce) => self.unsent = self.session.greet(nonce),
            Err(error) => tracing::error!(%error, "no random bytes: a guest's agent cannot be greeted"),
        }
    }

    fn is_in(&self, session: u64) -> bool {
        self.state.session.load(Ordering::Acquire) == session
    }

    fn ask(&mut self, request: Request, bytes: Vec<u8>, answer: Answer) {
        if !self.session.is_open() {
            let _ = answer.try_send(Err(AgentError::Absent));
            return;
        }
        let exec = if let Request::Exec(exec) = &request { Some(exec.exec) } else { None };
        let (id, bytes) = self.session.request(request, bytes);
        self.unsent.extend(bytes);
        self.pending.insert(id, Pending { answer, exec });
    }

    /// The conversation is over: whoever waits is told.
    fn closed(&mut self) {
        let was_open = self.state.open.swap(false, Ordering::AcqRel);
        self.state.silent.store(false, Ordering::Relaxed);
        self.session.close();
        self.unsent.clear();
        for (_, pending) in self.pending.drain() {
            let _ = pending.answer.try_send(Err(AgentError::Absent));
        }
        self.streams.clear();
        self.ended.clear();
        if was_open {
            (self.listener)(Told::Closed);
        }
    }

    /// Reads what came and writes what waits; an error is the end of the channel.
    fn channel(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.hear(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hear(&mut self, bytes: &[u8]) {
        let (heard, answer) = self.session.receive(bytes);
        self.unsent.extend(answer);
        for one in heard {
            self.state.silent.store(false, Ordering::Relaxed);
            match one {
                Heard::Opened(greeting) => {
                    self.state.session.fetch_add(1, Ordering::AcqRel);
                    self.state.open.store(true, Ordering::Release);
                    (self.listener)(Told::Opened(greeting));
                }
                Heard::Refused(why) => tracing::warn!(why, "the agent of a virtual machine was refused"),
                Heard::Reply { id, reply, bytes } => {
                    if let Some(Pending { answer, exec }) = self.pending.remove(&id) {
                        if let (Some(exec), Reply::Failed(_)) = (exec, &reply) {
                            self.streams.remove(exec);
                        }
                        let _ = answer.try_send(Ok((reply, bytes)));
                    }
                }
                Heard::Event(event) => {
                    let Event::ExecExited { exec, .. } = &event;
                    self.streams.finish(*exec);
                    self.ended.push(event);
                }
                Heard::Data { stream, bytes } => {
                    if !self.streams.arrived(stream, &bytes) {
                        tracing::warn!(exec = stream.exec(), "a guest sent more than it was granted: it is cut off");
                        self.streams.remove(stream.exec());
                    }
                }
                Heard::End { stream } => self.streams.ended(stream),
                Heard::Credit { stream, bytes } => self.streams.granted(stream, bytes),
            }
        }
    }

    /// Moves on what can move: output to its readers, grants and sizes to the guest, ends to the listener.
    fn settle(&mut self) {
        for grant in self.streams.flush() {
            self.unsent.extend(grant.to_bytes());
        }
        if self.session.is_open() {
            for (exec, columns, rows) in self.streams.resized() {
                let (_, bytes) = self.session.request(Request::ExecResize { exec, columns, rows }, Vec::new());
                self.unsent.extend(bytes);
            }
        }
        let (streams, listener) = (&self.streams, &self.listener);
        self.ended.retain(|event| {
            let Event::ExecExited { exec, .. } = event;
            let drained = streams.is_drained(*exec);
            if drained {
                listener(Told::Event(event.clone()));
            }
            !drained
        });
        // An error here is seen again when the channel is read.
        let _ = self.send();
    }
}

/// 32 hexadecimal digits that nobody can foresee.
fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::mpsc::Receiver, thread};

    use stapes_agent_api::{
        Decoder, ExitStatus, FailureKind, Frame, GuestMessage, HostMessage, Role, StreamKind, VERSION, decode, encode,
        prove,
    };

    use super::*;

    const KEY: [u8; KEY_BYTES] = [9; KEY_BYTES];
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A guest that answers `Ping`, and whose one command is `cat`.
    fn guest(mut stream: UnixStream) {
        let say = |stream: &mut UnixStream, message: &GuestMessage| {
            let _ = stream.write_all(&encode(message, Vec::new()).to_bytes());
        };
        let (mut decoder, mut buffer) = (Decoder::default(), [0; 4096]);
        let mut commands = BTreeMap::new();
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 {
                return;
            }
            for frame in decoder.feed(&buffer[..count]).into_iter().flatten() {
                match frame {
                    Frame::Message { json, .. } => match decode(&json).unwrap() {
                        HostMessage::Hello { nonce: host, .. } => {
                            let nonce = "g".to_owned();
                            let proof = prove(&KEY, Role::Guest, &host, &nonce);
                            let (build, boot) = (String::new(), String::new());
                            let version = VERSION;
                            say(&mut stream, &GuestMessage::Hello { version, host, nonce, proof, build, boot });
                        }
                        HostMessage::Prove { .. } => say(&mut stream, &GuestMessage::Ready),
                        HostMessage::Request { id, request } => {
                            let reply = match request {
                                Request::Ping => Reply::Done,
                                Request::Exec(exec) if exec.command == ["cat"] => {
                                    commands.insert(exec.exec, ());
                                    Reply::Executed { pid: 42 }
                                }
                                Request::State => continue,
                                _ => Reply::Failed(Failure::new(FailureKind::Unsupported, "no")),
                            };
                            say(&mut stream, &GuestMessage::Reply { id, reply });
                        }
                    },
                    Frame::Data { stream: from, bytes } => {
                        let to = StreamId::new(from.exec(), StreamKind::Output);
                        let _ = stream.write_all(&Frame::Data { stream: to, bytes }.to_bytes());
                    }
                    Frame::End { stream: from } => {
                        for kind in [StreamKind::Output, StreamKind::Error] {
                            let end = Frame::End { stream: StreamId::new(from.exec(), kind) };
                            let _ = stream.write_all(&end.to_bytes());
                        }
                        let event = Event::ExecExited { exec: from.exec(), status: ExitStatus::Code(3) };
                        say(&mut stream, &GuestMessage::Event(event));
                    }
                    // It takes no more than it may give back: its one window is that of its output.
                    Frame::Credit { stream: from, bytes } if from.kind() == Some(StreamKind::Output) => {
                        let credit = Frame::Credit { stream: StreamId::new(from.exec(), StreamKind::Input), bytes };
                        let _ = stream.write_all(&credit.to_bytes());
                    }
                    Frame::Credit { .. } => {}
                }
            }
        }
    }

    fn linked() -> (Agents, Link, Receiver<Told>) {
        let agents = Agents::new().unwrap();
        let (host, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || guest(theirs));
        let (tell, told) = mpsc::channel();
        let link = agents.link(host, KEY, Box::new(move |one| drop(tell.send(one)))).unwrap();
        assert!(matches!(told.recv_timeout(PATIENCE), Ok(Told::Opened(_))));
        (agents, link, told)
    }

    #[test]
    fn a_command_runs_and_its_streams_pass() {
        let (_agents, link, told) = linked();
        assert!(matches!(link.ask(Request::Ping, Vec::new(), PATIENCE), Ok((Reply::Done, _))));
        let (stdin, mut input) = io::pipe().unwrap();
        let (mut output, stdout) = io::pipe().unwrap();
        let (_errors, stderr) = io::pipe().unwrap();
        let exec = Exec { exec: 7, command: vec!["cat".to_owned()], ..Exec::default() };
        let (pid, master) = link.exec(exec, Some([stdin.into(), stdout.into(), stderr.into()]), PATIENCE).unwrap();
        assert!(pid == 42 && master.is_none());
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || input.write_all(&sent).unwrap());
        let mut got = Vec::new();
        output.read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        assert_eq!(got, expected);
        let event = told.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(event, Told::Event(Event::ExecExited { exec: 7, status: ExitStatus::Code(3) })), "{event:?}");
    }

    #[test]
    fn a_refused_command_leaves_no_stream() {
        let (_agents, link, _told) = linked();
        let (mut output, stdout) = io::pipe().unwrap();
        let (stdin, _input) = io::pipe().unwrap();
        let (_errors, stderr) = io::pipe().unwrap();
        let exec = Exec { exec: 8, command: vec!["nothing".to_owned()], ..Exec::default() };
        let error = link.exec(exec, Some([stdin.into(), stdout.into(), stderr.into()]), PATIENCE).unwrap_err();
        assert!(matches!(error, AgentError::Failed(_)), "{error}");
        assert_eq!(output.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_later_agent_is_not_asked_what_an_earlier_one_had_open() {
        let (_agents, link, told) = linked();
        let session = link.session();
        assert!(link.ask_in(session, Request::Ping, Vec::new(), PATIENCE).is_ok());
        for open in [false, true] {
            link.port_changed(open);
        }
        assert!(matches!(told.recv_timeout(PATIENCE), Ok(Told::Closed)));
        assert!(matches!(told.recv_timeout(PATIENCE), Ok(Told::Opened(_))));
        let late = link.ask_in(session, Request::Ping, Vec::new(), PATIENCE);
        assert!(matches!(late, Err(AgentError::Another)), "{late:?}");
        assert!(link.ask_in(link.session(), Request::Ping, Vec::new(), PATIENCE).is_ok());
    }

    #[test]
    fn a_guest_that_tells_nothing_of_itself_is_waited_for_once_and_not_called_silent() {
        let (_agents, link, _told) = linked();
        let reports = crate::report::Reports::default();
        assert_eq!(reports.of(&link), None);
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(reports.of(&link), None);
        }
        assert!(begun.elapsed() < Duration::from_secs(50), "each would wait a second");
        assert!(link.ask(Request::Ping, Vec::new(), PATIENCE).is_ok());
    }

    #[test]
    fn a_silent_guest_is_not_waited_for_twice_until_it_is_heard() {
        let (_agents, link, _told) = linked();
        let short = Duration::from_millis(30);
        assert!(matches!(link.ask(Request::State, Vec::new(), short), Err(AgentError::Silent { .. })));
        let begun = std::time::Instant::now();
        assert!(matches!(link.ask(Request::Ping, Vec::new(), PATIENCE), Err(AgentError::Silent { .. })));
        assert!(begun.elapsed() < Duration::from_secs(5));
        link.port_changed(true);
        let answers = || link.ask(Request::Ping, Vec::new(), PATIENCE).is_ok();
        while !answers() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_end_of_the_channel_is_told() {
        let (_agents, link, told) = linked();
        link.port_changed(false);
        assert!(matches!(told.recv_timeout(PATIENCE), Ok(Told::Closed)));
        assert!(matches!(link.ask(Request::Ping, Vec::new(), PATIENCE), Err(AgentError::Absent)));
    }
}
