//! From requests to an instance's files and back.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    vec,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use rustix::{
    fs::{Mode, Timespec, Timestamps},
    io::Errno,
};
use stapes_engine::{
    Engine, Error,
    events::{Event, EventKind},
};
use stapes_instance::{Access, Create, DriverError, FileKind, FileMeta, FileReply, FileRequest, GuestFile};
use stapes_model::{InstanceName, ProjectName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::broadcast::{self, error::RecvError},
};

use super::{
    answer,
    lane::{Lane, Turn},
    request::{self, Attributes, Broken, Code, Flags, Handle, Request},
};
use crate::transfer;

/// Most handles of one session.
const MOST_HANDLES: usize = 256;
/// Most requests that are under way at a time; further ones wait in the connection.
const MOST_REQUESTS: usize = 32;
/// Entries of one answer to READDIR: a packet stays below 256 KiB, the longest that Go's client takes.
const ENTRIES: usize = 100;
/// Room that is made for each read of the connection: a packet of Go's client, and a little.
const ROOM: usize = 160 << 10;

/// Why a request failed, as the client is told.
struct Refusal {
    code: Code,
    message: String,
}

type Answer = Result<Vec<u8>, Refusal>;

impl Refusal {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

fn code_of(errno: i32) -> Code {
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Code::NoSuchFile,
        Errno::PERM | Errno::ACCESS | Errno::ROFS => Code::PermissionDenied,
        Errno::OPNOTSUPP | Errno::NOSYS => Code::OpUnsupported,
        _ => Code::Failure,
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::new(error.raw_os_error().map_or(Code::Failure, code_of), error.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match &error {
            Error::Driver(DriverError::File { reason, errno, .. }) => Self::new(code_of(*errno), reason),
            Error::Driver(DriverError::Unsupported { .. }) => {
                Self::new(Code::OpUnsupported, stapes_engine::chain(&error))
            }
            _ => Self::new(Code::Failure, stapes_engine::chain(&error)),
        }
    }
}

struct OpenFile {
    file: GuestFile,
    path: String,
    /// As seen inside; a descriptor would tell the host's numbers.
    owner: Mutex<(u32, u32)>,
}

enum Kind {
    File(Arc<OpenFile>),
    Directory(Mutex<vec::IntoIter<(String, FileMeta)>>),
}

struct Open {
    lane: Lane,
    kind: Kind,
}

impl Open {
    fn file(&self) -> Result<&Arc<OpenFile>, Refusal> {
        match &self.kind {
            Kind::File(file) => Ok(file),
            Kind::Directory(_) => Err(Refusal::new(Code::Failure, "the handle is a directory's")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Session {
    engine: Arc<Engine>,
    project: ProjectName,
    name: InstanceName,
    handles: Mutex<HashMap<Handle, Arc<Open>>>,
    next: AtomicU32,
    /// Requests on paths.
    paths: Lane,
}

/// Serves a client until it leaves.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send,
    session: Arc<Session>,
    events: broadcast::Receiver<Event>,
) {
    if let Err(error) = converse(stream, &session, events).await {
        tracing::debug!(%error, instance = %session.name, "an SFTP session ended");
    }
    session.close_all();
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send,
    session: &Arc<Session>,
    mut events: broadcast::Receiver<Event>,
) -> anyhow::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut arrived = BytesMut::new();
    let mut greeted = false;
    let mut jobs = FuturesUnordered::new();
    loop {
        while jobs.len() < MOST_REQUESTS
            && let Some(packet) = request::next_packet(&mut arrived)?
        {
            if greeted {
                jobs.push(session.begin(packet)?);
            } else {
                request::parse_init(&packet)?;
                writer.write_all(&answer::version()).await?;
                greeted = true;
            }
        }
        let room = jobs.len() < MOST_REQUESTS;
        if room && arrived.capacity() - arrived.len() < ROOM / 2 {
            arrived.reserve(ROOM);
        }
        tokio::select! {
            Some(answer) = jobs.next() => writer.write_all(&answer).await?,
            read = reader.read_buf(&mut arrived), if room => if read? == 0 { return Ok(()) },
            event = events.recv() => match event {
                Ok(event) if session.ends_handles(&event) => session.close_all(),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

impl Session {
    pub fn new(engine: Arc<Engine>, project: ProjectName, name: InstanceName) -> Self {
        let (handles, next, paths) = (Mutex::default(), AtomicU32::new(0), Lane::default());
        Self { engine, project, name, handles, next, paths }
    }

    /// An instance that stopped or is gone: open files would keep its volume busy.
    fn ends_handles(&self, event: &Event) -> bool {
        if event.kind != EventKind::Lifecycle || event.project != self.project.as_str() {
            return false;
        }
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&event.text) else { return false };
        let metadata = &value["metadata"];
        let action = metadata["action"].as_str().unwrap_or_default();
        matches!(action, "instance-stopped" | "instance-shutdown" | "instance-deleted")
            && metadata["name"] == self.name.as_str()
    }

    /// On a thread of its own: closing a file of a file system that the instance serves may take for ever.
    fn close_all(&self) {
        let handles = std::mem::take(&mut *lock(&self.handles));
        if !handles.is_empty() {
            tokio::task::spawn_blocking(move || drop(handles));
        }
    }

    /// Takes a request's turn, and does it when awaited.
    fn begin(self: &Arc<Self>, packet: Bytes) -> Result<impl Future<Output = Vec<u8>> + Send + use<>, Broken> {
        let (id, request) = request::parse(packet)?;
        let session = Arc::clone(self);
        let open = request.as_ref().ok().and_then(handle_of).map(|handle| {
            let mut handles = lock(&self.handles);
            // A handle that is being closed is not there for what comes after.
            match request {
                Ok(Request::Close { .. }) => handles.remove(&handle),
                _ => handles.get(&handle).cloned(),
            }
        });
        let mut turn: Turn = match &open {
            Some(Some(open)) => open.lane.turn(),
            Some(None) | None => self.paths.turn(),
        };
        Ok(async move {
            turn.comes().await;
            let answer = match (request, open) {
                (Err(code), _) => Err(Refusal::new(code, "the request is not understood")),
                (Ok(_), Some(None)) => Err(Refusal::new(Code::Failure, "there is no such handle")),
                (Ok(request), Some(Some(open))) => session.on_handle(id, request, open).await,
                (Ok(request), None) => session.on_path(id, request).await,
            };
            answer.unwrap_or_else(|Refusal { code, message }| answer::status(id, code, &message))
        })
    }

    async fn file(&self, request: FileRequest) -> Result<FileReply, Refusal> {
        Ok(self.engine.file(&self.project, &self.name, request).await?)
    }

    async fn done(&self, id: u32, request: FileRequest) -> Answer {
        self.file(request).await.map(|_| ok(id))
    }

    async fn on_path(&self, id: u32, request: Request) -> Answer {
        use FileRequest as F;
        match request {
            Request::Open { path, flags, attributes } => self.open(id, path, flags, attributes).await,
            Request::OpenDir { path } => match self.file(F::List { path }).await? {
                FileReply::Entries { mut entries, .. } => {
                    entries.sort_unstable_by(|one, other| one.0.cmp(&other.0));
                    self.keep(id, Kind::Directory(Mutex::new(entries.into_iter())))
                }
                _ => Err(unexpected()),
            },
            Request::Lstat { path } => meta(id, self.file(F::Stat { path }).await?),
            Request::Stat { path } => meta(id, self.file(F::Follow { path }).await?),
            Request::SetStat { path, attributes } => {
                let Attributes { size, owner, mode, times } = attributes;
                let (uid, gid) = owner.unzip();
                let times = times.map(|(accessed, modified)| (accessed.into(), modified.into()));
                self.done(id, F::Change { path, uid, gid, size, mode, times }).await
            }
            Request::Remove { path } => self.done(id, F::Unlink { path, directory: false }).await,
            Request::RemoveDir { path } => self.done(id, F::Unlink { path, directory: true }).await,
            Request::MakeDir { path, attributes } => {
                self.done(id, F::CreateDirectory { path, mode: attributes.mode }).await
            }
            Request::RealPath { path } => Ok(answer::one_name(id, &clean(&path))),
            Request::Rename { path, to, replace } => self.done(id, F::Rename { path, to, replace }).await,
            Request::HardLink { path, to } => self.done(id, F::HardLink { path, to }).await,
            Request::ReadLink { path } => match self.file(F::Read { path }).await? {
                FileReply::Link { target, .. } => Ok(answer::one_name(id, &target)),
                _ => Err(Refusal::new(Code::Failure, "this is no symlink")),
            },
            Request::Symlink { target, path } => {
                self.done(id, F::MakeSymlink { path, target, uid: None, gid: None }).await
            }
            Request::Limits => Ok(answer::limits(id, MOST_HANDLES as u64)),
            Request::Close { .. }
            | Request::Read { .. }
            | Request::Write { .. }
            | Request::Fstat { .. }
            | Request::FsetStat { .. }
            | Request::ReadDir { .. }
            | Request::Sync { .. } => Err(unexpected()),
        }
    }

    async fn open(&self, id: u32, path: String, flags: Flags, attributes: Attributes) -> Answer {
        // Before anything is created.
        self.has_room()?;
        let access = match (flags.has(Flags::READ), flags.has(Flags::WRITE | Flags::APPEND)) {
            (true, true) => Access::Both,
            (false, true) => Access::Write,
            (_, false) => Access::Read,
        };
        let create = match (flags.has(Flags::CREATE), flags.has(Flags::EXCLUSIVE)) {
            (true, true) => Create::Always,
            (true, false) => Create::IfMissing,
            (false, _) => Create::Never,
        };
        let request = FileRequest::Open {
            path: path.clone(),
            access,
            create,
            append: flags.has(Flags::APPEND),
            truncate: flags.has(Flags::TRUNCATE),
            mode: attributes.mode,
        };
        match self.file(request).await? {
            FileReply::Opened { file, meta } => {
                let owner = Mutex::new((meta.uid, meta.gid));
                self.keep(id, Kind::File(Arc::new(OpenFile { file, path, owner })))
            }
            _ => Err(unexpected()),
        }
    }

    fn has_room(&self) -> Result<(), Refusal> {
        match lock(&self.handles).len() {
            0..MOST_HANDLES => Ok(()),
            _ => Err(Refusal::new(Code::Failure, format!("a session has at most {MOST_HANDLES} handles"))),
        }
    }

    fn keep(&self, id: u32, kind: Kind) -> Answer {
        self.has_room()?;
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.handles).insert(handle, Arc::new(Open { lane: Lane::default(), kind }));
        Ok(answer::handle(id, handle))
    }

    async fn on_handle(&self, id: u32, request: Request, open: Arc<Open>) -> Answer {
        match request {
            Request::Read { offset, length, .. } => {
                let (file, most) = (Arc::clone(open.file()?), request::MAX_DATA.min(length as usize));
                let read = move || answer::data(id, most, |bytes| file.read(bytes, most, offset));
                let answer = transfer::blocking(read).await?;
                answer.ok_or_else(|| Refusal::new(Code::Eof, "the end of the file"))
            }
            Request::Write { offset, data, .. } => {
                let file = Arc::clone(open.file()?);
                transfer::blocking(move || file.write(&data, offset)).await?;
                Ok(ok(id))
            }
            Request::ReadDir { .. } => match &open.kind {
                Kind::Directory(entries) => {
                    let some: Vec<_> = lock(entries).by_ref().take(ENTRIES).collect();
                    match some.is_empty() {
                        true => Err(Refusal::new(Code::Eof, "the end of the directory")),
                        false => Ok(answer::names(id, some.iter())),
                    }
                }
                Kind::File(_) => Err(Refusal::new(Code::Failure, "the handle is a file's")),
            },
            Request::Fstat { .. } => {
                let file = Arc::clone(open.file()?);
                if matches!(file.file, GuestFile::Remote(_)) {
                    return meta(id, self.file(FileRequest::Follow { path: file.path.clone() }).await?);
                }
                let meta = transfer::blocking(move || file.meta()).await?;
                Ok(answer::attributes(id, &meta))
            }
            Request::FsetStat { attributes, .. } => self.change(open.file()?, attributes).await.map(|()| ok(id)),
            Request::Sync { .. } => {
                let file = Arc::clone(open.file()?);
                transfer::blocking(move || file.local()?.sync_all()).await?;
                Ok(ok(id))
            }
            Request::Close { .. } => {
                // A file system may only now find out that it has no space.
                let close = move || {
                    drop(open);
                    Ok(())
                };
                transfer::blocking(close).await?;
                Ok(ok(id))
            }
            _ => Err(unexpected()),
        }
    }

    /// By the path it was opened by what only the instance can do: the owner, because the ids are its own, and all of
    /// a remote file. The rest on the descriptor.
    async fn change(&self, file: &Arc<OpenFile>, attributes: Attributes) -> Result<(), Refusal> {
        let Attributes { size, owner, mode, times } = attributes;
        let path = file.path.clone();
        let (uid, gid) = owner.unzip();
        if matches!(file.file, GuestFile::Remote(_)) {
            let times = times.map(|(accessed, modified)| (accessed.into(), modified.into()));
            return self.file(FileRequest::Change { path, uid, gid, size, mode, times }).await.map(drop);
        }
        if let Some(owner) = owner {
            self.file(FileRequest::Change { path, uid, gid, size: None, mode: None, times: None }).await?;
            *lock(&file.owner) = owner;
        }
        let file = Arc::clone(file);
        let work = move || {
            let fd = file.local()?;
            if let Some(size) = size {
                rustix::fs::ftruncate(fd, size)?;
            }
            if let Some(mode) = mode {
                rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
            }
            if let Some((accessed, modified)) = times {
                let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
                let stamps = Timestamps { last_access: at(accessed), last_modification: at(modified) };
                rustix::fs::futimens(fd, &stamps)?;
            }
            Ok(())
        };
        Ok(transfer::blocking(work).await?)
    }
}

impl OpenFile {
    /// The descriptor, for what there is no request to another kernel.
    fn local(&self) -> io::Result<&File> {
        match &self.file {
            GuestFile::Local(file) => Ok(file),
            GuestFile::Remote(_) => Err(Errno::OPNOTSUPP.into()),
        }
    }

    /// Into the spare room of `bytes`.
    fn read(&self, bytes: &mut Vec<u8>, most: usize, offset: u64) -> io::Result<()> {
        match &self.file {
            GuestFile::Local(file) => {
                rustix::io::pread(file, rustix::buffer::spare_capacity(bytes), offset)?;
                Ok(())
            }
            GuestFile::Remote(file) => file.read_piece(bytes, most, offset),
        }
    }

    fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        match &self.file {
            GuestFile::Local(file) => file.write_all_at(data, offset),
            GuestFile::Remote(file) => file.write_all_at(data, offset),
        }
    }

    fn meta(&self) -> io::Result<FileMeta> {
        let stat = rustix::fs::fstat(self.local()?)?;
        let (uid, gid) = *lock(&self.owner);
        Ok(FileMeta {
            kind: FileKind::File,
            uid,
            gid,
            mode: stat.st_mode & 0o7777,
            size: stat.st_size as u64,
            modified: stat.st_mtime as i64,
            format: stat.st_mode & 0o170_000,
        })
    }
}

fn handle_of(request: &Request) -> Option<Handle> {
    match request {
        Request::Close { handle }
        | Request::Read { handle, .. }
        | Request::Write { handle, .. }
        | Request::Fstat { handle }
        | Request::FsetStat { handle, .. }
        | Request::ReadDir { handle }
        | Request::Sync { handle } => Some(*handle),
        Request::Open { .. }
        | Request::Lstat { .. }
        | Request::SetStat { .. }
        | Request::OpenDir { .. }
        | Request::Remove { .. }
        | Request::MakeDir { .. }
        | Request::RemoveDir { .. }
        | Request::RealPath { .. }
        | Request::Stat { .. }
        | Request::Rename { .. }
        | Request::ReadLink { .. }
        | Request::Symlink { .. }
        | Request::HardLink { .. }
        | Request::Limits => None,
    }
}

fn ok(id: u32) -> Vec<u8> {
    answer::status(id, Code::Ok, "")
}

fn meta(id: u32, reply: FileReply) -> Answer {
    match reply {
        FileReply::Meta(meta) => Ok(answer::attributes(id, &meta)),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Refusal {
    Refusal::new(Code::Failure, "the answer does not fit the request")
}

/// A path without `.`, `..` and empty parts, by its text alone.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_path_has_no_dots() {
        for (path, cleaned) in
            [("/.", "/"), ("/", "/"), ("/a/../../b//c/./", "/b/c"), ("/..", "/"), ("/root/x", "/root/x")]
        {
            assert_eq!(clean(path), cleaned);
        }
    }

    #[test]
    fn errors_have_the_codes_that_clients_act_on() {
        for (errno, code) in [
            (Errno::NOENT, Code::NoSuchFile),
            (Errno::NOTDIR, Code::NoSuchFile),
            (Errno::ACCESS, Code::PermissionDenied),
            (Errno::OPNOTSUPP, Code::OpUnsupported),
            (Errno::NOTEMPTY, Code::Failure),
            (Errno::ISDIR, Code::Failure),
        ] {
            assert_eq!(code_of(errno.raw_os_error()), code);
        }
    }
}
