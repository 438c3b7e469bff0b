use std::{io, net::IpAddr};

use super::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Netlink, codec};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;

const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;

/// A unicast route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpec {
    /// Network and prefix length; the unspecified address with length 0 is the default route.
    pub destination: (IpAddr, u8),
    /// `None`: directly on the link.
    pub gateway: Option<IpAddr>,
    pub index: Option<u32>,
    pub source: Option<IpAddr>,
    pub metric: Option<u32>,
}

/// A route as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteInfo {
    pub destination: (IpAddr, u8),
    pub gateway: Option<IpAddr>,
    pub index: Option<u32>,
    pub table: u32,
    /// RTN_*: 1 is unicast, 2 local, 3 broadcast.
    pub kind: u8,
    /// RTPROT_*: 2 is the kernel's own, 4 static, as `add_route` makes them.
    pub protocol: u8,
}

impl RouteInfo {
    pub fn is_unicast(&self) -> bool {
        self.kind == RTN_UNICAST
    }

    /// Made by `add_route` (or by another who says static), not by the kernel or a routing daemon.
    pub fn is_static(&self) -> bool {
        self.protocol == RTPROT_STATIC
    }
}

pub(super) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

pub(super) fn check_prefix(address: IpAddr, prefix: u8) -> io::Result<()> {
    if prefix <= if address.is_ipv4() { 32 } else { 128 } {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address}/{prefix}: no such prefix length")))
}

impl Netlink {
    /// Adds a route or replaces the one to the same destination with the same metric.
    pub fn add_route(&mut self, route: &RouteSpec) -> io::Result<()> {
        self.change_route(RTM_NEWROUTE, "RTM_NEWROUTE", NLM_F_CREATE | NLM_F_REPLACE, route)
    }

    /// Removes a route; `ESRCH` when there is none.
    pub fn delete_route(&mut self, route: &RouteSpec) -> io::Result<()> {
        self.change_route(RTM_DELROUTE, "RTM_DELROUTE", 0, route)
    }

    fn change_route(&mut self, kind: u16, name: &'static str, flags: u16, route: &RouteSpec) -> io::Result<()> {
        let (network, prefix) = route.destination;
        check_prefix(network, prefix)?;
        let scope = if route.gateway.is_none() && network.is_ipv4() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
        // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
        let header = [family(network), prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
        let request = self.begin(kind, flags, &header);
        if prefix > 0 {
            request.attr_ip(RTA_DST, network);
        }
        if let Some(gateway) = route.gateway {
            request.attr_ip(RTA_GATEWAY, gateway);
        }
        if let Some(index) = route.index {
            request.attr_u32(RTA_OIF, index);
        }
        if let Some(source) = route.source {
            request.attr_ip(RTA_PREFSRC, source);
        }
        if let Some(metric) = route.metric {
            request.attr_u32(RTA_PRIORITY, metric);
        }
        self.acknowledge(name, format_args!("{network}/{prefix}"))
    }

    /// Every route of this namespace, of all tables and both families.
    pub fn routes(&mut self) -> io::Result<Vec<RouteInfo>> {
        self.begin(RTM_GETROUTE, NLM_F_DUMP, &[0; 12]);
        self.dump("RTM_GETROUTE", "all", read_route)
    }
}

pub(super) fn read_route(payload: &[u8]) -> Option<RouteInfo> {
    let unspecified = match i32::from(codec::u8_at(payload, 0)?) {
        libc::AF_INET => IpAddr::from([0u8; 4]),
        libc::AF_INET6 => IpAddr::from([0u8; 16]),
        _ => return None,
    };
    let mut route = RouteInfo {
        destination: (unspecified, codec::u8_at(payload, 1)?),
        gateway: None,
        index: None,
        table: u32::from(codec::u8_at(payload, 4)?),
        kind: codec::u8_at(payload, 7)?,
        protocol: codec::u8_at(payload, 5)?,
    };
    for (kind, value) in codec::attributes(payload.get(12..)?) {
        match kind {
            RTA_DST => route.destination.0 = codec::ip(value)?,
            RTA_GATEWAY => route.gateway = codec::ip(value),
            RTA_OIF => route.index = codec::u32_at(value, 0),
            RTA_TABLE => route.table = codec::u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}
