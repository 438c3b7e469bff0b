//! Sockets of a virtual machine in its run directory. QEMU is born with the listening ends, so that it needs no path and no
//! right; who connects is the daemon, and after its death the next one.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use stapes_sys::socket;

/// Of the monitor that is asked, the one that is listened to, and the agent's port.
pub const SOCKETS: [&str; 3] = ["qmp.sock", "qmp-events.sock", "agent.sock"];

/// A listening end and the first connection to it, which waits until QEMU takes it.
pub struct Channel {
    pub theirs: OwnedFd,
    pub ours: UnixStream,
}

/// The path of `name` in an open directory: one of any length fits the 107 bytes of an address this way.
fn address(dir: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

/// Makes the socket `name`, in the place of an earlier run's.
pub fn make(run_dir: &Path, name: &str) -> io::Result<Channel> {
    let dir = socket::open_directory(run_dir)?;
    match rustix::fs::unlinkat(&dir, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let theirs = UnixListener::bind(address(&dir, name))?.into();
    Ok(Channel { theirs, ours: UnixStream::connect(address(&dir, name))? })
}

/// Connects to a machine that runs; an error where none does.
pub fn connect(run_dir: &Path, name: &str) -> io::Result<UnixStream> {
    let dir = socket::open_directory(run_dir)?;
    UnixStream::connect(address(&dir, name))
}
