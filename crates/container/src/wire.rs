//! Asking the nursery and the shims: one request, one reply, bounded in time.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use stapes_shim_api::MAX_FRAME;
use stapes_sys::socket;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the connection closed")]
    Gone,
    #[error("no answer within {seconds} s")]
    Silent { seconds: u64 },
    #[error("failed to exchange a message")]
    Io(#[from] io::Error),
    #[error("the answer was not understood")]
    Answer(#[from] serde_json::Error),
}

/// A connection that carries one request at a time.
#[derive(Debug)]
pub struct Connection(pub OwnedFd);

impl Connection {
    /// Connects to the socket `name` in `dir`; `None` when nobody listens there.
    pub fn open(dir: &Path, name: &str) -> io::Result<Option<Self>> {
        let gone = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
            )
        };
        match socket::open_directory(dir).and_then(|dir| socket::connect_in(dir.as_fd(), name)) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn send<Q: Serialize>(&self, request: &Q, fds: &[BorrowedFd<'_>]) -> Result<(), AskError> {
        socket::send(self.0.as_fd(), &stapes_shim_api::encode(request), fds, false).map_err(|error| {
            match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AskError::Gone,
                _ => AskError::Io(error),
            }
        })
    }

    pub fn ask<Q: Serialize, R: DeserializeOwned>(
        &self,
        request: &Q,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(R, Vec<OwnedFd>), AskError> {
        self.send(request, fds)?;
        if !socket::wait_readable(&self.0, patience)? {
            return Err(AskError::Silent { seconds: patience.as_secs() });
        }
        match socket::receive(self.0.as_fd(), MAX_FRAME, false)? {
            Some(datagram) => Ok((stapes_shim_api::decode(&datagram.bytes)?, datagram.fds)),
            None => Err(AskError::Gone),
        }
    }
}
