//! A machine's interfaces on a bridge, in a network namespace of the test's own.
#![forbid(unsafe_code)]

use std::process::Command;

use stapes_instance::Link;
use stapes_qemu::taps;
use stapes_testkit::{Need, host_with};

const INSIDE: &str = "STAPES_TEST_NETNS";

fn ip(words: &str) -> String {
    let done = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn link(bridge: Option<&str>) -> Link {
    Link {
        device: "eth0".to_owned(),
        host_name: "vmtest0".to_owned(),
        guest_name: "eth0".to_owned(),
        guest_index: 0,
        mac: [2, 0, 0, 0, 0, 9],
        mtu: Some(1400),
        bridge: bridge.map(str::to_owned),
        addresses: vec!["10.9.9.2".parse().unwrap()],
        gateways: Vec::new(),
        gateway_mac: None,
    }
}

#[test]
fn an_interface_is_on_its_bridge_and_gone_with_its_descriptor() {
    const NEEDS: &[Need] =
        &[Need::Root, Need::Tool("unshare"), Need::Tool("ip"), Need::File("/dev/net/tun", "a kernel with tun")];
    let Some(_) = host_with(NEEDS) else { return };
    if std::env::var_os(INSIDE).is_none() {
        let test = "an_interface_is_on_its_bridge_and_gone_with_its_descriptor";
        let mut inside = Command::new("unshare");
        inside.arg("--net").arg(std::env::current_exe().unwrap()).args(["--exact", test]).env(INSIDE, "1");
        let done = inside.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        return;
    }
    let missing = taps::make(&[link(Some("br9"))]).unwrap_err().to_string();
    assert!(missing.contains("vmtest0 of device eth0 on bridge br9"), "{missing}");
    assert!(!ip("-o link").contains("vmtest0"), "nothing is left of a failure");
    ip("link add br9 type bridge");
    ip("link set br9 up");
    let made = taps::make(&[link(Some("br9"))]).unwrap();
    let seen = ip("-o link show vmtest0");
    for wanted in ["master br9", "mtu 1400", "UP"] {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
    assert!(ip("neigh show dev br9").contains("10.9.9.2 lladdr 02:00:00:00:00:09 PERMANENT"));
    drop(made);
    assert!(!ip("-o link").contains("vmtest0"));
}
