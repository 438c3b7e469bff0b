//! The container, or the program in its place, that this shim holds.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use stapes_shim_api::{ExitReason, ExitStatus, Status};
use stapes_sys::process::Exit;

use crate::{console::Console, log::Output};

#[derive(Debug)]
pub struct Instance {
    pub status: Status,
    pub pidfd: OwnedFd,
    pub console: Option<Console>,
    /// What a program says; a container says it on its console.
    pub output: Option<Output>,
    /// Where commands go in version 2.
    pub v2: Option<V2Groups>,
    /// Init is a child of this process; a replacement shim is not its parent.
    pub is_child: bool,
    /// Since when init is gone while its exit code is not known yet (replacement shims only).
    pub ended: Option<Instant>,
}

/// Directories of the container's groups in version 2.
#[derive(Debug)]
pub struct V2Groups {
    pub payload: OwnedFd,
    /// Within the payload, but not the guest's: it cannot enable controllers there, which would keep commands out.
    exec: OwnedFd,
}

impl V2Groups {
    /// Takes the last two of a message's descriptors.
    pub fn from_last(fds: &mut Vec<OwnedFd>) -> Option<Self> {
        let exec = fds.pop()?;
        Some(Self { payload: fds.pop()?, exec })
    }

    /// The group that a command is born in. The guest owns the group around it and may have removed it: then there is
    /// another.
    pub fn exec(&mut self) -> Option<BorrowedFd<'_>> {
        if !self.lives() {
            self.exec = self.make_exec().ok()?;
        }
        Some(self.exec.as_fd())
    }

    fn lives(&self) -> bool {
        let file = rustix::fs::statat(&self.exec, "cgroup.procs", rustix::fs::AtFlags::empty());
        file.is_ok_and(|file| file.st_uid == rustix::process::geteuid().as_raw())
    }

    /// Under the first name that is free or ours: the guest may have taken some.
    fn make_exec(&self) -> std::io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        const NAMES: u32 = 16;
        for number in 0..NAMES {
            let name = if number == 0 { ".stapes".to_owned() } else { format!(".stapes-{number}") };
            match rustix::fs::mkdirat(&self.payload, &*name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&self.payload, &*name, flags, Mode::empty())?;
            if rustix::fs::fstat(&made)?.st_uid == rustix::process::geteuid().as_raw() {
                return Ok(made);
            }
        }
        Err(rustix::io::Errno::BUSY.into())
    }
}

/// A pid namespace reports reboot(2) of its init as a signal: SIGHUP for a restart, SIGINT for halt or power-off.
/// Source: pid_namespaces(7).
pub fn reason(status: ExitStatus) -> ExitReason {
    match status {
        ExitStatus::Signal(1) => ExitReason::Reboot,
        ExitStatus::Signal(2) | ExitStatus::Code(_) => ExitReason::Halt,
        ExitStatus::Signal(_) | ExitStatus::Unknown => ExitReason::Killed,
    }
}

pub fn exit_status(exit: Exit) -> ExitStatus {
    match exit {
        Exit::Code(code) => ExitStatus::Code(code),
        Exit::Signal(signal) => ExitStatus::Signal(signal),
    }
}

/// The signal that asks this init to power off, by what its resolved path is named.
pub fn shutdown_signal(init: &str) -> i32 {
    const SIGINT: i32 = 2;
    const SIGUSR2: i32 = 12;
    const SIGTERM: i32 = 15;
    const SIGPWR: i32 = 30;
    /// SIGRTMIN+3 as the kernel and systemd count, where the C library's first two are its own.
    const SIGRTMIN_3: i32 = 37;
    let name = init.rsplit('/').next().unwrap_or_default();
    match name {
        "systemd" => SIGRTMIN_3,
        "busybox" => SIGUSR2,
        "openrc-init" => SIGINT,
        "runit-init" | "runit" => 18,
        "dumb-init" | "tini" | "catatonit" | "s6-svscan" => SIGTERM,
        _ => SIGPWR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_init_gets_the_signal_it_powers_off_on() {
        assert_eq!(shutdown_signal("/lib/systemd/systemd"), 37);
        assert_eq!(shutdown_signal("/bin/busybox"), 12);
        assert_eq!(shutdown_signal("/sbin/init"), 30);
    }

    #[test]
    fn a_reboot_from_inside_is_told_from_a_kill() {
        assert_eq!(reason(ExitStatus::Signal(1)), ExitReason::Reboot);
        assert_eq!(reason(ExitStatus::Signal(2)), ExitReason::Halt);
        assert_eq!(reason(ExitStatus::Signal(9)), ExitReason::Killed);
        assert_eq!(reason(ExitStatus::Code(0)), ExitReason::Halt);
    }
}
