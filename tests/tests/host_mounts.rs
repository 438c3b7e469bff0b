//! Hosts whose mounts are not as the usual ones: shared, or of file systems that cannot show other owners.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::json;
use stapes_testkit::{Daemon, Need, host_with, launch_body};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

#[test]
fn a_container_starts_where_every_mount_is_shared_and_keeps_its_own_to_itself() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::empty();
    // As systemd leaves them.
    daemon.on_host(&["mount", "--make-rshared", "/"]).ok();
    daemon.stapes(&["admin", "init", "--auto"]).ok();
    daemon.import_busybox();
    let bound = daemon.scratch().join("bound");
    fs::create_dir_all(bound.join("deep")).unwrap();
    let mut body = launch_body("c1");
    body["devices"] = json!({ "bound": { "type": "disk", "source": bound, "path": "/mnt/bound" } });
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    daemon.await_boot("c1");
    let mounted = daemon.api().exec("c1", &["mount", "-t", "tmpfs", "none", "/mnt/bound/deep"]).unwrap();
    assert_eq!(mounted.0, 0, "{mounted:?}");
    let table = daemon.on_host(&["cat", "/proc/self/mountinfo"]).ok();
    assert!(!table.contains("bound/deep"), "{table}");
    daemon.finish();
}

/// An overlay on the test's own directory: no kernel can idmap its mounts.
fn overlay(daemon: &Daemon) -> PathBuf {
    let part = |name: &str| {
        let path = daemon.scratch().join(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    };
    let options = format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
    let merged = part("merged");
    daemon.on_host(&["mount", "-t", "overlay", "none", "-o", &options, &merged]).ok();
    merged.into()
}

/// Owners as the host sees them, of a file beneath the only instance's root.
fn owner(daemon: &Daemon, pool: &Path, file: &str) -> (u64, u64) {
    let script = format!("stat -c '%u %g' {}/instances/*/rootfs/{file}", pool.display());
    let said = daemon.on_host(&["sh", "-c", &script]).ok();
    let mut numbers = said.split_whitespace().map(|word| word.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn files_that_no_mount_can_show_with_other_owners_change_theirs_once() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let source = overlay(&daemon);
    daemon.stapes(&["storage", "create", "slow", "dir", &format!("source={}", source.display())]).ok();
    let shown = daemon.api().get("/1.0/storage-pools/slow").unwrap();
    assert!(shown["stapes_shortcomings"].to_string().contains("cannot be idmapped"), "{shown}");
    assert!(daemon.stapes(&["storage", "info", "slow"]).ok().contains("cannot be idmapped"));
    let features = || daemon.api().get("/1.0").unwrap()["environment"]["kernel_features"].clone();
    assert!(features()["idmapped_mounts"].to_string().contains("not on slow"), "{}", features());
    assert_eq!(daemon.log().matches("cannot be idmapped").count(), 1);

    daemon.stapes(&["launch", "busybox", "c1", "--storage", "slow"]).ok();
    daemon.await_boot("c1");
    let config = daemon.api().get("/1.0/instances/c1").unwrap()["config"].clone();
    let base: u64 = config["volatile.idmap.base"].as_str().unwrap().parse().unwrap();
    assert_eq!(owner(&daemon, &source, "bin"), (base, base));
    let made = daemon.api().exec("c1", &["sh", "-c", "echo x > /root/made && chown 7:8 /root/made && stat -c %u /"]);
    assert_eq!(made.unwrap(), (0, "0\n".to_owned(), String::new()));
    assert_eq!(owner(&daemon, &source, "root/made"), (base + 7, base + 8));

    // Stopped, its files are still seen as from inside.
    daemon.stapes(&["stop", "c1", "--force"]).ok();
    let headers = [("X-Incus-uid", "1000"), ("X-Incus-gid", "50"), ("X-Incus-mode", "0640"), ("X-Incus-type", "file")];
    let pushed = daemon.api().raw("POST", "/1.0/instances/c1/files?path=/root/pushed", &headers, b"content").unwrap();
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    assert_eq!(owner(&daemon, &source, "root/pushed"), (base + 1000, base + 50));
    let answer = daemon.api().raw("GET", "/1.0/instances/c1/files?path=/root/made", &[], b"").unwrap();
    assert_eq!((answer.header("x-incus-uid"), answer.text().as_str()), (Some("7"), "x\n"));

    daemon.stapes(&["start", "c1"]).ok();
    let seen = daemon.api().exec("c1", &["stat", "-c", "%u %g", "/root/made", "/root/pushed", "/bin"]).unwrap().1;
    assert_eq!(seen, "7 8\n1000 50\n0 0\n");

    // Without ids of its own it has the host's, and its files go back.
    daemon.stapes(&["stop", "c1", "--force"]).ok();
    daemon.stapes(&["config", "set", "c1", "security.privileged=true"]).ok();
    daemon.stapes(&["start", "c1"]).ok();
    assert_eq!(owner(&daemon, &source, "root/made"), (7, 8));
    daemon.stapes(&["delete", "c1", "--force"]).ok();
    daemon.stapes(&["storage", "delete", "slow"]).ok();
    daemon.on_host(&["umount", &source.display().to_string()]).ok();
    assert!(fs::metadata(source).is_ok_and(|meta| meta.uid() == 0));
    daemon.finish();
}
