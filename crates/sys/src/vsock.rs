//! Sockets between a virtual machine and its host. See vsock(7).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Listens on a port of this machine, for its host and whoever else the kernel lets in. Non-blocking.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    // SAFETY: sockaddr_vm is plain integers, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_port = port;
    address.svm_cid = libc::VMADDR_CID_ANY;
    // SAFETY: the address outlives the call that reads it, within the length given; the descriptor is new and ours.
    unsafe {
        let fd = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        if libc::bind(fd, (&raw const address).cast(), length) < 0 || libc::listen(fd, 1) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

/// Takes one waiting connection of the host (cid 2), if there is one; others are turned away. Non-blocking.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    // SAFETY: sockaddr_vm is plain integers, for which all zeroes is a valid value.
    let mut peer: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most `length` bytes of the address; the descriptor is new and ours.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut peer).cast(), &raw mut length, flags) };
    if fd < 0 {
        return match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: as above.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((peer.svm_cid == libc::VMADDR_CID_HOST).then_some(socket))
}
