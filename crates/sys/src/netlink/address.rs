use std::{io, net::IpAddr};

use super::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Netlink, codec, route::check_prefix, route::family};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_TARGET_NETNSID: u16 = 10;

/// No duplicate address detection: the address is usable at once, also on a bridge without ports.
const IFA_F_NODAD: u32 = 2;

/// How far an address reaches (`ifa_scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Global,
    Site,
    Link,
    Host,
}

impl Scope {
    /// The API's word: `global`, `link` or `local`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Site | Self::Link => "link",
            Self::Host => "local",
        }
    }
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressInfo {
    /// Of the interface.
    pub index: u32,
    pub address: IpAddr,
    pub prefix: u8,
    pub scope: Scope,
    /// IFA_F_* (linux/if_addr.h).
    pub flags: u32,
}

impl AddressInfo {
    /// Still being checked for a duplicate: not usable yet.
    pub fn is_tentative(&self) -> bool {
        const IFA_F_TENTATIVE: u32 = 0x40;
        self.flags & IFA_F_TENTATIVE != 0
    }
}

fn header(address: IpAddr, prefix: u8, index: u32) -> [u8; 8] {
    let scope = match address {
        IpAddr::V4(v4) if v4.is_loopback() => 254,
        IpAddr::V6(v6) if v6.is_loopback() => 254,
        IpAddr::V4(v4) if v4.is_link_local() => 253,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 253,
        _ => 0,
    };
    let [a, b, c, d] = index.to_ne_bytes();
    [family(address), prefix, 0, scope, a, b, c, d]
}

impl Netlink {
    /// Gives an interface an address. One that it has already is success.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        check_prefix(address, prefix)?;
        let request = self.begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &header(address, prefix, index));
        request.attr_ip(IFA_LOCAL, address).attr_ip(IFA_ADDRESS, address);
        match address {
            IpAddr::V4(v4) if prefix < 31 => {
                let broadcast = v4.to_bits() | (u32::MAX >> prefix);
                request.attr(IFA_BROADCAST, &broadcast.to_be_bytes());
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => {
                request.attr_u32(IFA_FLAGS, IFA_F_NODAD);
            }
        }
        self.acknowledge("RTM_NEWADDR", format_args!("{address}/{prefix} on {index}"))
    }

    /// Takes an address away; `EADDRNOTAVAIL` when the interface does not have it.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        check_prefix(address, prefix)?;
        self.begin(RTM_DELADDR, 0, &header(address, prefix, index)).attr_ip(IFA_LOCAL, address);
        self.acknowledge("RTM_DELADDR", format_args!("{address}/{prefix} on {index}"))
    }

    /// The addresses of one interface, or of all.
    pub fn addresses(&mut self, index: Option<u32>) -> io::Result<Vec<AddressInfo>> {
        let [a, b, c, d] = index.unwrap_or(0).to_ne_bytes();
        self.begin(RTM_GETADDR, NLM_F_DUMP, &[0, 0, 0, 0, a, b, c, d]);
        self.dump("RTM_GETADDR", format_args!("{}", index.unwrap_or(0)), read_address)
    }

    /// All addresses inside the namespace with that number, asked through this socket.
    pub fn addresses_in(&mut self, netns_id: i32) -> io::Result<Vec<AddressInfo>> {
        self.begin(RTM_GETADDR, NLM_F_DUMP, &[0; 8]).attr_i32(IFA_TARGET_NETNSID, netns_id);
        self.small_dump("RTM_GETADDR", format_args!("netns {netns_id}"), read_address)
    }
}

pub(super) fn read_address(payload: &[u8]) -> Option<AddressInfo> {
    let (prefix, mut flags) = (codec::u8_at(payload, 1)?, u32::from(codec::u8_at(payload, 2)?));
    let scope = match codec::u8_at(payload, 3)? {
        254 | 255 => Scope::Host,
        253 => Scope::Link,
        200 => Scope::Site,
        _ => Scope::Global,
    };
    let index = codec::u32_at(payload, 4)?;
    let (mut local, mut peer) = (None, None);
    for (kind, value) in codec::attributes(payload.get(8..)?) {
        match kind {
            // On a point-to-point link IFA_ADDRESS is the other side's; IFA_LOCAL is ours, where it is given.
            IFA_LOCAL => local = codec::ip(value),
            IFA_ADDRESS => peer = codec::ip(value),
            IFA_FLAGS => flags = codec::u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(AddressInfo { index, address: local.or(peer)?, prefix, scope, flags })
}
