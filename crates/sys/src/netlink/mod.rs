//! rtnetlink: links, addresses, routes, neighbours, network-namespace ids.
//!
//! A [`netlink::Netlink`] is one socket in the network namespace where it was opened. Calls block for as long as the kernel holds
//! its own lock (RTNL) and never on anybody else. Small enough for a static single-threaded helper: a request buffer, an
//! answer buffer, no other state. Sources: rtnetlink(7), netlink(7), linux/rtnetlink.h, linux/if_link.h.
//!
//! Two traps of the kernel shape the interface. A veth's peer cannot be created up, so the guest raises its own end; and
//! `IFA_TARGET_NETNSID` works in dumps with strict checking only (in RTM_NEWADDR it is ignored and the address lands on
//! the *host's* interface of that index), so everything that changes a namespace needs a socket opened inside it.

use std::{
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

mod address;
mod codec;
mod link;
mod namespace;
mod neighbour;
mod nftables;
mod route;
#[cfg(test)]
mod tests;

pub use address::{AddressInfo, Scope};
pub use link::{BridgeSpec, LinkInfo, LinkStats, OperState, VethSpec};
pub use neighbour::{NeighbourInfo, NeighbourSpec};
pub use nftables::{Nftables, TableInfo};
pub use route::{RouteInfo, RouteSpec};

use codec::{Message, Request};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// Room for any single answer; a dump grows it to what the kernel fills at most in one go.
const ANSWER_BYTES: usize = 8 << 10;
const DUMP_BYTES: usize = 32 << 10;
/// How often a dump that others' changes interrupted is begun again before its last result is taken as it is.
const DUMP_TRIES: usize = 8;

/// A request that the kernel refused, inside the `io::Error` that the methods return; see [`errno`].
#[derive(Debug)]
struct Refused {
    request: &'static str,
    subject: String,
    errno: i32,
    /// The kernel's own words (extended ack), when it had any.
    reason: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.request, self.subject, io::Error::from_raw_os_error(self.errno))?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

impl std::error::Error for Refused {}

/// The errno of a failed call, also where the error carries the kernel's explanation and so no raw number of its own.
pub fn errno(error: &io::Error) -> Option<i32> {
    let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
    refused.map(|refused| refused.errno).or_else(|| error.raw_os_error())
}

/// True for "no such link, address, neighbour or route", in whichever errno the kernel says it.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(errno(error), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
}

/// Reads `bytes` as every kind of answer and forgets them: the entry for the fuzzer.
#[doc(hidden)]
pub fn read_anything(bytes: &[u8]) {
    for message in codec::messages(bytes) {
        let _ = codec::extended_ack(&message);
        let payload = message.payload;
        let _ = (link::read_link(payload), address::read_address(payload), route::read_route(payload));
        let _ = (neighbour::read_neighbour(payload), nftables::read_table(payload));
    }
}

/// A route socket of the calling thread's network namespace. Not shared between threads: one each.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    request: Request,
    answer: Vec<u8>,
    /// How much of `answer` the running request uses.
    room: usize,
    /// The largest message that did not fit, rounded up; 0 for none.
    room_seen: usize,
    sequence: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    One,
    Dump,
    SmallDump,
}

impl Netlink {
    /// Opens the socket, with strict checking of dump requests (Linux 4.20) and explained errors (4.12).
    pub fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0.
        Self::open_protocol(None)
    }

    fn open_protocol(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK] {
            enable(&socket, option)?;
        }
        Ok(Self { socket, request: Request::default(), answer: Vec::new(), room: 0, room_seen: 0, sequence: 0 })
    }

    /// Starts a request in the reused buffer. Always acknowledged: that is how the end of an answer is known.
    fn begin(&mut self, kind: u16, flags: u16, body: &[u8]) -> &mut Request {
        self.request.begin(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)
    }

    /// Sends the request and waits for its acknowledgement.
    fn acknowledge(&mut self, name: &'static str, subject: impl fmt::Display) -> io::Result<()> {
        self.converse(Answer::One, name, subject, |_| Some(())).map(|_| ())
    }

    /// Sends a request that has exactly one answer; `read` takes it apart.
    fn query<T>(
        &mut self,
        name: &'static str,
        subject: impl fmt::Display,
        read: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<T> {
        let found = self.converse(Answer::One, name, subject, read)?;
        found.into_iter().next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: no answer")))
    }

    /// Sends a dump request; entries that `read` makes nothing of are left out. Begun again when a change interrupted it.
    fn dump<T>(
        &mut self,
        name: &'static str,
        subject: impl fmt::Display,
        read: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.converse(Answer::Dump, name, subject, read)
    }

    /// A dump of a handful of entries: the kernel makes its buffers as large as ours, so a small one is cheaper.
    fn small_dump<T>(
        &mut self,
        name: &'static str,
        subject: impl fmt::Display,
        read: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.converse(Answer::SmallDump, name, subject, read)
    }

    fn converse<T>(
        &mut self,
        kind: Answer,
        name: &'static str,
        subject: impl fmt::Display,
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let is_dump = kind != Answer::One;
        let room = if kind == Answer::Dump { DUMP_BYTES } else { ANSWER_BYTES };
        for tries_left in (0..DUMP_TRIES).rev() {
            self.room = room.max(self.room_seen);
            self.send()?;
            let mut found = Vec::new();
            match self.receive(&mut |message| found.extend(read(message.payload))) {
                Ok(Finished { interrupted, .. }) if is_dump && interrupted && tries_left > 0 => continue,
                Ok(Finished { refusal: None, .. }) => return Ok(found),
                // The kernel interrupts a dump by EINTR or, where our buffer was full, leaves a part out (ENOBUFS).
                Ok(Finished { refusal: Some((libc::EINTR | libc::ENOBUFS, _)), .. }) if is_dump && tries_left > 0 => {
                    continue;
                }
                Ok(Finished { refusal: Some((errno, reason)), .. }) => {
                    let kind = io::Error::from_raw_os_error(errno).kind();
                    let refused = Refused { request: name, subject: subject.to_string(), errno, reason };
                    return Err(io::Error::new(kind, refused));
                }
                Err(error) if is_dump && error.raw_os_error() == Some(libc::ENOBUFS) && tries_left > 0 => continue,
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    fn send(&mut self) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        if self.answer.len() < self.room {
            self.answer.resize(self.room, 0);
        }
        let datagram = self.request.finish(self.sequence);
        loop {
            match rustix::net::send(&self.socket, datagram, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Hands on every message of our answer until its end: an acknowledgement, a refusal, the end of a dump.
    fn receive(&mut self, take: &mut dyn FnMut(&Message<'_>)) -> io::Result<Finished> {
        let mut interrupted = false;
        loop {
            let length = match rustix::net::recv(&self.socket, &mut self.answer[..self.room], RecvFlags::TRUNC) {
                Ok((_, length)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if length > self.room {
                // The rest is lost. Make room, so that the next try fits.
                self.room_seen = length.next_power_of_two();
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            }
            // What an abandoned dump left in the queue carries another sequence number.
            let ours = codec::messages(&self.answer[..length]).filter(|message| message.sequence == self.sequence);
            for message in ours {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = codec::i32_at(message.payload, 0).unwrap_or(0);
                        let refusal = (code < 0).then(|| (code.saturating_neg(), codec::extended_ack(&message)));
                        return Ok(Finished { interrupted, refusal });
                    }
                    _ => take(&message),
                }
            }
        }
    }
}

struct Finished {
    interrupted: bool,
    refusal: Option<(i32, Option<String>)>,
}

fn enable(socket: &OwnedFd, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call; the descriptor is open.
    let ret = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
