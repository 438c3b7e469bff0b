//! The console: its history in a bounded file, and terminals of the daemon's that mirror it.
//!
//! Two readers of one pty master would steal each other's bytes. So only the shim reads it, and whoever looks on gets
//! a terminal of his own, whose far side the shim copies to and from.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{fs::OFlags, pty::OpenptFlags};
use stapes_sys::pty;

/// The log is turned into `console.log.old` when it has grown to this: both together are the history.
const LOG_BYTES: u64 = 64 * 1024;

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

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Option<File>,
    /// `None`: not opened yet. A file made on a busy disk may take milliseconds, which a start does not wait for.
    written: Option<u64>,
}

impl Log {
    /// A log that cannot be written is no reason to stop a container.
    fn open(path: PathBuf, keep: bool) -> Self {
        let file = File::options().create(true).append(true).open(&path).ok();
        if let (Some(file), false) = (&file, keep) {
            let _ = file.set_len(0);
        }
        let written = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        Self { path, file, written: Some(written) }
    }

    fn append(&mut self, bytes: &[u8]) {
        match self.written {
            Some(written) if written < LOG_BYTES => {}
            turned => {
                if turned.is_some() {
                    let _ = std::fs::rename(&self.path, self.path.with_extension("log.old"));
                }
                *self = Self::open(self.path.clone(), false);
            }
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(bytes);
            self.written = self.written.map(|written| written + bytes.len() as u64);
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

impl Console {
    /// `keep`: the log goes on instead of beginning anew.
    pub fn new(master: OwnedFd, slave: Option<OwnedFd>, log_dir: &str, keep: bool) -> io::Result<Self> {
        nonblocking(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = slave.or_else(|| rustix::pty::ioctl_tiocgptpeer(&master, flags).ok());
        let path = PathBuf::from(log_dir).join("console.log");
        let log = if keep { Log::open(path, true) } else { Log { path, file: None, written: None } };
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
        nonblocking(&pty.slave)?;
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
