//! Against the real kernel, nft and dnsmasq. Each test runs again as a child in a network namespace of its own, which
//! takes every interface and rule along when it ends. Needs root, unshare and nsenter (util-linux), nftables,
//! dnsmasq-base, radvd, strace and busybox-static; a missing need is a reported skip.

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    os::fd::AsFd,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use stapes_model::{DeviceName, InstanceId};
use stapes_network::*;
use stapes_sys::netlink::{BridgeSpec, Netlink, VethSpec};

const INSIDE: &str = "STAPES_TEST_IN_NETNS";

/// True inside the namespace. Outside, runs the named test there and reports its result.
fn inside(test: &str, needs: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        Netlink::open().and_then(|mut net| net.set_up(1)).unwrap();
        return true;
    }
    let missing = |need: &&&str| !Command::new(need).arg("--help").output().is_ok_and(|_| true);
    if let Some(need) = needs.iter().chain(&["unshare", "nsenter"]).find(missing) {
        eprintln!("SKIPPED {test}: {need} is not installed");
        return false;
    }
    if !Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED {test}: needs root for a network namespace");
        return false;
    }
    let own = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.arg("-n").arg(own).args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success(), "failed in its namespace");
    false
}

fn network(name: &str, pairs: &[(&str, &str)]) -> NetworkConfig {
    let config = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    NetworkConfig { name: name.parse().unwrap(), kind: "bridge".to_owned(), config }
}

fn bridge(name: &str, third: u8) -> Bridge {
    let (ipv4, ipv6) = (format!("10.81.{third}.1/24"), format!("fd42:81:{third}::1/64"));
    let pairs = [("ipv4.address", &*ipv4), ("ipv4.nat", "true"), ("ipv6.address", &ipv6), ("ipv6.nat", "true")];
    Bridge::parse(&network(name, &pairs), "test host").unwrap()
}

fn output(program: &str, args: &[&str]) -> String {
    let Output { stdout, stderr, .. } = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(argv: &[String], log: Stdio) -> Self {
        Self(Command::new(&argv[0]).args(&argv[1..]).stderr(log).spawn().unwrap())
    }

    fn hang_up(&self) {
        output("kill", &["-HUP", &self.0.id().to_string()]);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace that stands for a container, with `eth0` on the bridge.
struct Client {
    holder: Running,
}

impl Client {
    fn new(host_name: &str, index: u32, mac: [u8; 6], master: Option<u32>) -> Self {
        let holder = Running::start(&["unshare", "-n", "sleep", "60"].map(str::to_owned), Stdio::inherit());
        let path = format!("/proc/{}/ns/net", holder.0.id());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        wait_until("the client's namespace", || fs::read_link(&path).is_ok_and(|link| link != own));
        let netns = fs::File::open(&path).unwrap();
        let veth = VethSpec {
            host_name,
            host_mac: None,
            guest_name: "eth0",
            guest_index: Some(index),
            guest_mac: mac,
            mtu: None,
            master,
            guest_netns: netns.as_fd(),
        };
        Netlink::open().unwrap().add_veth(&veth).unwrap();
        let client = Self { holder };
        client.run(&["busybox", "ip", "link", "set", "lo", "up"]);
        client.run(&["busybox", "ip", "link", "set", "eth0", "up"]);
        client
    }

    fn run(&self, argv: &[&str]) -> String {
        let net = format!("--net=/proc/{}/ns/net", self.holder.0.id());
        output("nsenter", &[&[net.as_str()], argv].concat())
    }

    /// Asks for an address; the answer, and how long it took. `-s true` leaves the interface as it is.
    fn dhcp(&self) -> (String, Duration) {
        let start = Instant::now();
        let said = self.run(&["busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "3", "-s", "/bin/true"]);
        (said, start.elapsed())
    }

    fn pings(&self, address: &str) -> bool {
        self.run(&["busybox", "ping", "-c1", "-W1", address]).contains("1 packets received")
    }

    fn lookup(&self, name: &str, server: &str) -> String {
        self.run(&["busybox", "nslookup", name, server])
    }
}

#[test]
fn a_network_comes_up_twice_and_goes_without_a_trace() {
    if !inside("a_network_comes_up_twice_and_goes_without_a_trace", &["nft"]) {
        return;
    }
    let (mut net, tools) = (bridge("br0", 1), Tools::default());
    net.ipv4.as_mut().unwrap().routes = vec!["10.99.0.0/16".parse().unwrap()];
    net.ipv6.as_mut().unwrap().routes = vec!["fd99::/48".parse().unwrap()];
    assert!(!is_up(&net).unwrap());
    let start = Instant::now();
    let up = ensure_up(&net, &tools).unwrap();
    eprintln!("ensure_up, first: {:?}", start.elapsed());
    assert!(up.created && is_up(&net).unwrap());
    let rules = output("nft", &["list", "table", "inet", "stapes_br0"]);
    for part in ["masquerade", "th dport 53 accept", "udp dport 67 accept", "ip6 saddr fd42:81:1::/64"] {
        assert!(rules.contains(part), "{part} in {rules}");
    }
    let start = Instant::now();
    assert!(is_up(&net).unwrap());
    eprintln!("is_up: {:?}", start.elapsed());
    // A changed address and a lost rule are put right; the bridge is the same.
    let mut changed = net.clone();
    changed.ipv4.as_mut().unwrap().address = "10.81.7.1/24".parse().unwrap();
    changed.mtu = Some(1400);
    let routed = |text: &str| taken_subnets().unwrap().contains(&text.parse().unwrap());
    assert!(routed("10.99.0.0/16") && routed("fd99::/48"));
    changed.ipv4.as_mut().unwrap().routes.clear();
    changed.ipv6.as_mut().unwrap().routes = vec!["fd98::/48".parse().unwrap()];
    output("nft", &["delete", "table", "inet", "stapes_br0"]);
    assert!(!is_up(&net).unwrap());
    let start = Instant::now();
    let again = ensure_up(&changed, &tools).unwrap();
    eprintln!("ensure_up, again: {:?}", start.elapsed());
    assert!(!routed("10.99.0.0/16") && !routed("fd99::/48") && routed("fd98::/48"));
    assert_eq!((again.index, again.created), (up.index, false));
    assert!(is_up(&changed).unwrap() && !is_up(&net).unwrap());
    assert_eq!(output("nft", &["list", "tables"]).lines().count(), 1);

    let state = changed.state().unwrap().unwrap();
    assert!(state.up && state.mtu == 1400 && state.hwaddr == mac_text(net.mac), "{state:?}");
    let addresses: Vec<_> = state.addresses.iter().map(|a| format!("{} {}", a.address, a.scope)).collect();
    assert!(addresses.contains(&"10.81.7.1 global".to_owned()) && !addresses.contains(&"10.81.1.1 global".to_owned()));
    assert!(
        addresses.iter().any(|address| address.starts_with("fe80::") && address.ends_with("link")),
        "{addresses:?}"
    );
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        assert_eq!(fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim(), "1");
    }
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv6/conf/br0/accept_ra").unwrap().trim(), "0");
    assert!(taken_subnets().unwrap().contains(&"10.81.7.0/24".parse().unwrap()));
    assert!(host_interfaces().unwrap().iter().any(|found| found.name == "br0" && found.kind == "bridge"));

    let mut kernel = Netlink::open().unwrap();
    let addresses: Vec<IpAddr> = vec!["10.81.7.9".parse().unwrap(), "fd42:81:1::9".parse().unwrap()];
    for _ in 0..2 {
        add_neighbours(&mut kernel, up.index, [2, 0, 0, 0, 0, 9], &addresses).unwrap();
    }
    let permanent = kernel.neighbours(Some(up.index)).unwrap().into_iter().filter(|entry| entry.permanent);
    assert_eq!(permanent.filter(|entry| addresses.contains(&entry.address)).count(), 2);
    for _ in 0..2 {
        remove_neighbours(&mut kernel, up.index, &addresses).unwrap();
    }

    for _ in 0..2 {
        down(&net, &tools).unwrap();
    }
    assert!(!is_up(&net).unwrap());
    assert_eq!(output("nft", &["list", "tables"]), "");
    assert_eq!(kernel.links().unwrap().len(), 1, "only lo");
}

#[test]
fn a_failure_leaves_nothing_and_strangers_are_left_alone() {
    if !inside("a_failure_leaves_nothing_and_strangers_are_left_alone", &["nft"]) {
        return;
    }
    let net = bridge("br0", 1);
    let mut kernel = Netlink::open().unwrap();
    let missing = ensure_up(&net, &Tools { nft: "/nonexistent/nft".into() }).unwrap_err();
    assert_eq!(missing.to_string(), "/nonexistent/nft is not installed; install the package nftables");
    let refused = ensure_up(&net, &Tools { nft: "/bin/false".into() }).unwrap_err();
    assert!(refused.to_string().contains("firewall rules were refused"));
    assert_eq!(kernel.link("br0").unwrap(), None);

    let foreign = BridgeSpec { name: "br0", mac: [2, 0, 0, 0, 0, 1], mtu: None, group: None, multicast_snooping: true };
    kernel.add_bridge(&foreign).unwrap();
    let tools = Tools::default();
    assert_eq!(ensure_up(&net, &tools).unwrap_err().kind(), stapes_model::ErrorKind::Conflict);
    assert!(down(&net, &tools).is_err() && kernel.link("br0").unwrap().is_some());
}

#[test]
fn what_leaves_the_subnet_is_masqueraded_and_what_is_blocked_is_refused() {
    if !inside("what_leaves_the_subnet_is_masqueraded_and_what_is_blocked_is_refused", &["nft", "busybox", "ip"]) {
        return;
    }
    let (mut net, tools) = (bridge("br0", 1), Tools::default());
    let up = ensure_up(&net, &tools).unwrap();
    let mut kernel = Netlink::open().unwrap();
    let client = Client::new("vclient", 90_000, [2, 0, 0, 0, 0, 1], Some(up.index));
    // The world outside knows no way back to the subnet: only a masqueraded packet is answered.
    let world = Client::new("vworld", 90_001, [2, 0, 0, 0, 0, 2], None);
    let outside = kernel.link_index("vworld").unwrap();
    let families = [
        ("-4", "192.0.2.1/24", "192.0.2.2/24", "192.0.2.1/32", "10.81.1.7/24"),
        ("-6", "2001:db8::1/64", "2001:db8::2/64", "2001:db8::1/128", "fd42:81:1::7/64"),
    ];
    for (family, router, server, only_route, guest) in families {
        let (address, prefix) = router.split_once('/').unwrap();
        kernel.add_address(outside, address.parse().unwrap(), prefix.parse().unwrap()).unwrap();
        world.run(&["ip", family, "address", "add", server, "dev", "eth0", "noprefixroute"]);
        world.run(&["ip", family, "route", "replace", only_route, "dev", "eth0"]);
        client.run(&["ip", family, "address", "replace", guest, "dev", "eth0"]);
        let gateway = net.gateways().into_iter().find(|gateway| gateway.is_ipv4() == (family == "-4")).unwrap();
        client.run(&["ip", family, "route", "replace", "default", "via", &gateway.to_string()]);
        let server = server.split_once('/').unwrap().0;
        wait_until("an answer from outside", || client.pings(server));
    }
    net.ipv4.as_mut().unwrap().routing = false;
    ensure_up(&net, &tools).unwrap();
    assert!(!client.pings("192.0.2.2"), "ipv4.routing=false");
    assert!(client.pings("2001:db8::2"));
}

#[test]
fn an_instance_gets_its_reserved_address_and_its_names() {
    if !inside("an_instance_gets_its_reserved_address_and_its_names", &["nft", "dnsmasq", "busybox"]) {
        return;
    }
    let tools = Tools::default();
    let directory = tempfile::tempdir().unwrap();
    // dnsmasq reads it under another account.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Two networks at once, and a resolver of the host's own on the loopback's port 53.
    let resolver = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
    let mut servers = Vec::new();
    let mut ups = Vec::new();
    for (name, third) in [("br0", 1), ("br1", 2)] {
        let net = bridge(name, third);
        ups.push(ensure_up(&net, &tools).unwrap());
        let paths = DnsmasqPaths::beneath(directory.path().join(name));
        prepare_files(&net, &paths).unwrap();
        let log = fs::File::create(directory.path().join(format!("{name}.log"))).unwrap();
        servers.push((Running::start(&dnsmasq_argv(&net, &paths, Advertiser::Dnsmasq), log.into()), net, paths));
    }
    for name in ["br0", "br1"] {
        let log = directory.path().join(format!("{name}.log"));
        wait_until("dnsmasq", || fs::read_to_string(&log).unwrap().contains("cleared cache"));
    }
    for (place, (server, net, paths)) in servers.iter().enumerate() {
        check_network(server, net, paths, ups[place].index, place as u32);
    }
    drop(resolver);
}

/// A bridge with radvd, and a client that has heard from it: its routes and its addresses.
fn advertised(net: &Bridge, third: u32, directory: &std::path::Path) -> (Running, Client) {
    let up = ensure_up(net, &Tools::default()).unwrap();
    let paths = RadvdPaths::beneath(directory);
    let argv = prepare_radvd(net, &paths).unwrap().unwrap();
    assert_eq!(prepare_radvd(net, &paths).unwrap().unwrap(), argv);
    let radvd = Running::start(&argv, Stdio::null());
    let client = Client::new(&format!("vr{third}"), 90_000 + third, [2, 0, 0, 0, 1, third as u8], Some(up.index));
    (radvd, client)
}

#[test]
fn radvd_announces_and_asks_the_kernel_for_no_links() {
    if !inside("radvd_announces_and_asks_the_kernel_for_no_links", &["nft", "radvd", "busybox", "strace"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut net = bridge("br0", 1);
    net.mtu = Some(1400);
    let (radvd, client) = advertised(&net, 1, directory.path());
    let learned = |client: &Client| {
        let routes = client.run(&["busybox", "ip", "-6", "route"]);
        let addresses = client.run(&["busybox", "ip", "-6", "address", "show", "dev", "eth0"]);
        routes.contains("default via fe80::") && addresses.contains("fd42:81:1:")
    };
    wait_until("an address and a route", || learned(&client));
    let mtu = client.run(&["cat", "/proc/sys/net/ipv6/conf/eth0/mtu"]);
    assert_eq!(mtu.trim(), "1400");

    // From here on each call of radvd's is seen: another guest comes, asks and is answered.
    let calls = directory.path().join("calls");
    let tracer = directory.path().join("tracer");
    let (pid, out) = (radvd.0.id().to_string(), calls.display().to_string());
    let strace = ["strace", "-o", &out, "-p", &pid].map(str::to_owned);
    let tracing = Running::start(&strace, fs::File::create(&tracer).unwrap().into());
    wait_until("strace", || fs::read_to_string(&tracer).unwrap().contains("attached"));
    let index = Netlink::open().unwrap().link_index("br0").unwrap();
    // Its MTU is smaller: the bridge keeps its own, else radvd would fall silent.
    let other = Client::new("vr2", 90_002, [2, 0, 0, 0, 1, 2], Some(index));
    Netlink::open().unwrap().set_mtu(Netlink::open().unwrap().link_index("vr2").unwrap(), 1300).unwrap();
    wait_until("another guest's address and route", || learned(&other));
    assert_eq!(net.state().unwrap().unwrap().mtu, 1400);
    wait_until("the answer in the record", || fs::read_to_string(&calls).unwrap().contains("sendmsg("));
    drop(tracing);
    let calls = fs::read_to_string(&calls).unwrap();
    assert!(!calls.contains("GETLINK") && !calls.contains("GETADDR") && !calls.contains("DUMP"), "{calls}");
}

#[test]
fn radvd_refuses_what_it_cannot_say_and_forgets_old_configurations() {
    if !inside("radvd_refuses_what_it_cannot_say_and_forgets_old_configurations", &["radvd"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let paths = RadvdPaths::beneath(directory.path());
    let files = || fs::read_dir(directory.path()).unwrap().count();
    let mut net = bridge("br0", 1);
    for (stateful, dhcp, search) in [(false, true, ""), (true, true, "lab.example"), (false, false, "a1 b-c.example")] {
        net.ipv6_stateful = stateful;
        net.ipv6.as_mut().unwrap().dhcp = dhcp;
        net.search = search.split_whitespace().map(str::to_owned).collect();
        prepare_radvd(&net, &paths).unwrap().unwrap();
        assert_eq!(files(), 1);
    }
    net.search = vec!["on".to_owned()];
    let refused = prepare_radvd(&net, &paths).unwrap_err();
    assert!(matches!(refused, NetworkError::Advertisements { .. }), "{refused}");
    net.ipv6_ra = false;
    assert_eq!(prepare_radvd(&net, &paths).unwrap(), None);
    assert_eq!(files(), 0);
}

fn check_network(server: &Running, net: &Bridge, paths: &DnsmasqPaths, index: u32, place: u32) {
    let gateway = net.gateways()[0].to_string();
    let mut used = HashSet::from([allocate_ipv4(net, &HashSet::new(), None).unwrap()]);
    let ipv4 = allocate_ipv4(net, &used, None).unwrap();
    used.insert(ipv4);
    let mac = new_mac(&HashSet::new(), &mut || u64::from(place) * 16 + 5);
    let (id, nic): (InstanceId, DeviceName) = (InstanceId::from_bits(77), "eth0".parse().unwrap());
    let ipv6 = eui64(net, mac);
    let mut wanted = Reservation { mac, ipv4: Some(ipv4), ipv6, name: "c1".to_owned(), domain: net.domain.clone() };

    let client = Client::new(&format!("va{place}"), 90_000 + place * 10, mac, Some(index));
    write_reservation(net, paths, &id, &nic, &wanted).unwrap();
    let (said, took) = client.dhcp();
    eprintln!("{}: lease in {took:?}", net.name);
    assert!(said.contains(&format!("lease of {ipv4} obtained")), "{said}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    client.run(&["busybox", "ip", "address", "add", &format!("{ipv4}/24"), "dev", "eth0"]);
    for name in ["c1.incus", "c1"] {
        let answer = client.lookup(name, &gateway);
        assert!(answer.contains(&ipv4.to_string()) && answer.contains(&ipv6.unwrap().to_string()), "{name}: {answer}");
    }
    assert!(client.lookup("_gateway.incus", &gateway).contains(&gateway));
    wait_until("the address by router advertisement", || {
        client.run(&["busybox", "ip", "-6", "address", "show", "dev", "eth0"]).contains(&ipv6.unwrap().to_string())
    });

    // A rename is a rewritten file: the new name is there and the old one gone, without any signal.
    wanted.name = "c2".to_owned();
    write_reservation(net, paths, &id, &nic, &wanted).unwrap();
    wait_until("the new name", || client.lookup("c2.incus", &gateway).contains(&ipv4.to_string()));
    assert!(!client.lookup("c1.incus", &gateway).contains(&ipv4.to_string()));
    let listed = leases(net, &[], &fs::read_to_string(paths.leases()).unwrap());
    assert!(listed.iter().any(|lease| lease.address == IpAddr::from(ipv4) && lease.mac == mac_text(mac)), "{listed:?}");

    // The instance goes; another gets its address at once.
    drop(client);
    assert!(remove_reservation(paths, &id, &nic).unwrap());
    assert!(!remove_reservation(paths, &id, &nic).unwrap());
    server.hang_up();
    release_ipv4(net, mac, ipv4).unwrap();
    let other = new_mac(&HashSet::from([mac]), &mut || u64::from(place) * 16 + 5);
    let heir = Client::new(&format!("vb{place}"), 90_001 + place * 10, other, Some(index));
    wait_until("the lease's end", || !fs::read_to_string(paths.leases()).unwrap().contains(&mac_text(mac)));
    assert!(!heir.lookup("c2.incus", &gateway).contains(&ipv4.to_string()));
    let reservation = Reservation { mac: other, ipv6: None, name: "heir".to_owned(), ..wanted };
    write_reservation(net, paths, &InstanceId::from_bits(78), &nic, &reservation).unwrap();
    let (said, _) = heir.dhcp();
    assert!(said.contains(&format!("lease of {ipv4} obtained")), "{said}");
}
