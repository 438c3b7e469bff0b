//! Ending the guest's run, and its clock.

use std::{io, path::Path, time::Duration};

use rustix::{
    system::RebootCommand,
    time::{ClockId, Timespec, clock_settime},
};
use stapes_agent_api::PowerAction;
use stapes_sys::{
    exec::Exec,
    process::{self, Forked},
};

/// systemd's own signals for the two; see systemd(1), SIGNALS. The first real-time signal that programs have is 34.
const POWER_OFF_SIGNAL: i32 = 34 + 4;
const REBOOT_SIGNAL: i32 = 34 + 5;

/// Asks init, and the kernel if init cannot be asked, in a process of its own: programs and disks may take their time.
pub fn power(action: PowerAction) -> io::Result<()> {
    match process::fork()? {
        Forked::Parent { .. } => Ok(()),
        Forked::Child => {
            process::reset_signals(1..=64);
            process::exit_now(i32::from(end(action).is_err()))
        }
    }
}

fn end(action: PowerAction) -> io::Result<()> {
    let (signal, programs, command) = match action {
        PowerAction::Off => (POWER_OFF_SIGNAL, ["/sbin/poweroff", "/usr/sbin/poweroff"], RebootCommand::PowerOff),
        PowerAction::Reboot => (REBOOT_SIGNAL, ["/sbin/reboot", "/usr/sbin/reboot"], RebootCommand::Restart),
    };
    // The directory is there when systemd is init; see sd_booted(3).
    if Path::new("/run/systemd/system").is_dir() && process::kill(1, signal).is_ok() {
        return Ok(());
    }
    for program in programs {
        if Exec::new(program).patience(Duration::from_secs(30)).run().is_ok() {
            return Ok(());
        }
    }
    rustix::fs::sync();
    Ok(rustix::system::reboot(command)?)
}

pub fn set_time(nanoseconds: i64) -> io::Result<()> {
    let (tv_sec, tv_nsec) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    Ok(clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec })?)
}
