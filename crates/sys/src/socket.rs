//! Unix sockets that keep message boundaries (`SOCK_SEQPACKET`), with descriptors and credentials. See unix(7).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
    },
};

/// Most descriptors that one message carries (the kernel's limit is 253).
pub const MAX_DESCRIPTORS: usize = 250;

/// A received message.
#[derive(Debug)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// Two connected ends, close-on-exec.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)?)
}

/// The address of `name` in an open directory: a path of any length fits the 107 bytes this way.
fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

/// Opens a directory for use with [`listen_in`] and [`connect_in`].
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Listens on `dir/name` with mode 0600, taking the place of an earlier socket of that name. Non-blocking.
pub fn listen_in(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::NONBLOCK)?;
    match rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::net::bind(&socket, &address(dir, name)?)?;
    rustix::fs::chmodat(dir, name, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Connects to `dir/name`. `ECONNREFUSED` means that its listener is gone.
pub fn connect_in(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::empty())?;
    rustix::net::connect(&socket, &address(dir, name)?)?;
    Ok(socket)
}

/// Takes one waiting connection, if there is one.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
        Ok(socket) => Ok(Some(socket)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The user id of the process that connected.
pub fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Sends one message; with `wait` false a full buffer is `WouldBlock`. Never raises `SIGPIPE`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
    if fds.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(if fds.is_empty() { &mut [] } else { &mut space });
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends all bytes on a stream socket, descriptors with the first of them. Never raises `SIGPIPE`.
pub fn send_stream(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(if fds.is_empty() { &mut [] } else { &mut space });
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::net::sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = &rest[sent..];
                control.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives one whole message of at most `limit` bytes (`EMSGSIZE` beyond), blocking unless `wait` is false
/// (`WouldBlock`). `None`: the other end closed. Not for two threads on one socket: see the two steps.
pub fn receive(socket: BorrowedFd<'_>, limit: usize, wait: bool) -> io::Result<Option<Datagram>> {
    let patience = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let size = loop {
        let peeked: Result<(usize, usize), _> =
            rustix::net::recv(socket, &mut [0u8; 0][..], patience | RecvFlags::PEEK | RecvFlags::TRUNC);
        match peeked {
            Ok((_, size)) => break size,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    if size == 0 {
        return Ok(None);
    }
    if size > limit {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut bytes = vec![0; size];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = patience | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors of a message were lost: too many are open"));
    }
    Ok(Some(Datagram { bytes, fds }))
}

/// Lets reads and writes of `fd`, and of every duplicate of it, fail with `EAGAIN` instead of waiting.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

/// Most descriptors that [`receive_small`] takes.
pub const FEW_DESCRIPTORS: usize = 8;

/// Like [`receive`], waiting, into memory of the caller's: a parked process should not grow a heap. Returns the number
/// of bytes, 0 when the other end closed. `EMSGSIZE` for a message that does not fit.
pub fn receive_small(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut [Option<OwnedFd>; FEW_DESCRIPTORS],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FEW_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    };
    let mut places = fds.iter_mut();
    for message in control.drain() {
        let RecvAncillaryMessage::ScmRights(rights) = message else { continue };
        for fd in rights {
            if let Some(place) = places.next() {
                *place = Some(fd);
            }
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    Ok(got.bytes)
}

/// Waits until `fd` can be read or was hung up; false when `patience` ran out.
pub fn wait_readable(fd: impl AsFd, patience: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_boundary_and_its_descriptors() {
        let (left, right) = seqpacket_pair().unwrap();
        send(left.as_fd(), b"one", &[left.as_fd(), right.as_fd()], true).unwrap();
        send(left.as_fd(), b"two", &[], true).unwrap();
        let one = receive(right.as_fd(), 100, false).unwrap().unwrap();
        assert_eq!((one.bytes.as_slice(), one.fds.len()), (&b"one"[..], 2));
        assert_eq!(receive(right.as_fd(), 100, false).unwrap().unwrap().bytes, b"two");
        drop((left, one));
        assert!(receive(right.as_fd(), 100, true).unwrap().is_none());
    }

    #[test]
    fn a_small_message_is_taken_without_a_heap_and_a_longer_one_refused() {
        let (left, right) = seqpacket_pair().unwrap();
        send(left.as_fd(), b"one", &[left.as_fd(), right.as_fd()], true).unwrap();
        send(left.as_fd(), b"longer", &[], true).unwrap();
        let (mut bytes, mut fds) = ([0; 4], Default::default());
        assert_eq!(receive_small(right.as_fd(), &mut bytes, &mut fds).unwrap(), 3);
        assert_eq!((&bytes[..3], fds.iter().flatten().count()), (&b"one"[..], 2));
        let error = receive_small(right.as_fd(), &mut bytes, &mut Default::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        drop((left, fds));
        assert_eq!(receive_small(right.as_fd(), &mut bytes, &mut Default::default()).unwrap(), 0);
    }

    #[test]
    fn a_message_over_the_limit_is_refused_whole() {
        let (left, right) = seqpacket_pair().unwrap();
        send(left.as_fd(), &[7; 200], &[], true).unwrap();
        assert_eq!(receive(right.as_fd(), 100, true).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    }

    #[test]
    fn a_socket_in_a_deep_directory_can_be_bound_and_reached() {
        let path = std::env::temp_dir().join(format!("stapes-sys-{}-{}", std::process::id(), "d".repeat(120)));
        std::fs::create_dir_all(&path).unwrap();
        let dir = open_directory(&path).unwrap();
        let listener = listen_in(dir.as_fd(), "test.sock").unwrap();
        assert!(accept(listener.as_fd()).unwrap().is_none());
        let client = connect_in(dir.as_fd(), "test.sock").unwrap();
        let server = accept(listener.as_fd()).unwrap().unwrap();
        assert_eq!(peer_uid(server.as_fd()).unwrap(), rustix::process::getuid().as_raw());
        drop(client);
        std::fs::remove_dir_all(&path).unwrap();
    }
}
