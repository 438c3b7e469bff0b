use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use stapes_model::{
    NetworkName,
    keys::{list_parts, parse_bool, parse_mac, parse_range},
};

use crate::{NetworkConfig, NetworkError, addresses, keys};

pub(crate) const ETHERNET_MTU: u32 = 1500;

/// How instances get their names in DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsMode {
    /// Each instance has its own name, whatever its DHCP client says.
    Managed,
    /// DHCP clients name themselves.
    Dynamic,
    /// Nobody is named.
    Unnamed,
}

/// Our NAT rules' place among those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatOrder {
    Before,
    After,
}

/// What both address families have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family<Net, Address> {
    /// The bridge's address with its subnet's prefix length.
    pub address: Net,
    pub dhcp: bool,
    pub dhcp_expiry: String,
    /// First and last; empty stands for the whole subnet.
    pub dhcp_ranges: Vec<(Address, Address)>,
    pub firewall: bool,
    pub nat: bool,
    /// Source address instead of masquerading.
    pub nat_address: Option<Address>,
    pub nat_order: NatOrder,
    /// Further subnets behind the bridge.
    pub routes: Vec<Net>,
    pub routing: bool,
}

/// A bridge network's configuration, parsed: nobody behind this looks at strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub name: NetworkName,
    pub mac: [u8; 6],
    /// `None`: 1,500, not announced.
    pub mtu: Option<u32>,
    pub multicast_snooping: bool,
    pub domain: String,
    pub dns_mode: DnsMode,
    /// Announced instead of the bridge's own address.
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub ipv4: Option<Family<Ipv4Net, Ipv4Addr>>,
    pub dhcp_gateway: Option<Ipv4Addr>,
    /// Destination and gateway of routes announced by DHCP.
    pub dhcp_routes: Vec<(Ipv4Net, Ipv4Addr)>,
    pub ipv6: Option<Family<Ipv6Net, Ipv6Addr>>,
    /// Addresses by DHCPv6, not only by router advertisement.
    pub ipv6_stateful: bool,
    pub ipv6_ra: bool,
    pub raw_dnsmasq: String,
}

impl Bridge {
    /// Reads a completed configuration (`auto` is resolved). `host` is what tells this host's bridges from another's
    /// with the same name, such as the machine id; `bridge.hwaddr` overrides what is made of it.
    pub fn parse(network: &NetworkConfig, host: &str) -> Result<Self, NetworkError> {
        keys::validate(network)?;
        let config = Config(network);
        let ipv4 = config.family::<Ipv4Net, Ipv4Addr>("ipv4")?;
        let ipv6 = config.family::<Ipv6Net, Ipv6Addr>("ipv6")?;
        if let Some(family) = &ipv4 {
            let subnet = family.address;
            if family.dhcp_ranges.iter().any(|(first, last)| !subnet.contains(first) || !subnet.contains(last)) {
                return Err(config.refuse("ipv4.dhcp.ranges", "every range lies within ipv4.address"));
            }
        }
        if let Some(family) = &ipv6 {
            let subnet = family.address;
            if family.dhcp_ranges.iter().any(|(first, last)| !subnet.contains(first) || !subnet.contains(last)) {
                return Err(config.refuse("ipv6.dhcp.ranges", "every range lies within ipv6.address"));
            }
            let stateful = config.flag("ipv6.dhcp.stateful", false);
            if !stateful && subnet.prefix_len() != 64 && config.flag("ipv6.ra", true) {
                return Err(config.refuse("ipv6.address", "addresses by router advertisement need a prefix of /64"));
            }
        }
        let routes: Vec<&str> = list_parts(config.get("ipv4.dhcp.routes")).collect();
        let route = |pair: &[&str]| Some((pair[0].parse().ok()?, pair[1].parse().ok()?));
        Ok(Self {
            name: network.name.clone(),
            mac: parse_mac(config.get("bridge.hwaddr")).unwrap_or_else(|| addresses::bridge_mac(&network.name, host)),
            mtu: config.get("bridge.mtu").parse().ok(),
            multicast_snooping: config.flag("bridge.multicast_snooping", true),
            domain: match config.get("dns.domain") {
                "" => "incus".to_owned(),
                domain => domain.to_owned(),
            },
            dns_mode: match config.get("dns.mode") {
                "dynamic" => DnsMode::Dynamic,
                "none" => DnsMode::Unnamed,
                _ => DnsMode::Managed,
            },
            nameservers: config.list("dns.nameservers"),
            search: config.list("dns.search"),
            ipv4,
            dhcp_gateway: config.get("ipv4.dhcp.gateway").parse().ok(),
            dhcp_routes: routes.chunks_exact(2).filter_map(route).collect(),
            ipv6,
            ipv6_stateful: config.flag("ipv6.dhcp.stateful", false),
            ipv6_ra: config.flag("ipv6.ra", true),
            raw_dnsmasq: config.get("raw.dnsmasq").to_owned(),
        })
    }

    /// The kernel's bridge of the network. A network has one; more are for later, when one has its 250 ports.
    pub fn interface(&self) -> &str {
        self.name.as_str()
    }

    /// The MTU that guests are told: where it is not what an Ethernet has anyway.
    pub(crate) fn announced_mtu(&self) -> Option<u32> {
        self.mtu.filter(|mtu| *mtu != ETHERNET_MTU)
    }

    /// The bridge's own addresses, for neighbour entries inside instances.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let ipv4 = self.ipv4.iter().map(|family| IpAddr::from(family.address.addr()));
        let ipv6 = self.ipv6.iter().map(|family| IpAddr::from(family.address.addr()));
        ipv4.chain(ipv6).collect()
    }

    /// The network as it is routed: for `complete` of another one.
    pub fn subnets(&self) -> Vec<ipnet::IpNet> {
        let ipv4 = self.ipv4.iter().map(|family| ipnet::IpNet::from(family.address.trunc()));
        let ipv6 = self.ipv6.iter().map(|family| ipnet::IpNet::from(family.address.trunc()));
        ipv4.chain(ipv6).collect()
    }
}

/// A configuration whose every value `validate` has accepted.
struct Config<'a>(&'a NetworkConfig);

impl Config<'_> {
    fn get(&self, key: &str) -> &str {
        self.0.config.get(key).map_or("", String::as_str)
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        parse_bool(self.get(key)).unwrap_or(default)
    }

    fn list<T: std::str::FromStr>(&self, key: &str) -> Vec<T> {
        list_parts(self.get(key)).filter_map(|part| part.parse().ok()).collect()
    }

    fn refuse(&self, key: &str, rule: &'static str) -> NetworkError {
        let value = self.get(key).to_owned();
        NetworkError::Value { network: self.0.name.clone(), key: key.to_owned(), value, rule }
    }

    /// `None` when the family is switched off.
    fn family<Net, Address>(&self, family: &str) -> Result<Option<Family<Net, Address>>, NetworkError>
    where
        Net: std::str::FromStr,
        Address: std::str::FromStr + Ord,
    {
        let key = |rest: &str| format!("{family}.{rest}");
        let address = match self.get(&key("address")) {
            "" | "none" => return Ok(None),
            text => text.parse().map_err(|_| self.refuse(&key("address"), "auto is resolved before"))?,
        };
        let expiry = match self.get(&key("dhcp.expiry")) {
            "" => "1h",
            expiry => expiry,
        };
        Ok(Some(Family {
            address,
            dhcp: self.flag(&key("dhcp"), true),
            dhcp_expiry: expiry.to_owned(),
            dhcp_ranges: list_parts(self.get(&key("dhcp.ranges"))).filter_map(parse_range).collect(),
            firewall: self.flag(&key("firewall"), true),
            nat: self.flag(&key("nat"), false),
            nat_address: self.get(&key("nat.address")).parse().ok(),
            nat_order: if self.get(&key("nat.order")) == "after" { NatOrder::After } else { NatOrder::Before },
            routes: self.list(&key("routes")),
            routing: self.flag(&key("routing"), true),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{BOTH, bridge, network};

    #[test]
    fn unset_keys_have_incus_s_defaults() {
        let bridge = bridge(BOTH);
        let ipv4 = bridge.ipv4.as_ref().unwrap();
        assert!(ipv4.dhcp && ipv4.firewall && ipv4.nat && ipv4.routing && bridge.multicast_snooping && bridge.ipv6_ra);
        assert_eq!((bridge.domain.as_str(), bridge.dns_mode, bridge.mtu), ("incus", DnsMode::Managed, None));
        assert_eq!(bridge.mac[..3], [0x10, 0x66, 0x6a]);
        let subnets: Vec<_> = bridge.subnets().iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.1.2.0/24", "fd42:1:2:3::/64"]);
    }

    #[test]
    fn a_mac_of_the_users_wins() {
        let mac = bridge(&[("bridge.hwaddr", "00:16:3e:00:00:01")]).mac;
        assert_eq!(mac, [0, 0x16, 0x3e, 0, 0, 1]);
    }

    #[test]
    fn keys_that_contradict_each_other_are_refused() {
        let cases: &[&[(&str, &str)]] = &[
            &[("ipv4.address", "auto")],
            &[("ipv4.address", "10.1.2.1/24"), ("ipv4.dhcp.ranges", "10.1.2.250-10.1.3.5")],
            &[("ipv6.address", "fd42::1/64"), ("ipv6.dhcp.ranges", "fd43::5-fd43::9")],
            &[("ipv6.address", "fd42::1/80")],
        ];
        for config in cases {
            let error = Bridge::parse(&network(config), "host").unwrap_err();
            let key = config.last().unwrap().0;
            assert!(error.to_string().starts_with(&format!("network br0: {key}: ")), "{error}");
        }
        bridge(&[("ipv6.address", "fd42::1/80"), ("ipv6.dhcp.stateful", "true"), ("ipv6.ra", "false")]);
    }
}
