use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything a shim needs to start a container: data, and descriptors in the order that [`CgroupView`] says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    pub id: String,
    pub hostname: String,
    /// Where the shim's socket goes.
    pub run_dir: String,
    /// Where the console log goes.
    pub log_dir: String,
    /// Root directory on the host, with unshifted owners unless [`Start::root_shifted`].
    pub root: String,
    /// The files carry the host's ids already: the root is not idmapped.
    pub root_shifted: bool,
    /// `None`: no user namespace.
    pub ids: Option<IdRange>,
    pub init: Vec<String>,
    /// Complete environment of init.
    pub environment: BTreeMap<String, String>,
    pub mounts: Vec<BindMount>,
    pub nodes: Vec<DeviceNode>,
    pub links: Vec<Link>,
    pub cgroup: CgroupView,
    pub rlimits: Vec<ResourceLimit>,
    pub oom_score_adj: Option<i32>,
    /// Capabilities that stay in the bounding set, one bit each.
    pub bounding: u64,
    /// seccomp program, 8 bytes an instruction, in hexadecimal; empty for none.
    pub seccomp: String,
    /// Paths inside that are hidden behind an empty file or directory.
    pub masked: Vec<String>,
    /// Paths inside that become read-only.
    pub read_only: Vec<String>,
    /// Paths within those that stay writable.
    pub writable: Vec<String>,
    /// Further instances of file systems: (kind, path inside).
    pub pristine: Vec<(String, String)>,
    /// Host files bound over files inside (LXCFS); each (source, target), skipped when either is missing.
    pub overlays: Vec<(String, String)>,
    /// AppArmor profile or SELinux label for init and exec, written to `/proc/self/attr/<file>`: (file, text).
    pub lsm: Option<(String, String)>,
    /// SELinux label of the file systems that are made for the container.
    pub file_context: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub base: u32,
    pub size: u32,
}

/// The control groups as the container sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupView {
    /// Version 1 hierarchies: directory beneath `/sys/fs/cgroup`, and mount options.
    pub v1: Vec<(String, Vec<String>)>,
    /// The container's own group in those of them, by the same name: bound there instead of mounting the hierarchy anew,
    /// for which the kernel looks at every group of it.
    pub v1_payloads: BTreeMap<String, String>,
    /// Where version 2 is mounted beneath `/sys/fs/cgroup`; empty for there itself; `None` without version 2.
    pub unified: Option<String>,
    /// `cgroup.procs` files of the exec groups, for an embryo that takes the place of one that died.
    pub exec_join: Vec<String>,
    /// The message carries two descriptors: the payload directory of version 2, and within it the one for
    /// commands.
    pub v2_directories: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindMount {
    pub device: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub recursive: bool,
    pub shift: bool,
    pub optional: bool,
}

/// A host node bound inside, or (without a user namespace) made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceNode {
    pub device: String,
    pub source: String,
    pub target: String,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    pub device: String,
    pub host_name: String,
    pub guest_name: String,
    pub guest_index: u32,
    pub mac: [u8; 6],
    pub mtu: Option<u32>,
    pub bridge: Option<String>,
    pub addresses: Vec<std::net::IpAddr>,
    pub gateways: Vec<std::net::IpAddr>,
    pub gateway_mac: Option<[u8; 6]>,
}

/// `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    pub name: String,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}
