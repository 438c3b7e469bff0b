//! Virtual machines through the daemon: the same commands, the same API, beside containers. QEMU is real, KVM or not.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use stapes_image::{
    ImageFiles,
    build::{self, BuildSpec},
};
use stapes_model::InstanceType;
use stapes_testkit::{Daemon, Need, eventually, host_with};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Programs,
    Need::StaticBusybox,
    Need::DebianArchive,
    Need::Tool("qemu-img"),
    Need::Tool("sfdisk"),
    Need::Tool("mkfs.vfat"),
    Need::Tool("mcopy"),
    Need::Tool("qemu-system-x86_64"),
    Need::File("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "ovmf"),
    Need::File("/dev/net/tun", "a kernel with tun"),
];

/// A guest boots in 12 s without KVM where nobody else works, and other tests may have every processor.
const BOOT: Duration = Duration::from_secs(600);

/// Built once per target directory.
fn image() -> ImageFiles {
    let cache_dir = stapes_testkit::binaries_dir().join("test-images");
    let spec = BuildSpec {
        release: String::new(),
        arch: "amd64".into(),
        kind: InstanceType::VirtualMachine,
        variant: String::new(),
        work_dir: cache_dir.join("work"),
        cache_dir,
        refresh: false,
    };
    build::busybox(&spec, &mut |_| {}).unwrap()
}

/// A daemon with an image of each type: `busybox` and `machine`.
fn daemon() -> Daemon {
    let files = image();
    let daemon = Daemon::start();
    let part = |path: Option<PathBuf>| path.unwrap().to_str().unwrap().to_owned();
    let (meta, disk) = (part(Some(files.meta)), part(files.rootfs));
    daemon.stapes(&["image", "import", &meta, &disk, "--alias", "machine"]).ok();
    daemon
}

/// Waits until the agent runs a command.
fn await_agent(daemon: &Daemon, name: &str) {
    eventually("the agent answers", BOOT, || {
        assert_eq!(daemon.status_of(name), "Running", "{}", daemon.stapes(&["console", name, "--show-log"]).stdout);
        daemon.api().exec(name, &["true"]).is_ok_and(|(code, ..)| code == 0)
    });
}

fn state(daemon: &Daemon, name: &str) -> Value {
    daemon.api().get(&format!("/1.0/instances/{name}/state")).unwrap()
}

#[test]
fn a_machine_is_an_instance_like_any_other() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = daemon();
    daemon.launch("c1");
    daemon.stapes(&["launch", "machine", "v1", "--vm", "-c", "limits.memory=512MiB"]).ok();
    let list = daemon.stapes(&["list", "-f", "csv", "-c", "nst"]).ok();
    assert_eq!(list, "c1,RUNNING,CONTAINER\nv1,RUNNING,VIRTUAL-MACHINE\n");
    let machines = daemon.api().get("/1.0/instances?instance-type=virtual-machine").unwrap();
    assert_eq!(machines, json!(["/1.0/instances/v1"]));
    let accelerator = state(&daemon, "v1")["stapes_facts"]["accelerator"].clone();
    assert!(["kvm", "tcg"].contains(&accelerator.as_str().unwrap_or_default()), "{accelerator}");
    await_agent(&daemon, "v1");

    // The image's templates name it, in its files and in its kernel.
    assert_eq!(names(&daemon, "v1"), ["v1", "v1", "127.0.1.1 v1"]);
    assert_eq!(daemon.stapes(&["exec", "v1", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).code, 7);
    let (code, out, err) = daemon.api().exec("v1", &["sh", "-c", "echo out; echo err >&2; exit 7"]).unwrap();
    assert_eq!((code, out.as_str(), err.as_str()), (7, "out\n", "err\n"));
    let info = daemon.stapes(&["info", "v1"]).ok();
    assert!(info.contains("Type: virtual-machine") && info.contains("Accelerator: "), "{info}");
    eventually("it has its address", BOOT, || {
        let text = state(&daemon, "v1")["network"].to_string();
        text.contains("\"inet\"") && text.contains("\"global\"")
    });
    let told = state(&daemon, "v1");
    assert!(told["processes"].as_i64().unwrap() > 1, "{told}");
    assert!(told["memory"]["total"].as_i64().unwrap() < 512 << 20, "{told}");
    let shown = daemon.stapes(&["console", "v1", "--show-log"]).ok();
    assert!(shown.contains("Linux") || shown.contains("login"), "{shown}");

    files(&daemon);
    daemon.stapes(&["pause", "v1"]).ok();
    assert_eq!(daemon.status_of("v1"), "Frozen");
    daemon.stapes(&["resume", "v1"]).ok();
    await_agent(&daemon, "v1");

    let before = daemon.init_of("v1");
    daemon.kill();
    daemon.launch_daemon();
    assert_eq!(daemon.init_of("v1"), before, "the same QEMU");
    await_agent(&daemon, "v1");
    assert_eq!(daemon.stapes(&["exec", "v1", "--", "cat", "/root/small"]).ok(), "by path\n");

    daemon.stapes(&["stop", "v1", "--timeout", "600"]).ok();
    let refused = daemon.stapes(&["file", "pull", "v1/root/small", "-"]);
    assert!(refused.code != 0 && refused.stderr.contains("files.stopped"), "{}", refused.stderr);
    daemon.stapes(&["rename", "v1", "v2"]).ok();
    daemon.stapes(&["start", "v2"]).ok();
    await_agent(&daemon, "v2");
    assert_eq!(daemon.stapes(&["exec", "v2", "--", "cat", "/root/small"]).ok(), "by path\n", "its disk is kept");
    assert_eq!(names(&daemon, "v2"), ["v2", "v2", "127.0.1.1 v2"]);
    daemon.stapes(&["delete", "v2", "--force"]).ok();
    daemon.stapes(&["delete", "c1", "--force"]).ok();
    daemon.finish();
}

/// What a machine is called by its kernel and its files.
fn names(daemon: &Daemon, name: &str) -> Vec<String> {
    let script = "hostname; cat /etc/hostname; grep 127.0.1.1 /etc/hosts";
    let told = daemon.stapes(&["exec", name, "--", "sh", "-c", script]).ok();
    told.lines().map(|line| line.replace('\t', " ")).collect()
}

/// There and back, by path and by SFTP.
fn files(daemon: &Daemon) {
    let scratch = |name: &str| daemon.scratch().join(name);
    let content: Vec<u8> = (0..900_001u32).map(|number| (number % 251) as u8).collect();
    fs::write(scratch("big"), &content).unwrap();
    fs::write(scratch("small"), "by path\n").unwrap();
    let path = |name: &str| scratch(name).to_str().unwrap().to_owned();
    daemon.stapes(&["file", "push", "--mode", "0600", &path("big"), "v1/root/big"]).ok();
    daemon.stapes(&["file", "push", &path("small"), "v1/root/small"]).ok();
    let stat = daemon.api().exec("v1", &["stat", "-c", "%a %s", "/root/big"]).unwrap().1;
    assert_eq!(stat, "600 900001\n");
    daemon.stapes(&["file", "pull", "v1/root/big", &path("back")]).ok();
    assert!(fs::read(scratch("back")).unwrap() == content);
    let answer = daemon.api().raw("GET", "/1.0/instances/v1/files?path=/root/small", &[], &[]).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "by path\n"));
    daemon.stapes(&["file", "delete", "v1/root/big"]).ok();
    assert_ne!(daemon.stapes(&["file", "pull", "v1/root/big", &path("gone")]).code, 0);
}

#[test]
fn the_official_client_runs_machines() {
    let needs = [NEEDS, &[Need::IncusClient]].concat();
    let Some(_host) = host_with(&needs) else { return };
    let daemon = daemon();
    daemon.incus(&["launch", "machine", "v1", "--vm", "-c", "limits.memory=512MiB"]).ok();
    assert_eq!(daemon.incus(&["list", "-f", "csv", "-c", "nst"]).ok(), "v1,RUNNING,VIRTUAL-MACHINE\n");
    await_agent(&daemon, "v1");
    assert_eq!(daemon.incus(&["exec", "v1", "--", "echo", "plain"]).ok(), "plain\n");
    let from = daemon.scratch().join("from");
    fs::write(&from, "there and back").unwrap();
    daemon.incus(&["file", "push", from.to_str().unwrap(), "v1/root/f"]).ok();
    assert_eq!(daemon.incus(&["exec", "v1", "--", "cat", "/root/f"]).ok(), "there and back");
    assert_eq!(daemon.incus(&["file", "pull", "v1/root/f", "-"]).ok(), "there and back");
    assert!(daemon.incus(&["info", "v1"]).ok().contains("Type: virtual-machine"));
    daemon.incus(&["stop", "v1", "--timeout", "600"]).ok();
    daemon.incus(&["delete", "v1"]).ok();
    daemon.finish();
}

#[test]
fn what_a_machine_cannot_have_is_refused_before_anything_is_made() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = daemon();
    let refused = |args: &[&str], told: &str| {
        let answer = daemon.stapes(&[&["create", "machine", "v1", "--vm"], args].concat());
        assert!(answer.code != 0 && answer.stderr.contains(told), "{args:?}: {}", answer.stderr);
    };
    refused(&["-c", "security.privileged=true"], "it is for containers only");
    refused(&["-c", "security.csm=true"], "security.secureboot=false");
    refused(&["-d", "d,type=disk", "-d", "d,source=/tmp", "-d", "d,path=/mnt"], "shared-directories");
    refused(&["-d", "d,type=unix-char", "-d", "d,source=/dev/null", "-d", "d,path=/dev/x"], "unix-devices");
    refused(&["-d", "root,size=1MiB"], "a disk cannot shrink");
    let wrong = daemon.stapes(&["create", "busybox", "v1", "--vm"]);
    assert!(wrong.code != 0 && wrong.stderr.contains("is for a container"), "{}", wrong.stderr);
    assert_eq!(daemon.api().get("/1.0/instances").unwrap(), json!([]));
    daemon.finish();
}
