use std::{collections::BTreeMap, io, path::Path};

use proptest::prelude::*;
use stapes_model::{ByteSize, ErrorKind, InstanceId, keys::GROUPS};

use crate::*;

fn config(text: &str) -> Config {
    let pair = |word: &str| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.split_whitespace().filter_map(pair).collect()
}

fn set(devices: &[(&str, &str)]) -> BTreeMap<String, Config> {
    devices.iter().map(|(name, text)| ((*name).to_owned(), config(text))).collect()
}

fn refusal(text: &str) -> String {
    parse("d", &config(text)).unwrap_err().to_string()
}

const ROOT: (&str, &str) = ("root", "type=disk path=/ pool=default");

#[test]
fn a_usual_instance_asks_for_a_volume_a_link_and_its_mounts() {
    let requests = requests(&set(&[
        ("root", "type=disk path=/ pool=default size=10GiB"),
        ("eth0", "type=nic network=stbr0 hwaddr=10:66:6a:00:00:01 ipv4.address=10.1.2.3"),
        ("lan", "type=nic nictype=bridged parent=br0 mtu=9000 name=eth1"),
        ("more", "type=nic network=stbr0"),
        ("data", "type=disk source=/srv//data path=/srv/./data/ readonly=true required=no"),
        ("top", "type=disk source=/srv path=/srv shift=true recursive=true"),
        ("fuse", "type=unix-char path=/dev/fuse mode=0666 gid=5"),
        ("gone", "type=none"),
    ]))
    .unwrap();
    assert_eq!((requests.root.pool.as_str(), requests.root.size), ("default", Some(ByteSize::gib(10))));
    let names: Vec<_> = requests.links.iter().map(|l| (l.device.as_str(), l.guest_name.as_str())).collect();
    assert_eq!(names, [("eth0", "eth0"), ("lan", "eth1"), ("more", "eth2")]);
    assert_eq!(requests.links[0].nic.mac, Some([0x10, 0x66, 0x6a, 0, 0, 1]));
    assert_eq!(requests.links[1].nic.attachment, Attachment::Bridge("br0".into()));
    let mounts: Vec<_> =
        requests.mounts.iter().map(|m| (m.target.as_str(), m.read_only, m.optional, m.shift)).collect();
    assert_eq!(mounts, [("/srv", false, false, true), ("/srv/data", true, true, false)]);
    let (name, fuse) = &requests.nodes[0];
    let node = fuse.node(name, |_| Ok(NodeStat::Char { major: 10, minor: 229 })).unwrap().unwrap();
    assert_eq!((node.target.as_str(), node.major, node.minor, node.mode, node.gid), ("/dev/fuse", 10, 229, 0o666, 5));
}

#[test]
fn a_link_takes_the_configured_before_the_resolved() {
    let Device::Nic(nic) = parse("eth0", &config("type=nic network=n1 host_name=mine mtu=1400")).unwrap() else {
        panic!("no nic")
    };
    let facts = LinkFacts { host_name: "stpx0".into(), guest_index: 7, mtu: Some(1500), ..LinkFacts::default() };
    let link = nic.link("eth0", "eth0", facts);
    assert_eq!((link.host_name.as_str(), link.mtu, link.guest_index), ("mine", Some(1400), 7));
}

#[test]
fn a_wrong_key_or_value_is_named_with_its_device() {
    for (text, wanted) in [
        ("path=/", "device d: key \"type\" is missing; it is one of none, nic, disk"),
        ("type=floppy", "device d: unknown type \"floppy\"; it is one of none, nic"),
        ("type=disk pth=/", "device d: invalid configuration key \"pth\": unknown key; did you mean \"path\"?"),
        ("type=disk path=../x source=/x", "key \"path\": value \"../x\" is invalid, expected an absolute path"),
        ("type=disk path=/ pool=a/b", "device d: invalid pool=\"a/b\": invalid storage pool name"),
        ("type=disk path=/ source=/x pool=a", "device d: invalid source=\"/x\": the root disk is a volume"),
        ("type=disk path=/x", "device d: key \"source\" is missing"),
        ("type=disk path=/x source=x", "device d: invalid source=\"x\": expected an absolute path"),
        ("type=disk path=/x source=/y limits.read=1MB", "key \"limits.read\": not supported: it is not built yet"),
        ("type=nic", "device d: key \"network\" is missing"),
        ("type=nic network=a1 parent=b1", "device d: invalid parent=\"b1\""),
        ("type=nic network=a1 hwaddr=ff:ff:ff:ff:ff:ff", "key \"hwaddr\": value"),
        ("type=nic nictype=quantum", "device d: invalid nictype=\"quantum\": expected one of bridged"),
        ("type=nic network=a1 name=far-too-long-name", "expected an interface name"),
        ("type=unix-char", "device d: key \"source\" is missing"),
        ("type=unix-char source=/dev/x path=/dev/../x", "key \"path\": value \"/dev/../x\" is invalid"),
        ("type=unix-char source=/", "device d: invalid path=\"/\""),
        ("type=gpu gputype=cube", "device d: invalid gputype=\"cube\": it is unknown"),
    ] {
        assert!(refusal(text).contains(wanted), "{text}: {}", refusal(text));
    }
    assert!(parse("../etc", &config("type=none")).is_err());
}

#[test]
fn what_is_not_built_is_refused_by_its_type_but_a_typo_first() {
    for text in [
        "type=gpu id=0",
        "type=usb vendorid=1d6b",
        "type=proxy listen=tcp:0.0.0.0:80 connect=tcp:127.0.0.1:80",
        "type=tpm path=/dev/tpm0",
        "type=pci address=0:0",
        "type=infiniband nictype=physical parent=ib0",
        "type=unix-hotplug vendorid=1",
        "type=nic nictype=macvlan parent=eth0",
        "type=nic nictype=routed",
        "type=disk path=/x pool=default source=vol",
        "type=disk path=/x source=tmpfs:",
    ] {
        let error = parse("d", &config(text)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}: {error}");
        assert!(error.to_string().contains("not built yet"), "{error}");
    }
    assert!(refusal("type=proxy lisen=x").contains("did you mean \"listen\"?"));
}

#[test]
fn devices_that_do_not_fit_together_are_both_named() {
    let error = |devices: &[(&str, &str)]| requests(&set(devices)).unwrap_err().to_string();
    assert!(error(&[]).contains("no root disk"));
    assert!(error(&[("root", "type=disk path=/")]).contains("device root: key \"pool\" is missing"));
    assert_eq!(error(&[ROOT, ("r2", "type=disk path=// pool=b")]), "devices r2 and root have the same path=\"/\"");
    let (a, b) = (("a", "type=disk source=/a path=/x"), ("b", "type=unix-char source=/dev/b path=/x/"));
    assert_eq!(error(&[ROOT, a, b]), "devices a and b have the same path=\"/x\"");
    let (a, b) = (("a", "type=nic network=n1 name=eth0"), ("b", "type=nic network=n2 name=eth0"));
    assert_eq!(error(&[ROOT, a, b]), "devices a and b have the same name=\"eth0\"");
    let (a, b) =
        (("a", "type=nic network=n1 hwaddr=10:66:6A:00:00:0f"), ("b", "type=nic network=n1 hwaddr=10:66:6a:00:00:0F"));
    assert_eq!(error(&[ROOT, a, b]), "devices a and b have the same hwaddr=\"10:66:6a:00:00:0f\"");
}

#[test]
fn a_missing_or_wrong_node_is_an_error_unless_optional() {
    let node = |text: &str, answer: io::Result<NodeStat>| {
        let Device::Unix(unix) = parse("d", &config(text)).unwrap() else { panic!("no unix device") };
        unix.node("d", |_: &Path| answer)
    };
    let missing = || Err(io::Error::from(io::ErrorKind::NotFound));
    let text = node("type=unix-char source=/dev/x", missing()).unwrap_err().to_string();
    assert_eq!(text, "device d: /dev/x does not exist on the host; create it or set required=false");
    assert_eq!(node("type=unix-char source=/dev/x required=false", missing()).unwrap(), None);
    let text =
        node("type=unix-block source=/dev/x", Ok(NodeStat::Char { major: 1, minor: 1 })).unwrap_err().to_string();
    assert_eq!(text, "device d: /dev/x on the host is no block device");
    let given = node("type=unix-char path=/dev/x major=1 minor=3", missing()).unwrap().unwrap();
    assert_eq!((given.major, given.minor), (1, 3));
}

#[test]
fn an_interface_name_fits_the_kernel() {
    let id = InstanceId::from_bits(u64::MAX);
    assert_eq!(host_interface_name(&id, 0), "stp777777770");
    assert_eq!(host_interface_name(&id, u16::MAX).len(), 15);
    assert_ne!(host_interface_name(&id, 1), host_interface_name(&id, 16));
}

proptest! {
    #[test]
    fn no_configuration_panics(
        kind in prop::sample::select(TYPES.to_vec()),
        picks in prop::collection::vec((0usize..400, "[a-z0-9/.:,= -]{0,20}"), 0..6),
    ) {
        let keys: Vec<&str> = GROUPS.iter().filter(|g| g.entity == "devices").flat_map(|g| g.keys).map(|k| k.name).collect();
        let mut device: Config = picks.iter().map(|(pick, value)| (keys[pick % keys.len()].to_owned(), value.clone())).collect();
        device.insert("type".to_owned(), kind.to_owned());
        let _ = parse("d", &device);
        let _ = requests(&BTreeMap::from([("d".to_owned(), device)]));
    }
}
