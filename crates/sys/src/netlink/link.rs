use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Netlink, codec, codec::Request};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_GETSTATS: u16 = 94;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;

const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

const IFLA_STATS_LINK_64: u16 = 1;

const IFF_UP: u32 = 1;

/// A pair of virtual Ethernet interfaces, one end here, the other in `guest_netns`.
#[derive(Debug, Clone, Copy)]
pub struct VethSpec<'a> {
    pub host_name: &'a str,
    /// `None`: the kernel draws one.
    pub host_mac: Option<[u8; 6]>,
    pub guest_name: &'a str,
    /// Index of the guest end *and* of the host end, so it must be free in both: the kernel honours the peer's only when
    /// ours is given too (veth_newlink). `None`: the kernel chooses the lowest free ones.
    pub guest_index: Option<u32>,
    pub guest_mac: [u8; 6],
    /// Of both ends; `None` is 1,500.
    pub mtu: Option<u32>,
    /// Index of the bridge that the host end joins.
    pub master: Option<u32>,
    pub guest_netns: BorrowedFd<'a>,
}

/// A Linux bridge, made down.
#[derive(Debug, Clone, Copy)]
pub struct BridgeSpec<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
    pub mtu: Option<u32>,
    /// The interface group: a number that marks the bridge as ours from the instant it exists (the alias comes later).
    pub group: Option<u32>,
    pub multicast_snooping: bool,
}

/// RFC 2863 operational state, as `IFLA_OPERSTATE` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OperState {
    #[default]
    Unknown,
    NotPresent,
    Down,
    LowerLayerDown,
    Testing,
    Dormant,
    Up,
}

/// Packets and bytes since the link was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

/// What the kernel tells of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkInfo {
    pub index: u32,
    pub name: String,
    /// ARPHRD_*: 1 is Ethernet, 772 loopback.
    pub hardware: u16,
    /// IFF_* (netdevice(7)).
    pub flags: u32,
    pub mtu: u32,
    /// `None` where the hardware address does not have six bytes.
    pub mac: Option<[u8; 6]>,
    pub oper_state: OperState,
    /// Index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// Index of a veth's other end, or of the interface under a VLAN or macvlan.
    pub peer: Option<u32>,
    /// Number of the namespace in which `peer` lies, when that is another.
    pub peer_netns_id: Option<i32>,
    /// `veth`, `bridge`, `vlan`, …; `None` for hardware and loopback.
    pub kind: Option<String>,
    pub alias: Option<String>,
    pub group: u32,
    pub stats: LinkStats,
}

impl LinkInfo {
    pub fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    pub fn is_loopback(&self) -> bool {
        const IFF_LOOPBACK: u32 = 8;
        self.flags & IFF_LOOPBACK != 0
    }
}

/// `struct ifinfomsg` for the link of this index (0: named by an attribute).
fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// The kernel takes 15 bytes; a longer one it cuts or refuses by a bare ERANGE, and a NUL would end it early.
fn check_name(name: &str) -> io::Result<()> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if (1..16).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no interface name")))
}

impl Netlink {
    /// Makes a veth pair: the host end up, on its bridge and without an IPv6 address (nobody talks to it, and every
    /// program that watches addresses would read all of them again at each start); the guest end in its namespace and
    /// down (the kernel refuses to create a peer that is up).
    ///
    /// `EEXIST` for a taken host name, guest name or guest index; `EXFULL` when the bridge has its 1,023 ports.
    pub fn add_veth(&mut self, veth: &VethSpec<'_>) -> io::Result<()> {
        check_name(veth.host_name)?;
        check_name(veth.guest_name)?;
        let index = veth.guest_index.unwrap_or(0);
        let request = self.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(index, 0, 0));
        request.attr_str(IFLA_IFNAME, veth.host_name);
        if let Some(mac) = veth.host_mac {
            request.attr(IFLA_ADDRESS, &mac);
        }
        if let Some(master) = veth.master {
            request.attr_u32(IFLA_MASTER, master);
        }
        if let Some(mtu) = veth.mtu {
            request.attr_u32(IFLA_MTU, mtu);
        }
        // What a pair uses unless told otherwise; but without these the kernel makes a queue for each processor and then
        // waits, for each end, for a grace period to take them away again.
        let one_queue = |request: &mut Request| {
            request.attr_u32(IFLA_NUM_TX_QUEUES, 1).attr_u32(IFLA_NUM_RX_QUEUES, 1);
        };
        one_queue(request);
        let peer = |request: &mut Request| {
            request.raw(&header(index, 0, 0));
            one_queue(request);
            request.attr_str(IFLA_IFNAME, veth.guest_name).attr(IFLA_ADDRESS, &veth.guest_mac);
            if let Some(mtu) = veth.mtu {
                request.attr_u32(IFLA_MTU, mtu);
            }
            request.attr_i32(IFLA_NET_NS_FD, veth.guest_netns.as_raw_fd());
        };
        request.nest(IFLA_LINKINFO, |info| {
            info.attr_str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, peer);
            });
        });
        self.acknowledge("RTM_NEWLINK", format_args!("veth {} ↔ {}", veth.host_name, veth.guest_name))?;
        self.bring_up_without_address(veth.host_name)
    }

    /// The mode cannot be given with the creation, and comes too late once the link is up.
    fn bring_up_without_address(&mut self, name: &str) -> io::Result<()> {
        self.begin(RTM_SETLINK, 0, &header(0, 0, 0)).attr_str(IFLA_IFNAME, name).nest(IFLA_AF_SPEC, |families| {
            families.nest(libc::AF_INET6 as u16, |ipv6| {
                ipv6.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
        // A kernel without IPv6 gives it no address either.
        let _ = self.acknowledge("RTM_SETLINK", format_args!("{name} without IPv6 address"));
        self.begin(RTM_SETLINK, 0, &header(0, IFF_UP, IFF_UP)).attr_str(IFLA_IFNAME, name);
        self.acknowledge("RTM_SETLINK", format_args!("{name} up"))
    }

    /// Makes a bridge, down. `EEXIST` when an interface has that name.
    pub fn add_bridge(&mut self, bridge: &BridgeSpec<'_>) -> io::Result<()> {
        check_name(bridge.name)?;
        let request = self.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(0, 0, 0));
        request.attr_str(IFLA_IFNAME, bridge.name).attr(IFLA_ADDRESS, &bridge.mac);
        if let Some(mtu) = bridge.mtu {
            request.attr_u32(IFLA_MTU, mtu);
        }
        if let Some(group) = bridge.group {
            request.attr_u32(IFLA_GROUP, group);
        }
        request.nest(IFLA_LINKINFO, |info| {
            info.attr_str(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
                data.attr(IFLA_BR_MCAST_SNOOPING, &[u8::from(bridge.multicast_snooping)]);
            });
        });
        self.acknowledge("RTM_NEWLINK", format_args!("bridge {}", bridge.name))
    }

    /// Removes a link and, of a veth, both ends. Blocks for some 19 ms on a veth (an RCU grace period): let a dying
    /// namespace take it instead where there is one.
    pub fn delete_link(&mut self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.begin(RTM_DELLINK, 0, &header(0, 0, 0)).attr_str(IFLA_IFNAME, name);
        self.acknowledge("RTM_DELLINK", name)
    }

    /// The index of the interface of that name; `ENODEV` when there is none.
    pub fn link_index(&mut self, name: &str) -> io::Result<u32> {
        check_name(name)?;
        self.begin(RTM_GETLINK, 0, &header(0, 0, 0)).attr_str(IFLA_IFNAME, name);
        self.query("RTM_GETLINK", name, |payload| codec::u32_at(payload, 4))
    }

    /// The interface of that name.
    pub fn link(&mut self, name: &str) -> io::Result<Option<LinkInfo>> {
        check_name(name)?;
        self.begin(RTM_GETLINK, 0, &header(0, 0, 0)).attr_str(IFLA_IFNAME, name);
        match self.query("RTM_GETLINK", name, read_link) {
            Ok(link) => Ok(Some(link)),
            Err(error) if super::errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every interface of this namespace.
    pub fn links(&mut self) -> io::Result<Vec<LinkInfo>> {
        self.begin(RTM_GETLINK, NLM_F_DUMP, &header(0, 0, 0));
        self.dump("RTM_GETLINK", "all", read_link)
    }

    /// Every interface of the namespace with that number (see `assign_netns_id`), asked through this socket: nobody
    /// needs a descriptor inside, which would pin the namespace. (Leaving the counters out by IFLA_EXT_MASK was tried and
    /// took three times as long, not less.)
    pub fn links_in(&mut self, netns_id: i32) -> io::Result<Vec<LinkInfo>> {
        self.begin(RTM_GETLINK, NLM_F_DUMP, &header(0, 0, 0)).attr_i32(IFLA_TARGET_NETNSID, netns_id);
        self.small_dump("RTM_GETLINK", format_args!("netns {netns_id}"), read_link)
    }

    /// Counters of every interface of this namespace, by index: twenty times cheaper than [`links`](Self::links). A
    /// veth's counters inside are those of its host end the other way round.
    pub fn all_link_stats(&mut self) -> io::Result<Vec<(u32, LinkStats)>> {
        // struct if_stats_msg: family, padding, ifindex, filter mask.
        let mut header = [0; 12];
        header[8..].copy_from_slice(&(1u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
        self.begin(RTM_GETSTATS, NLM_F_DUMP, &header);
        self.dump("RTM_GETSTATS", "all", |payload| {
            let index = codec::u32_at(payload, 4)?;
            let mut attributes = codec::attributes(payload.get(12..)?);
            let (_, stats) = attributes.find(|(kind, _)| *kind == IFLA_STATS_LINK_64)?;
            Some((index, read_stats(stats)?))
        })
    }

    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.begin(RTM_SETLINK, 0, &header(index, IFF_UP, IFF_UP));
        self.acknowledge("RTM_SETLINK", format_args!("{index} up"))
    }

    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        self.begin(RTM_SETLINK, 0, &header(index, 0, IFF_UP));
        self.acknowledge("RTM_SETLINK", format_args!("{index} down"))
    }

    /// Puts the link on a bridge; `None` takes it off.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> io::Result<()> {
        self.begin(RTM_SETLINK, 0, &header(index, 0, 0)).attr_u32(IFLA_MASTER, master.unwrap_or(0));
        self.acknowledge("RTM_SETLINK", format_args!("{index} master {master:?}"))
    }

    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.begin(RTM_SETLINK, 0, &header(index, 0, 0)).attr_u32(IFLA_MTU, mtu);
        self.acknowledge("RTM_SETLINK", format_args!("{index} mtu {mtu}"))
    }

    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.begin(RTM_SETLINK, 0, &header(index, 0, 0)).attr(IFLA_ADDRESS, &mac);
        self.acknowledge("RTM_SETLINK", format_args!("{index} address"))
    }

    /// A note of at most 255 bytes that `ip link` shows.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.begin(RTM_SETLINK, 0, &header(index, 0, 0)).attr(IFLA_IFALIAS, alias.as_bytes());
        self.acknowledge("RTM_SETLINK", format_args!("{index} alias {alias}"))
    }

    /// A bridge's IGMP and MLD snooping.
    pub fn set_multicast_snooping(&mut self, index: u32, on: bool) -> io::Result<()> {
        self.begin(RTM_NEWLINK, 0, &header(index, 0, 0)).nest(IFLA_LINKINFO, |info| {
            info.attr_str(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
                data.attr(IFLA_BR_MCAST_SNOOPING, &[u8::from(on)]);
            });
        });
        self.acknowledge("RTM_NEWLINK", format_args!("{index} mcast_snooping {on}"))
    }

    /// Renames a link; the kernel wants it down unless it is new enough for IFF_LIVE_RENAME_OK.
    pub fn rename(&mut self, index: u32, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.begin(RTM_SETLINK, 0, &header(index, 0, 0)).attr_str(IFLA_IFNAME, name);
        self.acknowledge("RTM_SETLINK", format_args!("{index} name {name}"))
    }
}

pub(super) fn read_link(payload: &[u8]) -> Option<LinkInfo> {
    let mut link = LinkInfo {
        hardware: codec::u16_at(payload, 2)?,
        index: codec::u32_at(payload, 4)?,
        flags: codec::u32_at(payload, 8)?,
        ..LinkInfo::default()
    };
    for (kind, value) in codec::attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = codec::text(value),
            IFLA_ADDRESS => link.mac = codec::mac(value),
            IFLA_MTU => link.mtu = codec::u32_at(value, 0)?,
            IFLA_LINK => link.peer = codec::u32_at(value, 0),
            IFLA_LINK_NETNSID => link.peer_netns_id = codec::i32_at(value, 0),
            IFLA_MASTER => link.master = codec::u32_at(value, 0),
            IFLA_OPERSTATE => link.oper_state = read_oper_state(value),
            IFLA_IFALIAS => link.alias = Some(codec::text(value)),
            IFLA_GROUP => link.group = codec::u32_at(value, 0)?,
            IFLA_STATS64 => link.stats = read_stats(value)?,
            IFLA_LINKINFO => {
                let found = codec::attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = found.map(|(_, name)| codec::text(name));
            }
            _ => {}
        }
    }
    Some(link)
}

fn read_oper_state(value: &[u8]) -> OperState {
    match codec::u8_at(value, 0) {
        Some(1) => OperState::NotPresent,
        Some(2) => OperState::Down,
        Some(3) => OperState::LowerLayerDown,
        Some(4) => OperState::Testing,
        Some(5) => OperState::Dormant,
        Some(6) => OperState::Up,
        _ => OperState::Unknown,
    }
}

/// The first eight fields of `struct rtnl_link_stats64`.
fn read_stats(bytes: &[u8]) -> Option<LinkStats> {
    let field = |place: usize| codec::u64_at(bytes, place * 8);
    Some(LinkStats {
        rx_packets: field(0)?,
        tx_packets: field(1)?,
        rx_bytes: field(2)?,
        tx_bytes: field(3)?,
        rx_errors: field(4)?,
        tx_errors: field(5)?,
        rx_dropped: field(6)?,
        tx_dropped: field(7)?,
    })
}
