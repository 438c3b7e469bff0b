//! The container that this shim holds.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use stapes_shim_api::{ExitReason, ExitStatus, Status};
use stapes_sys::process::Exit;

use crate::console::Console;

#[derive(Debug)]
pub struct Instance {
    pub status: Status,
    pub pidfd: OwnedFd,
    pub console: Option<Console>,
    /// Directory of the exec group in version 2.
    pub v2_exec: Option<OwnedFd>,
    /// Init is a child of this process; a replacement shim is not its parent.
    pub is_child: bool,
    /// Since when init is gone while its exit code is not known yet (replacement shims only).
    pub ended: Option<Instant>,
}

impl Instance {
    pub fn v2_exec(&self) -> Option<BorrowedFd<'_>> {
        self.v2_exec.as_ref().map(AsFd::as_fd)
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
