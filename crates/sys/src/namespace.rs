//! Joining namespaces and mapping ids. See namespaces(7), user_namespaces(7), setns(2).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags};

pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;
/// Not a namespace: the new process is the caller's sibling instead of its child.
pub const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;

/// Joins namespaces: `fd` is a namespace file with at most its own flag, or a pidfd with any set of them (Linux 5.8).
/// For a single-threaded process; `NEWPID` concerns later children only.
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    // SAFETY: plain integers. Only joining changes, no memory of ours.
    let ret = unsafe { libc::setns(fd.as_raw_fd(), flags as libc::c_int) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a namespace of a process (`user`, `net`, `mnt`, …). The caller makes sure that `pid` cannot be reused, by being
/// its parent or holding its pidfd and asking it afterwards.
pub fn open(pid: i32, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(format!("/proc/{pid}/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a namespace of this process itself.
pub fn open_own(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(format!("/proc/self/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Maps ids 0 to `size` of the user namespace of `pid` to `base` and up, for users and groups alike.
pub fn write_id_maps(pid: i32, base: u32, size: u32) -> io::Result<()> {
    let map = format!("0 {base} {size}\n");
    std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &map)
}
