//! Which address belongs to whom: hardware addresses, DHCP reservations, the address that SLAAC will choose.

use std::{
    collections::HashSet,
    hash::BuildHasher,
    net::{Ipv4Addr, Ipv6Addr},
};

use stapes_model::NetworkName;

use crate::{Bridge, NetworkError};

/// The first half of every MAC made here: the default of Incus's `network.hwaddr_pattern`.
const MAC_PREFIX: [u8; 3] = [0x10, 0x66, 0x6a];

/// The MAC of a network's bridge: the same each time on this host, another on each host.
pub fn bridge_mac(network: &NetworkName, host: &str) -> [u8; 6] {
    let hash = stable_hash(host.bytes().chain([0]).chain(network.as_str().bytes()));
    with_prefix(hash ^ hash >> 32)
}

/// FNV-1a: all that is asked of it is to be the same in every version.
pub(crate) fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A MAC that is not in `used`.
///
/// With 24 free bits and thousands in use a few tries suffice; where all are taken, the last drawn is returned only
/// after looking at every one, so the caller's compare-and-set still has the last word.
pub fn new_mac<S: BuildHasher>(used: &HashSet<[u8; 6], S>, random: &mut dyn FnMut() -> u64) -> [u8; 6] {
    let start = random();
    let candidates = (0..1u64 << 24).map(|step| with_prefix(start.wrapping_add(step)));
    candidates.into_iter().find(|mac| !used.contains(mac)).unwrap_or_else(|| with_prefix(start))
}

fn with_prefix(bits: u64) -> [u8; 6] {
    let [a, b, c] = MAC_PREFIX;
    [a, b, c, (bits >> 16) as u8, (bits >> 8) as u8, bits as u8]
}

/// `10:66:6a:01:02:03`.
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The address that an interface with this MAC gives itself by SLAAC (RFC 4291, modified EUI-64), so that it is known
/// at birth. `None` without router advertisements or where the prefix is not a /64. A guest with privacy extensions or
/// stable-privacy addresses chooses others.
pub fn eui64(bridge: &Bridge, mac: [u8; 6]) -> Option<Ipv6Addr> {
    let family = bridge.ipv6.as_ref().filter(|family| bridge.ipv6_ra && family.address.prefix_len() == 64)?;
    Some(Ipv6Addr::from_bits(family.address.network().to_bits() | u128::from(interface_id(mac))))
}

/// The link-local address of an interface with this MAC.
pub(crate) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfe80u128 << 112 | u128::from(interface_id(mac)))
}

fn interface_id(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// An address for a new reservation: `wanted` if it is free and inside the subnet, else the lowest free one of
/// `ipv4.dhcp.ranges` (or of the whole subnet). Deterministic, so that two callers racing collide in the store's
/// compare-and-set instead of both succeeding by luck.
pub fn allocate_ipv4<S: BuildHasher>(
    bridge: &Bridge,
    used: &HashSet<Ipv4Addr, S>,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, NetworkError> {
    let network = || bridge.name.clone();
    let family = bridge.ipv4.as_ref().ok_or_else(|| NetworkError::NoIpv4 { network: network() })?;
    let subnet = family.address;
    let reserved = [subnet.network(), subnet.broadcast(), subnet.addr()];
    if let Some(address) = wanted {
        if !subnet.contains(&address) {
            return Err(NetworkError::AddressOutside {
                network: network(),
                address,
                subnet: subnet.trunc().to_string(),
            });
        }
        if reserved.contains(&address) || used.contains(&address) {
            return Err(NetworkError::AddressTaken { network: network(), address });
        }
        return Ok(address);
    }
    let ranges = dhcp_ranges(bridge);
    let mut candidates =
        ranges.iter().flat_map(|(first, last)| first.to_bits()..=last.to_bits()).map(Ipv4Addr::from_bits);
    candidates.find(|address| !reserved.contains(address) && !used.contains(address)).ok_or_else(|| {
        let count = ranges.iter().map(|(first, last)| u64::from(last.to_bits() - first.to_bits()) + 1).sum();
        NetworkError::NoFreeAddress { network: network(), count }
    })
}

/// The ranges given, or everything in the subnet but its first address and the broadcast address.
pub(crate) fn dhcp_ranges(bridge: &Bridge) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let Some(family) = &bridge.ipv4 else { return Vec::new() };
    if !family.dhcp_ranges.is_empty() {
        return family.dhcp_ranges.clone();
    }
    let (first, last) = (family.address.network().to_bits() + 2, family.address.broadcast().to_bits() - 1);
    vec![(Ipv4Addr::from_bits(first.min(last)), Ipv4Addr::from_bits(last))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{BOTH, bridge};

    #[test]
    fn addresses_are_given_from_the_lowest_and_run_out() {
        let bridge = bridge(&[("ipv4.address", "10.1.2.1/29"), ("ipv6.address", "none")]);
        let mut used = HashSet::new();
        for last in 2..=6 {
            let address = allocate_ipv4(&bridge, &used, None).unwrap();
            assert_eq!(address, Ipv4Addr::new(10, 1, 2, last));
            used.insert(address);
        }
        let error = allocate_ipv4(&bridge, &used, None).unwrap_err();
        assert_eq!(error.kind(), stapes_model::ErrorKind::Exhausted);
        assert!(error.to_string().starts_with("network br0: all 5 addresses"), "{error}");
    }

    #[test]
    fn a_wanted_address_is_checked() {
        let bridge = bridge(&[("ipv4.address", "10.1.2.1/24"), ("ipv4.dhcp.ranges", "10.1.2.1-10.1.2.9")]);
        let used = HashSet::from([Ipv4Addr::new(10, 1, 2, 5)]);
        let ask = |address: &str| allocate_ipv4(&bridge, &used, Some(address.parse().unwrap()));
        assert!(ask("10.1.2.200").is_ok(), "outside of the ranges is fine");
        for (bad, kind) in
            [("10.1.3.7", "outside"), ("10.1.2.1", "taken"), ("10.1.2.5", "taken"), ("10.1.2.255", "taken")]
        {
            assert!(ask(bad).unwrap_err().to_string().contains(kind), "{bad}");
        }
        assert_eq!(allocate_ipv4(&bridge, &used, None).unwrap(), Ipv4Addr::new(10, 1, 2, 2));
    }

    #[test]
    fn macs_follow_the_pattern_and_are_unique() {
        let mut used = HashSet::new();
        for _ in 0..1000 {
            let mac = new_mac(&used, &mut || 0xfff_fff0);
            assert_eq!(mac[..3], MAC_PREFIX);
            assert!(used.insert(mac));
        }
        let [a, b]: [NetworkName; 2] = ["br0", "br1"].map(|name| name.parse().unwrap());
        assert_eq!(bridge_mac(&a, "host"), bridge_mac(&a, "host"));
        assert_ne!(bridge_mac(&a, "host"), bridge_mac(&b, "host"));
        assert_ne!(bridge_mac(&a, "host"), bridge_mac(&a, "other"));
    }

    #[test]
    fn the_address_by_slaac_is_known_at_birth() {
        let address = eui64(&bridge(BOTH), [0x10, 0x66, 0x6a, 1, 2, 3]).unwrap();
        assert_eq!(address.to_string(), "fd42:1:2:3:1266:6aff:fe01:203");
        assert_eq!(link_local([0x10, 0x66, 0x6a, 1, 2, 3]).to_string(), "fe80::1266:6aff:fe01:203");
        assert_eq!(eui64(&bridge(&[("ipv6.address", "none")]), [0; 6]), None);
    }
}
