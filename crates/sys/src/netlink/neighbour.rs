use std::{io, net::IpAddr};

use super::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Netlink, codec, route::family};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const NUD_REACHABLE: u16 = 0x02;
const NUD_PERMANENT: u16 = 0x80;

/// Which hardware address an IP address has on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourSpec {
    pub index: u32,
    pub address: IpAddr,
    pub mac: [u8; 6],
    /// Never asked for, never forgotten, and outside the limit of the kernel's one table (`gc_thresh3`).
    pub permanent: bool,
}

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourInfo {
    pub index: u32,
    pub address: IpAddr,
    /// `None` while it is being asked for.
    pub mac: Option<[u8; 6]>,
    pub permanent: bool,
}

fn header(address: Option<IpAddr>, index: u32, state: u16) -> [u8; 12] {
    // struct ndmsg: family, padding, ifindex, state, flags, type.
    let mut bytes = [0; 12];
    bytes[0] = address.map_or(0, family);
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..10].copy_from_slice(&state.to_ne_bytes());
    bytes
}

impl Netlink {
    /// Adds an entry or replaces the one of the same address.
    pub fn add_neighbour(&mut self, neighbour: &NeighbourSpec) -> io::Result<()> {
        let &NeighbourSpec { index, address, mac, permanent } = neighbour;
        let state = if permanent { NUD_PERMANENT } else { NUD_REACHABLE };
        let request = self.begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &header(Some(address), index, state));
        request.attr_ip(NDA_DST, address).attr(NDA_LLADDR, &mac);
        self.acknowledge("RTM_NEWNEIGH", format_args!("{address} on {index}"))
    }

    /// Removes an entry; `ENOENT` when there is none.
    pub fn delete_neighbour(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        self.begin(RTM_DELNEIGH, 0, &header(Some(address), index, 0)).attr_ip(NDA_DST, address);
        self.acknowledge("RTM_DELNEIGH", format_args!("{address} on {index}"))
    }

    /// The neighbour entries of both families on one interface, or on all.
    pub fn neighbours(&mut self, index: Option<u32>) -> io::Result<Vec<NeighbourInfo>> {
        const NDA_IFINDEX: u16 = 8;
        let request = self.begin(RTM_GETNEIGH, NLM_F_DUMP, &header(None, 0, 0));
        if let Some(index) = index {
            request.attr_u32(NDA_IFINDEX, index);
        }
        self.dump("RTM_GETNEIGH", format_args!("{}", index.unwrap_or(0)), read_neighbour)
    }
}

pub(super) fn read_neighbour(payload: &[u8]) -> Option<NeighbourInfo> {
    let index = codec::u32_at(payload, 4)?;
    let state = codec::u16_at(payload, 8)?;
    let (mut address, mut mac) = (None, None);
    for (kind, value) in codec::attributes(payload.get(12..)?) {
        match kind {
            NDA_DST => address = codec::ip(value),
            NDA_LLADDR => mac = codec::mac(value),
            _ => {}
        }
    }
    Some(NeighbourInfo { index, address: address?, mac, permanent: state & NUD_PERMANENT != 0 })
}
