//! A host as small as a test needs: one agent on a Unix socket, blocking reads, windows kept.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use stapes_agent_api::{
    Decoder, Event, Exec, ExitStatus, Failure, FileAnswer, FileOp, Frame, GuestMessage, HostMessage, KEY_BYTES,
    MAX_PAYLOAD, Reply, Request, Role, StreamId, StreamKind, VERSION, WINDOW, decode, encode, prove,
};
use tempfile::TempDir;

/// Longest silence that a loaded machine is forgiven.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const KEY: [u8; KEY_BYTES] = [0x5a; KEY_BYTES];

/// A running agent and where it looks for its host.
pub struct Guest {
    pub dir: TempDir,
    listener: UnixListener,
    agent: Child,
}

impl Guest {
    pub fn start() -> Self {
        Self::start_by(&[])
    }

    /// With words before the agent's command line, such as `unshare -m`.
    pub fn start_by(prefix: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("port")).unwrap();
        std::fs::write(dir.path().join("agent.key"), "5a".repeat(KEY_BYTES)).unwrap();
        let words: Vec<&str> = prefix.iter().copied().chain([env!("CARGO_BIN_EXE_stapes-agent")]).collect();
        let agent = Command::new(words[0])
            .args(&words[1..])
            .arg("--port")
            .arg(format!("unix:{}", dir.path().join("port").display()))
            .arg("--key")
            .arg(dir.path().join("agent.key"))
            .spawn()
            .unwrap();
        Self { dir, listener, agent }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.agent.id()
    }

    /// A connection of the agent, to which nothing was said yet.
    pub fn accept(&self) -> Host {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Host::new(stream)
    }

    pub fn connect(&self) -> Host {
        let mut host = self.accept();
        host.greet(&KEY);
        host
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

pub struct Host {
    stream: UnixStream,
    decoder: Decoder,
    last: u64,
    greeted: usize,
    replies: BTreeMap<u64, (Reply, Vec<u8>)>,
    hellos: VecDeque<GuestMessage>,
    ready: bool,
    pub ends: BTreeSet<u32>,
    pub exits: BTreeMap<u32, ExitStatus>,
    pub output: BTreeMap<u32, Vec<u8>>,
    /// What may be sent, by stream.
    window: BTreeMap<u32, u32>,
    /// Grant what was received.
    pub grants: bool,
}

impl Host {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            last: 0,
            greeted: 0,
            replies: BTreeMap::new(),
            hellos: VecDeque::new(),
            ready: false,
            ends: BTreeSet::new(),
            exits: BTreeMap::new(),
            output: BTreeMap::new(),
            window: BTreeMap::new(),
            grants: true,
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn frame(&mut self, frame: &Frame) {
        self.raw(&frame.to_bytes());
    }

    /// Says hello and proves `key`; true if the agent proved [`KEY`].
    pub fn offer(&mut self, key: &[u8; KEY_BYTES]) -> bool {
        self.greeted += 1;
        let ours = format!("{:032x}", self.greeted);
        (self.ready, self.decoder) = (false, Decoder::default());
        let hello = HostMessage::Hello { version: VERSION, nonce: ours.clone() };
        self.raw(&[0]);
        self.frame(&encode(&hello, Vec::new()));
        loop {
            match self.hellos.pop_front() {
                Some(GuestMessage::Hello { host, nonce, proof, build, boot, .. }) if host == ours => {
                    assert!(!boot.is_empty() && build.starts_with(env!("CARGO_PKG_VERSION")), "{build} {boot}");
                    let proved = proof.is(&prove(&KEY, Role::Guest, &host, &nonce));
                    let proof = prove(key, Role::Host, &host, &nonce);
                    self.frame(&encode(&HostMessage::Prove { proof }, Vec::new()));
                    return proved;
                }
                Some(_) => {}
                None => self.pump(),
            }
        }
    }

    pub fn greet(&mut self, key: &[u8; KEY_BYTES]) {
        assert!(self.offer(key));
        while !self.ready {
            self.pump();
        }
    }

    /// Takes what comes next; a silence of [`PATIENCE`] fails the test.
    pub fn pump(&mut self) {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer).expect("the agent answers in time");
        assert!(count > 0, "the agent closed the connection");
        for frame in self.decoder.feed(&buffer[..count]) {
            match frame.expect("the agent sends frames") {
                Frame::Message { json, bytes } => self.message(decode(&json).unwrap(), bytes),
                Frame::Data { stream, bytes } => {
                    assert!(bytes.len() <= MAX_PAYLOAD);
                    if self.grants {
                        self.frame(&Frame::Credit { stream, bytes: bytes.len() as u32 });
                    }
                    self.output.entry(stream.0).or_default().extend(bytes);
                }
                Frame::End { stream } => assert!(self.ends.insert(stream.0), "a stream ends once"),
                Frame::Credit { stream, bytes } => *self.window.entry(stream.0).or_insert(WINDOW) += bytes,
            }
        }
    }

    fn message(&mut self, message: GuestMessage, bytes: Vec<u8>) {
        match message {
            GuestMessage::Hello { .. } => self.hellos.push_back(message),
            GuestMessage::Ready => self.ready = true,
            GuestMessage::Reply { id, reply } => {
                assert!(self.replies.insert(id, (reply, bytes)).is_none(), "one answer a request");
            }
            GuestMessage::Event(Event::ExecExited { exec, status }) => {
                assert!(self.exits.insert(exec, status).is_none(), "a command ends once");
            }
        }
    }

    pub fn send(&mut self, request: Request, bytes: Vec<u8>) -> u64 {
        self.last += 1;
        let id = self.last;
        self.frame(&encode(&HostMessage::Request { id, request }, bytes));
        id
    }

    pub fn answer(&mut self, id: u64) -> (Reply, Vec<u8>) {
        loop {
            match self.replies.remove(&id) {
                Some(answer) => return answer,
                None => self.pump(),
            }
        }
    }

    /// Whether an answer has come already.
    pub fn has(&self, id: u64) -> bool {
        self.replies.contains_key(&id)
    }

    pub fn ask_with(&mut self, request: Request, bytes: Vec<u8>) -> Result<(Reply, Vec<u8>), Failure> {
        let id = self.send(request, bytes);
        match self.answer(id) {
            (Reply::Failed(failure), _) => Err(failure),
            answer => Ok(answer),
        }
    }

    pub fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        self.ask_with(request, Vec::new()).map(|(reply, _)| reply)
    }

    pub fn ping(&mut self) {
        assert!(matches!(self.ask(Request::Ping), Ok(Reply::Done)));
    }

    /// Runs a command of root's.
    pub fn exec(&mut self, exec: u32, command: &[&str]) -> Result<Reply, Failure> {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        self.ask(Request::Exec(Exec { exec, command, ..Exec::default() }))
    }

    pub fn input(&mut self, exec: u32, mut bytes: &[u8]) {
        let stream = StreamId::new(exec, StreamKind::Input);
        while !bytes.is_empty() {
            let window = *self.window.entry(stream.0).or_insert(WINDOW) as usize;
            if window == 0 {
                self.pump();
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(window).min(MAX_PAYLOAD));
            self.frame(&Frame::Data { stream, bytes: now.to_vec() });
            self.window.entry(stream.0).and_modify(|window| *window -= now.len() as u32);
            bytes = later;
        }
    }

    pub fn end_input(&mut self, exec: u32) {
        self.frame(&Frame::End { stream: StreamId::new(exec, StreamKind::Input) });
    }

    pub fn wait(&mut self, exec: u32) -> ExitStatus {
        while !self.exits.contains_key(&exec) {
            self.pump();
        }
        self.exits[&exec]
    }

    pub fn output(&self, exec: u32, kind: StreamKind) -> &[u8] {
        self.output.get(&StreamId::new(exec, kind).0).map_or(&[], Vec::as_slice)
    }

    /// Runs a command of root's to its end: what it wrote and how it ended.
    pub fn run(&mut self, exec: u32, command: &[&str]) -> (String, ExitStatus) {
        self.exec(exec, command).unwrap();
        let status = self.wait(exec);
        (String::from_utf8_lossy(self.output(exec, StreamKind::Output)).into_owned(), status)
    }

    pub fn file(&mut self, op: FileOp) -> Result<(FileAnswer, Option<u64>, Vec<u8>), Failure> {
        match self.ask_with(Request::File { op, handle: None }, Vec::new())? {
            (Reply::File { answer, handle }, bytes) => Ok((answer, handle, bytes)),
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// Waits for a file that a command makes.
pub fn await_file(path: &Path) -> PathBuf {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(std::time::Instant::now() < deadline, "{} was not made", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    path.to_owned()
}
