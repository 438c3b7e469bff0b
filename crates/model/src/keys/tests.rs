use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{ByteSize, ErrorKind, InstanceType::Container};

fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn refusal(key: &str, value: &str) -> String {
    validate_instance_config(Container, &config(&[(key, value)])).unwrap_err().to_string()
}

fn host() -> Host {
    Host { memory: ByteSize::mib(1000), cpus: vec![0, 1, 2, 3], first_cpu: 3 }
}

#[test]
fn what_a_container_can_have_is_accepted() {
    let good = config(&[
        ("boot.autostart", "last-state"),
        ("boot.autostart.priority", "-5"),
        ("cloud-init.user-data", "#cloud-config\npackages: []\n"),
        ("cluster.evacuate", "stop"),
        ("environment.LANG", "C.UTF-8"),
        ("image.os", "debian"),
        ("limits.cpu", "0-2,5"),
        ("limits.cpu.allowance", "25ms/100ms"),
        ("limits.kernel.nofile", "1024:unlimited"),
        ("limits.memory", "50%"),
        ("limits.memory.swap", "no"),
        ("migration.stateful", "false"),
        ("nvidia.runtime", "false"),
        ("security.idmap.size", "262144"),
        ("security.nesting", "true"),
        ("security.syscalls.deny", "ptrace\nreboot"),
        ("snapshots.expiry", "1d 12H"),
        ("snapshots.schedule", "0 6 * * mon-fri"),
        ("user.anything", "goes"),
        ("volatile.eth0.1.hwaddr", "10:66:6a:00:00:01"),
        ("volatile.last_state.power", "RUNNING"),
        ("limits.processes", ""),
    ]);
    validate_instance_config(Container, &good).unwrap();
}

#[test]
fn an_unknown_key_is_refused_with_what_was_meant() {
    assert_eq!(
        refusal("limits.memroy", "1GiB"),
        "invalid configuration key \"limits.memroy\": unknown key; did you mean \"limits.memory\"?"
    );
    assert_eq!(refusal("completely.else", "1"), "invalid configuration key \"completely.else\": unknown key");
    assert!(refusal("user.", "x").contains("unknown key"));
    assert!(refusal(&"k".repeat(1 << 20), "x").len() < 200);
}

#[test]
fn an_ill_typed_value_is_named_with_the_expected_form() {
    assert_eq!(
        refusal("limits.memory", "lots"),
        "invalid configuration key \"limits.memory\": value \"lots\" is invalid, expected a size such as 512MiB, or a \
         percentage of the host's memory such as 50%"
    );
    for (key, value) in [
        ("security.nesting", "maybe"),
        ("limits.cpu", "0"),
        ("limits.cpu", "3-1"),
        ("limits.cpu", "0-99999999"),
        ("limits.cpu.allowance", "150%"),
        ("limits.cpu.allowance", "10/100"),
        ("limits.cpu.priority", "11"),
        ("limits.kernel.nofile", "9:8"),
        ("limits.processes", "0"),
        ("snapshots.schedule", "@someday"),
        ("snapshots.expiry", "5"),
        ("environment.X", "two\nlines"),
        ("security.idmap.size", "1000"),
    ] {
        assert!(refusal(key, value).contains("is invalid, expected"), "{key}={value}");
    }
}

#[test]
fn a_key_without_its_feature_is_refused_with_the_reason() {
    let error = validate_instance_config(Container, &config(&[("migration.stateful", "true")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("live migration"), "{error}");
    assert!(refusal("security.secureboot", "false").contains("virtual machines only"));
    assert!(refusal("raw.lxc", "lxc.x = y").contains("without LXC"));
    assert!(refusal("raw.idmap", "both 0 0").contains("not built yet"));
    validate_profile_config(&config(&[("security.secureboot", "true")])).unwrap();
}

#[test]
fn the_table_is_sound() {
    for group in GROUPS {
        let mut names: Vec<_> = group.keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{} {}", group.entity, group.name);
        for key in group.keys {
            assert!(!key.help.is_empty(), "{} has no help", key.name);
            if let Some(default) = key.default {
                assert_eq!(key.kind.check(default), Ok(()), "the default of {} is ill-typed", key.name);
            }
        }
    }
    assert!(GROUPS.iter().map(|group| group.keys.len()).sum::<usize>() > 500);
    assert_eq!(Tables::PROFILE.find("user.user-data").unwrap().kind, Kind::Blob, "its own row before user.*");
    assert!(changes_live(["limits.memory", "user.x"]) && !changes_live(["security.privileged"]));
    assert!(may_change_running("boot.autostart") && may_change_running("limits.memory"));
    assert!(!may_change_running("security.privileged") && !may_change_running("raw.idmap"));
}

#[test]
fn the_metadata_has_the_shape_that_clients_read() {
    let metadata = metadata_configuration();
    let keys = metadata["configs"]["instance"]["resource-limits"]["keys"].as_array().unwrap();
    let memory = keys.iter().find_map(|key| key.get("limits.memory")).unwrap();
    assert_eq!((&memory["type"], &memory["liveupdate"]), (&"string".into(), &"yes".into()));
    assert!(metadata["configs"]["devices"]["nic_bridged"]["keys"].is_array());
}

#[test]
fn pools_networks_and_servers_have_their_own_keys() {
    validate_pool_config("btrfs", &config(&[("size", "10GiB"), ("volume.size", "1GiB"), ("volatile.x", "y")])).unwrap();
    let error = validate_pool_config("dir", &config(&[("volume.sise", "1GiB")])).unwrap_err().to_string();
    assert!(error.contains("\"volume.sise\": unknown key; did you mean \"volume.size\"?"), "{error}");
    assert!(validate_pool_config("zfs", &config(&[])).is_err());
    let network = |key, value| validate_config(Tables::NETWORK_BRIDGE, &config(&[(key, value)]));
    network("ipv4.address", "10.1.2.1/24").unwrap();
    network("bridge.driver", "native").unwrap();
    assert!(network("bridge.driver", "openvswitch").is_err() && network("ipv4.address", "fd42::1/64").is_err());
    assert!(network("tunnel.one.protocol", "vxlan").unwrap_err().to_string().contains("tunnels are not built"));
    validate_config(Tables::SERVER, &config(&[("user.x", "y"), ("images.auto_update_interval", "0")])).unwrap();
}

#[test]
fn limits_follow_incus() {
    let limits = limits_from_config(
        &config(&[
            ("limits.cpu", "2"),
            ("limits.cpu.allowance", "50%"),
            ("limits.cpu.priority", "8"),
            ("limits.cpu.nodes", "0,1"),
            ("limits.disk.priority", "0"),
            ("limits.kernel.nofile", "1024:unlimited"),
            ("limits.memory", "25%"),
            ("limits.memory.enforce", "soft"),
            ("limits.memory.oom_priority", "-7"),
            ("limits.memory.swap", "false"),
            ("limits.processes", "100"),
        ]),
        &host(),
    )
    .unwrap();
    assert_eq!(limits.cpus.as_deref(), Some("0,3"), "from the fourth, around the end");
    assert_eq!((limits.cpu_weight, limits.cpu_quota, limits.disk_weight), (Some(48), None, Some(10)));
    assert_eq!((limits.memory, limits.memory_soft, limits.no_swap), (Some(ByteSize::mib(250)), true, true));
    assert_eq!((limits.processes, limits.oom_score_adj, limits.nodes.as_deref()), (Some(100), Some(-7), Some("0-1")));
    assert_eq!(
        (limits.rlimits[0].name.as_str(), limits.rlimits[0].soft, limits.rlimits[0].hard),
        ("nofile", Some(1024), None)
    );
    let one = |key, value| limits_from_config(&config(&[(key, value)]), &host());
    assert_eq!(one("limits.cpu.allowance", "25ms/100ms").unwrap().cpu_quota, Some((25_000, 100_000)));
    assert_eq!(one("limits.cpu", "64").unwrap().cpus, None, "more than there are is all");
    assert_eq!(one("limits.cpu", "1-2").unwrap().cpus.as_deref(), Some("1-2"));
    assert!(one("limits.cpu", "9-10").unwrap_err().to_string().contains("this host has no CPU 9; it has 0-3"));
    assert_eq!(one("limits.memory", "512MiB").unwrap().memory, Some(ByteSize::mib(512)));
    assert_eq!(one("user.x", "y").unwrap(), crate::Limits::default());
    assert!(one("limits.cpu.nodes", "balanced").is_err() && one("limits.memory", "x").is_err());
}

proptest! {
    #[test]
    fn no_key_and_no_value_panics(key in ".{0,40}", value in ".{0,60}", pick in 0usize..1000) {
        let all: Vec<&Key> = GROUPS.iter().flat_map(|group| group.keys).collect();
        let row = all[pick % all.len()];
        let _ = row.kind.check(&value);
        let _ = validate_instance_config(Container, &config(&[(&key, &value)]));
        let _ = limits_from_config(&config(&[(row.name, &value)]), &host());
    }

    #[test]
    fn no_number_panics(value in "[0-9@*/%,:=msMHdw -]{0,24}") {
        for row in Tables::PROFILE.keys() {
            let _ = row.kind.check(&value);
        }
        for key in ["limits.cpu", "limits.cpu.allowance", "limits.memory", "limits.kernel.nofile", "limits.cpu.nodes"] {
            let _ = limits_from_config(&config(&[(key, &value)]), &host());
        }
    }
}
