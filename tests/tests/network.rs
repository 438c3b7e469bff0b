//! The managed bridge: addresses, names, and what the host and neighbours can reach.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::json;
use stapes_testkit::{Daemon, Need, eventually, host_with};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox, Need::Tool("dnsmasq"), Need::Tool("nft")];

fn bridge_address(daemon: &Daemon) -> String {
    let network = daemon.api().get("/1.0/networks/stapesbr0").unwrap();
    network["config"]["ipv4.address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

#[test]
fn a_container_gets_an_address_and_is_reached_from_host_and_neighbour() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    daemon.launch("c2");
    let (one, two) = (daemon.address_of("c1"), daemon.address_of("c2"));
    assert_ne!(one, two);
    assert_eq!(daemon.on_host(&["busybox", "ping", "-c", "1", "-W", "3", &one]).code, 0);
    assert_eq!(daemon.api().exec("c2", &["ping", "-c", "1", "-W", "3", &one]).unwrap().0, 0);

    daemon.api().exec("c1", &["sh", "-c", "mkdir /www; echo hello > /www/index.html; httpd -h /www"]).unwrap();
    eventually("the page is served", Duration::from_secs(5), || {
        // Not busybox's own wget: the static one dies looking a host up where there is no NSS.
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 3 {one} 80");
        daemon.on_host(&["sh", "-c", &ask]).stdout.ends_with("hello\n")
    });
}

#[test]
fn names_of_instances_resolve_on_the_bridge() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    daemon.launch("c2");
    let (address, server) = (daemon.address_of("c1"), bridge_address(&daemon));
    let network = daemon.api().get("/1.0/networks/stapesbr0").unwrap();
    let domain = network["config"]["dns.domain"].as_str().unwrap_or("incus").to_owned();
    let name = format!("c1.{domain}");
    eventually("the name resolves on the host", Duration::from_secs(5), || {
        daemon.on_host(&["busybox", "nslookup", &name, &server]).stdout.contains(&address)
    });
    eventually("the name resolves in a neighbour", Duration::from_secs(5), || {
        daemon.api().exec("c2", &["nslookup", &name]).unwrap().1.contains(&address)
    });
}

#[test]
fn an_address_set_on_the_device_is_the_one_the_container_gets() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let server = bridge_address(&daemon);
    let wanted = format!("{}.77", server.rsplit_once('.').unwrap().0);
    let mut body = stapes_testkit::launch_body("c1");
    let nic = json!({ "type": "nic", "network": "stapesbr0", "name": "eth0", "ipv4.address": wanted });
    body["devices"] = json!({ "eth0": nic });
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    assert_eq!(daemon.address_of("c1"), wanted);
}

#[test]
fn leases_and_state_of_the_network_name_the_container() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let address = daemon.address_of("c1");
    let leases = daemon.api().get("/1.0/networks/stapesbr0/leases").unwrap();
    let found = leases.as_array().unwrap().iter().any(|l| l["hostname"] == "c1" && l["address"] == address.as_str());
    assert!(found, "{leases}");
    let state = daemon.api().get("/1.0/networks/stapesbr0/state").unwrap();
    assert_eq!(state["state"], "up");
}

#[test]
fn a_killed_dnsmasq_comes_back() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let pids = || daemon.on_host(&["pgrep", "-x", "dnsmasq"]).stdout;
    eventually("dnsmasq runs", Duration::from_secs(5), || !pids().is_empty());
    let before = pids();
    daemon.kill_inside(before.lines().next().unwrap().parse().unwrap());
    eventually("another dnsmasq runs", Duration::from_secs(15), || !pids().is_empty() && pids() != before);
    daemon.launch("c1");
    daemon.address_of("c1");
}

/// Process ids of the network's radvd: itself, and its child that stays root.
fn radvds(daemon: &Daemon) -> Vec<i64> {
    let pids = daemon.on_host(&["pgrep", "-x", "radvd"]).stdout;
    pids.lines().filter_map(|line| line.parse().ok()).collect()
}

fn routes_of(daemon: &Daemon, name: &str) -> String {
    daemon.api().exec(name, &["ip", "-6", "route"]).unwrap().1
}

fn set_network(daemon: &Daemon, pairs: serde_json::Value) {
    daemon.api().sync("PATCH", "/1.0/networks/stapesbr0", &json!({ "config": pairs })).unwrap();
}

#[test]
fn a_guest_has_its_address_and_route_from_radvd_across_a_restart_and_changes() {
    let Some(_host) = host_with(&[NEEDS, &[Need::Tool("radvd")]].concat()) else { return };
    let mut daemon = Daemon::start();
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        return;
    }
    daemon.launch("c1");
    let network = daemon.api().get("/1.0/networks/stapesbr0").unwrap();
    let prefix = network["config"]["ipv6.address"].as_str().unwrap().split("::").next().unwrap().to_owned();
    let patience = Duration::from_secs(30);
    let addressed = |daemon: &Daemon, name: &str, prefix: &str| {
        let addresses = daemon.api().exec(name, &["ip", "-6", "addr", "show", "dev", "eth0"]).unwrap().1;
        addresses.contains(prefix) && routes_of(daemon, name).contains("default via fe80::")
    };
    eventually("an address and a default route", patience, || addressed(&daemon, "c1", &prefix));
    let address = format!("{prefix}::1");
    eventually("the router answers", patience, || {
        daemon.api().exec("c1", &["ping", "-c", "1", "-W", "3", &address]).unwrap().0 == 0
    });
    let dnsmasq = daemon.on_host(&["sh", "-c", "tr '\\0' ' ' < /proc/$(pgrep -x dnsmasq)/cmdline"]).stdout;
    assert!(dnsmasq.contains("constructor:stapesbr0,static") && !dnsmasq.contains("enable-ra"), "{dnsmasq}");
    let info = daemon.api().get("/1.0").unwrap();
    assert_eq!(info["environment"]["kernel_features"]["router_advertisements"], "radvd");

    // It lives on without the daemon, and the next daemon keeps it.
    let before = radvds(&daemon);
    assert_eq!(before.len(), 2, "{before:?}");
    daemon.kill();
    daemon.launch_daemon();
    assert_eq!(radvds(&daemon), before);
    daemon.launch("c2");
    eventually("another guest's address", patience, || addressed(&daemon, "c2", &prefix));

    // Killed, it is replaced.
    daemon.kill_inside(before[0]);
    eventually("another radvd runs", patience, || {
        let now = radvds(&daemon);
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });

    // Another prefix is announced at once; without advertisements nobody sends any, and guests know.
    set_network(&daemon, json!({ "ipv6.address": "fd42:77:88:99::1/64" }));
    eventually("an address of the new prefix", patience, || addressed(&daemon, "c1", "fd42:77:88:99:"));
    set_network(&daemon, json!({ "ipv6.ra": "false" }));
    eventually("radvd ends", patience, || radvds(&daemon).is_empty());
    eventually("the route goes", patience, || !routes_of(&daemon, "c1").contains("default"));

    // What radvd's parser takes for a word of its own, dnsmasq announces.
    set_network(&daemon, json!({ "ipv6.ra": "true", "dns.search": "on" }));
    assert!(radvds(&daemon).is_empty());
    eventually("the route comes back", patience, || routes_of(&daemon, "c1").contains("default via fe80::"));
    set_network(&daemon, json!({ "dns.search": "" }));
    eventually("radvd runs again", patience, || radvds(&daemon).len() == 2);
    daemon.finish();
}
