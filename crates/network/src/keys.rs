//! The configuration keys of a bridge network: one table, read by validation, metadata and completion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{NetworkConfig, NetworkError};

/// What a key's value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    Word(&'static [&'static str]),
    /// Text that `check` accepts; its answer is the rule that was broken.
    Text {
        check: fn(&str) -> Result<(), &'static str>,
    },
    /// Known to Incus, not built here yet; the reason. An empty value is let through: it asks for nothing.
    NotBuilt(&'static str),
}

/// One configuration key; a `*` stands for one name chosen by the user, a final `*` for anything.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub help: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, help }
}

const fn text(check: fn(&str) -> Result<(), &'static str>) -> Kind {
    Kind::Text { check }
}

const ACLS: Kind = Kind::NotBuilt("network ACLs");
const BGP: Kind = Kind::NotBuilt("the BGP server");
const ZONES: Kind = Kind::NotBuilt("DNS zones");
const OVN: Kind = Kind::NotBuilt("OVN networks");
const TUNNELS: Kind = Kind::NotBuilt("tunnels between hosts");

/// Every key of a bridge network that Incus knows.
pub const KEYS: &[Key] = &[
    key("bgp.ipv4.nexthop", BGP, "", "Next hop for advertised IPv4 prefixes"),
    key("bgp.ipv6.nexthop", BGP, "", "Next hop for advertised IPv6 prefixes"),
    key("bgp.ipv4.instances", BGP, "false", "Advertise each instance's IPv4 address"),
    key("bgp.ipv6.instances", BGP, "false", "Advertise each instance's IPv6 address"),
    key("bgp.peers.*", BGP, "", "BGP peers"),
    key("bridge.driver", Kind::Word(&["native"]), "native", "Bridge driver"),
    key("bridge.external_interfaces", Kind::NotBuilt("host interfaces on a managed bridge"), "", "Interfaces to add"),
    key("bridge.hwaddr", text(check_mac), "", "MAC address of the bridge"),
    key("bridge.mtu", Kind::Integer { min: 1280, max: 65535 }, "1500", "MTU of the bridge and its ports"),
    key("bridge.multicast_snooping", Kind::Bool, "true", "IGMP and MLD snooping"),
    key("dns.domain", text(check_domain), "incus", "Domain of the instances' names"),
    key("dns.mode", Kind::Word(&["managed", "dynamic", "none"]), "managed", "Who names instances in DNS"),
    key("dns.nameservers", text(check_addresses), "", "DNS servers to announce instead of the bridge"),
    key("dns.search", text(check_domains), "", "Search domains to announce"),
    key("dns.zone.*", ZONES, "", "DNS zones"),
    key("ipv4.address", text(check_subnet4), "auto", "Address and subnet of the bridge, none or auto"),
    key("ipv4.dhcp", Kind::Bool, "true", "Offer addresses by DHCP"),
    key("ipv4.dhcp.expiry", text(check_duration), "1h", "Life of a lease"),
    key("ipv4.dhcp.gateway", text(check_ipv4), "", "Gateway to announce instead of the bridge"),
    key("ipv4.dhcp.ranges", text(check_ranges4), "", "Ranges FIRST-LAST to use, separated by commas"),
    key("ipv4.dhcp.routes", text(check_routes), "", "Static routes to announce: subnet,gateway,…"),
    key("ipv4.firewall", Kind::Bool, "true", "Make filter rules"),
    key("ipv4.nat", Kind::Bool, "false", "Masquerade what leaves the subnet"),
    key("ipv4.nat.address", text(check_ipv4), "", "Source address instead of masquerading"),
    key("ipv4.nat.order", Kind::Word(&["before", "after"]), "before", "Our NAT rules before or after others'"),
    key("ipv4.ovn.ranges", OVN, "", "Ranges for child OVN networks"),
    key("ipv4.routes", text(check_nets4), "", "Further subnets routed to the bridge"),
    key("ipv4.routing", Kind::Bool, "true", "Route to and from the bridge"),
    key("ipv6.address", text(check_subnet6), "auto", "Address and subnet of the bridge, none or auto"),
    key("ipv6.dhcp", Kind::Bool, "true", "Offer further configuration by DHCPv6"),
    key("ipv6.dhcp.expiry", text(check_duration), "1h", "Life of a lease"),
    key("ipv6.dhcp.ranges", text(check_ranges6), "", "Ranges FIRST-LAST of stateful DHCPv6"),
    key("ipv6.dhcp.stateful", Kind::Bool, "false", "Give addresses by DHCPv6 too"),
    key("ipv6.firewall", Kind::Bool, "true", "Make filter rules"),
    key("ipv6.nat", Kind::Bool, "false", "Masquerade what leaves the subnet"),
    key("ipv6.nat.address", text(check_ipv6), "", "Source address instead of masquerading"),
    key("ipv6.nat.order", Kind::Word(&["before", "after"]), "before", "Our NAT rules before or after others'"),
    key("ipv6.ovn.ranges", OVN, "", "Ranges for child OVN networks"),
    key("ipv6.ra", Kind::Bool, "true", "Send router advertisements"),
    key("ipv6.routes", text(check_nets6), "", "Further subnets routed to the bridge"),
    key("ipv6.routing", Kind::Bool, "true", "Route to and from the bridge"),
    key("raw.dnsmasq", text(|_| Ok(())), "", "Lines added to dnsmasq's configuration"),
    key("security.acls", ACLS, "", "Network ACLs"),
    key("security.acls.default.*", ACLS, "", "What ACLs do with unmatched traffic"),
    key("tunnel.*", TUNNELS, "", "VXLAN and GRE tunnels"),
    key("user.*", text(|_| Ok(())), "", "Anything, for the user"),
    key("volatile.network.*", text(|_| Ok(())), "", "Ours"),
];

/// The row of a key, by its name or by its namespace.
pub fn find(name: &str) -> Option<&'static Key> {
    let matches = |key: &&Key| match key.name.strip_suffix('*') {
        Some(space) => name.len() > space.len() && name.starts_with(space),
        None => key.name == name,
    };
    KEYS.iter().find(matches)
}

/// Checks every key and value, without touching anything. What the keys demand of each other is `Bridge::parse`'s part.
pub fn validate(network: &NetworkConfig) -> Result<(), NetworkError> {
    let name = || network.name.clone();
    if network.kind != "bridge" {
        return Err(NetworkError::UnknownKind { network: name(), kind: network.kind.clone() });
    }
    for (key, value) in &network.config {
        let Some(row) = find(key) else {
            return Err(NetworkError::UnknownKey { network: name(), key: key.clone() });
        };
        if value.is_empty() {
            continue;
        }
        if let Kind::NotBuilt(reason) = row.kind {
            return Err(NetworkError::NotBuilt { network: name(), key: key.clone(), reason });
        }
        check_value(row.kind, value).map_err(|rule| NetworkError::Value {
            network: name(),
            key: key.clone(),
            value: value.chars().take(80).collect(),
            rule,
        })?;
    }
    Ok(())
}

fn check_value(kind: Kind, value: &str) -> Result<(), &'static str> {
    match kind {
        Kind::Bool => parse_bool(value).map(|_| ()).ok_or("it is true or false"),
        Kind::Integer { min, max } => match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            _ => Err("it is a whole number in the key's range"),
        },
        Kind::Word(words) if words.contains(&value) => Ok(()),
        Kind::Word(["native"]) => Err("this version only has the kernel's own bridges: native"),
        Kind::Word(["before", ..]) => Err("it is before or after"),
        Kind::Word(_) => Err("it is managed, dynamic or none"),
        Kind::Text { check } => check(value),
        Kind::NotBuilt(reason) => Err(reason),
    }
}

/// Incus's booleans.
pub(crate) fn parse_bool(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// The parts of a list separated by commas, spaces around them removed.
pub(crate) fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// `FIRST-LAST`, in order.
pub(crate) fn parse_range<A: std::str::FromStr + Ord>(text: &str) -> Option<(A, A)> {
    let (first, last) = text.split_once('-')?;
    let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

fn all(list: &str, rule: &'static str, good: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    if parts(list).all(good) { Ok(()) } else { Err(rule) }
}

fn check_mac(text: &str) -> Result<(), &'static str> {
    match parse_mac(text) {
        Some(mac) if mac[0] & 1 == 0 && mac != [0; 6] => Ok(()),
        Some(_) => Err("it must be a unicast address"),
        None => Err("it is six hexadecimal bytes separated by colons"),
    }
}

fn check_domain(text: &str) -> Result<(), &'static str> {
    let label = |label: &str| {
        (1..64).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) { Ok(()) } else { Err("it is a domain name") }
}

fn check_domains(list: &str) -> Result<(), &'static str> {
    all(list, "it is a list of domain names", |part| check_domain(part).is_ok())
}

fn check_addresses(list: &str) -> Result<(), &'static str> {
    all(list, "it is a list of addresses", |part| part.parse::<IpAddr>().is_ok())
}

fn check_ipv4(text: &str) -> Result<(), &'static str> {
    text.parse::<Ipv4Addr>().map(|_| ()).map_err(|_| "it is an IPv4 address")
}

fn check_ipv6(text: &str) -> Result<(), &'static str> {
    text.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| "it is an IPv6 address")
}

fn check_subnet4(text: &str) -> Result<(), &'static str> {
    if matches!(text, "none" | "auto") {
        return Ok(());
    }
    let net: Ipv4Net = text.parse().map_err(|_| "it is none, auto or the bridge's address such as 10.1.2.1/24")?;
    if !(8..=30).contains(&net.prefix_len()) {
        return Err("the prefix length is 8 to 30");
    }
    if net.addr() == net.network() || net.addr() == net.broadcast() {
        return Err("it is the bridge's own address, such as 10.1.2.1/24, not the network's");
    }
    Ok(())
}

fn check_subnet6(text: &str) -> Result<(), &'static str> {
    if matches!(text, "none" | "auto") {
        return Ok(());
    }
    let net: Ipv6Net = text.parse().map_err(|_| "it is none, auto or the bridge's address such as fd42::1/64")?;
    if !(8..=126).contains(&net.prefix_len()) || net.addr() == net.network() {
        return Err("it is the bridge's own address, such as fd42::1/64, not the network's");
    }
    Ok(())
}

fn check_nets4(list: &str) -> Result<(), &'static str> {
    all(list, "it is a list of IPv4 subnets", |part| part.parse::<Ipv4Net>().is_ok())
}

fn check_nets6(list: &str) -> Result<(), &'static str> {
    all(list, "it is a list of IPv6 subnets", |part| part.parse::<Ipv6Net>().is_ok())
}

fn check_ranges4(list: &str) -> Result<(), &'static str> {
    all(list, "it is a list of ranges such as 10.1.2.50-10.1.2.99", |part| parse_range::<Ipv4Addr>(part).is_some())
}

fn check_ranges6(list: &str) -> Result<(), &'static str> {
    all(list, "it is a list of ranges such as fd42::50-fd42::99", |part| parse_range::<Ipv6Addr>(part).is_some())
}

fn check_routes(list: &str) -> Result<(), &'static str> {
    let items: Vec<&str> = parts(list).collect();
    let pair = |pair: &[&str]| pair[0].parse::<Ipv4Net>().is_ok() && pair[1].parse::<Ipv4Addr>().is_ok();
    if items.len().is_multiple_of(2) && items.chunks_exact(2).all(pair) {
        return Ok(());
    }
    Err("it is subnet,gateway,subnet,gateway,…")
}

fn check_duration(text: &str) -> Result<(), &'static str> {
    let digits = text.strip_suffix(['s', 'm', 'h', 'd', 'w']).unwrap_or(text);
    let number = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if number || text == "infinite" { Ok(()) } else { Err("it is a duration such as 1h, 30m, 3600 or infinite") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::network;

    #[test]
    fn every_key_of_the_table_is_found_once() {
        for row in KEYS {
            let name = row.name.replace('*', "x");
            assert_eq!(find(&name).map(|found| found.name), Some(row.name));
            if !row.default.is_empty() && !matches!(row.kind, Kind::NotBuilt(_)) {
                assert_eq!(check_value(row.kind, row.default), Ok(()), "{name}");
            }
        }
    }

    #[test]
    fn wrong_keys_and_values_are_refused_by_name() {
        let cases = [
            ("ipv4.adress", "none", "network br0: unknown key ipv4.adress"),
            ("user.", "x", "network br0: unknown key user."),
            ("ipv4.nat", "maybe", "network br0: ipv4.nat: \"maybe\" is not allowed: it is true or false"),
            (
                "bridge.mtu",
                "12",
                "network br0: bridge.mtu: \"12\" is not allowed: it is a whole number in the key's range",
            ),
            ("tunnel.a.protocol", "gre", "network br0: tunnel.a.protocol is not available yet: tunnels between hosts"),
        ];
        for (key, value, expected) in cases {
            assert_eq!(validate(&network(&[(key, value)])).unwrap_err().to_string(), expected);
        }
        let bad = [
            ("ipv4.address", "10.0.0.0/24"),
            ("ipv4.address", "10.0.0.1/31"),
            ("ipv6.address", "10.0.0.1/24"),
            ("bridge.hwaddr", "01:00:00:00:00:00"),
            ("bridge.hwaddr", "+1:00:00:00:00:00"),
            ("bridge.driver", "openvswitch"),
            ("dns.domain", "a\nb"),
            ("dns.domain", ""),
            ("ipv4.dhcp.ranges", "10.0.0.9-10.0.0.3"),
            ("ipv4.dhcp.routes", "10.0.0.0/8"),
            ("ipv4.dhcp.expiry", "1h;reboot"),
        ];
        for (key, value) in bad.into_iter().filter(|(_, value)| !value.is_empty()) {
            assert!(validate(&network(&[(key, value)])).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn good_ones_pass() {
        let good = network(&[
            ("ipv4.address", "10.1.2.1/24"),
            ("ipv6.address", "auto"),
            ("ipv4.nat", "true"),
            ("ipv4.dhcp.ranges", "10.1.2.50-10.1.2.60, 10.1.2.70-10.1.2.80"),
            ("ipv4.dhcp.routes", "0.0.0.0/0,10.1.2.1"),
            ("user.note", "anything = goes"),
            ("security.acls", ""),
        ]);
        validate(&good).unwrap();
    }
}
