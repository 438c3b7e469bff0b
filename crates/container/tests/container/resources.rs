//! What a plan brings along: interfaces, mounts, nodes, limits; and containers without a user namespace. Needs root.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt, process::Command};

use crate::support::{Host, exec_output, wait_event};
use stapes_instance::{DeviceNode, Driver, DriverError, Event, Link, Mount, Rlimit};
use stapes_model::{ByteSize, IdMap};

/// A bridge of this test's own.
struct Bridge(String);

impl Bridge {
    fn new(name: &str) -> Self {
        let status = Command::new("ip").args(["link", "add", name, "type", "bridge"]).status().unwrap();
        assert!(status.success());
        let _ = Command::new("ip").args(["link", "set", name, "up"]).status();
        Self(name.to_owned())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

#[test]
fn an_interface_has_its_name_index_and_neighbours() {
    let Some(host) = Host::new("link") else { return };
    let bridge = Bridge::new(&format!("st{}", std::process::id()));
    let mut plan = host.busybox_plan(1);
    let address: IpAddr = "10.213.0.5".parse().unwrap();
    plan.links.push(Link {
        device: "eth0".into(),
        host_name: format!("v{}", plan.id),
        guest_name: "eth0".into(),
        guest_index: 1_000_000 + std::process::id(),
        mac: [0x10, 0x66, 0x6a, 1, 2, 3],
        mtu: Some(1400),
        bridge: Some(bridge.0.clone()),
        addresses: vec![address],
        gateways: vec!["10.213.0.1".parse().unwrap()],
        gateway_mac: Some([0x10, 0x66, 0x6a, 9, 9, 9]),
    });
    let running = host.driver.start(&plan).unwrap();
    let seen = exec_output(&*running, "ip link; ip neigh show dev eth0; cat /sys/class/net/eth0/ifindex").0;
    for wanted in
        ["eth0", "10:66:6a:01:02:03", "mtu 1400", "<LOOPBACK,UP", "10.213.0.1", &plan.links[0].guest_index.to_string()]
    {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
    let neighbours = Command::new("ip").args(["neigh", "show", "dev", &bridge.0]).output().unwrap();
    let neighbours = String::from_utf8_lossy(&neighbours.stdout).into_owned();
    assert!(neighbours.contains("10.213.0.5") && neighbours.contains("PERMANENT"), "{neighbours}");
    running.kill().unwrap();
    wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    plan.links[0].bridge = Some("no-such-bridge".into());
    let error = host.driver.start(&plan).err().unwrap().to_string();
    assert!(error.contains("no-such-bridge"), "{error}");
    host.assert_gone(&plan);
}

#[test]
fn mounts_and_nodes_appear_where_the_plan_says() {
    let Some(host) = Host::new("mounts") else { return };
    let mut plan = host.busybox_plan(2);
    let shared = host.dir.join("shared");
    fs::create_dir_all(&shared).unwrap();
    fs::write(shared.join("file"), "shared\n").unwrap();
    let mount = |target: &str, read_only: bool| Mount {
        device: "d".into(),
        source: shared.clone(),
        target: target.into(),
        read_only,
        recursive: false,
        shift: true,
        optional: false,
    };
    // The image's own link must not lead the mount out of the root.
    std::os::unix::fs::symlink("/../../..", plan.root.join("out")).unwrap();
    plan.mounts = vec![mount("/mnt/deep/rw", false), mount("/mnt/ro", true), mount("/out/under", false)];
    plan.mounts.push(Mount { source: "/no/such".into(), optional: true, ..mount("/mnt/none", false) });
    plan.nodes.push(DeviceNode {
        device: "zero".into(),
        source: "/dev/zero".into(),
        target: "/dev/my/zero".into(),
        block: false,
        major: 1,
        minor: 5,
        mode: 0o640,
        uid: 0,
        gid: 7,
    });
    let running = host.driver.start(&plan).unwrap();
    let script = "cat /mnt/deep/rw/file /mnt/ro/file /under/file; echo x > /mnt/deep/rw/new && echo written; \
                  echo x > /mnt/ro/new || echo refused; ls -ln /dev/my/zero; ls -ln /mnt/deep/rw/file; \
                  cat < /dev/my/zero | head -c 0; (exec < /dev/my/zero) && echo opened";
    let seen = exec_output(&*running, script).0;
    assert_eq!(seen.matches("shared\n").count(), 3, "{seen}");
    for wanted in ["written", "refused", "opened", "crw-r-----", "1,   5"] {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
    assert_eq!(fs::metadata(shared.join("new")).unwrap().uid(), 0);
    running.kill().unwrap();
    wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    plan.mounts = vec![Mount { source: "/no/such".into(), ..mount("/mnt/none", false) }];
    let error = host.driver.start(&plan).err().unwrap().to_string();
    assert!(error.contains("/no/such"), "{error}");
    host.assert_gone(&plan);
}

#[test]
fn limits_reach_the_groups_and_the_processes() {
    let Some(host) = Host::new("limits") else { return };
    let mut plan = host.busybox_plan(3);
    plan.limits.memory = Some(ByteSize::mib(64));
    plan.limits.processes = Some(20);
    plan.limits.rlimits.push(Rlimit { name: "nofile".into(), soft: Some(100), hard: Some(200) });
    let running = host.driver.start(&plan).unwrap();
    assert_eq!(exec_output(&*running, "ulimit -n; ulimit -Hn").0, "100\n200\n");
    let forks =
        exec_output(&*running, "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done 2>/dev/null; echo end").0;
    assert!(!forks.contains("end") || running.usage().unwrap().processes <= 20);
    assert!(running.usage().unwrap().memory_bytes < 64 << 20);
    running.kill().unwrap();
    wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    plan.limits.rlimits[0].hard = None;
    plan.limits.rlimits[0].soft = None;
    if let Err(error) = host.driver.start(&plan) {
        assert!(error.to_string().contains("limits.kernel.nofile"), "{error}");
        assert!(matches!(error, DriverError::Start { .. }));
    }
}

#[test]
fn a_privileged_container_has_the_hosts_ids_and_fewer_rights() {
    let Some(host) = Host::new("privileged") else { return };
    let mut plan = host.busybox_plan(4);
    plan.idmap = IdMap::Privileged;
    let running = host.driver.start(&plan).unwrap();
    let seen = exec_output(
        &*running,
        "cat /proc/self/uid_map; echo 1 > /proc/sys/kernel/panic || echo refused; echo x > /tmp/y && echo wrote",
    )
    .0;
    assert!(seen.contains("4294967295") && seen.contains("refused") && seen.contains("wrote"), "{seen}");
    running.kill().unwrap();
    wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    host.assert_gone(&plan);
}
