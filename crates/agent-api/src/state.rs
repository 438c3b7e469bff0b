use serde::{Deserialize, Serialize};

/// What the guest knows of itself. A field that it cannot tell is empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestState {
    pub hostname: String,
    pub os: OsInfo,
    pub processes: u64,
    /// Nanoseconds that all processors worked since the boot.
    pub cpu_nanoseconds: u64,
    pub memory: Memory,
    pub disks: Vec<Disk>,
    pub interfaces: Vec<Interface>,
    /// One-, five- and fifteen-minute load.
    pub load: [f64; 3],
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OsInfo {
    /// `PRETTY_NAME`, `VERSION_ID` and the kernel's release.
    pub name: String,
    pub version: String,
    pub kernel: String,
}

/// In bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub total: u64,
    /// Total less what is available.
    pub used: u64,
    pub swap_total: u64,
    pub swap_used: u64,
}

/// A mounted file system on a block device, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    pub mount_point: String,
    pub total: u64,
    pub used: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    pub name: String,
    /// `aa:bb:cc:dd:ee:ff`; empty where it has none.
    pub mac: String,
    pub mtu: u32,
    pub is_up: bool,
    pub is_loopback: bool,
    pub addresses: Vec<Address>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub errors_received: u64,
    pub errors_sent: u64,
    pub dropped_received: u64,
    pub dropped_sent: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub address: std::net::IpAddr,
    pub prefix: u8,
}
