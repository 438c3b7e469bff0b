//! dnsmasq: its command line and the files that it watches. The daemon runs it as a service; nothing here does.
//!
//! Seen with dnsmasq 2.90, and what the rest of the module rests on:
//! - `--hostsdir` (names) follows the directory by inotify in full: a new, rewritten or *removed* file takes effect at
//!   once, and names of its old content are forgotten. Files whose name starts with a dot are ignored, so a rename into
//!   place is atomic.
//!   A lease without a name of its own takes its name from there, and follows it.
//! - `--dhcp-hostsdir` (reservations) takes up new and rewritten files at once but never forgets: a removed one lives on
//!   until SIGHUP, and until then a new one for the same address is refused ("duplicate dhcp-host IP address"). So: after
//!   [`remove_reservation`] send SIGHUP (it re-reads the directory; it does not re-read the command line).
//! - A lease outlives its reservation, and while it lives, its address is refused to another MAC ("not using configured
//!   address … because it is leased"). So: [`release_ipv4`] before an address is given to somebody else.
//! - It reads both directories after it gave up root: they must be open to everybody (0755, files 0644).

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use ipnet::Ipv6Net;
use stapes_model::{DeviceName, InstanceId};

use crate::{
    Advertiser, Bridge, DnsMode, Family, NetworkError,
    addresses::{dhcp_ranges, mac_text},
    files, radvd,
};

/// Where a network's dnsmasq keeps its files, all beneath one directory of the network's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsmasqPaths {
    /// The program.
    pub program: PathBuf,
    pub directory: PathBuf,
    /// The account to run as; `None` stays with dnsmasq's own default.
    pub user: Option<String>,
}

impl DnsmasqPaths {
    /// Beneath `directory`, as the first of the accounts `dnsmasq` and `nobody` that this host has.
    pub fn beneath(directory: impl Into<PathBuf>) -> Self {
        Self { program: "dnsmasq".into(), directory: directory.into(), user: files::account(&["dnsmasq", "nobody"]) }
    }

    /// DHCP reservations, one file for each NIC.
    pub fn reservations(&self) -> PathBuf {
        self.directory.join("dnsmasq.reservations")
    }

    /// DNS names, one file for each NIC.
    pub fn hosts(&self) -> PathBuf {
        self.directory.join("dnsmasq.hosts")
    }

    /// dnsmasq's own record of leases.
    pub fn leases(&self) -> PathBuf {
        self.directory.join("dnsmasq.leases")
    }

    /// `raw.dnsmasq`.
    pub fn raw(&self) -> PathBuf {
        self.directory.join("dnsmasq.raw")
    }
}

/// What one NIC is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub mac: [u8; 6],
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// The instance's name.
    pub name: String,
    pub domain: String,
}

/// The line of a reservation (`--dhcp-host`).
pub fn host_entry(reservation: &Reservation) -> String {
    let mut entry = mac_text(reservation.mac);
    if let Some(ipv4) = reservation.ipv4 {
        entry.push_str(&format!(",{ipv4}"));
    }
    if let Some(ipv6) = reservation.ipv6 {
        entry.push_str(&format!(",[{ipv6}]"));
    }
    if !reservation.name.is_empty() {
        entry.push_str(&format!(",{}", reservation.name));
    }
    entry.push('\n');
    entry
}

/// The lines of a NIC's names (as in /etc/hosts): `<name>.<domain>` and `<name>`.
pub fn name_entry(reservation: &Reservation) -> String {
    let Reservation { name, domain, .. } = reservation;
    let addresses = reservation.ipv4.map(IpAddr::from).into_iter().chain(reservation.ipv6.map(IpAddr::from));
    addresses.map(|address| format!("{address} {name}.{domain} {name}\n")).collect()
}

/// Makes the directories and `raw.dnsmasq`: before dnsmasq starts. Repeating it is harmless.
pub fn prepare_files(bridge: &Bridge, paths: &DnsmasqPaths) -> Result<(), NetworkError> {
    for directory in [&paths.directory, &paths.reservations(), &paths.hosts()] {
        fs::create_dir_all(directory).map_err(files::error(directory))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).map_err(files::error(directory))?;
    }
    let raw = paths.raw();
    if bridge.raw_dnsmasq.is_empty() {
        return files::remove(&raw).map(|_| ());
    }
    files::replace(&raw, &format!("{}\n", bridge.raw_dnsmasq))
}

/// Writes what dnsmasq is to know of a NIC; it notices by itself.
///
/// The name stands in the hosts file alone where an address is known: in the reservation it would stick to the lease,
/// and a renamed instance would keep its old name until SIGHUP.
pub fn write_reservation(
    bridge: &Bridge,
    paths: &DnsmasqPaths,
    instance: &InstanceId,
    nic: &DeviceName,
    reservation: &Reservation,
) -> Result<(), NetworkError> {
    let file = file_name(instance, nic);
    let hosts = paths.hosts().join(&file);
    let managed = bridge.dns_mode == DnsMode::Managed;
    let names = name_entry(reservation);
    let mut entry = reservation.clone();
    if managed && !names.is_empty() {
        files::replace(&hosts, &names)?;
    } else {
        files::remove(&hosts)?;
    }
    if !managed || !names.is_empty() {
        entry.name.clear();
    }
    files::replace(&paths.reservations().join(&file), &host_entry(&entry))
}

/// Removes what dnsmasq knew of a NIC. True when there was something: then dnsmasq wants a SIGHUP.
pub fn remove_reservation(paths: &DnsmasqPaths, instance: &InstanceId, nic: &DeviceName) -> Result<bool, NetworkError> {
    let file = file_name(instance, nic);
    files::remove(&paths.hosts().join(&file))?;
    files::remove(&paths.reservations().join(&file))
}

/// Removes the reservations and names of all NICs but `keep`. True when there was one: then dnsmasq wants a SIGHUP.
pub fn sweep_reservations(paths: &DnsmasqPaths, keep: &[(InstanceId, DeviceName)]) -> Result<bool, NetworkError> {
    let keep: HashSet<String> = keep.iter().map(|(instance, nic)| file_name(instance, nic)).collect();
    let mut swept = false;
    for directory in [paths.hosts(), paths.reservations()] {
        for entry in fs::read_dir(&directory).map_err(files::error(&directory))? {
            let entry = entry.map_err(files::error(&directory))?;
            if !keep.contains(&*entry.file_name().to_string_lossy()) {
                swept |= files::remove(&entry.path())?;
            }
        }
    }
    Ok(swept)
}

fn file_name(instance: &InstanceId, nic: &DeviceName) -> String {
    format!("{instance}.{nic}")
}

/// Tells the network's dnsmasq that `mac` gives `address` back (DHCPRELEASE, RFC 2131 §4.4.6), in place of a client that
/// was killed. Nobody answers a release, so success only means that it was sent.
pub fn release_ipv4(bridge: &Bridge, mac: [u8; 6], address: Ipv4Addr) -> Result<(), NetworkError> {
    let family = bridge.ipv4.as_ref().ok_or_else(|| NetworkError::NoIpv4 { network: bridge.name.clone() })?;
    let server = family.address.addr();
    let mut packet = vec![0u8; 240];
    // BOOTREQUEST over Ethernet.
    packet[..3].copy_from_slice(&[1, 1, 6]);
    packet[4..8].copy_from_slice(&mac[2..]);
    packet[12..16].copy_from_slice(&address.octets());
    packet[28..34].copy_from_slice(&mac);
    packet[236..].copy_from_slice(&[99, 130, 83, 99]);
    // Message type: release. Server identifier. End.
    packet.extend_from_slice(&[53, 1, 7, 54, 4]);
    packet.extend_from_slice(&server.octets());
    packet.push(255);
    // The kernel counts a packet to the bridge's own address as received on the bridge, so dnsmasq takes it.
    let send = || UdpSocket::bind((server, 0))?.send_to(&packet, (server, 67));
    send().map(|_| ()).map_err(|source| NetworkError::Kernel {
        network: bridge.name.clone(),
        action: "send a DHCP release",
        source,
    })
}

/// The command line, the program first. It runs in the foreground and logs to standard error. Where the `advertiser` is
/// another, it sends no router advertisements, and answers DHCPv6 as if it did.
pub fn dnsmasq_argv(bridge: &Bridge, paths: &DnsmasqPaths, advertiser: Advertiser) -> Vec<String> {
    let mut argv = vec![paths.program.display().to_string()];
    let mut add = |argument: String| argv.push(argument);
    let raw = if bridge.raw_dnsmasq.is_empty() { String::new() } else { paths.raw().display().to_string() };
    // Bound to this bridge's addresses only, so that other networks' and the host's own resolver keep theirs; `dynamic`
    // because addresses may still come.
    add("--keep-in-foreground".to_owned());
    add(format!("--conf-file={raw}"));
    add("--pid-file=".to_owned());
    add("--log-facility=-".to_owned());
    add("--bind-dynamic".to_owned());
    add("--except-interface=lo".to_owned());
    add(format!("--interface={}", bridge.interface()));
    if let Some(user) = &paths.user {
        add(format!("--user={user}"));
    }
    add("--strict-order".to_owned());
    add("--no-hosts".to_owned());
    add(format!("--hostsdir={}", paths.hosts().display()));
    add(format!("--domain={}", bridge.domain));
    if bridge.dns_mode != DnsMode::Unnamed {
        // Its names are ours to answer and are never asked outside.
        add(format!("--local=/{}/", bridge.domain));
        add(format!("--interface-name=_gateway.{},{}", bridge.domain, bridge.interface()));
    }
    let dhcp4 = bridge.ipv4.as_ref().filter(|family| family.dhcp);
    let advertises = bridge.ipv6_ra && advertiser == Advertiser::Dnsmasq;
    let dhcp6 = bridge.ipv6.as_ref().filter(|family| family.dhcp || advertises);
    if dhcp4.is_some() || dhcp6.is_some() {
        // Without --no-ping an offer waits three seconds for an echo.
        for flag in ["no-ping", "dhcp-authoritative", "dhcp-rapid-commit", "dhcp-no-override", "quiet-dhcp"] {
            add(format!("--{flag}"));
        }
        add("--quiet-dhcp6".to_owned());
        add("--quiet-ra".to_owned());
        add("--dhcp-lease-max=65536".to_owned());
        add(format!("--dhcp-leasefile={}", paths.leases().display()));
        add(format!("--dhcp-hostsdir={}", paths.reservations().display()));
        if bridge.dns_mode != DnsMode::Dynamic {
            add("--dhcp-ignore-names".to_owned());
        }
    }
    if let Some(family) = dhcp4 {
        for (first, last) in dhcp_ranges(bridge) {
            add(format!("--dhcp-range={first},{last},{}", family.dhcp_expiry));
        }
        ipv4_options(bridge, &mut add);
    }
    if let Some(family) = dhcp6 {
        ipv6_options(bridge, family, advertises, &mut add);
    }
    argv
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn ipv4_options(bridge: &Bridge, add: &mut impl FnMut(String)) {
    if let Some(gateway) = bridge.dhcp_gateway {
        add(format!("--dhcp-option-force=3,{gateway}"));
    }
    let nameservers = list(bridge.nameservers.iter().filter(|address| address.is_ipv4()));
    if !nameservers.is_empty() {
        add(format!("--dhcp-option-force=6,{nameservers}"));
    }
    if let Some(mtu) = bridge.mtu {
        add(format!("--dhcp-option-force=26,{mtu}"));
    }
    if !bridge.search.is_empty() {
        add(format!("--dhcp-option-force=119,{}", bridge.search.join(",")));
    }
    if !bridge.dhcp_routes.is_empty() {
        let routes = list(bridge.dhcp_routes.iter().map(|(net, gateway)| format!("{net},{gateway}")));
        add(format!("--dhcp-option-force=121,{routes}"));
    }
}

fn ipv6_options(bridge: &Bridge, family: &Family<Ipv6Net, Ipv6Addr>, advertises: bool, add: &mut impl FnMut(String)) {
    let expiry = &family.dhcp_expiry;
    if advertises {
        add("--enable-ra".to_owned());
        if let Some(mtu) = bridge.announced_mtu() {
            let (interval, lifetime) = (radvd::INTERVAL, radvd::ROUTER_LIFETIME);
            add(format!("--ra-param={},mtu:{mtu},{interval},{lifetime}", bridge.interface()));
        }
    }
    let subnet = family.address;
    if family.dhcp && bridge.ipv6_stateful {
        let first = Ipv6Addr::from_bits(subnet.network().to_bits() + 2);
        let whole = [(first, subnet.broadcast())];
        let ranges = if family.dhcp_ranges.is_empty() { &whole[..] } else { &family.dhcp_ranges };
        for (first, last) in ranges {
            add(format!("--dhcp-range={first},{last},{},{expiry}", subnet.prefix_len()));
        }
    } else if bridge.ipv6_ra {
        let mode = match (advertises, family.dhcp) {
            // What ra-stateless answers, without the advertisements that it would send unasked.
            (false, _) => "static",
            (true, true) => "ra-stateless",
            (true, false) => "ra-only",
        };
        add(format!("--dhcp-range=::,constructor:{},{mode},{}", bridge.interface(), subnet.prefix_len()));
    }
    let nameservers = list(bridge.nameservers.iter().filter(|address| address.is_ipv6()).map(|a| format!("[{a}]")));
    if !nameservers.is_empty() {
        add(format!("--dhcp-option=option6:dns-server,{nameservers}"));
    }
    if !bridge.search.is_empty() {
        add(format!("--dhcp-option=option6:domain-search,{}", bridge.search.join(",")));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::test_support::{BOTH, bridge};

    fn check(config: &[(&str, &str)], expected: Expect) {
        let paths = DnsmasqPaths { user: Some("dnsmasq".to_owned()), ..DnsmasqPaths::beneath("/run/net") };
        expected.assert_eq(&(dnsmasq_argv(&bridge(config), &paths, Advertiser::Dnsmasq).join("\n") + "\n"));
    }

    #[test]
    fn both_families() {
        check(
            BOTH,
            expect![[r#"
            dnsmasq
            --keep-in-foreground
            --conf-file=
            --pid-file=
            --log-facility=-
            --bind-dynamic
            --except-interface=lo
            --interface=br0
            --user=dnsmasq
            --strict-order
            --no-hosts
            --hostsdir=/run/net/dnsmasq.hosts
            --domain=incus
            --local=/incus/
            --interface-name=_gateway.incus,br0
            --no-ping
            --dhcp-authoritative
            --dhcp-rapid-commit
            --dhcp-no-override
            --quiet-dhcp
            --quiet-dhcp6
            --quiet-ra
            --dhcp-lease-max=65536
            --dhcp-leasefile=/run/net/dnsmasq.leases
            --dhcp-hostsdir=/run/net/dnsmasq.reservations
            --dhcp-ignore-names
            --dhcp-range=10.1.2.2,10.1.2.254,1h
            --enable-ra
            --dhcp-range=::,constructor:br0,ra-stateless,64
        "#]],
        );
    }

    #[test]
    fn everything_announced() {
        let config = [
            ("ipv4.address", "10.1.2.1/24"),
            ("ipv4.dhcp.ranges", "10.1.2.50-10.1.2.60,10.1.2.70-10.1.2.80"),
            ("ipv4.dhcp.gateway", "10.1.2.9"),
            ("ipv4.dhcp.routes", "192.168.0.0/16,10.1.2.9"),
            ("ipv6.address", "fd42:1:2:3::1/64"),
            ("ipv6.dhcp.stateful", "true"),
            ("ipv6.dhcp.expiry", "30m"),
            ("bridge.mtu", "1400"),
            ("dns.domain", "lab.example"),
            ("dns.mode", "dynamic"),
            ("dns.nameservers", "9.9.9.9, 2620:fe::fe"),
            ("dns.search", "lab.example,example"),
            ("raw.dnsmasq", "cache-size=0"),
        ];
        check(
            &config,
            expect![[r#"
            dnsmasq
            --keep-in-foreground
            --conf-file=/run/net/dnsmasq.raw
            --pid-file=
            --log-facility=-
            --bind-dynamic
            --except-interface=lo
            --interface=br0
            --user=dnsmasq
            --strict-order
            --no-hosts
            --hostsdir=/run/net/dnsmasq.hosts
            --domain=lab.example
            --local=/lab.example/
            --interface-name=_gateway.lab.example,br0
            --no-ping
            --dhcp-authoritative
            --dhcp-rapid-commit
            --dhcp-no-override
            --quiet-dhcp
            --quiet-dhcp6
            --quiet-ra
            --dhcp-lease-max=65536
            --dhcp-leasefile=/run/net/dnsmasq.leases
            --dhcp-hostsdir=/run/net/dnsmasq.reservations
            --dhcp-range=10.1.2.50,10.1.2.60,1h
            --dhcp-range=10.1.2.70,10.1.2.80,1h
            --dhcp-option-force=3,10.1.2.9
            --dhcp-option-force=6,9.9.9.9
            --dhcp-option-force=26,1400
            --dhcp-option-force=119,lab.example,example
            --dhcp-option-force=121,192.168.0.0/16,10.1.2.9
            --enable-ra
            --ra-param=br0,mtu:1400,600,1800
            --dhcp-range=fd42:1:2:3::2,fd42:1:2:3:ffff:ffff:ffff:ffff,64,30m
            --dhcp-option=option6:dns-server,[2620:fe::fe]
            --dhcp-option=option6:domain-search,lab.example,example
        "#]],
        );
    }

    #[test]
    fn who_does_not_advertise_answers_dhcp_all_the_same() {
        let argv = |config: &[(&str, &str)]| {
            let paths = DnsmasqPaths::beneath("/run/net");
            let argv = dnsmasq_argv(&bridge(config), &paths, Advertiser::Radvd);
            assert!(!argv.iter().any(|word| word.contains("enable-ra") || word.contains("ra-")), "{argv:?}");
            argv.into_iter().filter(|word| word.contains("range")).collect::<Vec<_>>().join(" ")
        };
        let subnet = ("ipv6.address", "fd42:1:2:3::1/64");
        let ranges = [
            argv(&[subnet]),
            argv(&[subnet, ("ipv6.dhcp", "false"), ("bridge.mtu", "1400")]),
            argv(&[subnet, ("ipv6.dhcp.stateful", "true")]),
        ];
        expect![[r#"
            --dhcp-range=::,constructor:br0,static,64

            --dhcp-range=fd42:1:2:3::2,fd42:1:2:3:ffff:ffff:ffff:ffff,64,1h
        "#]]
        .assert_eq(&(ranges.join("\n") + "\n"));
    }

    #[test]
    fn neither_dhcp_nor_advertisements_leaves_a_name_server() {
        let config = [
            ("ipv4.address", "10.1.2.1/24"),
            ("ipv4.dhcp", "false"),
            ("ipv6.address", "fd42::1/64"),
            ("ipv6.dhcp", "false"),
            ("ipv6.ra", "false"),
            ("dns.mode", "none"),
        ];
        check(
            &config,
            expect![[r#"
            dnsmasq
            --keep-in-foreground
            --conf-file=
            --pid-file=
            --log-facility=-
            --bind-dynamic
            --except-interface=lo
            --interface=br0
            --user=dnsmasq
            --strict-order
            --no-hosts
            --hostsdir=/run/net/dnsmasq.hosts
            --domain=incus
        "#]],
        );
    }

    #[test]
    fn entries_of_a_nic() {
        let reservation = Reservation {
            mac: [0x10, 0x66, 0x6a, 0, 0, 5],
            ipv4: Some(Ipv4Addr::new(10, 1, 2, 5)),
            ipv6: Some("fd42::5".parse().unwrap()),
            name: "c1".to_owned(),
            domain: "incus".to_owned(),
        };
        expect![[r#"
            10:66:6a:00:00:05,10.1.2.5,[fd42::5],c1
        "#]]
        .assert_eq(&host_entry(&reservation));
        expect![[r#"
            10.1.2.5 c1.incus c1
            fd42::5 c1.incus c1
        "#]]
        .assert_eq(&name_entry(&reservation));
    }
}
