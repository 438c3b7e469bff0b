//! The virtual machine beside the container.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Place, ensure_running, ipv4, text};
use crate::shell::{self, Step, run};

pub const NAME: &str = "v1";

/// From the first instruction to an agent that answers: some 5 s with KVM, and a minute where another program is the
/// processor and nobody else works.
const BOOT: Duration = Duration::from_secs(600);
/// An address comes seconds after the agent.
const NETWORK: Duration = Duration::from_secs(180);
/// How much of a log explains a failure.
const LINES: usize = 15;

/// Launches it, waits for its agent, and runs a command in it.
pub fn show(place: &Place) -> Result<()> {
    accelerator(place)?;
    let boots = launch(place).and_then(|()| wait_for_agent(place)).and_then(|()| look_inside(place));
    boots.map_err(|error| {
        let what = format!("the virtual machine {NAME} does not run; the container does. `--no-vm` leaves it out");
        let told = log(place);
        if told.is_empty() { error.context(what) } else { error.context(format!("{what}. Its log ends:\n{told}")) }
    })
}

/// Says who will be the machine's processor, and what that means.
fn accelerator(place: &Place) -> Result<()> {
    let server = place.api.get("/1.0")?;
    let found = text(&server["environment"]["kernel_features"]["vm_accelerator"]).to_owned();
    println!("==> A virtual machine of the same Debian");
    if found.starts_with("kvm") {
        println!("    KVM runs guests here: it boots in seconds");
    } else {
        println!("    this machine has no KVM that can be used, so QEMU emulates a processor, some ten times slower:");
        println!("    the boot takes about a minute ({found})");
    }
    Ok(())
}

fn launch(place: &Place) -> Result<()> {
    let first = "the first launch adds a kernel to the container's root and makes a disk of it, some 30 s";
    ensure_running(place, NAME, &["--vm"], first)
}

fn wait_for_agent(place: &Place) -> Result<()> {
    let step = Step::begin("Waiting for its agent, which starts early in its boot");
    let end = Instant::now() + BOOT;
    loop {
        let instance = place.api.get(&format!("/1.0/instances/{NAME}"))?;
        if instance["status"] != "Running" {
            bail!("it is {} while it should boot", text(&instance["status"]));
        }
        if place.exec_in(NAME, &["true"]).is_ok_and(|(code, _)| code == 0) {
            step.done("it answers");
            return Ok(());
        }
        if Instant::now() > end {
            bail!("its agent does not answer after {} s", BOOT.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn look_inside(place: &Place) -> Result<()> {
    println!("==> stapes exec {NAME} -- uname -nr   (its own name, and a kernel of its own)");
    run(&mut place.stapes(&["exec", NAME, "--", "uname", "-nr"]))?;
    let step = Step::begin("Waiting for its address");
    let end = Instant::now() + NETWORK;
    loop {
        if let Some(address) = address(place)? {
            step.done(&format!("address {address}"));
            return Ok(());
        }
        if Instant::now() > end {
            bail!("it has no address after {} s", NETWORK.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn address(place: &Place) -> Result<Option<String>> {
    let state = place.api.get(&format!("/1.0/instances/{NAME}/state")).context("its state")?;
    Ok(ipv4(&state))
}

/// The ends of what its console and QEMU said.
fn log(place: &Place) -> String {
    let said = [&["console", NAME, "--show-log"][..], &["info", NAME, "--show-log"]];
    let said = said.into_iter().filter_map(|words| shell::output(&mut place.stapes(words)).ok());
    let ends = said.map(|text| {
        let text = plain(&text);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    });
    ends.filter(|end| !end.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Without what colours text and moves the cursor: firmware and boot loaders draw (ECMA-48, 5.4).
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' if letters.next() == Some('[') => {
                letters.find(|letter| ('@'..='~').contains(letter));
            }
            '\x1b' => {}
            letter if letter == '\n' || !letter.is_control() => plain.push(letter),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_without_its_colours() {
        assert_eq!(plain("\x1b[0;32m  OK  \x1b[0m done\r\n\x1b(B\x1b["), "  OK   done\nB");
    }
}
