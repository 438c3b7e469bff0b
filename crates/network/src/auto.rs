//! What `auto` means: free subnets.

use std::{net::Ipv4Addr, path::Path};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use stapes_sys::netlink::Netlink;

use crate::{NetworkConfig, NetworkError, validate};

/// Validates a configuration and resolves `auto` (and a missing address: a new network's default) to a free 10.x.y.1/24
/// and fd42:…::1/64, with NAT unless that is said otherwise. `none` stays.
///
/// `taken` are the subnets of the host and of other networks, without this one's own where it is up already; an address
/// given by hand must not cover one of them either.
/// `ipv6` is false on a host without IPv6 (see [`ipv6_available`]), where `auto` becomes `none`.
pub fn complete(
    network: &NetworkConfig,
    taken: &[IpNet],
    ipv6: bool,
    random: &mut dyn FnMut() -> u64,
) -> Result<NetworkConfig, NetworkError> {
    validate(network)?;
    let mut completed = network.clone();
    let config = &mut completed.config;
    // A wider route of the host's is no obstacle to a subnet given by hand: the narrower one wins there.
    let swallows = |net: IpNet| taken.iter().copied().find(|other| net.trunc().contains(other));

    for (key, nat) in [("ipv4.address", "ipv4.nat"), ("ipv6.address", "ipv6.nat")] {
        let given = config.get(key).map(String::as_str).unwrap_or_default();
        if !matches!(given, "" | "auto") {
            // `validate` has accepted it: `none` or an address.
            if let Ok(subnet) = given.parse::<IpNet>()
                && let Some(taken) = swallows(subnet)
            {
                return Err(NetworkError::Overlap { network: network.name.clone(), key, subnet, taken });
            }
            continue;
        }
        let chosen = match key {
            "ipv4.address" => Some(IpNet::from(free_ipv4(taken, random).ok_or(NetworkError::NoFreeSubnet {
                network: network.name.clone(),
                subnet: "10.x.y.0/24",
                key,
            })?)),
            _ if ipv6 => Some(IpNet::from(free_ipv6(taken, random).ok_or(NetworkError::NoFreeSubnet {
                network: network.name.clone(),
                subnet: "fd42:…::/64",
                key,
            })?)),
            _ => None,
        };
        config.insert(key.to_owned(), chosen.map_or("none".to_owned(), |net| net.to_string()));
        if chosen.is_some() && config.get(nat).is_none_or(String::is_empty) {
            config.insert(nat.to_owned(), "true".to_owned());
        }
    }
    Ok(completed)
}

/// Whether this kernel has IPv6 and it is not switched off at boot.
pub fn ipv6_available() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all/forwarding").exists()
}

/// Every subnet that the host has an address in or a route to; default routes are no subnet.
pub fn taken_subnets() -> Result<Vec<IpNet>, NetworkError> {
    let read = |net: &mut Netlink| Ok((net.addresses(None)?, net.routes()?));
    let (addresses, routes) = Netlink::open()
        .and_then(|mut net| read(&mut net))
        .map_err(|source| NetworkError::Host { action: "read the host's addresses and routes", source })?;
    let unicast = routes.iter().filter(|route| route.is_unicast() && route.destination.1 > 0);
    let pairs = addresses.iter().map(|info| (info.address, info.prefix)).chain(unicast.map(|route| route.destination));
    let mut nets: Vec<IpNet> =
        pairs.filter_map(|(address, prefix)| IpNet::new(address, prefix).ok()).map(|net| net.trunc()).collect();
    nets.sort();
    nets.dedup();
    Ok(nets)
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a) || a.contains(&b.network()) || b.contains(&a.network())
}

fn free_ipv4(taken: &[IpNet], random: &mut dyn FnMut() -> u64) -> Option<Ipv4Net> {
    let start = random() as u32 & 0xffff;
    // From a random place through all 65,536 of them: a crowded 10.0.0.0/8 is still used to its last /24.
    (0..=0xffffu32).find_map(|step| {
        let place = (start + step) & 0xffff;
        let net = Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0001 | place << 8), 24).ok()?;
        (!taken.iter().any(|other| overlap(net.into(), *other))).then_some(net)
    })
}

fn free_ipv6(taken: &[IpNet], random: &mut dyn FnMut() -> u64) -> Option<Ipv6Net> {
    // 48 random bits: a second try is all but never needed, and a dozen failures mean that all of fd42::/16 is taken.
    (0..16).find_map(|_| {
        let bits = u128::from(random() & 0xffff_ffff_ffff);
        let net = Ipv6Net::new((0xfd42u128 << 112 | bits << 64 | 1).into(), 64).ok()?;
        (!taken.iter().any(|other| overlap(net.into(), *other))).then_some(net)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::network;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn auto_and_absent_become_free_subnets_with_nat() {
        let taken = nets(&["10.7.0.0/16", "10.8.0.0/24"]);
        let mut random = || 0x0700u64;
        let done = complete(&network(&[("ipv6.address", "auto")]), &taken, true, &mut random).unwrap();
        let get = |key: &str| done.config.get(key).map(String::as_str);
        assert_eq!(get("ipv4.address"), Some("10.8.1.1/24"), "the first behind what is taken");
        assert_eq!(get("ipv6.address"), Some("fd42:0:0:700::1/64"));
        assert_eq!((get("ipv4.nat"), get("ipv6.nat")), (Some("true"), Some("true")));
    }

    #[test]
    fn none_and_a_users_nat_are_respected() {
        let wanted = network(&[("ipv4.address", "none"), ("ipv6.nat", "false")]);
        let done = complete(&wanted, &[], true, &mut || 1).unwrap();
        assert_eq!(done.config["ipv4.address"], "none");
        assert_eq!(done.config.get("ipv4.nat"), None);
        assert_eq!(done.config["ipv6.nat"], "false");
        let done = complete(&network(&[]), &[], false, &mut || 1).unwrap();
        assert_eq!(done.config["ipv6.address"], "none", "a host without IPv6");
    }

    #[test]
    fn a_full_host_is_told_so_with_the_remedy() {
        let error = complete(&network(&[]), &nets(&["10.0.0.0/8"]), true, &mut || 9).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network br0: no free 10.x.y.0/24 is left for `auto`; set ipv4.address to a subnet of yours, or to none"
        );
        let error = complete(&network(&[("ipv4.address", "10.1.2.1/16")]), &nets(&["10.1.9.0/24"]), true, &mut || 9);
        assert!(error.unwrap_err().to_string().contains("overlaps 10.1.9.0/24"));
        let narrow = network(&[("ipv4.address", "10.1.2.1/24"), ("ipv6.address", "none")]);
        complete(&narrow, &nets(&["10.0.0.0/8"]), true, &mut || 9).unwrap();
    }
}
