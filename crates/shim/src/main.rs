//! `stapes-shim`: the parent of one instance, and the nursery that forks them.
//!
//! `stapes-shim --nursery DIR` listens on `DIR/nursery.sock`, goes into the background and exits; what stays is a
//! process of its own session that no daemon is the parent of. It forks a shim for each instance (a fork shares the
//! program's pages, an exec does not), and each shim an embryo: a child parked in the instance's control groups, from
//! which init and exec'd commands are cloned without the 10 ms that joining a group costs.
//!
//! Invariant: every process here has one thread. Nothing in the shim's loop blocks on the guest.
#![forbid(unsafe_code)]

mod console;
mod embryo;
mod events;
mod exec;
mod execs;
mod files;
mod helpers;
mod init;
mod instance;
mod launch;
mod links;
mod log;
mod mounts;
mod nursery;
mod program;
mod requests;
mod services;
mod shim;
mod start;
mod step;
mod wire;

use std::{path::Path, process::ExitCode};

use stapes_sys::process;

/// The one signal that is not at its default action here.
const SIGPIPE: i32 = 13;

fn main() -> ExitCode {
    // A panic ends the process instead of unwinding: a forked child must never run its parent's code further up.
    std::panic::set_hook(Box::new(|_| process::exit_now(101)));
    process::map_large_allocations();
    // Once here instead of in each child: whoever started the nursery may have ignored some.
    process::reset_signals(1..=64);
    process::ignore_signal(SIGPIPE);
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--nursery", run_dir] => match nursery::start(Path::new(run_dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("stapes-shim: failed to listen in {run_dir}: {error}");
                ExitCode::FAILURE
            }
        },
        [_, "--version"] => {
            println!("stapes-shim {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: stapes-shim --nursery DIR\n\nStarted by stapesd; there is nothing to run by hand.");
            ExitCode::from(2)
        }
    }
}
