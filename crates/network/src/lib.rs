//! Networks: bridges, addresses, DHCP and DNS configuration, firewall.
//!
//! Start at [`NetworkConfig`]: [`validate`] checks it, [`complete`] resolves `auto`, [`Bridge::parse`] types it,
//! [`ensure_up`] makes the kernel agree, and [`dnsmasq_argv`] says how to run the DHCP and DNS server, [`prepare_radvd`]
//! the sender of router advertisements, which the daemon starts as services.
//!
//! Invariant: knows nothing of instances, REST or the store; an instance is an opaque id.
//! Invariant: blocking code only, bounded in time; the daemon decides which thread it runs on.
//! Invariant: lease and host files are written from the store and never read back as truth.
#![forbid(unsafe_code)]

mod addresses;
mod auto;
mod bridge;
mod dnsmasq;
mod error;
mod files;
mod firewall;
mod keys;
mod leases;
mod links;
mod observe;
mod radvd;
mod sysctl;

use std::collections::BTreeMap;

pub use addresses::{allocate_ipv4, bridge_mac, eui64, mac_text, new_mac};
pub use auto::{complete, ipv6_available, taken_subnets};
pub use bridge::{Bridge, DnsMode, Family, NatOrder};
pub use dnsmasq::{
    DnsmasqPaths, Reservation, dnsmasq_argv, host_entry, name_entry, prepare_files, release_ipv4, remove_reservation,
    sweep_reservations, write_reservation,
};
pub use error::NetworkError;
pub use firewall::ruleset;
pub use keys::validate;
pub use leases::{Lease, LeaseKind, leases, parse_lease_file};
pub use links::{BridgeUp, PORTS_PER_BRIDGE, Tools, add_neighbours, down, ensure_up, is_up, remove_neighbours};
pub use observe::{Counters, HostInterface, NetworkAddress, NetworkState, host_interfaces, state};
pub use radvd::{Advertiser, RadvdPaths, prepare_radvd, radvd_config};
use stapes_model::NetworkName;

/// A managed network as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NetworkConfig {
    pub name: NetworkName,
    /// `bridge`: the one type of this version.
    pub kind: String,
    pub config: BTreeMap<String, String>,
}

#[cfg(test)]
mod test_support {
    use super::*;

    pub(crate) fn network(config: &[(&str, &str)]) -> NetworkConfig {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let config = config.iter().map(pair).collect();
        NetworkConfig { name: "br0".parse().unwrap(), kind: "bridge".to_owned(), config }
    }

    pub(crate) fn bridge(config: &[(&str, &str)]) -> Bridge {
        Bridge::parse(&network(config), "host").unwrap()
    }

    pub(crate) const BOTH: &[(&str, &str)] = &[
        ("ipv4.address", "10.1.2.1/24"),
        ("ipv4.nat", "true"),
        ("ipv6.address", "fd42:1:2:3::1/64"),
        ("ipv6.nat", "true"),
    ];
}
