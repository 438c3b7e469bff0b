//! The process beside the agent that does what a file system can stall: files, mounts, and what the guest knows of itself.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{CWD, Mode, OFlags};
use stapes_agent_api::{Failure, FailureKind, FileAnswer, FileOp, GuestMessage, MAX_BYTES, Reply, Request};
use stapes_sys::{process, socket};

use crate::{
    helper::{LONGEST, Parcel, THREADS},
    mounts,
    outbox::shortened,
    state,
};

/// Most files that are open at a time.
const HANDLES: usize = 256;
/// Of a thread's stack; the deepest thing here is a tree that is removed.
const STACK: usize = 2 << 20;

type Outcome = Result<(Reply, Vec<u8>), Failure>;

#[derive(Debug, Default)]
struct Handles {
    open: BTreeMap<u64, Arc<File>>,
    last: u64,
}

#[derive(Debug)]
struct Worker {
    root: OwnedFd,
    turn: Mutex<()>,
    handles: Mutex<Handles>,
}

/// Serves until the other end is closed and what was begun is done.
pub fn run(socket: OwnedFd) -> ! {
    let code = serve(&socket).is_err();
    process::exit_now(i32::from(code))
}

fn serve(socket: &OwnedFd) -> io::Result<()> {
    process::close_all_but(&[socket.as_raw_fd()])?;
    let _ = rustix::process::umask(Mode::empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let worker = Worker {
        root: rustix::fs::openat(CWD, "/", flags, Mode::empty())?,
        turn: Mutex::default(),
        handles: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || worker.serve(socket))?;
        }
        Ok(())
    })
}

/// What could not be done, on what, and the kernel's word.
fn refused(kind: FailureKind, doing: &str, error: &io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(5);
    Failure { kind, message: shortened(&format!("{doing}: {error}")), errno, code: 0 }
}

fn bad_handle(handle: u64) -> Failure {
    refused(FailureKind::File, &format!("file {handle}"), &rustix::io::Errno::BADF.into())
}

impl Worker {
    /// One thread waits for the next message and the others for their turn: to receive is to look at a message's size and
    /// then to take it, and in between another thread could take it away.
    fn serve(&self, socket: &OwnedFd) {
        let next = || {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            socket::receive(socket.as_fd(), LONGEST, true)
        };
        while let Ok(Some(message)) = next() {
            let Some(parcel) = Parcel::unpack(&message.bytes) else { continue };
            let Ok((id, request)) = serde_json::from_slice(&parcel.json) else { continue };
            let (reply, bytes) = match self.perform(request, parcel.bytes) {
                Ok(answer) => answer,
                Err(failure) => (Reply::Failed(failure), Vec::new()),
            };
            let json = serde_json::to_vec(&GuestMessage::Reply { id, reply }).unwrap_or_default();
            let packed = Parcel { number: parcel.number, json, bytes }.pack();
            if socket::send(socket.as_fd(), &packed, &[], true).is_err() {
                return;
            }
        }
    }

    fn perform(&self, request: Request, bytes: Vec<u8>) -> Outcome {
        let done = |()| (Reply::Done, Vec::new());
        let other = |doing: String| move |error: io::Error| refused(FailureKind::Other, &doing, &error);
        match request {
            Request::File { op, handle } => self.file(&op, handle, bytes),
            Request::FileRead { handle, offset, length } => self.read(handle, offset, length),
            Request::FileWrite { handle, offset } => {
                let file = self.handle(handle)?;
                file.write_all_at(&bytes, offset)
                    .map_err(|error| refused(FailureKind::File, &format!("file {handle}"), &error))
                    .map(done)
            }
            Request::FileClose { handle } => {
                let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
                handles.open.remove(&handle).map(|_| done(())).ok_or_else(|| bad_handle(handle))
            }
            Request::State => Ok((Reply::State(Box::new(state::read())), Vec::new())),
            Request::Mount(mount) => mounts::mount(&mount)
                .map_err(other(format!("failed to mount {} at {}", mount.tag, mount.path)))
                .map(done),
            Request::Unmount { path } => {
                mounts::unmount(&path).map_err(other(format!("failed to unmount {path}"))).map(done)
            }
            _ => Err(Failure::new(FailureKind::Unsupported, "not a request for this process")),
        }
    }

    fn handle(&self, handle: u64) -> Result<Arc<File>, Failure> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.open.get(&handle).cloned().ok_or_else(|| bad_handle(handle))
    }

    fn keep(&self, file: File) -> io::Result<u64> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if handles.open.len() >= HANDLES {
            return Err(rustix::io::Errno::MFILE.into());
        }
        handles.last += 1;
        let number = handles.last;
        handles.open.insert(number, Arc::new(file));
        Ok(number)
    }

    fn file(&self, op: &FileOp, handle: Option<u64>, bytes: Vec<u8>) -> Outcome {
        let failed = |error: io::Error| refused(FailureKind::File, op.path(), &error);
        let content = match (op, handle) {
            (FileOp::Replace { .. }, _) => Some(in_memory(&bytes).map_err(failed)?),
            (FileOp::PutInPlace { .. }, Some(handle)) => Some(self.handle(handle)?.try_clone().map_err(failed)?.into()),
            _ => None,
        };
        let own_files = stapes_files::own_files().map_err(failed)?;
        let (answer, fd) = stapes_files::apply(self.root.as_fd(), op, content, own_files.as_fd()).map_err(failed)?;
        let Some(mut file) = fd.map(File::from) else {
            return Ok((Reply::File { answer, handle: None }, Vec::new()));
        };
        let mut bytes = Vec::new();
        if !matches!(answer, FileAnswer::Opened(_) | FileAnswer::Beside(_))
            && file.metadata().map_err(failed)?.len() <= MAX_BYTES as u64
        {
            // Whoever wrote it left it at its end.
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(failed)?;
            return Ok((Reply::File { answer, handle: None }, bytes));
        }
        let handle = Some(self.keep(file).map_err(failed)?);
        Ok((Reply::File { answer, handle }, bytes))
    }

    fn read(&self, handle: u64, offset: u64, length: u32) -> Outcome {
        let failed = |error: io::Error| refused(FailureKind::File, &format!("file {handle}"), &error);
        let file = self.handle(handle)?;
        if length as usize > MAX_BYTES {
            return Err(failed(rustix::io::Errno::INVAL.into()));
        }
        let mut bytes = vec![0; length as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        bytes.truncate(filled);
        Ok((Reply::Bytes, bytes))
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = File::from(rustix::fs::memfd_create("content", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all_at(bytes, 0)?;
    Ok(file.into())
}
