use std::collections::BTreeMap;

use stapes_instance::{DiskBus, Mount};
use stapes_model::{ByteSize, PoolName};

use crate::{Config, Device, DeviceError, Disk, Nic, Root, UnixNode, parse_all};

/// The root volume that storage is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootVolume {
    pub device: String,
    pub pool: PoolName,
    pub size: Option<ByteSize>,
    pub bus: DiskBus,
    pub boot_priority: Option<u32>,
}

/// A network device that the network is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRef {
    pub device: String,
    /// The name inside: as configured, else the lowest `eth<n>` that is free.
    pub guest_name: String,
    pub nic: Nic,
}

/// What all devices of an instance need, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    pub root: RootVolume,
    pub mounts: Vec<Mount>,
    pub links: Vec<LinkRef>,
    /// Device name and node; [`UnixNode::node`] makes the plan's piece of it.
    pub nodes: Vec<(String, UnixNode)>,
}

/// Judges an instance's expanded devices, each by itself and together: one root disk with a pool, and no two devices with
/// the same path, interface name or MAC address.
pub fn requests(devices: &BTreeMap<String, Config>) -> Result<Requests, DeviceError> {
    let devices = parse_all(devices)?;
    let mut paths = Unique::new("path");
    let mut roots = Vec::new();
    let (mut mounts, mut nodes, mut nics) = (Vec::new(), Vec::new(), Vec::new());
    for (name, device) in devices {
        match device {
            Device::Disk(Disk::Root(root)) => {
                paths.claim(&name, "/")?;
                roots.push((name, root));
            }
            Device::Disk(Disk::Bind(bind)) => {
                paths.claim(&name, &bind.target)?;
                mounts.push(bind.mount(&name));
            }
            Device::Unix(node) => {
                paths.claim(&name, &node.target)?;
                nodes.push((name, node));
            }
            Device::Nic(nic) => nics.push((name, nic)),
            Device::None => {}
        }
    }
    // Outer mounts first, so that none hides another.
    mounts.sort_by(|a: &Mount, b: &Mount| a.target.cmp(&b.target));
    let (device, root) = roots.pop().ok_or(DeviceError::NoRoot)?;
    let Some(pool) = root.pool else {
        return Err(DeviceError::Missing { device, key: "pool", why: "the root disk is a volume of a storage pool" });
    };
    let Root { size, bus, boot_priority, .. } = root;
    let root = RootVolume { device, pool, size, bus, boot_priority };
    Ok(Requests { root, mounts, links: links(nics)?, nodes })
}

fn links(nics: Vec<(String, Nic)>) -> Result<Vec<LinkRef>, DeviceError> {
    let (mut inside, mut outside, mut macs) = (Unique::new("name"), Unique::new("host_name"), Unique::new("hwaddr"));
    for (device, nic) in &nics {
        nic.guest_name.iter().try_for_each(|name| inside.claim(device, name))?;
        nic.host_name.iter().try_for_each(|name| outside.claim(device, name))?;
        nic.mac.iter().try_for_each(|mac| macs.claim(device, &mac_text(mac)))?;
    }
    let mut free = (0..).map(|number: u32| format!("eth{number}"));
    let mut links = Vec::with_capacity(nics.len());
    for (device, nic) in nics {
        let next = || free.find(|name| !inside.taken.contains_key(name)).unwrap_or_default();
        let guest_name = nic.guest_name.clone().unwrap_or_else(next);
        links.push(LinkRef { device, guest_name, nic });
    }
    Ok(links)
}

fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Finds the second device that wants what another has.
struct Unique {
    key: &'static str,
    taken: BTreeMap<String, String>,
}

impl Unique {
    fn new(key: &'static str) -> Self {
        Self { key, taken: BTreeMap::new() }
    }

    fn claim(&mut self, device: &str, value: &str) -> Result<(), DeviceError> {
        match self.taken.insert(value.to_owned(), device.to_owned()) {
            None => Ok(()),
            Some(first) => {
                Err(DeviceError::Same { first, second: device.to_owned(), key: self.key, value: value.to_owned() })
            }
        }
    }
}
