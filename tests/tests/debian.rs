//! A full Linux system with systemd as its init.
#![forbid(unsafe_code)]

use std::{path::PathBuf, time::Duration};

use serde_json::json;
use stapes_testkit::{Daemon, Need, eventually, host_with, image};

const NEEDS: &[Need] =
    &[Need::Root, Need::Programs, Need::StaticBusybox, Need::DebianArchive, Need::Tool("dnsmasq"), Need::Tool("nft")];

/// Built once per target directory: it takes some 20 s.
fn cache() -> PathBuf {
    stapes_testkit::binaries_dir().join("test-images")
}

#[test]
fn a_build_ends_with_its_daemon_and_leaves_nothing() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    let source = json!({ "type": "image", "protocol": "debian", "alias": "12" });
    let body = json!({ "name": "d1", "type": "container", "start": false, "source": source });
    daemon.api().envelope("POST", "/1.0/instances", &body).unwrap();
    let builders = || {
        let script = "grep -lxE 'mmdebstrap|apt-get|dpkg|unshare|perl' /proc/[0-9]*/comm";
        daemon.on_host(&["sh", "-c", script]).stdout
    };
    eventually("packages are being unpacked or fetched", Duration::from_secs(120), || {
        daemon.on_host(&["sh", "-c", "grep -lxE 'apt-get|dpkg' /proc/[0-9]*/comm"]).code == 0
    });
    daemon.signal(9);
    eventually("every process of the build has ended", Duration::from_secs(20), || builders().is_empty());
    daemon.await_end();
    daemon.launch_daemon();
    let builds = daemon.state_dir().join("cache/build");
    eventually("what it had built is gone", Duration::from_secs(60), || {
        std::fs::read_dir(&builds).map_or(true, |entries| entries.count() == 0)
    });
    daemon.finish();
}

#[test]
fn debian_boots_to_a_running_system_and_reboots_from_inside() {
    let Some(_host) = host_with(NEEDS) else { return };
    let (meta, root) = image::debian(&cache()).unwrap();
    let daemon = Daemon::start();
    daemon.stapes(&["image", "import", meta.to_str().unwrap(), root.to_str().unwrap(), "--alias", "debian"]).ok();
    daemon.stapes(&["launch", "debian", "d1"]).ok();
    let state = || daemon.api().exec("d1", &["systemctl", "is-system-running"]).unwrap_or_default().1;
    eventually("systemd has finished", Duration::from_secs(60), || matches!(state().trim(), "running" | "degraded"));
    let failed = daemon.api().exec("d1", &["systemctl", "--failed", "--no-legend", "--plain"]).unwrap().1;
    assert_eq!(failed, "", "failed units");
    assert_eq!(daemon.api().exec("d1", &["systemd-detect-virt", "--container"]).unwrap().1.trim(), "lxc");
    // A login asks logind for a session, and logind must find the process in a group that it knows.
    let login = daemon.api().exec("d1", &["timeout", "20", "su", "-l", "-c", "id -un"]).unwrap();
    assert_eq!((login.0, login.1.trim()), (0, "root"), "{login:?}");
    let address = daemon.address_of("d1");
    assert_eq!(daemon.on_host(&["busybox", "ping", "-c", "1", "-W", "3", &address]).code, 0);
    assert_eq!(daemon.api().exec("d1", &["hostname"]).unwrap().1.trim(), "d1");
    let machine_id = daemon.api().exec("d1", &["cat", "/etc/machine-id"]).unwrap().1;
    assert_eq!(machine_id.trim().len(), 32);

    let (before, _) = daemon.init_of("d1");
    let _ = daemon.api().exec("d1", &["systemctl", "reboot"]);
    eventually("a new init runs", Duration::from_secs(60), || {
        let now = daemon.api().get("/1.0/instances/d1/state").unwrap();
        now["status"] == "Running" && now["pid"] != before
    });
    eventually("systemd has finished again", Duration::from_secs(60), || {
        matches!(state().trim(), "running" | "degraded")
    });
    assert_eq!(daemon.api().exec("d1", &["cat", "/etc/machine-id"]).unwrap().1, machine_id);
    daemon.stapes(&["stop", "d1"]).ok();
    daemon.stapes(&["delete", "d1"]).ok();
    daemon.finish();
}
