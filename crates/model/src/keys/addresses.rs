//! Forms of the values that networks have: subnets, ranges, routes, domains. Each check says what was expected instead.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};

/// The parts of a list separated by commas, spaces around them removed.
pub fn list_parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Reads `FIRST-LAST`, in order.
pub fn parse_range<A: FromStr + Ord>(text: &str) -> Option<(A, A)> {
    let (first, last) = text.split_once('-')?;
    let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

fn all(list: &str, good: impl Fn(&str) -> bool) -> bool {
    list_parts(list).all(good)
}

pub(super) fn is_ip(text: &str, v6: bool) -> bool {
    text.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6() == v6)
}

pub(super) fn are_ips(list: &str) -> bool {
    all(list, |part| part.parse::<IpAddr>().is_ok())
}

pub(super) fn are_networks(list: &str, v6: bool) -> bool {
    all(list, |part| if v6 { part.parse::<Ipv6Net>().is_ok() } else { part.parse::<Ipv4Net>().is_ok() })
}

pub(super) fn are_ranges(list: &str, v6: bool) -> bool {
    let range = |part: &str| {
        if v6 { parse_range::<Ipv6Addr>(part).is_some() } else { parse_range::<Ipv4Addr>(part).is_some() }
    };
    all(list, range)
}

/// `subnet,gateway,subnet,gateway,…`
pub(super) fn are_routes(list: &str) -> bool {
    let items: Vec<&str> = list_parts(list).collect();
    let pair = |pair: &[&str]| pair[0].parse::<Ipv4Net>().is_ok() && pair[1].parse::<Ipv4Addr>().is_ok();
    items.len().is_multiple_of(2) && items.chunks_exact(2).all(pair)
}

/// A router's own address in its subnet; where it is not, what was expected.
pub(super) fn check_subnet(text: &str, v6: bool) -> Result<(), &'static str> {
    match text {
        "none" | "auto" => Ok(()),
        _ if v6 => check_subnet6(text),
        _ => check_subnet4(text),
    }
}

pub(super) const SUBNET4: &str = "none, auto or the bridge's own address with prefix length such as 10.1.2.1/24";
pub(super) const SUBNET6: &str = "none, auto or the bridge's own address with prefix length such as fd42:1::1/64";

fn check_subnet4(text: &str) -> Result<(), &'static str> {
    let net: Ipv4Net = text.parse().map_err(|_| SUBNET4)?;
    if !(8..=30).contains(&net.prefix_len()) {
        return Err("a prefix length from 8 to 30");
    }
    if net.addr() == net.network() || net.addr() == net.broadcast() {
        return Err("the bridge's own address such as 10.1.2.1/24, not the network's");
    }
    Ok(())
}

fn check_subnet6(text: &str) -> Result<(), &'static str> {
    let net: Ipv6Net = text.parse().map_err(|_| SUBNET6)?;
    if !(8..=126).contains(&net.prefix_len()) {
        return Err("a prefix length from 8 to 126");
    }
    if net.addr() == net.network() {
        return Err("the bridge's own address such as fd42:1::1/64, not the network's");
    }
    Ok(())
}

pub(super) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..64).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

pub(super) fn are_domains(list: &str) -> bool {
    all(list, is_domain)
}

/// What dnsmasq takes for the life of a lease.
pub(super) fn is_lease_time(text: &str) -> bool {
    let digits = text.strip_suffix(['s', 'm', 'h', 'd', 'w']).unwrap_or(text);
    text == "infinite" || ((1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
}
