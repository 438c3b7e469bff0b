//! Checks a network's keys and values against the one table, [`stapes_model::keys`].

use stapes_model::keys::{Tables, validate_config};

use crate::{NetworkConfig, NetworkError};

/// Checks every key and value, without touching anything. What the keys demand of each other is `Bridge::parse`'s part.
pub fn validate(network: &NetworkConfig) -> Result<(), NetworkError> {
    let name = || network.name.clone();
    if network.kind != "bridge" {
        return Err(NetworkError::UnknownKind { network: name(), kind: network.kind.clone() });
    }
    validate_config(Tables::NETWORK_BRIDGE, &network.config)
        .map_err(|error| NetworkError::Key { network: name(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::network;

    #[test]
    fn wrong_keys_and_values_are_refused_by_name_with_what_was_expected() {
        let cases = [
            ("ipv4.adress", "none", "key \"ipv4.adress\": unknown key; did you mean \"ipv4.address\"?"),
            ("user.", "x", "key \"user.\": unknown key"),
            ("ipv4.nat", "maybe", "key \"ipv4.nat\": value \"maybe\" is invalid, expected true or false"),
            (
                "bridge.mtu",
                "12",
                "key \"bridge.mtu\": value \"12\" is invalid, expected a whole number from 1280 to 65535",
            ),
            ("tunnel.a.protocol", "gre", "key \"tunnel.a.protocol\": not supported: tunnels are not built yet"),
            (
                "ipv4.address",
                "10.0.0.0/24",
                "key \"ipv4.address\": value \"10.0.0.0/24\" is invalid, expected the bridge's own address such as \
                 10.1.2.1/24, not the network's",
            ),
        ];
        for (key, value, expected) in cases {
            let expected = format!("network br0: invalid configuration {expected}");
            assert_eq!(validate(&network(&[(key, value)])).unwrap_err().to_string(), expected);
        }
        let bad = [
            ("ipv4.address", "10.0.0.1/31"),
            ("ipv4.address", "10.0.0.1"),
            ("ipv6.address", "10.0.0.1/24"),
            ("ipv6.address", "fd42::/64"),
            ("bridge.hwaddr", "01:00:00:00:00:00"),
            ("bridge.hwaddr", "+1:00:00:00:00:00"),
            ("bridge.driver", "openvswitch"),
            ("dns.domain", "a\nb"),
            ("dns.search", "a.b,-c"),
            ("dns.nameservers", "10.0.0.1,here"),
            ("ipv4.dhcp.ranges", "10.0.0.9-10.0.0.3"),
            ("ipv4.dhcp.routes", "10.0.0.0/8"),
            ("ipv4.dhcp.expiry", "1h;reboot"),
            ("ipv4.dhcp.gateway", "none"),
            ("ipv4.routes", "10.0.0.0/99"),
        ];
        for (key, value) in bad {
            assert!(validate(&network(&[(key, value)])).unwrap_err().to_string().contains(key), "{key}={value}");
        }
    }

    #[test]
    fn good_ones_pass() {
        let good = network(&[
            ("ipv4.address", "10.1.2.1/24"),
            ("ipv6.address", "auto"),
            ("ipv4.nat", "true"),
            ("ipv4.dhcp.expiry", "infinite"),
            ("ipv4.dhcp.ranges", "10.1.2.50-10.1.2.60, 10.1.2.70-10.1.2.80"),
            ("ipv4.dhcp.routes", "0.0.0.0/0,10.1.2.1"),
            ("user.note", "anything = goes"),
            ("security.acls", ""),
            ("volatile.network.ipv4.address", "10.1.2.9"),
        ]);
        validate(&good).unwrap();
    }
}
