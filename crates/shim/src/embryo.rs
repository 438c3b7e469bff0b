//! The embryo: a child of the shim that is parked in control groups and only clones.
//!
//! A process born in a group costs nothing extra; one that joins later waits 7 to 10 ms for the kernel, and holds up
//! every fork of the host meanwhile. So one child joins ahead of time, and init and exec'd commands are cloned from it,
//! as siblings of its own (`CLONE_PARENT`), so that the shim is their parent. It outlives the instance and serves the
//! next one, so that in the long run nothing joins. Its commands are a few bytes by hand instead of JSON: it touches as
//! little memory as it can, because there is one for each instance.
//!
//! The nursery keeps one too, which joins nothing and clones shims: memory that it never writes is shared by all of them,
//! while the nursery's changes from one fork to the next.
//!
//! It sits in the guest's own groups of version 1, whose files list only processes that the reader's pid namespace has:
//! the guest does not see it and cannot move it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use stapes_sys::{
    namespace,
    process::{self, CloneSpec, Cloned, Forked},
    socket,
};

use crate::{exec, init, program, shim};

const INIT: u8 = b'I';
const PROGRAM: u8 = b'P';
const EXEC: u8 = b'X';
const ENTER: u8 = b'N';
const LEAVE: u8 = b'L';
const SHIM: u8 = b'S';
const HEAD: usize = 32;
/// The ticket of a birth that is waited for; 0 is the embryo's own word.
const TOLD: u64 = 1;

/// Descriptors that come with a command, in the order in which they were sent.
type Fds = [Option<OwnedFd>; socket::FEW_DESCRIPTORS];

/// The shim's side.
#[derive(Debug)]
pub struct Embryo {
    pub socket: OwnedFd,
    pub pid: i32,
}

/// What an instance begins with.
#[derive(Debug, Clone, Copy)]
pub enum First {
    /// The init of a container.
    Init,
    /// A program of the host's.
    Program,
}

/// What the embryo cloned. `ticket` is the caller's.
#[derive(Debug)]
pub struct Born {
    pub ticket: u64,
    pub child: io::Result<(i32, OwnedFd)>,
}

/// A fixed head: command, whether a v2 directory comes along, ticket, clone flags, effective uid.
fn head(command: u8, v2: bool, ticket: u64, flags: u64, euid: u32) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[0] = command;
    bytes[1] = u8::from(v2);
    bytes[8..16].copy_from_slice(&ticket.to_le_bytes());
    bytes[16..24].copy_from_slice(&flags.to_le_bytes());
    bytes[24..28].copy_from_slice(&euid.to_le_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

impl Embryo {
    /// Forks one that writes itself into the `join` files first.
    pub fn fork(join: &[String]) -> io::Result<Self> {
        let (ours, theirs) = socket::seqpacket_pair()?;
        match process::fork()? {
            Forked::Parent { pid } => Ok(Self { socket: ours, pid }),
            Forked::Child => {
                let _ = process::close_all_but(&[theirs.as_raw_fd()]);
                let _ = rustix::thread::set_name(c"stapes-embryo");
                run(&theirs, join)
            }
        }
    }

    /// Waits until it is in its groups, or until it has [left](Self::leave).
    pub fn wait_ready(&self) -> io::Result<()> {
        loop {
            return match self.next_born(true)? {
                // A command that was given up before its birth was told.
                Some(Born { ticket, .. }) if ticket != 0 => continue,
                Some(Born { child: Ok(_), .. }) => Ok(()),
                Some(Born { child: Err(error), .. }) if error.raw_os_error() == Some(0) => Ok(()),
                Some(Born { child: Err(error), .. }) => Err(error),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            };
        }
    }

    /// Clones the instance's first process; it talks to whoever holds the other end of `channel`. `euid` owns the new user
    /// namespace.
    pub fn clone_first(
        &self,
        first: First,
        channel: BorrowedFd<'_>,
        v2: Option<BorrowedFd<'_>>,
        flags: u64,
        euid: u32,
    ) -> io::Result<()> {
        let fds: Vec<_> = [Some(channel), v2].into_iter().flatten().collect();
        let command = match first {
            First::Init => INIT,
            First::Program => PROGRAM,
        };
        socket::send(self.socket.as_fd(), &head(command, v2.is_some(), 0, flags, euid), &fds, false)
    }

    /// Later clones live in the pid namespace of `init`.
    pub fn enter(&self, init: BorrowedFd<'_>) -> io::Result<()> {
        socket::send(self.socket.as_fd(), &head(ENTER, false, 0, 0, 0), &[init], false)
    }

    /// Later clones live in its own pid namespace again. It answers: see [`wait_ready`](Self::wait_ready).
    pub fn leave(&self) -> io::Result<()> {
        socket::send(self.socket.as_fd(), &head(LEAVE, false, 0, 0, 0), &[], false)
    }

    /// Clones a command's process; `stdio` is empty or three.
    pub fn clone_exec(
        &self,
        ticket: u64,
        channel: BorrowedFd<'_>,
        init: BorrowedFd<'_>,
        v2: Option<BorrowedFd<'_>>,
        stdio: &[OwnedFd],
    ) -> io::Result<()> {
        let mut fds = vec![channel, init];
        fds.extend(v2);
        fds.extend(stdio.iter().map(AsFd::as_fd));
        socket::send(self.socket.as_fd(), &head(EXEC, v2.is_some(), ticket, 0, 0), &fds, false)
    }

    /// Clones a shim, which serves `control`; it reads the files that its own embryo joins from `join`, a line each.
    pub fn clone_shim(&self, control: BorrowedFd<'_>, join: BorrowedFd<'_>) -> io::Result<()> {
        socket::send(self.socket.as_fd(), &head(SHIM, false, TOLD, 0, 0), &[control, join], false)
    }

    /// The next birth; `None` when the embryo is gone.
    pub fn next_born(&self, wait: bool) -> io::Result<Option<Born>> {
        let Some(mut datagram) = socket::receive(self.socket.as_fd(), 64, wait)? else { return Ok(None) };
        if datagram.bytes.len() < 24 {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let (errno, pid) = (word(&datagram.bytes, 8) as i32, word(&datagram.bytes, 16) as i32);
        let child = match datagram.fds.pop() {
            Some(pidfd) if errno == 0 => Ok((pid, pidfd)),
            _ => Err(io::Error::from_raw_os_error(errno)),
        };
        Ok(Some(Born { ticket: word(&datagram.bytes, 0), child }))
    }
}

fn run(socket: &OwnedFd, join: &[String]) -> ! {
    let joined = join.iter().try_for_each(|path| std::fs::write(path, "0"));
    if tell_ready(socket, joined).is_err() {
        process::exit_now(1);
    }
    loop {
        let (mut bytes, mut fds) = ([0; HEAD], Fds::default());
        if !socket::receive_small(socket.as_fd(), &mut bytes, &mut fds).is_ok_and(|count| count == HEAD) {
            break;
        }
        let ticket = word(&bytes, 8);
        let result = match bytes[0] {
            INIT => serve_first(&bytes, fds, init::run),
            PROGRAM => serve_first(&bytes, fds, program::run),
            EXEC => serve_exec(&bytes, fds),
            SHIM => serve_shim(fds),
            ENTER => {
                if let Some(init) = &fds[0] {
                    let _ = namespace::setns(init.as_fd(), namespace::NEWPID);
                }
                continue;
            }
            LEAVE => {
                let left = namespace::open_own("pid").and_then(|own| namespace::setns(own.as_fd(), namespace::NEWPID));
                if tell_ready(socket, left).is_err() {
                    break;
                }
                continue;
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        let told = match &result {
            Ok((pid, pidfd)) => socket::send(socket.as_fd(), &reply(ticket, 0, *pid), &[pidfd.as_fd()], true),
            Err(error) => tell(socket, ticket, error.raw_os_error().unwrap_or(22)),
        };
        if told.is_err() {
            break;
        }
    }
    process::exit_now(0)
}

/// Ticket 0 tells that it is ready, or why not; error 0 without a pidfd is success.
fn tell_ready(socket: &OwnedFd, result: io::Result<()>) -> io::Result<()> {
    tell(socket, 0, result.map_or_else(|error| error.raw_os_error().unwrap_or(22), |()| 0))
}

fn tell(socket: &OwnedFd, ticket: u64, errno: i32) -> io::Result<()> {
    socket::send(socket.as_fd(), &reply(ticket, errno, 0), &[], true)
}

fn reply(ticket: u64, errno: i32, pid: i32) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (place, word) in bytes.chunks_exact_mut(8).zip([ticket, errno as u64, pid as u64]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn serve_first(bytes: &[u8], [channel, v2, ..]: Fds, first: fn(OwnedFd) -> !) -> io::Result<(i32, OwnedFd)> {
    let euid = word(bytes, 24) as u32;
    let channel = channel.ok_or(io::ErrorKind::InvalidInput)?;
    let flags = word(bytes, 16);
    if flags & namespace::NEWUSER != 0 {
        // The namespace belongs to whoever's effective id makes it, and with it quotas such as inotify's. Capabilities
        // survive the change of id with this bit; the kernel resets it inside the new namespace.
        rustix::thread::set_capabilities_secure_bits(rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
        process::set_effective_uid(euid)?;
    }
    let spec = CloneSpec { flags: flags | namespace::CLONE_PARENT, cgroup: v2.as_ref().map(AsFd::as_fd) };
    let cloned = process::clone3(&spec);
    if let Ok(Cloned::Child) = cloned {
        first(channel);
    }
    if flags & namespace::NEWUSER != 0 {
        process::set_effective_uid(0)?;
    }
    match cloned? {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => process::exit_now(1),
    }
}

fn serve_shim([control, join, ..]: Fds) -> io::Result<(i32, OwnedFd)> {
    let (Some(control), Some(join)) = (control, join) else { return Err(io::ErrorKind::InvalidInput.into()) };
    match process::clone3(&CloneSpec { flags: namespace::CLONE_PARENT, cgroup: None })? {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => {
            let _ = process::close_all_but(&[control.as_raw_fd(), join.as_raw_fd()]);
            let _ = rustix::process::setsid();
            let text = io::read_to_string(std::fs::File::from(join)).unwrap_or_default();
            let join: Vec<String> = text.lines().map(str::to_owned).collect();
            shim::run(control, &join)
        }
    }
}

fn serve_exec(bytes: &[u8], fds: Fds) -> io::Result<(i32, OwnedFd)> {
    let mut fds = fds.into_iter().flatten();
    let (Some(channel), Some(init)) = (fds.next(), fds.next()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let v2 = if bytes[1] == 1 { fds.next() } else { None };
    let spec = CloneSpec { flags: namespace::CLONE_PARENT, cgroup: v2.as_ref().map(AsFd::as_fd) };
    match process::clone3(&spec)? {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => {
            drop(v2);
            exec::run(channel, init, fds.collect())
        }
    }
}
