//! A bounded log: a file, and the one before it.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use stapes_sys::socket;

/// A log `x.log` is turned into `x.log.old` when it has grown to this: both together are the history.
const LOG_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    /// `None`: not opened yet. A file made on a busy disk may take milliseconds, which a start does not wait for.
    written: Option<u64>,
}

impl Log {
    /// Begins anew, at the first words.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, written: None }
    }

    /// A log that cannot be written is no reason to stop an instance.
    pub fn open(path: PathBuf, keep: bool) -> Self {
        let file = File::options().create(true).append(true).open(&path).ok();
        if let (Some(file), false) = (&file, keep) {
            let _ = file.set_len(0);
        }
        let written = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        Self { path, file, written: Some(written) }
    }

    pub fn append(&mut self, bytes: &[u8]) {
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

/// What a program says, out of a pipe and into its log.
#[derive(Debug)]
pub struct Output {
    from: OwnedFd,
    log: Log,
}

impl Output {
    pub fn new(from: OwnedFd, path: PathBuf) -> io::Result<Self> {
        socket::set_nonblocking(from.as_fd())?;
        Ok(Self { from, log: Log::new(path) })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// Takes what is there, up to a measure; false when nobody can say anything any more.
    pub fn take(&mut self) -> bool {
        let mut buffer = [0; 4096];
        for _ in 0..32 {
            match rustix::io::read(&self.from, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.log.append(&buffer[..count]),
                Err(_) => break,
            }
        }
        true
    }
}
