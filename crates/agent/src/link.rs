//! The channel to the host: a virtio-serial port, or a Unix socket where there is none.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use stapes_agent_api::PORT_NAME;
use stapes_sys::vsock;

/// How often a channel is tried that is not there, or at whose other end nobody is.
const PAUSE: Duration = Duration::from_millis(150);

const PORTS: &str = "/sys/class/virtio-ports";

/// Where the host is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The port of our name.
    Port,
    Path(PathBuf),
    Unix(PathBuf),
    Vsock(u32),
}

impl Place {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once(':') {
            Some(("unix", path)) => Self::Unix(path.into()),
            Some(("vsock", port)) => Self::Vsock(port.parse().ok()?),
            _ => Self::Path(text.into()),
        })
    }

    fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Port => match open_port(&Path::new("/dev/virtio-ports").join(PORT_NAME)) {
                // No udev has made the link: ask the kernel for the device.
                Err(error) if error.kind() == io::ErrorKind::NotFound => open_port(&find_port()?),
                other => other,
            },
            Self::Path(path) => open_port(path),
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
            Self::Vsock(_) => Err(Errno::AGAIN.into()),
        }
    }
}

fn open_port(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn find_port() -> io::Result<PathBuf> {
    for port in fs::read_dir(PORTS)? {
        let port = port?;
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Ok(Path::new("/dev").join(port.file_name()));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    Nothing,
    /// The host has gone; another one may come.
    Gone,
}

#[derive(Debug)]
pub struct Link {
    place: Place,
    fd: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    /// Nobody is there, and nobody is looked for before.
    away_until: Option<Instant>,
}

impl Link {
    /// Fails only where waiting does not help.
    pub fn new(place: Place) -> io::Result<Self> {
        let listener = match place {
            Place::Vsock(port) => Some(vsock::listen(port)?),
            _ => None,
        };
        Ok(Self { place, fd: None, listener, away_until: None })
    }

    /// Opens what is not open, if it is time to.
    pub fn ensure(&mut self, now: Instant) {
        if self.away_until.is_some_and(|until| until > now) {
            return;
        }
        self.away_until = None;
        if self.fd.is_some() || self.listener.is_some() {
            return;
        }
        match self.place.open() {
            Ok(fd) => self.fd = Some(fd),
            Err(_) => self.away_until = Some(now + PAUSE),
        }
    }

    /// When to look again, where nothing else will tell.
    pub fn deadline(&self) -> Option<Instant> {
        self.away_until
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        if self.away_until.is_some() { None } else { self.fd.as_ref().map(AsFd::as_fd) }
    }

    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Takes a new connection in place of the one before; true if there was one.
    pub fn accept(&mut self) -> bool {
        let accepted = self.listener.as_ref().and_then(|listener| vsock::accept(listener.as_fd()).ok().flatten());
        let is_new = accepted.is_some();
        if is_new {
            (self.fd, self.away_until) = (accepted, None);
        }
        is_new
    }

    pub fn read(&mut self, buffer: &mut [u8], now: Instant) -> Read {
        let Some(fd) = &self.fd else { return Read::Nothing };
        match rustix::io::read(fd, buffer) {
            Ok(0) => self.gone(now, false),
            Ok(count) => Read::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Err(_) => self.gone(now, true),
        }
    }

    /// How much was taken; none when the channel is full or cut, which a read tells.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.fd.as_ref().and_then(|fd| rustix::io::write(fd, bytes).ok()).unwrap_or(0)
    }

    fn gone(&mut self, now: Instant, broken: bool) -> Read {
        // A port stays open while its host is away (reading 0 bytes), a socket does not come back.
        let is_port = matches!(self.place, Place::Port | Place::Path(_));
        if broken || !is_port {
            self.fd = None;
        }
        self.away_until = Some(now + PAUSE);
        Read::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_unless_it_names_a_kind_of_socket() {
        assert_eq!(Place::parse("/dev/vport1p1"), Some(Place::Path("/dev/vport1p1".into())));
        assert_eq!(Place::parse("unix:/run/x"), Some(Place::Unix("/run/x".into())));
        assert_eq!(Place::parse("vsock:8443"), Some(Place::Vsock(8443)));
        assert_eq!(Place::parse("vsock:x"), None);
    }
}
