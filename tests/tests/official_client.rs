//! The official clients, unmodified, on our socket.
#![forbid(unsafe_code)]

use std::{fs, process::Stdio};

use serde_json::Value;
use stapes_testkit::{Daemon, Need, host_with};

const INCUS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox, Need::IncusClient];
const LXC: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox, Need::LxcClient];

#[test]
fn incus_launches_lists_and_deletes() {
    let Some(_host) = host_with(INCUS) else { return };
    let daemon = Daemon::start();
    daemon.incus(&["launch", "busybox", "c1"]).ok();
    daemon.await_boot("c1");
    let table = daemon.incus(&["list", "-f", "csv", "-c", "nst"]).ok();
    assert_eq!(table, "c1,RUNNING,CONTAINER\n");
    let json: Value = serde_json::from_str(&daemon.incus(&["list", "-f", "json"]).ok()).unwrap();
    assert_eq!(json[0]["name"], "c1");
    assert!(daemon.incus(&["info", "c1"]).ok().contains("Status: RUNNING"));
    daemon.incus(&["stop", "c1", "--force"]).ok();
    daemon.incus(&["start", "c1"]).ok();
    daemon.incus(&["restart", "c1", "--force"]).ok();
    daemon.incus(&["pause", "c1"]).ok();
    daemon.incus(&["resume", "c1"]).ok();
    daemon.incus(&["stop", "c1", "--timeout", "20"]).ok();
    daemon.incus(&["rename", "c1", "c2"]).ok();
    daemon.incus(&["delete", "c2"]).ok();
    assert_eq!(daemon.incus(&["list", "-f", "csv", "-c", "n"]).ok(), "");
}

#[test]
fn incus_executes_with_and_without_a_terminal() {
    let Some(_host) = host_with(INCUS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    assert_eq!(daemon.incus(&["exec", "c1", "--", "echo", "plain"]).ok(), "plain\n");
    assert_eq!(daemon.incus(&["exec", "c1", "--", "sh", "-c", "exit 9"]).code, 9);
    let tty = daemon.incus(&["exec", "-t", "c1", "--", "sh", "-c", "test -t 0 && echo terminal"]).ok();
    assert_eq!(tty.trim(), "terminal");
    let mut command = daemon.incus_command();
    command.args(["exec", "c1", "--", "wc", "-c"]).env("HOME", daemon.scratch());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &[b'x'; 100_000]).unwrap();
    assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).trim(), "100000");
}

#[test]
fn incus_pushes_and_pulls_files() {
    let Some(_host) = host_with(INCUS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let (from, to) = (daemon.scratch().join("from"), daemon.scratch().join("to"));
    fs::write(&from, "there and back").unwrap();
    daemon.incus(&["file", "push", "--mode", "0600", from.to_str().unwrap(), "c1/root/f"]).ok();
    assert_eq!(daemon.incus(&["exec", "c1", "--", "stat", "-c", "%a", "/root/f"]).ok(), "600\n");
    daemon.incus(&["file", "pull", "c1/root/f", to.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&to).unwrap(), "there and back");
    daemon.incus(&["file", "delete", "c1/root/f"]).ok();
    assert_ne!(daemon.incus(&["file", "pull", "c1/root/f", to.to_str().unwrap()]).code, 0);
}

#[test]
fn incus_edits_configuration() {
    let Some(_host) = host_with(INCUS) else { return };
    let daemon = Daemon::start();
    daemon.incus(&["init", "busybox", "c1"]).ok();
    daemon.incus(&["config", "set", "c1", "limits.memory=64MiB", "user.note=hi"]).ok();
    assert_eq!(daemon.incus(&["config", "get", "c1", "limits.memory"]).ok(), "64MiB\n");
    let shown = daemon.incus(&["config", "show", "c1"]).ok();
    assert!(shown.contains("user.note: hi"), "{shown}");
    let mut command = daemon.incus_command();
    command.args(["config", "edit", "c1"]).env("HOME", daemon.scratch());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let edited = shown.replace("user.note: hi", "user.note: edited");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), edited.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(daemon.incus(&["config", "get", "c1", "user.note"]).ok(), "edited\n");
    daemon.incus(&["config", "unset", "c1", "user.note"]).ok();
    assert_eq!(daemon.incus(&["config", "get", "c1", "user.note"]).ok(), "\n");
    let refused = daemon.incus(&["config", "set", "c1", "limits.memroy=1GiB"]);
    assert!(refused.code != 0 && refused.stderr.contains("limits.memroy"), "{}", refused.stderr);
}

#[test]
fn incus_shows_images_profiles_networks_and_pools() {
    let Some(_host) = host_with(INCUS) else { return };
    let daemon = Daemon::start();
    assert!(daemon.incus(&["image", "list", "-f", "csv"]).ok().contains("busybox"));
    assert!(daemon.incus(&["profile", "show", "default"]).ok().contains("stapesbr0"));
    assert!(daemon.incus(&["network", "list", "-f", "csv"]).ok().contains("stapesbr0"));
    assert!(daemon.incus(&["storage", "list", "-f", "csv"]).ok().contains("default"));
    assert!(daemon.incus(&["info"]).ok().contains("api_version: \"1.0\""));
}

#[test]
fn lxc_launches_executes_and_deletes() {
    let Some(_host) = host_with(LXC) else { return };
    let daemon = Daemon::start();
    daemon.lxc(&["launch", "busybox", "c1"]).ok();
    assert_eq!(daemon.lxc(&["list", "-f", "csv", "-c", "ns"]).ok(), "c1,RUNNING\n");
    assert_eq!(daemon.lxc(&["exec", "c1", "--", "echo", "hello"]).ok(), "hello\n");
    let file = daemon.scratch().join("f");
    fs::write(&file, "by lxc").unwrap();
    daemon.lxc(&["file", "push", file.to_str().unwrap(), "c1/root/f"]).ok();
    assert_eq!(daemon.lxc(&["exec", "c1", "--", "cat", "/root/f"]).ok(), "by lxc");
    daemon.lxc(&["delete", "-f", "c1"]).ok();
}
