//! Files that no descriptor reaches, through the socket: a whole daemon over a driver whose instances keep their files in
//! memory and hand them out by handle.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use stapes_engine::{
    Engine, HostNetwork, Parts, Paths, RealWorld,
    app::{CreateInstance, CreateSource},
    id_ranges::IdSupply,
    operations::Status,
    records,
};
use stapes_image::WorkerCommand;
use stapes_instance::{
    Asked, Create, Driver, DriverError, Event, ExecHandle, ExecIo, ExecSpec, ExitStatus, FileKind, FileMeta, FileReply,
    FileRequest, GuestFile, REMOTE_PIECE, RemoteFile, Running, SpawnService,
};
use stapes_journal::Journal;
use stapes_model::{InstanceId, InstanceType, Limits, ProjectName, Usage};
use stapes_network::{Bridge, NetworkError};
use stapes_store::MemoryStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{daemon::Daemon, router::Router, server};

type Done<T = ()> = Result<T, DriverError>;
type Bytes = Arc<Mutex<Vec<u8>>>;

/// What lies inside, and what is open.
#[derive(Default)]
struct Guest {
    files: Mutex<BTreeMap<String, Bytes>>,
    opened: Mutex<HashMap<u64, Bytes>>,
    next: AtomicU64,
    /// The longest read or write that was asked for at once.
    longest: AtomicUsize,
}

/// An open file of a guest's, which is closed when nobody has it.
struct Opened {
    guest: Arc<Guest>,
    handle: u64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "handle {}", self.handle)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.guest.opened.lock().unwrap().remove(&self.handle);
    }
}

impl Opened {
    fn bytes(&self, length: usize) -> Bytes {
        self.guest.longest.fetch_max(length, SeqCst);
        Arc::clone(&self.guest.opened.lock().unwrap()[&self.handle])
    }
}

impl RemoteFile for Opened {
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>> {
        let bytes = self.bytes(length);
        let bytes = bytes.lock().unwrap();
        Ok(bytes.iter().skip(offset as usize).take(length).copied().collect())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes(data.len());
        let mut bytes = bytes.lock().unwrap();
        let (start, end) = (offset as usize, offset as usize + data.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        Ok(())
    }
}

struct Handle {
    guest: Arc<Guest>,
    id: InstanceId,
    events: OwnedFd,
}

impl Handle {
    fn open(&self, bytes: Bytes) -> (GuestFile, FileMeta) {
        let (handle, size) = (self.guest.next.fetch_add(1, SeqCst), bytes.lock().unwrap().len());
        self.guest.opened.lock().unwrap().insert(handle, bytes);
        let file = GuestFile::Remote(Arc::new(Opened { guest: Arc::clone(&self.guest), handle }));
        (file, meta(size))
    }

    fn find(&self, path: &str) -> Done<Bytes> {
        let missing = || DriverError::File { path: path.to_owned(), reason: "not there".into(), errno: 2 };
        self.guest.files.lock().unwrap().get(path).cloned().ok_or_else(missing)
    }
}

fn meta(size: usize) -> FileMeta {
    let (kind, size) = (FileKind::File, size as u64);
    FileMeta { kind, uid: 1, gid: 2, mode: 0o640, size, modified: 1, format: 0o100_000 }
}

impl Running for Handle {
    fn file(&self, request: &FileRequest) -> Done<FileReply> {
        Ok(match request {
            FileRequest::Read { path } => {
                let (file, meta) = self.open(self.find(path)?);
                FileReply::Opened { file, meta }
            }
            FileRequest::WriteWhole { .. } => {
                let (file, meta) = self.open(Bytes::default());
                FileReply::Beside { file, meta }
            }
            FileRequest::PutInPlace { path, file: GuestFile::Remote(file) } => {
                let file = (&**file as &dyn Any).downcast_ref::<Opened>().unwrap();
                let bytes = Arc::clone(&self.guest.opened.lock().unwrap()[&file.handle]);
                self.guest.files.lock().unwrap().insert(path.clone(), bytes);
                FileReply::Done
            }
            FileRequest::Open { path, create, .. } => {
                if *create != Create::Never {
                    self.guest.files.lock().unwrap().entry(path.clone()).or_default();
                }
                let (file, meta) = self.open(self.find(path)?);
                FileReply::Opened { file, meta }
            }
            FileRequest::Follow { path } => FileReply::Meta(meta(self.find(path)?.lock().unwrap().len())),
            FileRequest::Change { path, size: Some(size), .. } => {
                self.find(path)?.lock().unwrap().truncate(*size as usize);
                FileReply::Done
            }
            other => panic!("{other:?}"),
        })
    }

    fn id(&self) -> InstanceId {
        self.id
    }
    fn pid(&self) -> u32 {
        1
    }
    fn started_at(&self) -> i64 {
        0
    }
    fn request_shutdown(&self) -> Done<Asked> {
        Ok(Asked::Told)
    }
    fn kill(&self) -> Done {
        Ok(())
    }
    fn freeze(&self) -> Done {
        Ok(())
    }
    fn thaw(&self) -> Done {
        Ok(())
    }
    fn is_frozen(&self) -> Done<bool> {
        Ok(false)
    }
    fn exec(&self, _: &ExecSpec, _: ExecIo) -> Done<ExecHandle> {
        Err(DriverError::NotRunning { id: self.id })
    }
    fn exec_signal(&self, _: u64, _: i32) -> Done {
        Ok(())
    }
    fn exec_status(&self, _: u64) -> Done<Option<ExitStatus>> {
        Ok(None)
    }
    fn console(&self) -> Done<OwnedFd> {
        Err(DriverError::NotRunning { id: self.id })
    }
    fn update_limits(&self, _: &Limits) -> Done {
        Ok(())
    }
    fn usage(&self) -> Done<Usage> {
        Ok(Usage::default())
    }
    fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
    fn next_event(&self) -> Option<Event> {
        None
    }
    fn acknowledge_exit(&self) {}
}

#[derive(Default)]
struct Host(Arc<Guest>);

impl Driver for Host {
    fn kind(&self) -> InstanceType {
        InstanceType::Container
    }
    fn start(&self, plan: &stapes_instance::Plan) -> Done<Arc<dyn Running>> {
        let events = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        Ok(Arc::new(Handle { guest: Arc::clone(&self.0), id: plan.id, events }))
    }
    fn adopt(&self, _: &InstanceId, _: &Path) -> Done<Option<Arc<dyn Running>>> {
        Ok(None)
    }
    fn sweep(&self, _: &HashSet<InstanceId>) -> Done<Vec<String>> {
        Ok(Vec::new())
    }
    fn maps_owners(&self, _: &Path) -> Done<bool> {
        Ok(true)
    }
    fn files_offline(&self, _: &Path, _: &FileRequest) -> Done<FileReply> {
        Ok(FileReply::Done)
    }
    fn features(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

impl SpawnService for Host {
    fn ensure_service(&self, _: &str, _: &[String]) -> Done<u32> {
        Ok(1)
    }
    fn stop_service(&self, _: &str) -> Done {
        Ok(())
    }
    fn signal_service(&self, _: &str, _: i32) -> Done {
        Ok(())
    }
    fn services(&self) -> Done<Vec<String>> {
        Ok(Vec::new())
    }
}

impl HostNetwork for Host {
    fn interface_exists(&self, _: &str) -> bool {
        false
    }

    fn bridge_exists(&self, _: &str) -> bool {
        false
    }
    fn taken_subnets(&self) -> Result<Vec<ipnet::IpNet>, NetworkError> {
        Ok(Vec::new())
    }
    fn is_up(&self, _: &Bridge) -> Result<bool, NetworkError> {
        Ok(true)
    }
    fn up(&self, _: &Bridge) -> Result<(), NetworkError> {
        Ok(())
    }
    fn down(&self, _: &Bridge) -> Result<(), NetworkError> {
        Ok(())
    }
    fn release(&self, _: &Bridge, _: [u8; 6], _: Ipv4Addr) -> Result<(), NetworkError> {
        Ok(())
    }
}

/// A daemon that serves `DIR/unix.socket`, with the running instance c1.
struct Served {
    guest: Arc<Guest>,
    dir: tempfile::TempDir,
}

impl Served {
    async fn new() -> Self {
        // On a tmpfs the engine mounts none of its own for its sockets.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let paths = Paths::new(dir.path());
        paths.ensure().unwrap();
        let guest = Arc::new(Guest::default());
        let parts = Parts {
            journal: Arc::new(Journal::open(paths.journal(), "boot").unwrap()),
            paths,
            world: Arc::new(RealWorld),
            store: Arc::new(MemoryStore::new()),
            drivers: vec![Arc::new(Host(Arc::clone(&guest)))],
            services: Arc::new(Host::default()),
            network: Arc::new(Host::default()),
            ids: IdSupply::parse("", "", ""),
            worker: WorkerCommand { program: "/bin/false".into(), args: Vec::new() },
        };
        let engine = Engine::open(parts).unwrap();
        engine.reconcile().unwrap();
        let config = BTreeMap::new();
        let pool = records::Pool { name: "p".parse().unwrap(), driver: "dir".into(), description: "".into(), config };
        engine.create_pool(pool).await.unwrap();
        let root = [("type", "disk"), ("path", "/"), ("pool", "p")].map(|(key, value)| (key.into(), value.into()));
        let request = CreateInstance {
            project: ProjectName::default_project(),
            name: Some("c1".parse().unwrap()),
            kind: InstanceType::Container,
            description: String::new(),
            ephemeral: false,
            profiles: None,
            config: BTreeMap::new(),
            devices: BTreeMap::from([("root".to_owned(), BTreeMap::from(root))]),
            source: CreateSource::Empty,
            start: true,
            requestor: None,
        };
        let ended = engine.create_instance(request).unwrap().finished().await;
        assert_eq!(ended.status, Status::Success, "{}", ended.err);
        let listener = server::bind(dir.path(), "unix.socket").unwrap();
        tokio::spawn(server::serve(Daemon::new(engine), Arc::new(Router::new().unwrap()), listener));
        Self { guest, dir }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("unix.socket")).await.unwrap()
    }

    /// Status line and body of one request.
    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut stream = self.connect().await;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        (head, answer.split_off(end + 4))
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|number| (number % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_file_is_written_and_read_in_pieces_over_rest() {
    let served = Served::new().await;
    // More than one piece of a transfer, and no multiple of what a remote file moves at a time.
    let content = pattern((1 << 20) + REMOTE_PIECE + 17);
    let (head, _) = served.ask("POST", "/1.0/instances/c1/files?path=/big", &content).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(*served.guest.files.lock().unwrap()["/big"].lock().unwrap(), content);
    let (head, body) = served.ask("GET", "/1.0/instances/c1/files?path=/big", b"").await;
    assert!(head.contains(&format!("content-length: {}", content.len())), "{head}");
    assert!(body == content);
    let (head, _) = served.ask("GET", "/1.0/instances/c1/files?path=/none", b"").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert_eq!(served.guest.longest.load(SeqCst), REMOTE_PIECE);
    assert!(served.guest.opened.lock().unwrap().is_empty());
}

/// A client of SFTP that sends one packet and reads one.
struct Sftp(UnixStream);

impl Sftp {
    async fn connect(served: &Served) -> Self {
        let mut stream = served.connect().await;
        let head = "GET /1.0/instances/c1/sftp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: sftp\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        let mut sftp = Self(stream);
        assert_eq!(sftp.ask(1, &[&3u32.to_be_bytes()]).await[0], 2);
        sftp
    }

    /// Type and content of the answer to a packet of these parts.
    async fn ask(&mut self, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let packet = parts.concat();
        self.0.write_u32(packet.len() as u32 + 1).await.unwrap();
        self.0.write_u8(kind).await.unwrap();
        self.0.write_all(&packet).await.unwrap();
        let mut answer = vec![0; self.0.read_u32().await.unwrap() as usize];
        self.0.read_exact(&mut answer).await.unwrap();
        answer
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_file_is_served_by_offset_over_sftp() {
    const ID: [u8; 4] = 7u32.to_be_bytes();
    const OK: [u8; 4] = 0u32.to_be_bytes();
    let served = Served::new().await;
    let mut sftp = Sftp::connect(&served).await;
    let (read_write_create, no_attributes) = (0x0bu32.to_be_bytes(), 0u32.to_be_bytes());
    let open = sftp.ask(3, &[&ID, &text(b"/notes"), &read_write_create, &no_attributes]).await;
    assert_eq!(open[0], 102);
    let handle = &open[5..];
    let content = pattern(REMOTE_PIECE + 4096);
    let written = sftp.ask(6, &[&ID, handle, &10u64.to_be_bytes(), &text(&content)]).await;
    assert_eq!((written[0], &written[5..9]), (101, &OK[..]));
    // Asked for more than there is, across a piece's end.
    let read = sftp.ask(5, &[&ID, handle, &11u64.to_be_bytes(), &(200u32 << 10).to_be_bytes()]).await;
    assert_eq!(read[0], 103);
    assert!(read[9..] == content[1..]);
    let size = |answer: &[u8]| u64::from_be_bytes(answer[9..17].try_into().unwrap());
    let stat = sftp.ask(8, &[&ID, handle]).await;
    assert_eq!((stat[0], size(&stat)), (105, content.len() as u64 + 10));
    let cut = sftp.ask(10, &[&ID, handle, &1u32.to_be_bytes(), &5u64.to_be_bytes()]).await;
    assert_eq!(&cut[5..9], OK);
    assert_eq!(size(&sftp.ask(8, &[&ID, handle]).await), 5);
    assert_eq!(served.guest.opened.lock().unwrap().len(), 1);
    let closed = sftp.ask(4, &[&ID, handle]).await;
    assert_eq!(&closed[5..9], OK);
    assert!(served.guest.opened.lock().unwrap().is_empty());
    assert!(served.guest.longest.load(SeqCst) <= REMOTE_PIECE);
}
