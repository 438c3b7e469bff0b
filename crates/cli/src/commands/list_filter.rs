//! The filters of `list`: names and `key=value`.

use std::net::IpAddr;

use regex_lite::Regex;
use stapes_api::{InstanceFull, InstanceState};

/// Whether the filter looks at live state.
pub fn needs_state(filter: &str) -> bool {
    let key = filter.split('=').next().unwrap_or_default().to_lowercase();
    filter.contains('=') && (key == "ipv4" || key == "ipv6")
}

/// Whether an instance passes all filters.
pub fn matches(instance: &InstanceFull, filters: &[String]) -> bool {
    filters.iter().all(|filter| match filter.split_once('=') {
        Some((key, value)) => matches_key(instance, key, value),
        None => whole(filter).is_some_and(|name| name.is_match(&instance.name)) || instance.name.starts_with(filter),
    })
}

/// The pattern, for the whole text unless it is anchored itself. `None` where it is no pattern.
fn whole(pattern: &str) -> Option<Regex> {
    let is_anchored = pattern.contains(['^', '$']);
    Regex::new(&if is_anchored { pattern.to_owned() } else { format!("^(?:{pattern})$") }).ok()
}

fn matches_key(instance: &InstanceFull, key: &str, value: &str) -> bool {
    let any = |test: &dyn Fn(&str) -> bool| value.split(',').any(test);
    let state = instance.state.as_ref();
    match key.to_lowercase().as_str() {
        "type" => any(&|v| instance.kind.eq_ignore_ascii_case(v)),
        "state" | "status" => any(&|v| instance.status.eq_ignore_ascii_case(v)),
        "architecture" => any(&|v| instance.architecture.eq_ignore_ascii_case(v)),
        "location" => any(&|v| instance.location.eq_ignore_ascii_case(v)),
        "ipv4" => any(&|v| has_address(state, v, "inet")),
        "ipv6" => any(&|v| has_address(state, v, "inet6")),
        "name" => any(&|v| whole(v).is_some_and(|name| name.is_match(&instance.name))),
        "project" => any(&|v| instance.project == v),
        "description" => any(&|v| instance.description == v),
        _ => matches_config(instance, key, value),
    }
}

/// Configuration by key; each part of the key may be shortened (`u.role` for `user.role`).
fn matches_config(instance: &InstanceFull, key: &str, value: &str) -> bool {
    let pattern = whole(value);
    let key = key.strip_prefix("config.").or_else(|| key.strip_prefix("expanded_config.")).unwrap_or(key);
    let fits = |text: &str| pattern.as_ref().map_or(text == value, |pattern| pattern.is_match(text));
    let found = instance.expanded_config.iter().any(|(full, text)| is_short_for(key, full) && fits(text));
    found || instance.expanded_config.get(key).map_or("", String::as_str) == value
}

fn is_short_for(short: &str, full: &str) -> bool {
    let (short, full): (Vec<_>, Vec<_>) = (short.split('.').collect(), full.split('.').collect());
    short.len() == full.len() && short.iter().zip(&full).all(|(s, f)| f.starts_with(s))
}

fn has_address(state: Option<&InstanceState>, value: &str, family: &str) -> bool {
    let networks = state.and_then(|state| state.network.as_ref()).into_iter().flat_map(|networks| networks.values());
    let mut addresses = networks.flat_map(|network| &network.addresses).filter(|a| a.family == family);
    addresses.any(|address| address.address == value || in_subnet(&address.address, value).unwrap_or(false))
}

fn in_subnet(address: &str, subnet: &str) -> Option<bool> {
    let (network, length) = subnet.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let ((address, width), (network, network_width)) = (bits(address.parse().ok()?), bits(network.parse().ok()?));
    if width != network_width || length > width {
        return None;
    }
    let mask = if length == 0 { 0 } else { u128::MAX << (128 - length) };
    Some(address & mask == network & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::list_columns::tests::sample;

    fn names(filters: &[&str]) -> Vec<String> {
        let filters: Vec<_> = filters.iter().map(|f| (*f).to_owned()).collect();
        sample().into_iter().filter(|i| matches(i, &filters)).map(|i| i.name).collect()
    }

    #[test]
    fn filters_pick_by_name_state_address_and_key() {
        assert_eq!(names(&[]), ["c1", "v2"]);
        assert_eq!(names(&["c"]), ["c1"]);
        assert_eq!(names(&["[cv].*"]), ["c1", "v2"]);
        assert_eq!(names(&["status=running,stopped"]), ["c1", "v2"]);
        assert_eq!(names(&["state=STOPPED"]), ["v2"]);
        assert_eq!(names(&["type=container", "ipv4=10.0.0.0/8"]), ["c1"]);
        assert_eq!(names(&["ipv6=fd42::/16"]), ["c1"]);
        assert_eq!(names(&["u.role=front.*"]), ["c1"]);
        assert_eq!(names(&["user.role=back"]), Vec::<String>::new());
        assert_eq!(names(&["("]), Vec::<String>::new());
    }
}
