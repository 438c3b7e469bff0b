//! Against the real kernel, each test on a thread with a network namespace of its own, which ends with the thread.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use super::*;

/// Runs `test` in a fresh network namespace, on a thread that takes it along when it ends.
fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        // SAFETY: unshare takes no pointers; it concerns this thread only, which runs nothing but this test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("SKIPPED: needs root (CAP_SYS_ADMIN) for a network namespace");
            return;
        }
        test();
    })
    .join()
    .unwrap();
}

/// A descriptor of a namespace that nobody lives in.
fn empty_namespace() -> File {
    std::thread::spawn(|| {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

const MAC: [u8; 6] = [0x10, 0x66, 0x6a, 1, 2, 3];

fn bridge(net: &mut Netlink, name: &str) -> u32 {
    let spec = BridgeSpec { name, mac: MAC, mtu: None, group: Some(77), multicast_snooping: true };
    net.add_bridge(&spec).unwrap();
    net.link_index(name).unwrap()
}

fn veth<'a>(host: &'a str, master: Option<u32>, inside: &'a File) -> VethSpec<'a> {
    VethSpec {
        host_name: host,
        host_mac: None,
        guest_name: "eth0",
        guest_index: Some(70_001),
        guest_mac: MAC,
        mtu: Some(1400),
        master,
        guest_netns: inside.as_fd(),
    }
}

#[test]
fn a_veth_is_born_up_on_its_bridge_and_seen_from_the_host() {
    in_own_namespace(|| {
        let mut net = Netlink::open().unwrap();
        let master = bridge(&mut net, "br0");
        net.set_up(master).unwrap();
        net.set_alias(master, "stapes:br0").unwrap();
        net.set_multicast_snooping(master, false).unwrap();
        let guest = empty_namespace();
        assert_eq!(net.netns_id(guest.as_fd()).unwrap(), None);
        let id = net.assign_netns_id(guest.as_fd()).unwrap();
        assert_eq!(net.assign_netns_id(guest.as_fd()).unwrap(), id, "a second time finds the same number");
        net.add_veth(&veth("vhost", Some(master), &guest)).unwrap();

        let host = net.link("vhost").unwrap().unwrap();
        assert!(host.is_up());
        if let Ok(mode) = std::fs::read_to_string("/proc/sys/net/ipv6/conf/vhost/addr_gen_mode") {
            assert_eq!(mode, "1\n", "no IPv6 address of its own");
        }
        assert_eq!((host.master, host.mtu, host.kind.as_deref()), (Some(master), 1400, Some("veth")));
        assert_eq!((host.peer, host.peer_netns_id), (Some(70_001), Some(id)));
        let inside = net.links_in(id).unwrap();
        let eth0 = inside.iter().find(|link| link.name == "eth0").unwrap();
        assert_eq!((eth0.index, eth0.mac, eth0.is_up()), (70_001, Some(MAC), false));
        assert!(inside.iter().any(LinkInfo::is_loopback));

        let br0 = net.link("br0").unwrap().unwrap();
        assert_eq!((br0.alias.as_deref(), br0.group, br0.mac), (Some("stapes:br0"), 77, Some(MAC)));
        assert!(net.all_link_stats().unwrap().iter().any(|(index, _)| *index == host.index));
        net.set_master(host.index, None).unwrap();
        net.set_mtu(host.index, 1300).unwrap();
        net.set_down(host.index).unwrap();
        net.rename(host.index, "renamed").unwrap();
        net.set_mac(host.index, [2, 0, 0, 0, 0, 1]).unwrap();
        let host = net.link("renamed").unwrap().unwrap();
        assert_eq!((host.master, host.mtu, host.mac), (None, 1300, Some([2, 0, 0, 0, 0, 1])));
        net.delete_link("renamed").unwrap();
        net.delete_link("br0").unwrap();
        assert_eq!(net.link("br0").unwrap(), None);
        assert!(is_absent(&net.delete_link("br0").unwrap_err()));
    });
}

#[test]
fn addresses_routes_and_neighbours_come_and_go() {
    in_own_namespace(|| {
        let mut net = Netlink::open().unwrap();
        let index = bridge(&mut net, "br0");
        net.set_up(index).unwrap();
        let v4: IpAddr = "10.1.2.1".parse().unwrap();
        let v6: IpAddr = "fd42::1".parse().unwrap();
        for _ in 0..2 {
            net.add_address(index, v4, 24).unwrap();
            net.add_address(index, v6, 64).unwrap();
        }
        let found = net.addresses(Some(index)).unwrap();
        let expected = [(v4, 24), (v6, 64)];
        for (address, prefix) in expected {
            let info = found.iter().find(|info| info.address == address).unwrap();
            assert_eq!((info.prefix, info.scope, info.is_tentative()), (prefix, Scope::Global, false));
        }
        assert!(net.addresses(None).unwrap().len() >= 2);

        for (destination, gateway) in [("10.9.0.0", "10.1.2.9"), ("fd43::", "fd42::9"), ("0.0.0.0", "10.1.2.9")] {
            let destination: IpAddr = destination.parse().unwrap();
            let prefix = if destination.is_unspecified() { 0 } else { 16 };
            let gateway = Some(gateway.parse().unwrap());
            let destination = (destination, prefix);
            let route = RouteSpec { destination, gateway, index: Some(index), source: None, metric: None };
            net.add_route(&route).unwrap();
            net.add_route(&route).unwrap();
            let is_it = |found: &RouteInfo| found.destination == destination && found.gateway == gateway;
            assert_eq!(net.routes().unwrap().iter().filter(|found| is_it(found)).count(), 1);
            net.delete_route(&route).unwrap();
            assert!(is_absent(&net.delete_route(&route).unwrap_err()));
        }

        for address in ["10.1.2.7", "fd42::7"] {
            let address = address.parse().unwrap();
            let neighbour = NeighbourSpec { index, address, mac: MAC, permanent: true };
            net.add_neighbour(&neighbour).unwrap();
            net.add_neighbour(&neighbour).unwrap();
            let entry = NeighbourInfo { index, address, mac: Some(MAC), permanent: true };
            assert!(net.neighbours(Some(index)).unwrap().contains(&entry));
            assert!(net.neighbours(None).unwrap().contains(&entry));
            net.delete_neighbour(index, address).unwrap();
            assert!(is_absent(&net.delete_neighbour(index, address).unwrap_err()));
        }
        net.delete_address(index, v4, 24).unwrap();
        assert!(is_absent(&net.delete_address(index, v4, 24).unwrap_err()));
    });
}

#[test]
fn a_refusal_names_request_and_subject_and_keeps_the_number() {
    in_own_namespace(|| {
        let mut net = Netlink::open().unwrap();
        let index = bridge(&mut net, "br0");
        let again = BridgeSpec { name: "br0", mac: MAC, mtu: None, group: None, multicast_snooping: true };
        let error = net.add_bridge(&again).unwrap_err();
        assert_eq!(errno(&error), Some(libc::EEXIST));
        assert!(error.to_string().starts_with("RTM_NEWLINK(bridge br0): File exists"), "{error}");
        let error = net.set_mtu(index, 1).unwrap_err();
        assert!(error.to_string().contains("mtu less than device minimum"), "the kernel's own words: {error}");
        assert!(net.links_in(4711).is_err());
        assert!(net.link_index("none").is_err_and(|error| is_absent(&error)));
        for bad in ["", "sixteen-bytes-xx", "a/b", "a\0b", "..", "a b"] {
            assert_eq!(net.link(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
    });
}

#[test]
fn a_fresh_namespace_has_no_tables() {
    in_own_namespace(|| {
        // A kernel without nftables refuses; what it holds is shown by the network crate's tests, which run nft.
        if let Ok(mut nftables) = Nftables::open() {
            assert!(nftables.inet_tables().is_ok_and(|tables| tables.is_empty()));
        }
    });
}

#[test]
fn a_namespace_is_found_by_a_task_inside() {
    in_own_namespace(|| {
        let mut net = Netlink::open().unwrap();
        // Our own namespace has no number in itself.
        // SAFETY: gettid has no arguments and cannot fail.
        let own = unsafe { libc::gettid() } as u32;
        assert_eq!(net.netns_id_of_pid(own).unwrap(), None);
        let guest = empty_namespace();
        net.assign_netns_id(guest.as_fd()).unwrap();
        assert!(net.netns_id_of_pid(u32::MAX >> 1).is_err());
    });
}

#[test]
fn readers_survive_every_truncation_of_real_answers() {
    let mut payload = vec![0u8; 16];
    payload.extend_from_slice(&[200, 0, 23, 0]);
    payload.extend((0..196).map(|byte| byte as u8));
    payload.extend_from_slice(&[12, 0, 18, 0, 8, 0, 1, 0, b'v', b'e', 0, 0]);
    for end in 0..payload.len() {
        for family in [0, 2, 10, 255] {
            payload[0] = family;
            let _ = link::read_link(&payload[..end]);
            let _ = address::read_address(&payload[..end]);
            let _ = route::read_route(&payload[..end]);
            let _ = neighbour::read_neighbour(&payload[..end]);
            let _ = nftables::read_table(&payload[..end]);
            read_anything(&payload[..end]);
        }
    }
}

/// Not a check but a figure: `cargo test -p stapes-sys --release netlink::tests::figures -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn figures() {
    in_own_namespace(|| {
        const COUNT: usize = 200;
        let mut net = Netlink::open().unwrap();
        let master = bridge(&mut net, "br0");
        net.set_up(master).unwrap();
        let mut times = Vec::new();
        let guests: Vec<_> = (0..COUNT).map(|_| empty_namespace()).collect();
        let mut ids = Vec::new();
        for (number, guest) in guests.iter().enumerate() {
            ids.push(net.assign_netns_id(guest.as_fd()).unwrap());
            let name = format!("v{number}");
            let start = Instant::now();
            net.add_veth(&VethSpec { guest_index: Some(80_000 + number as u32), ..veth(&name, Some(master), guest) })
                .unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        eprintln!("veth create p50 {:?} p90 {:?} (1..{COUNT} ports)", times[COUNT / 2], times[COUNT * 9 / 10]);
        let best = |mut work: Box<dyn FnMut() -> usize>| {
            let run = |_| {
                let start = Instant::now();
                (work)();
                start.elapsed()
            };
            let mut all: Vec<Duration> = (0..15).map(run).collect();
            all.sort();
            all[7]
        };
        let mut two = Netlink::open().unwrap();
        eprintln!("links() of {COUNT}: {:?}", best(Box::new(move || two.links().unwrap().len())));
        let mut two = Netlink::open().unwrap();
        eprintln!(
            "all_link_stats() of {COUNT}: {:?}",
            best(Box::new(move || {
                let count = two.all_link_stats().unwrap().len();
                assert!(count > COUNT, "{count}");
                count
            }))
        );
        let mut two = Netlink::open().unwrap();
        let inside = ids.clone();
        let live = move || inside.iter().map(|id| two.links_in(*id).unwrap().len()).sum();
        eprintln!("links_in of each of {COUNT}: {:?}", best(Box::new(live)));
        let mut two = Netlink::open().unwrap();
        let live = move || ids.iter().map(|id| two.addresses_in(*id).unwrap().len()).sum();
        eprintln!("addresses_in of each of {COUNT}: {:?}", best(Box::new(live)));
    });
}
