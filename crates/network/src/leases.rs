use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stapes_model::keys::parse_mac;

use crate::{Bridge, Reservation, addresses::mac_text};

/// Where a lease comes from; the words are the API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKind {
    Static,
    Dynamic,
    Gateway,
}

impl LeaseKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Dynamic => "dynamic",
            Self::Gateway => "gateway",
        }
    }
}

/// One address in use on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub hostname: String,
    /// Text; empty where DHCPv6 did not tell.
    pub mac: String,
    pub address: IpAddr,
    pub kind: LeaseKind,
}

/// The network's leases: its own addresses, every reservation, and what dnsmasq gave to others. `lease_file` is the text
/// of [`DnsmasqPaths::leases`](crate::DnsmasqPaths::leases), empty where there is none yet.
pub fn leases(bridge: &Bridge, reservations: &[Reservation], lease_file: &str) -> Vec<Lease> {
    let gateway = |address| Lease {
        hostname: format!("{}.gw", bridge.name),
        mac: mac_text(bridge.mac),
        address,
        kind: LeaseKind::Gateway,
    };
    let mut leases: Vec<Lease> = bridge.gateways().into_iter().map(gateway).collect();
    for reservation in reservations {
        let addresses = reservation.ipv4.map(IpAddr::from).into_iter().chain(reservation.ipv6.map(IpAddr::from));
        leases.extend(addresses.map(|address| Lease {
            hostname: reservation.name.clone(),
            mac: mac_text(reservation.mac),
            address,
            kind: LeaseKind::Static,
        }));
    }
    for lease in parse_lease_file(lease_file) {
        if !leases.iter().any(|known| known.address == lease.address) {
            leases.push(lease);
        }
    }
    leases
}

/// Reads dnsmasq's lease file: `expiry mac address name client-id` a line and, behind a line `duid …`, DHCPv6's
/// `expiry iaid address name duid`. The names are the guests' own choice; lines that make no sense are left out.
pub fn parse_lease_file(text: &str) -> Vec<Lease> {
    let line = |line: &str| {
        let mut fields = line.split(' ');
        let _expiry: u64 = fields.next()?.parse().ok()?;
        let identity = fields.next()?;
        let address = fields.next()?;
        let hostname = fields.next().filter(|name| *name != "*").unwrap_or_default();
        let plausible = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let hostname = if hostname.len() <= 253 && hostname.bytes().all(plausible) { hostname } else { "" };
        let (mac, address) = match parse_mac(identity) {
            Some(mac) => (mac_text(mac), IpAddr::from(address.parse::<Ipv4Addr>().ok()?)),
            None => (String::new(), IpAddr::from(address.parse::<Ipv6Addr>().ok()?)),
        };
        Some(Lease { hostname: hostname.to_owned(), mac, address, kind: LeaseKind::Dynamic })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::{BOTH, bridge};

    const FILE: &str = "\
1763760000 10:66:6a:00:00:05 10.1.2.5 c1 ff:00
1763760000 10:66:6a:00:00:06 10.1.2.6 * *
duid 00:01:00:01
1763760000 1234 fd42:1:2:3::77 v6 00:01
1763760000 junk 10.1.2.8 x y
";

    #[test]
    fn reservations_come_first_and_hide_their_own_lease() {
        let reservation = Reservation {
            mac: [0x10, 0x66, 0x6a, 0, 0, 5],
            ipv4: Some(Ipv4Addr::new(10, 1, 2, 5)),
            ipv6: None,
            name: "c1".to_owned(),
            domain: "incus".to_owned(),
        };
        let found = leases(&bridge(BOTH), &[reservation], FILE);
        let text: Vec<_> = found.iter().map(|l| format!("{} {} {}", l.hostname, l.address, l.kind.as_str())).collect();
        let expected = [
            "br0.gw 10.1.2.1 gateway",
            "br0.gw fd42:1:2:3::1 gateway",
            "c1 10.1.2.5 static",
            " 10.1.2.6 dynamic",
            "v6 fd42:1:2:3::77 dynamic",
        ];
        assert_eq!(text, expected);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC*", cut in 0..FILE.len()) {
            parse_lease_file(&text);
            parse_lease_file(&FILE[..cut]);
        }
    }
}
