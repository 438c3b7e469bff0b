//! Listening sockets handed over by whoever started us: a service manager, or the daemon that we replace.

use std::os::{
    fd::{FromRawFd, OwnedFd},
    unix::net::UnixListener,
};

/// First inherited descriptor of the protocol. Source: sd_listen_fds(3).
const FIRST: i32 = 3;

/// The inherited Unix listeners, when `LISTEN_PID` names this process. Call it once, early, before other descriptors are
/// opened; it takes them over.
pub fn inherited_listeners() -> Vec<UnixListener> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0).min(16)).unwrap_or(0);
    (FIRST..FIRST + count)
        .filter(|fd| rustix::io::fcntl_getfd(borrowed(*fd)).is_ok())
        .map(|fd| {
            // SAFETY: the protocol gives us these descriptors, the check above says that this one is open, and the
            // caller promises that nothing else of this process has taken them.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
            UnixListener::from(fd)
        })
        .collect()
}

fn borrowed(fd: i32) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: used only to ask the kernel whether the number is open; nothing is read through it.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}
