//! Messages of `shim-api` on sockets.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use serde::Serialize;
use stapes_sys::socket;

/// Sends without waiting: a reader that does not read loses its connection instead of stopping us.
pub fn send<T: Serialize>(to: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    socket::send(to.as_fd(), &stapes_shim_api::encode(message), fds, false)
}
