//! Pseudo-terminals. See pty(7), ioctl_tty(2).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::OpenptFlags,
    termios::Winsize,
};

/// A master and its slave.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Makes a pty in the devpts whose multiplexer is the path `ptmx` of this process's root (`/dev/pts/ptmx`): inside a
/// container that is the container's own, so that its programs find their terminal by name.
pub fn open(ptmx: &str) -> io::Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open(ptmx, flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok(Pty { master, slave })
}

/// The number of the slave in its devpts: its name is `/dev/pts/<number>`. Source: `TIOCGPTN`.
pub fn number(master: BorrowedFd<'_>) -> io::Result<u32> {
    let mut number = 0u32;
    // SAFETY: the kernel writes one unsigned int.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// Makes `slave` the controlling terminal of this process, which must lead a session without one.
pub fn set_controlling(slave: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(slave)?)
}

/// Starts a session with `slave` as its controlling terminal and as standard input, output and error.
pub fn lead_session(slave: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::setsid()?;
    set_controlling(slave)?;
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    Ok(rustix::stdio::dup2_stderr(slave)?)
}

pub fn resize(pty: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    Ok(rustix::termios::tcsetwinsize(pty, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Columns and rows.
pub fn size(pty: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(pty)?;
    Ok((size.ws_col, size.ws_row))
}

/// Turns off echo and line editing: bytes pass as they are.
pub fn set_raw(slave: BorrowedFd<'_>) -> io::Result<()> {
    let mut modes = rustix::termios::tcgetattr(slave)?;
    modes.make_raw();
    Ok(rustix::termios::tcsetattr(slave, rustix::termios::OptionalActions::Now, &modes)?)
}
