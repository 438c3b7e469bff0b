//! `stapes-agent`: what a virtual machine's host asks it to do inside.
//!
//! One process with one thread and one loop serves the host's channel and the commands; what a file system can stall is
//! done by a process beside it ([`helper`]). A command's process is a fork of the first, which is small.
//!
//! It also starts under the names and in the directories that the loaders of Incus's and LXD's images give their agents.
//!
//! Invariant: [`session`] does no I/O, and what comes over the channel is hostile until the host has proved its key.
#![forbid(unsafe_code)]

mod agent;
mod exec;
mod execs;
mod helper;
mod identity;
mod introduction;
mod link;
mod mounts;
mod outbox;
mod power;
mod session;
mod state;
mod worker;

use std::{io, path::PathBuf, process::ExitCode};

use link::{Link, Place};
use stapes_agent_api::INTRODUCTION_FILE;
use stapes_sys::process;

const USAGE: &str = "usage: stapes-agent [--port PATH|unix:PATH|vsock:PORT] [--key PATH]

Serves the host of this virtual machine over its virtio-serial port org.stapes.agent. The key is the
file agent.key beside this program or in the working directory. Started by the guest's init.";

struct Arguments {
    place: Place,
    key: Option<PathBuf>,
}

fn main() -> ExitCode {
    // A panic ends the process instead of unwinding: a forked child must never run its parent's code further up.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("stapes-agent: {panic}");
        process::exit_now(101)
    }));
    process::keep_heap_small();
    process::ignore_signal(rustix::process::Signal::PIPE.as_raw());
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--version") {
        println!("stapes-agent {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = parse(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let Err(error) = serve(arguments);
    eprintln!("stapes-agent: {error}");
    ExitCode::FAILURE
}

/// Under another agent's name, its arguments mean nothing here.
fn parse(words: &[String]) -> Option<Arguments> {
    let mut arguments = Arguments { place: Place::Port, key: None };
    let name = words.first().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
    if matches!(name, "incus-agent" | "lxd-agent") {
        return Some(arguments);
    }
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--port" => arguments.place = Place::parse(rest.next()?)?,
            "--key" => arguments.key = Some(rest.next()?.into()),
            _ => return None,
        }
    }
    Some(arguments)
}

fn serve(arguments: Arguments) -> io::Result<std::convert::Infallible> {
    // Where a key is named, the host brought nothing.
    if arguments.key.is_none() {
        introduction::follow(&identity::brought(INTRODUCTION_FILE));
    }
    let key = identity::key(arguments.key)?;
    let session = session::Session::new(key, identity::identity(), identity::nonce);
    let mut agent = agent::Agent::new(Link::new(arguments.place)?, session)?;
    identity::notify_ready();
    agent.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Option<Arguments> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn under_another_agents_name_its_arguments_are_ignored() {
        assert!(parsed(&["/run/incus_agent/incus-agent", "--secrets-location", "/x"]).is_some());
        assert!(parsed(&["./stapes-agent", "--secrets-location", "/x"]).is_none());
    }

    #[test]
    fn a_port_and_a_key_can_be_named() {
        let arguments = parsed(&["stapes-agent", "--port", "unix:/a", "--key", "/k"]).unwrap();
        assert_eq!((arguments.place, arguments.key), (Place::Unix("/a".into()), Some("/k".into())));
        assert!(parsed(&["stapes-agent", "--port"]).is_none());
    }
}
