//! The official clients, unmodified, on our socket.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Stdio,
};

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
    let missing = daemon.incus(&["file", "pull", "nobody/root/f", to.to_str().unwrap()]);
    assert!(missing.code != 0 && missing.stderr.contains("not found"), "{}", missing.stderr);
}

/// What every `file` command must do, in the instance `c1` in whatever state.
fn file_commands(daemon: &Daemon) {
    let scratch = |name: &str| daemon.scratch().join(name).to_str().unwrap().to_owned();
    let file = |args: &[&str]| daemon.incus(&[&["file"], args].concat());
    let owner_and_mode = |path: &str| {
        let answer = daemon.api().raw("HEAD", &format!("/1.0/instances/c1/files?path={path}"), &[], &[]).unwrap();
        let header = |name| answer.header(name).unwrap_or_default().to_owned();
        [header("x-incus-uid"), header("x-incus-gid"), header("x-incus-mode"), header("x-incus-type")].join(" ")
    };

    // A tree with a symlink, modes, an empty file and one of more than a packet.
    let tree = daemon.scratch().join("tree");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    let content: Vec<u8> = (0..1_500_001_u32).map(|n| (n % 251) as u8).collect();
    fs::write(tree.join("deep/big"), &content).unwrap();
    fs::write(tree.join("deep/er/empty"), "").unwrap();
    fs::write(tree.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("script"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("deep/big", tree.join("link")).unwrap();
    for number in 0..150 {
        fs::write(tree.join(format!("deep/er/n{number:03}")), number.to_string()).unwrap();
    }
    file(&["push", "-r", "-p", &scratch("tree"), "c1/srv/pushed/"]).ok();
    assert_eq!(owner_and_mode("/srv/pushed/tree/script"), "0 0 0750 file");
    assert_eq!(owner_and_mode("/srv/pushed/tree/link"), "0 0 0777 symlink");
    let _ = fs::remove_dir_all(daemon.scratch().join("back"));
    fs::create_dir(daemon.scratch().join("back")).unwrap();
    file(&["pull", "-r", "c1/srv/pushed/tree", &scratch("back")]).ok();
    let back = daemon.scratch().join("back/tree");
    assert!(fs::read(back.join("deep/big")).unwrap() == content, "what was pushed comes back");
    assert_eq!(fs::read_link(back.join("link")).unwrap().to_str(), Some("deep/big"));
    assert_eq!(fs::metadata(back.join("script")).unwrap().mode() & 0o777, 0o750);
    assert_eq!(fs::read_dir(back.join("deep/er")).unwrap().count(), 151);

    // Through the symlink, with owner and mode, and over itself.
    file(&["push", "--uid", "1000", "--gid", "50", "--mode", "0640", &scratch("tree/script"), "c1/srv/own"]).ok();
    assert_eq!(owner_and_mode("/srv/own"), "1000 50 0640 file");
    file(&["push", &scratch("tree/script"), "c1/srv/pushed/tree/link"]).ok();
    assert_eq!(file(&["pull", "c1/srv/pushed/tree/deep/big", "-"]).ok(), "#!/bin/sh\n");

    file(&["create", "--type", "directory", "-p", "c1/srv/a/b"]).ok();
    file(&["create", "--mode", "0600", "c1/srv/a/b/f"]).ok();
    file(&["create", "--type", "symlink", "c1/srv/a/l", "b/f"]).ok();
    assert_eq!(owner_and_mode("/srv/a/b/f"), "0 0 0600 file");
    let mut command = daemon.incus_command();
    command.args(["file", "edit", "c1/srv/a/b/f"]).env("HOME", daemon.scratch());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"edited").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(file(&["pull", "c1/srv/a/b/f", "-"]).ok(), "edited");
    assert_eq!(owner_and_mode("/srv/a/l"), "0 0 0777 symlink");
    assert_eq!(owner_and_mode("/srv/a/b/f"), "0 0 0600 file");

    assert_ne!(file(&["delete", "c1/srv/a"]).code, 0, "a directory with something in it stays");
    file(&["delete", "c1/srv/a/l"]).ok();
    file(&["delete", "-f", "c1/srv"]).ok();
    let gone = file(&["pull", "c1/srv/own", "-"]);
    assert!(gone.code != 0 && gone.stderr.contains("does not exist"), "{}", gone.stderr);
}

#[test]
fn incus_file_commands_work_on_running_and_stopped_instances() {
    let Some(_host) = host_with(INCUS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    file_commands(&daemon);
    daemon.incus(&["stop", "c1", "--force"]).ok();
    file_commands(&daemon);
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
