//! What networks and interfaces look like right now.

use std::{io, net::IpAddr};

use stapes_sys::netlink::{AddressInfo, LinkInfo, Netlink};

use crate::{Bridge, NetworkError, addresses::mac_text};

/// An address as `GET /1.0/networks/<name>/state` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAddress {
    /// `inet` or `inet6`.
    pub family: &'static str,
    pub address: IpAddr,
    pub prefix: u8,
    /// `global`, `link` or `local`.
    pub scope: &'static str,
}

/// Bytes and packets, seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
}

/// An interface's live state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkState {
    pub addresses: Vec<NetworkAddress>,
    pub counters: Counters,
    /// Text; empty where the interface has none of six bytes.
    pub hwaddr: String,
    pub mtu: u32,
    pub up: bool,
    /// `broadcast`, `loopback` or `point-to-point`.
    pub kind: &'static str,
    /// Names of a bridge's ports.
    pub ports: Vec<String>,
}

/// An interface of the host that is no network of ours, for `network list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInterface {
    pub name: String,
    /// The API's word: `bridge`, `bond`, `vlan`, `macvlan`, `loopback`, `physical` or `unknown`.
    pub kind: &'static str,
    pub mtu: u32,
}

fn link_kind(link: &LinkInfo) -> &'static str {
    const IFF_POINTOPOINT: u32 = 0x10;
    match link.is_loopback() {
        true => "loopback",
        false if link.flags & IFF_POINTOPOINT != 0 => "point-to-point",
        false => "broadcast",
    }
}

fn read_state(net: &mut Netlink, name: &str) -> io::Result<Option<NetworkState>> {
    let Some(link) = net.link(name)? else { return Ok(None) };
    let addresses = net.addresses(Some(link.index))?;
    let all = if link.kind.as_deref() == Some("bridge") { net.links()? } else { Vec::new() };
    let port = |other: &LinkInfo| (other.master == Some(link.index)).then(|| other.name.clone());
    let address = |info: &AddressInfo| NetworkAddress {
        family: if info.address.is_ipv4() { "inet" } else { "inet6" },
        address: info.address,
        prefix: info.prefix,
        scope: info.scope.as_str(),
    };
    Ok(Some(NetworkState {
        addresses: addresses.iter().map(address).collect(),
        counters: Counters {
            bytes_received: link.stats.rx_bytes,
            bytes_sent: link.stats.tx_bytes,
            packets_received: link.stats.rx_packets,
            packets_sent: link.stats.tx_packets,
        },
        hwaddr: link.mac.map(mac_text).unwrap_or_default(),
        mtu: link.mtu,
        up: link.is_up(),
        kind: link_kind(&link),
        ports: all.iter().filter_map(port).collect(),
    }))
}

/// The live state of a network, or of any interface of the host by its name; `None` when there is none.
pub fn state(interface: &str) -> Result<Option<NetworkState>, NetworkError> {
    Netlink::open()
        .and_then(|mut net| read_state(&mut net, interface))
        .map_err(|source| NetworkError::Host { action: "read an interface's state", source })
}

impl Bridge {
    /// The live state of the network's bridge.
    pub fn state(&self) -> Result<Option<NetworkState>, NetworkError> {
        state(self.interface())
    }
}

/// The host's interfaces, without instances' own (veth and tap ends); the caller leaves its managed networks out.
pub fn host_interfaces() -> Result<Vec<HostInterface>, NetworkError> {
    let links = Netlink::open()
        .and_then(|mut net| net.links())
        .map_err(|source| NetworkError::Host { action: "list the host's interfaces", source })?;
    let interface = |link: LinkInfo| {
        let kind = match link.kind.as_deref() {
            Some("veth" | "tun") => return None,
            Some("bridge") => "bridge",
            Some("bond") => "bond",
            Some("vlan") => "vlan",
            Some("macvlan" | "macvtap") => "macvlan",
            None if link.is_loopback() => "loopback",
            None if link.hardware == 1 => "physical",
            _ => "unknown",
        };
        Some(HostInterface { name: link.name, kind, mtu: link.mtu })
    };
    Ok(links.into_iter().filter_map(interface).collect())
}
