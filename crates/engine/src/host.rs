//! The host's side of managed networks: bridges, firewall, what is on the wire. Tests put a host of their own here.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use stapes_network::{Bridge, NetworkError, Tools};
use stapes_sys::netlink::{LinkInfo, Netlink};

/// What workflows ask of the host's network. Blocking.
pub trait HostNetwork: Send + Sync {
    fn interface_exists(&self, name: &str) -> bool;

    fn bridge_exists(&self, name: &str) -> bool;

    /// Subnets that the host routes already.
    fn taken_subnets(&self) -> Result<Vec<IpNet>, NetworkError>;

    fn is_up(&self, bridge: &Bridge) -> Result<bool, NetworkError>;

    /// Makes bridge and firewall as configured. May run twice.
    fn up(&self, bridge: &Bridge) -> Result<(), NetworkError>;

    /// Takes them away; absent ones are success.
    fn down(&self, bridge: &Bridge) -> Result<(), NetworkError>;

    /// Tells the DHCP server that `mac` gives `address` back.
    fn release(&self, bridge: &Bridge, mac: [u8; 6], address: Ipv4Addr) -> Result<(), NetworkError>;
}

/// This host's kernel.
#[derive(Debug, Default)]
pub struct KernelNetwork {
    tools: Tools,
}

/// From the kernel itself: /sys shows the interfaces of whoever mounted it.
fn link(name: &str) -> Option<LinkInfo> {
    Netlink::open().and_then(|mut net| net.link(name)).ok()?
}

impl HostNetwork for KernelNetwork {
    fn interface_exists(&self, name: &str) -> bool {
        link(name).is_some()
    }

    fn bridge_exists(&self, name: &str) -> bool {
        link(name).is_some_and(|link| link.kind.as_deref() == Some("bridge"))
    }

    fn taken_subnets(&self) -> Result<Vec<IpNet>, NetworkError> {
        stapes_network::taken_subnets()
    }

    fn is_up(&self, bridge: &Bridge) -> Result<bool, NetworkError> {
        stapes_network::is_up(bridge)
    }

    fn up(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        stapes_network::ensure_up(bridge, &self.tools).map(drop)
    }

    fn down(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        stapes_network::down(bridge, &self.tools)
    }

    fn release(&self, bridge: &Bridge, mac: [u8; 6], address: Ipv4Addr) -> Result<(), NetworkError> {
        stapes_network::release_ipv4(bridge, mac, address)
    }
}
