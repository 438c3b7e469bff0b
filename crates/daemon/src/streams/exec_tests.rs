//! Sessions with a client on the other end of a duplex, and a thread in the place of the command.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::Mutex,
    time::Duration,
};

use bytes::Bytes;
use futures_util::SinkExt;
use stapes_engine::live::LiveInstance;
use stapes_instance::{Asked, DriverError, Event, ExecSpec, ExitStatus, FileReply, FileRequest, Running};
use stapes_model::{InstanceId, Limits, Usage};
use tokio::{io::DuplexStream, sync::oneshot};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::*;
use crate::streams::upgrade::serve_socket;

type Client = WebSocketStream<DuplexStream>;

/// What a command does with its standard streams.
type Program = Box<dyn FnOnce(&Fake, File, File, File) -> ExitStatus + Send>;

/// An instance that runs one program, in a thread of ours.
struct Fake {
    program: Mutex<Option<Program>>,
    events: Mutex<VecDeque<Event>>,
    signals: Mutex<Vec<i32>>,
    bell: (OwnedFd, OwnedFd),
}

impl Fake {
    fn new(program: impl FnOnce(&Fake, File, File, File) -> ExitStatus + Send + 'static) -> Arc<Self> {
        let bell = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let program: Program = Box::new(program);
        Arc::new(Self { program: Mutex::new(Some(program)), events: Mutex::default(), signals: Mutex::default(), bell })
    }

    fn signals(&self) -> Vec<i32> {
        self.signals.lock().unwrap().clone()
    }
}

struct Handle(Arc<Fake>);

impl Running for Handle {
    fn exec(&self, _: &ExecSpec, io: ExecIo) -> std::result::Result<ExecHandle, DriverError> {
        let Some(program) = self.0.program.lock().unwrap().take() else {
            return Err(DriverError::Command { command: "x".into(), reason: "not there".into(), code: 127 });
        };
        let ((stdin, stdout, stderr), pty) = match io {
            ExecIo::Streams { stdin, stdout, stderr } => ((stdin, stdout, stderr), None),
            ExecIo::Pty { columns, rows } => {
                let pty = stapes_sys::pty::open("/dev/ptmx").unwrap();
                stapes_sys::pty::resize(pty.master.as_fd(), columns, rows).unwrap();
                let copy = || pty.slave.try_clone().unwrap();
                ((copy(), copy(), copy()), Some(pty.master))
            }
        };
        let fake = Arc::clone(&self.0);
        std::thread::spawn(move || {
            let status = program(&fake, stdin.into(), stdout.into(), stderr.into());
            fake.events.lock().unwrap().push_back(Event::ExecExited { exec: 1, status });
            rustix::io::write(&fake.bell.1, b"!").unwrap();
        });
        Ok(ExecHandle { exec: 1, pid: 1, pty })
    }

    fn exec_signal(&self, _: u64, signal: i32) -> std::result::Result<(), DriverError> {
        self.0.signals.lock().unwrap().push(signal);
        Ok(())
    }

    fn exec_status(&self, _: u64) -> std::result::Result<Option<ExitStatus>, DriverError> {
        Ok(None)
    }

    fn events_fd(&self) -> BorrowedFd<'_> {
        self.0.bell.0.as_fd()
    }

    fn next_event(&self) -> Option<Event> {
        let _ = rustix::io::read(&self.0.bell.0, &mut [0u8; 8]);
        self.0.events.lock().unwrap().pop_front()
    }

    fn acknowledge_exit(&self) {}

    fn id(&self) -> InstanceId {
        InstanceId::from_bits(1)
    }
    fn pid(&self) -> u32 {
        1
    }
    fn started_at(&self) -> i64 {
        0
    }
    fn request_shutdown(&self) -> std::result::Result<Asked, DriverError> {
        Ok(Asked::Told)
    }
    fn kill(&self) -> std::result::Result<(), DriverError> {
        Ok(())
    }
    fn freeze(&self) -> std::result::Result<(), DriverError> {
        Ok(())
    }
    fn thaw(&self) -> std::result::Result<(), DriverError> {
        Ok(())
    }
    fn is_frozen(&self) -> std::result::Result<bool, DriverError> {
        Ok(false)
    }
    fn console(&self) -> std::result::Result<OwnedFd, DriverError> {
        Err(DriverError::NotRunning { id: self.id() })
    }
    fn file(&self, _: &FileRequest) -> std::result::Result<FileReply, DriverError> {
        Err(DriverError::NotRunning { id: self.id() })
    }
    fn update_limits(&self, _: &Limits) -> std::result::Result<(), DriverError> {
        Ok(())
    }
    fn usage(&self) -> std::result::Result<Usage, DriverError> {
        Err(DriverError::NotRunning { id: self.id() })
    }
}

/// A websocket with both its ends; little fits between them, so that whoever does not read is felt.
async fn socket() -> (Client, Socket) {
    let (near, far) = tokio::io::duplex(16 << 10);
    (WebSocketStream::from_raw_socket(near, Role::Client, None).await, serve_socket(far).await)
}

/// A running session: the clients' ends, control, and what comes of it.
struct Ends {
    clients: Vec<Client>,
    control: Client,
    code: tokio::task::JoinHandle<Result<i32>>,
}

async fn session(fake: &Arc<Fake>, streams: Streams) -> Ends {
    let live = LiveInstance::new(Arc::new(Handle(Arc::clone(fake))), false);
    tokio::spawn(Arc::clone(&live).watch());
    let spec = ExecSpec {
        command: vec!["x".to_owned()],
        environment: std::collections::BTreeMap::new(),
        uid: 0,
        gid: 0,
        cwd: None,
    };
    let target = ExecTarget {
        id: InstanceId::from_bits(1),
        project: "default".parse().unwrap(),
        name: "c1".parse().unwrap(),
        live,
        spec: Arc::new(spec),
    };
    let (control, far) = socket().await;
    let (connect, slot) = oneshot::channel();
    assert!(connect.send(far).is_ok());
    let session = Session { lanes: Lanes::default(), target, control: slot, begun: Box::new(|| {}) };
    let (mut clients, mut sockets) = (Vec::new(), Vec::new());
    for _ in 1..streams.names().len() {
        let (near, far) = socket().await;
        clients.push(near);
        sockets.push(far);
    }
    Ends { clients, control, code: tokio::spawn(session.run(streams, sockets)) }
}

const TERMINAL: Streams = Streams::Terminal { columns: 80, rows: 25 };

/// Everything up to the empty text message; then the close must follow.
async fn read_to_barrier(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => all.extend_from_slice(&bytes),
            Message::Text(text) => {
                assert_eq!(text.as_str(), "");
                break;
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?} before the end of the stream"),
        }
    }
    assert!(client.next().await.unwrap().unwrap().is_close());
    all
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("the session hangs")
}

#[tokio::test]
async fn all_output_arrives_before_the_exit_code() {
    let fake = Fake::new(|_, _, mut stdout, mut stderr| {
        for number in 0..256u32 {
            stdout.write_all(&vec![number as u8; 4096]).unwrap();
        }
        stderr.write_all(b"done\n").unwrap();
        ExitStatus::Code(7)
    });
    let mut ends = session(&fake, Streams::Pipes).await;
    let [_stdin, stdout, stderr] = &mut ends.clients[..] else { panic!() };
    let (out, err) = within(async { tokio::join!(read_to_barrier(stdout), read_to_barrier(stderr)) }).await;
    assert_eq!(out.len(), 1 << 20);
    assert!(out.chunks(4096).enumerate().all(|(number, chunk)| chunk.iter().all(|byte| *byte == number as u8)));
    assert_eq!(err, b"done\n");
    assert_eq!(within(ends.code).await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn an_empty_text_message_ends_the_input() {
    let fake = Fake::new(|_, mut stdin, mut stdout, _| {
        let mut text = Vec::new();
        stdin.read_to_end(&mut text).unwrap();
        stdout.write_all(&text).unwrap();
        ExitStatus::Code(0)
    });
    let mut ends = session(&fake, Streams::Pipes).await;
    let [stdin, stdout, _stderr] = &mut ends.clients[..] else { panic!() };
    stdin.send(Message::Binary(Bytes::from_static(b"hello"))).await.unwrap();
    stdin.send(Message::text("")).await.unwrap();
    assert_eq!(within(read_to_barrier(stdout)).await, b"hello");
    assert_eq!(within(ends.code).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_process_left_behind_does_not_hold_the_session() {
    let fake = Fake::new(|_, _, mut stdout, _| {
        stdout.write_all(b"x".repeat(60_000).as_slice()).unwrap();
        // As a daemon would that inherited the pipe.
        std::mem::forget(stdout);
        ExitStatus::Code(0)
    });
    let mut ends = session(&fake, Streams::Pipes).await;
    assert_eq!(within(read_to_barrier(&mut ends.clients[1])).await.len(), 60_000);
    assert_eq!(within(ends.code).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_stops_reading_breaks_the_commands_pipe() {
    let fake = Fake::new(|_, _, mut stdout, _| {
        let broken = loop {
            if let Err(error) = stdout.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
        ExitStatus::Signal(13)
    });
    let mut ends = session(&fake, Streams::Pipes).await;
    drop(ends.clients.remove(1));
    assert_eq!(within(ends.code).await.unwrap().unwrap(), 141);
}

#[tokio::test]
async fn a_client_that_leaves_altogether_takes_its_command_along() {
    let fake = Fake::new(|fake, _, _, _| {
        while fake.signals().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        ExitStatus::Signal(fake.signals()[0])
    });
    let ends = session(&fake, Streams::Pipes).await;
    drop((ends.clients, ends.control));
    assert_eq!(within(ends.code).await.unwrap().unwrap(), 137);
}

#[tokio::test]
async fn a_terminal_follows_the_clients_size_and_gives_all_its_output() {
    let fake = Fake::new(|_, stdin, mut stdout, _| {
        stapes_sys::pty::set_raw(stdin.as_fd()).unwrap();
        assert_eq!(stapes_sys::pty::size(stdin.as_fd()).unwrap(), (80, 25));
        stdout.write_all(b"ready").unwrap();
        while stapes_sys::pty::size(stdin.as_fd()).unwrap() != (132, 50) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stdout.write_all(&[b'x'; 200_000]).unwrap();
        ExitStatus::Code(3)
    });
    let mut ends = session(&fake, TERMINAL).await;
    assert_eq!(within(ends.clients[0].next()).await.unwrap().unwrap().into_data(), "ready");
    let resize = r#"{"command":"window-resize","args":{"width":"132","height":"50"}}"#;
    ends.control.send(Message::text(resize)).await.unwrap();
    assert_eq!(within(read_to_barrier(&mut ends.clients[0])).await.len(), 200_000);
    assert_eq!(within(ends.code).await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn a_lost_terminal_hangs_up() {
    let fake = Fake::new(|_, mut stdin, mut stdout, stderr| {
        stapes_sys::pty::set_raw(stdin.as_fd()).unwrap();
        stdout.write_all(b"ready").unwrap();
        drop((stdout, stderr));
        // The end of a terminal that hung up reads as nothing, or as EIO.
        while matches!(stdin.read(&mut [0; 64]), Ok(count) if count > 0) {}
        ExitStatus::Signal(1)
    });
    let mut ends = session(&fake, TERMINAL).await;
    assert_eq!(within(ends.clients[0].next()).await.unwrap().unwrap().into_data(), "ready");
    ends.clients[0].send(Message::Binary(Bytes::from_static(b"typed"))).await.unwrap();
    ends.clients.clear();
    assert_eq!(within(ends.code).await.unwrap().unwrap(), 129);
}

#[tokio::test]
async fn a_command_that_is_none_ends_its_streams_too() {
    let fake = Fake::new(|_, _, _, _| ExitStatus::Code(0));
    fake.program.lock().unwrap().take();
    let mut ends = session(&fake, Streams::Pipes).await;
    assert_eq!(within(read_to_barrier(&mut ends.clients[1])).await, b"");
    let error = within(ends.code).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Driver(DriverError::Command { code: 127, .. })), "{error}");
}

#[tokio::test(start_paused = true)]
async fn websockets_that_do_not_come_are_given_up() {
    let (_offer, _, slots) = offer(&stapes_engine::RealWorld, 0, &["0"]);
    let error = connected(slots).await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the websockets were not connected within 10 s");
}

#[tokio::test]
async fn a_websocket_is_for_one_user_one_secret_and_one_connection() {
    let sessions = super::super::Sessions::default();
    let (offer, fds, _slots) = offer(&stapes_engine::RealWorld, 1000, &["0"]);
    sessions.insert("op", offer);
    let secret = fds["0"].as_str().unwrap();
    let status = |operation, secret, uid| sessions.take(operation, secret, uid).map(drop).unwrap_err().status.as_u16();
    assert_eq!(status("op", secret, 0), 403);
    assert_eq!(status("op", "guessed", 1000), 403);
    assert_eq!(status("other", secret, 1000), 400);
    assert!(sessions.take("op", secret, 1000).is_ok());
    assert_eq!(status("op", secret, 1000), 400);
}

#[tokio::test]
async fn a_console_has_one_user_until_another_one_insists() {
    let sessions = super::super::Sessions::default();
    let id = InstanceId::from_bits(1);
    let first = sessions.take_console(id, false).unwrap();
    assert_eq!(sessions.take_console(id, false).unwrap_err().status.as_u16(), 409);
    let second = sessions.take_console(id, true).unwrap();
    assert!(*first.borrow());
    // The first one's leaving does not free what it no longer has.
    sessions.give_console(id, &first);
    assert!(sessions.take_console(id, false).is_err());
    sessions.give_console(id, &second);
    assert!(sessions.take_console(id, false).is_ok());
}
