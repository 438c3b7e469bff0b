//! Pipes and terminals without blocking a thread.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    fs::OFlags,
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes read at a time: the capacity of a pipe.
const PIECE: usize = 64 << 10;

/// Most that a terminal can still hold when its last writer is gone, with room to spare (the kernel's buffer is 64 KiB).
const TERMINAL_LEFT: usize = 256 << 10;

/// Our end of a pipe, or the master of a terminal.
#[derive(Debug)]
pub struct Descriptor {
    fd: AsyncFd<OwnedFd>,
}

impl Descriptor {
    /// Takes over a descriptor and makes it non-blocking. Needs a runtime.
    pub fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        // An `OwnedFd` keeps its descriptor open for as long as the registration lives, which is what the newer,
        // unsafe constructor asks its caller to promise.
        #[allow(deprecated)]
        let fd = AsyncFd::with_interest(fd, interest)?;
        Ok(Self { fd })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }

    /// Waits for bytes; none at the end. A terminal whose last user closed it answers EIO, which is its end.
    pub async fn read(&self) -> io::Result<Bytes> {
        self.fd.async_io(Interest::READABLE, |fd| piece(fd.as_fd())).await
    }

    /// What can be read without waiting; none at the end, and when nothing is there.
    pub fn read_now(&self) -> io::Result<Bytes> {
        match piece(self.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Bytes::new()),
            other => other,
        }
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
            let count = self.fd.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// The most that a writer that is gone can have left here.
    pub fn capacity(&self) -> usize {
        rustix::pipe::fcntl_getpipe_size(self.as_fd()).unwrap_or(TERMINAL_LEFT)
    }

    pub fn is_terminal(&self) -> bool {
        rustix::termios::isatty(self.as_fd())
    }
}

fn piece(fd: BorrowedFd<'_>) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(PIECE);
    match rustix::io::read(fd, rustix::buffer::spare_capacity(&mut bytes)) {
        Ok(_) => Ok(bytes.into()),
        Err(Errno::IO) => Ok(Bytes::new()),
        Err(error) => Err(error.into()),
    }
}

/// A pipe that the command reads from: its end, and ours to write.
pub fn pipe_in() -> io::Result<(OwnedFd, Descriptor)> {
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((theirs, Descriptor::new(ours, Interest::WRITABLE)?))
}

/// A pipe that the command writes to: its end, and ours to read.
pub fn pipe_out() -> io::Result<(OwnedFd, Descriptor)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((theirs, Descriptor::new(ours, Interest::READABLE)?))
}
