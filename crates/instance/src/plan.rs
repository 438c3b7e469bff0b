use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use stapes_model::{ByteSize, IdMap, InstanceId, InstanceName, Limits};

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
    /// What only a virtual machine has; `None` for a container.
    #[serde(default)]
    pub machine: Option<Machine>,
}

/// The hardware of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// As the kernel calls it: `x86_64`, `aarch64`.
    pub architecture: String,
    pub profile: MachineProfile,
    pub firmware: Firmware,
    /// `None`: the best that runs guests on this host.
    pub accelerator: Option<Accelerator>,
    /// Virtual processors at birth.
    pub cpus: u32,
    /// Most processors that can be plugged in later.
    pub max_cpus: u32,
    pub memory: ByteSize,
    /// Most memory that can be plugged in later.
    pub max_memory: ByteSize,
    /// In no order; who boots first is told by [`Disk::boot_priority`] and [`Machine::boot_nics`].
    pub disks: Vec<Disk>,
    /// Boot priority of NICs by device name, where one was given; higher first.
    pub boot_nics: BTreeMap<String, u32>,
    /// Of the instance, for the guest: 8-4-4-4-12 hexadecimal digits.
    pub uuid: String,
    /// Extra arguments (`raw.qemu`), as words.
    pub raw_arguments: Vec<String>,
    /// The guest writes them itself.
    #[serde(default)]
    pub templates: Templates,
}

/// Files from an image's templates, by what calls for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Templates {
    /// The first start of an instance.
    pub create: Vec<TemplateFile>,
    /// The first start under a new name.
    pub rename: Vec<TemplateFile>,
    /// Every start.
    pub start: Vec<TemplateFile>,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateFile {
    /// Absolute inside the instance.
    pub path: String,
    pub content: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Leave the file alone where it exists.
    pub create_only: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineProfile {
    /// PCI Express, hot-plug, any firmware.
    #[default]
    Full,
    /// `microvm`: virtio-mmio, a kernel given from outside, quick to start; no hot-plug.
    Micro,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Firmware {
    Uefi {
        secure_boot: bool,
    },
    /// `security.csm`.
    Bios,
    /// No firmware that a guest would see: QEMU loads the kernel.
    Kernel {
        kernel: PathBuf,
        initrd: Option<PathBuf>,
        arguments: String,
    },
}

/// Who executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    Kvm,
    /// Translation in software: everywhere, some ten times slower.
    Tcg,
}

/// A block device of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Device name, for errors and hot-unplug.
    pub device: String,
    /// A file or a block device of the host.
    pub source: PathBuf,
    pub format: DiskFormat,
    pub bus: DiskBus,
    pub read_only: bool,
    /// Higher boots first.
    pub boot_priority: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    #[default]
    Raw,
    Qcow2,
}

/// `io.bus`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskBus {
    #[serde(rename = "virtio-scsi")]
    #[default]
    VirtioScsi,
    #[serde(rename = "virtio-blk")]
    VirtioBlk,
    #[serde(rename = "nvme")]
    Nvme,
    /// A compact disc, which every guest can read.
    #[serde(rename = "cdrom")]
    CdRom,
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
