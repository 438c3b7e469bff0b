use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use stapes_model::{IdMap, InstanceId, InstanceName, Limits};

/// Everything a driver needs to start an instance: data, with every host name derived from the instance's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub id: InstanceId,
    /// Host name inside.
    pub name: InstanceName,
    /// The instance's volume as mounted on the host: for a container its root directory, with unshifted owners.
    pub root: PathBuf,
    pub idmap: IdMap,
    /// A directory of this instance's own for sockets and pid-less state; erased by a reboot. Mode 0700.
    pub run_dir: PathBuf,
    /// A directory of this instance's own for the console log; survives.
    pub log_dir: PathBuf,
    /// Program and arguments of init; `None` is `/sbin/init`.
    pub init: Option<Vec<String>>,
    /// Environment of init and of every exec, from `environment.*`.
    pub environment: BTreeMap<String, String>,
    /// 32 lower-case hexadecimal digits from the instance's UUID, for `container_uuid=` and an empty machine-id.
    pub machine_id: String,
    pub mounts: Vec<Mount>,
    pub nodes: Vec<DeviceNode>,
    pub links: Vec<Link>,
    pub limits: Limits,
    pub security: Security,
}

/// A host path that appears inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Device name, for errors and hot-unplug.
    pub device: String,
    pub source: PathBuf,
    /// Absolute path inside, resolved beneath the root; missing parts are created.
    pub target: String,
    pub read_only: bool,
    pub recursive: bool,
    /// Owners on the source are unshifted and are to appear unshifted inside (idmapped mount).
    pub shift: bool,
    /// A missing source is skipped instead of refused.
    pub optional: bool,
}

/// A device node of the host that appears inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    pub device: String,
    pub source: PathBuf,
    pub target: String,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// One end inside the instance, the other on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Device name, for errors and hot-unplug.
    pub device: String,
    /// Interface on the host, named by the instance id; at most 15 bytes.
    pub host_name: String,
    /// Interface inside.
    pub guest_name: String,
    /// Interface index inside: unique on this host and high, so that a checkpoint can be restored beside others.
    pub guest_index: u32,
    pub mac: [u8; 6],
    pub mtu: Option<u32>,
    /// The bridge that the host end joins; `None` leaves it unattached.
    pub bridge: Option<String>,
    /// Addresses known at birth. On the host they become permanent neighbour entries on `bridge`, and the bridge's own
    /// address (`gateways`) one inside: the kernel's neighbour table is one for all and overflows at 512 instances.
    pub addresses: Vec<std::net::IpAddr>,
    pub gateways: Vec<std::net::IpAddr>,
    /// The bridge's MAC, for the entries inside.
    pub gateway_mac: Option<[u8; 6]>,
}

/// What the instance may do to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// `security.nesting`: other container managers may run inside.
    pub nesting: bool,
    /// `security.syscalls.deny_default=false` leaves the default deny list out.
    pub no_default_deny: bool,
    /// `security.syscalls.deny`: extra names.
    pub deny: Vec<String>,
    /// `security.syscalls.allow`: when not empty, everything else is denied.
    pub allow: Vec<String>,
    /// Lines added to the AppArmor profile.
    pub raw_apparmor: String,
}
