//! Making the kernel agree with a [`Bridge`].

use std::{collections::BTreeSet, io, net::IpAddr, path::PathBuf};

use stapes_model::NetworkName;
use stapes_sys::netlink::{self, BridgeSpec, LinkInfo, NeighbourSpec, Netlink, RouteSpec, Scope};

use crate::{Bridge, NetworkError, addresses::link_local, bridge::ETHERNET_MTU, firewall, sysctl};

/// Ports that one bridge is given before the network wants another: the kernel ends at 1,023, and each port makes a
/// broadcast dearer on the way.
pub const PORTS_PER_BRIDGE: usize = 250;

/// The interface group of every bridge made here. A number, because it is the one mark that RTM_NEWLINK sets while it
/// makes the link: a daemon killed before it could set the alias still leaves a bridge that is known as ours.
const GROUP: u32 = 0x5374_6170;
/// What `ip link` shows of a bridge of ours, before the network's name.
const ALIAS: &str = "stapes:";

/// Programs that are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    pub nft: PathBuf,
}

impl Default for Tools {
    fn default() -> Self {
        Self { nft: "nft".into() }
    }
}

/// A network that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeUp {
    /// Index of the bridge.
    pub index: u32,
    pub mac: [u8; 6],
    /// False when the bridge was there before.
    pub created: bool,
}

fn is_ours(link: &LinkInfo) -> bool {
    let named = link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS));
    link.kind.as_deref() == Some("bridge") && (named || link.group == GROUP)
}

/// A netlink socket that says which network it works for when it fails.
struct Kernel<'a> {
    net: Netlink,
    network: &'a NetworkName,
}

impl<'a> Kernel<'a> {
    fn open(network: &'a NetworkName) -> Result<Self, NetworkError> {
        let net = Netlink::open().map_err(|source| kernel_error(network, "open a netlink socket", source))?;
        Ok(Self { net, network })
    }

    fn run<T>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&mut Netlink) -> io::Result<T>,
    ) -> Result<T, NetworkError> {
        work(&mut self.net).map_err(|source| kernel_error(self.network, action, source))
    }

    /// The bridge of that name, when it is ours; somebody else's interface is an error.
    fn own_bridge(&mut self, name: &str) -> Result<Option<LinkInfo>, NetworkError> {
        match self.run("look for its bridge", |net| net.link(name))? {
            Some(link) if !is_ours(&link) => Err(NetworkError::Foreign { network: self.network.clone() }),
            link => Ok(link),
        }
    }
}

fn kernel_error(network: &NetworkName, action: &'static str, source: io::Error) -> NetworkError {
    NetworkError::Kernel { network: network.clone(), action, source }
}

/// Brings the network up, or brings one that is up in line with its configuration. A bridge made by a call that then
/// fails is removed again; ports of one that was there before stay plugged.
pub fn ensure_up(bridge: &Bridge, tools: &Tools) -> Result<BridgeUp, NetworkError> {
    let mut kernel = Kernel::open(&bridge.name)?;
    let found = kernel.own_bridge(bridge.interface())?;
    let created = found.is_none();
    if created {
        let spec = BridgeSpec {
            name: bridge.interface(),
            mac: bridge.mac,
            // Set below: only a bridge whose MTU was changed keeps it when it gets a port with a smaller one.
            mtu: None,
            group: Some(GROUP),
            multicast_snooping: bridge.multicast_snooping,
        };
        kernel.run("make its bridge", |net| net.add_bridge(&spec))?;
    }
    let configured = configure(bridge, tools, &mut kernel, found);
    if configured.is_err() && created {
        // The rules are the last step and one transaction: with the bridge gone nothing is left.
        let _ = kernel.net.delete_link(bridge.interface());
    }
    configured.map(|index| BridgeUp { index, mac: bridge.mac, created })
}

fn configure(
    bridge: &Bridge,
    tools: &Tools,
    kernel: &mut Kernel<'_>,
    found: Option<LinkInfo>,
) -> Result<u32, NetworkError> {
    let index = kernel.run("find its bridge", |net| net.link_index(bridge.interface()))?;
    let alias = format!("{ALIAS}{}", bridge.name);
    sysctl::prepare_bridge(bridge)?;
    kernel.run("mark its bridge", |net| net.set_alias(index, &alias))?;
    let (now, mtu) = (found.as_ref().map_or(ETHERNET_MTU, |link| link.mtu), bridge.mtu.unwrap_or(ETHERNET_MTU));
    if now != mtu {
        kernel.run("set the MTU of its bridge", |net| net.set_mtu(index, mtu))?;
    }
    if let Some(link) = found {
        if link.mac != Some(bridge.mac) {
            kernel.run("set the MAC of its bridge", |net| net.set_mac(index, bridge.mac))?;
        }
        let snooping = bridge.multicast_snooping;
        kernel.run("set multicast snooping", |net| net.set_multicast_snooping(index, snooping))?;
    }
    kernel.run("raise its bridge", |net| net.set_up(index))?;
    give_addresses(bridge, kernel, index)?;
    give_routes(bridge, kernel, index)?;
    sysctl::enable_forwarding(bridge)?;
    firewall::load(bridge, tools)?;
    Ok(index)
}

fn give_addresses(bridge: &Bridge, kernel: &mut Kernel<'_>, index: u32) -> Result<(), NetworkError> {
    let mut wanted: BTreeSet<(IpAddr, u8)> = BTreeSet::new();
    wanted.extend(bridge.ipv4.iter().map(|family| (family.address.addr().into(), family.address.prefix_len())));
    if let Some(family) = &bridge.ipv6 {
        wanted.insert((family.address.addr().into(), family.address.prefix_len()));
        // The kernel makes a link-local address only once the bridge has a port with carrier. Router advertisements
        // start from it, so it is there from the beginning.
        wanted.insert((link_local(bridge.mac).into(), 64));
    }
    let present = kernel.run("read its addresses", |net| net.addresses(Some(index)))?;
    for stale in present.iter().filter(|info| info.scope == Scope::Global || info.address.is_ipv4()) {
        if !wanted.contains(&(stale.address, stale.prefix)) {
            kernel.run("remove an old address", |net| net.delete_address(index, stale.address, stale.prefix))?;
        }
    }
    for (address, prefix) in wanted {
        kernel.run("give its bridge an address", |net| net.add_address(index, address, prefix))?;
    }
    Ok(())
}

fn give_routes(bridge: &Bridge, kernel: &mut Kernel<'_>, index: u32) -> Result<(), NetworkError> {
    let mut wanted: Vec<(IpAddr, u8)> = Vec::new();
    if let Some(family) = &bridge.ipv4 {
        wanted.extend(family.routes.iter().map(|net| (net.network().into(), net.prefix_len())));
    }
    if let Some(family) = &bridge.ipv6 {
        wanted.extend(family.routes.iter().map(|net| (net.network().into(), net.prefix_len())));
    }
    let spec = |destination| RouteSpec { destination, gateway: None, index: Some(index), source: None, metric: None };
    let present = kernel.run("read its routes", |net| net.routes())?;
    for stale in present.iter().filter(|route| route.index == Some(index) && route.is_static() && route.is_unicast()) {
        if !wanted.contains(&stale.destination) {
            kernel.run("remove an old route", |net| net.delete_route(&spec(stale.destination)))?;
        }
    }
    for destination in wanted {
        let route = spec(destination);
        kernel.run("add a route", |net| net.add_route(&route))?;
    }
    Ok(())
}

/// Takes the network down: its bridge and its rules. Absent is success; somebody else's interface of that name stays.
pub fn down(bridge: &Bridge, tools: &Tools) -> Result<(), NetworkError> {
    let mut kernel = Kernel::open(&bridge.name)?;
    firewall::unload(&bridge.name, tools)?;
    if kernel.own_bridge(bridge.interface())?.is_some() {
        match kernel.net.delete_link(bridge.interface()) {
            Err(error) if !netlink::is_absent(&error) => {
                return Err(kernel_error(&bridge.name, "delete its bridge", error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether bridge, addresses and rules are there, and as this configuration wants them. A few netlink messages and no
/// program: a restarted daemon asks this first and calls [`ensure_up`] only on false.
pub fn is_up(bridge: &Bridge) -> Result<bool, NetworkError> {
    let mut kernel = Kernel::open(&bridge.name)?;
    let Some(link) = kernel.own_bridge(bridge.interface())? else { return Ok(false) };
    let present = kernel.run("read its addresses", |net| net.addresses(Some(link.index)))?;
    let has = |address: &IpAddr| present.iter().any(|info| info.address == *address);
    let as_wanted = link.is_up() && link.mac == Some(bridge.mac) && link.mtu == bridge.mtu.unwrap_or(1500);
    let loaded = |_: &mut Netlink| firewall::is_loaded(bridge);
    Ok(as_wanted && bridge.gateways().iter().all(has) && kernel.run("look for its firewall rules", loaded)?)
}

/// Tells the host's side of a bridge which MAC an instance's addresses have. Permanent entries neither expire nor count
/// against the kernel's one table, which otherwise overflows at 512 instances.
pub fn add_neighbours(net: &mut Netlink, index: u32, mac: [u8; 6], addresses: &[IpAddr]) -> io::Result<()> {
    addresses
        .iter()
        .try_for_each(|address| net.add_neighbour(&NeighbourSpec { index, address: *address, mac, permanent: true }))
}

/// Forgets an instance's addresses; unknown ones are success.
pub fn remove_neighbours(net: &mut Netlink, index: u32, addresses: &[IpAddr]) -> io::Result<()> {
    for address in addresses {
        match net.delete_neighbour(index, *address) {
            Err(error) if !netlink::is_absent(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
