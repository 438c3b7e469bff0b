//! The console: its history in a bounded file, and terminals of the daemon's that mirror it.
//!
//! Two readers of one pty master would steal each other's bytes. So only the shim reads it, and whoever looks on gets
//! a terminal of his own, whose far side the shim copies to and from.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::pty::OpenptFlags;
use stapes_sys::{pty, socket};

use crate::log::Log;

#[derive(Debug)]
pub struct Console {
    master: OwnedFd,
    /// Kept open so that the master does not read as hung up while no process inside has the terminal open.
    _slave: Option<OwnedFd>,
    log: Log,
    viewers: Vec<Viewer>,
}

#[derive(Debug)]
struct Viewer {
    slave: OwnedFd,
    size: (u16, u16),
}

impl Console {
    /// `keep`: the log goes on instead of beginning anew.
    pub fn new(master: OwnedFd, slave: Option<OwnedFd>, log_dir: &str, keep: bool) -> io::Result<Self> {
        socket::set_nonblocking(master.as_fd())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = slave.or_else(|| rustix::pty::ioctl_tiocgptpeer(&master, flags).ok());
        let path = PathBuf::from(log_dir).join("console.log");
        let log = if keep { Log::open(path, true) } else { Log::new(path) };
        Ok(Self { master, _slave: slave, log, viewers: Vec::new() })
    }

    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    pub fn viewers(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.viewers.iter().map(|viewer| viewer.slave.as_fd())
    }

    pub fn has_viewers(&self) -> bool {
        !self.viewers.is_empty()
    }

    /// A new terminal that mirrors the console; returns its master. It begins with the console's size.
    pub fn view(&mut self) -> io::Result<OwnedFd> {
        let pty = pty::open("/dev/ptmx")?;
        pty::set_raw(pty.slave.as_fd())?;
        let size = pty::size(self.master())?;
        pty::resize(pty.master.as_fd(), size.0, size.1)?;
        socket::set_nonblocking(pty.slave.as_fd())?;
        self.viewers.push(Viewer { slave: pty.slave, size });
        Ok(pty.master)
    }

    /// Copies what the container printed. A viewer that does not read loses output, which the log has.
    pub fn output(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => false,
            Ok(count) => {
                self.log.append(&buffer[..count]);
                for viewer in &self.viewers {
                    let _ = rustix::io::write(&viewer.slave, &buffer[..count]);
                }
                true
            }
            Err(_) => true,
        }
    }

    /// Copies what viewers typed, takes over a changed size of theirs, and forgets those that left.
    pub fn input(&mut self) {
        let master = self.master.as_fd();
        self.viewers.retain_mut(|viewer| {
            if let Ok(size) = pty::size(viewer.slave.as_fd())
                && size != viewer.size
            {
                viewer.size = size;
                let _ = pty::resize(master, size.0, size.1);
            }
            let mut buffer = [0; 1024];
            match rustix::io::read(&viewer.slave, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::IO) => false,
                Ok(count) => {
                    let _ = rustix::io::write(master, &buffer[..count]);
                    true
                }
                Err(_) => true,
            }
        });
    }

    /// Reads what is left after the end of the last process.
    pub fn drain(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..64 {
            match rustix::io::read(&self.master, &mut buffer) {
                Ok(count) if count > 0 => {
                    self.log.append(&buffer[..count]);
                    for viewer in &self.viewers {
                        let _ = rustix::io::write(&viewer.slave, &buffer[..count]);
                    }
                }
                _ => break,
            }
        }
    }
}
