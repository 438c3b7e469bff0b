//! `/1.0/resources`: the host's hardware, as far as Stapes reports it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{is_default, null_as_default};

/// Hardware of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Resources {
    #[serde(deserialize_with = "null_as_default")]
    pub cpu: ResourcesCPU,
    #[serde(deserialize_with = "null_as_default")]
    pub memory: ResourcesMemory,
    #[serde(deserialize_with = "null_as_default")]
    pub gpu: ResourcesGPU,
    #[serde(deserialize_with = "null_as_default")]
    pub network: ResourcesNetwork,
    #[serde(deserialize_with = "null_as_default")]
    pub storage: ResourcesStorage,
    #[serde(deserialize_with = "null_as_default")]
    pub usb: ResourcesUSB,
    #[serde(deserialize_with = "null_as_default")]
    pub pci: ResourcesPCI,
    #[serde(deserialize_with = "null_as_default")]
    pub system: ResourcesSystem,
    #[serde(deserialize_with = "null_as_default")]
    pub load: ResourcesLoad,
}

/// Processors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesCPU {
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "null_as_default")]
    pub sockets: Vec<ResourcesCPUSocket>,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// One processor package.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesCPUSocket {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default")]
    pub socket: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub cache: Vec<ResourcesCPUCache>,
    #[serde(deserialize_with = "null_as_default")]
    pub cores: Vec<ResourcesCPUCore>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub frequency: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub frequency_minimum: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub frequency_turbo: u64,
}

/// One cache; size in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesCPUCache {
    #[serde(deserialize_with = "null_as_default")]
    pub level: u64,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub size: u64,
}

/// One core; frequencies in MHz.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesCPUCore {
    #[serde(deserialize_with = "null_as_default")]
    pub core: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub die: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub threads: Vec<ResourcesCPUThread>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub frequency: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub flags: Vec<String>,
}

/// One hardware thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesCPUThread {
    #[serde(deserialize_with = "null_as_default")]
    pub id: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub numa_node: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub thread: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub online: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub isolated: bool,
}

/// Graphics cards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesGPU {
    #[serde(deserialize_with = "null_as_default")]
    pub cards: Vec<ResourcesGPUCard>,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// One graphics card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesGPUCard {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub driver_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drm: Option<ResourcesGPUCardDRM>,
    #[serde(deserialize_with = "null_as_default")]
    pub numa_node: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub pci_address: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub vendor_id: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub product: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub product_id: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub usb_address: String,
}

/// The DRM nodes of a card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesGPUCardDRM {
    #[serde(deserialize_with = "null_as_default")]
    pub id: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub card_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub card_device: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub control_name: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub control_device: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub render_name: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub render_device: String,
}

/// Network cards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesNetwork {
    #[serde(deserialize_with = "null_as_default")]
    pub cards: Vec<ResourcesNetworkCard>,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// One network card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesNetworkCard {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub driver_version: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub ports: Vec<ResourcesNetworkCardPort>,
    #[serde(deserialize_with = "null_as_default")]
    pub numa_node: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub pci_address: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub vendor_id: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub product: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub product_id: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub firmware_version: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub usb_address: String,
}

/// One port of a network card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesNetworkCardPort {
    #[serde(deserialize_with = "null_as_default")]
    pub id: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub address: String,
    #[serde(deserialize_with = "null_as_default")]
    pub port: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub supported_modes: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub supported_ports: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub port_type: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub transceiver_type: String,
    #[serde(deserialize_with = "null_as_default")]
    pub auto_negotiation: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub link_detected: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub link_speed: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub link_duplex: String,
}

/// Disks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesStorage {
    #[serde(deserialize_with = "null_as_default")]
    pub disks: Vec<ResourcesStorageDisk>,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// One disk; sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesStorageDisk {
    #[serde(deserialize_with = "null_as_default")]
    pub id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub device: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub model: String,
    #[serde(rename = "type", deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub read_only: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub size: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub removable: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub wwn: String,
    #[serde(deserialize_with = "null_as_default")]
    pub numa_node: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub device_path: String,
    #[serde(deserialize_with = "null_as_default")]
    pub block_size: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub firmware_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub rpm: u64,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub serial: String,
    #[serde(deserialize_with = "null_as_default")]
    pub device_id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub partitions: Vec<ResourcesStorageDiskPartition>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub pci_address: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub usb_address: String,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesStorageDiskPartition {
    #[serde(deserialize_with = "null_as_default")]
    pub id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub device: String,
    #[serde(deserialize_with = "null_as_default")]
    pub read_only: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub size: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub partition: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesMemory {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub nodes: Vec<ResourcesMemoryNode>,
    #[serde(deserialize_with = "null_as_default")]
    pub hugepages_total: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub hugepages_used: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub hugepages_size: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub used: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// Memory of one NUMA node, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesMemoryNode {
    #[serde(deserialize_with = "null_as_default")]
    pub numa_node: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub hugepages_used: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub hugepages_total: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub used: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// Space and inodes of a storage pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesStoragePool {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub space: ResourcesStoragePoolSpace,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub inodes: ResourcesStoragePoolInodes,
}

/// Bytes used and available.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesStoragePoolSpace {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub used: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// Inodes used and available.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesStoragePoolInodes {
    #[serde(deserialize_with = "null_as_default")]
    pub used: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// USB devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesUSB {
    #[serde(deserialize_with = "null_as_default")]
    pub devices: Vec<ResourcesUSBDevice>,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// One USB device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesUSBDevice {
    #[serde(deserialize_with = "null_as_default")]
    pub bus_address: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub device_address: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub serial: String,
    #[serde(deserialize_with = "null_as_default")]
    pub interfaces: Vec<ResourcesUSBDeviceInterface>,
    #[serde(deserialize_with = "null_as_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default")]
    pub vendor_id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub product: String,
    #[serde(deserialize_with = "null_as_default")]
    pub product_id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub speed: f64,
}

/// One interface of a USB device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesUSBDeviceInterface {
    #[serde(deserialize_with = "null_as_default")]
    pub class: String,
    #[serde(deserialize_with = "null_as_default")]
    pub class_id: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub driver: String,
    #[serde(deserialize_with = "null_as_default")]
    pub driver_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub number: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub subclass: String,
    #[serde(deserialize_with = "null_as_default")]
    pub subclass_id: u64,
}

/// PCI devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesPCI {
    #[serde(deserialize_with = "null_as_default")]
    pub devices: Vec<ResourcesPCIDevice>,
    #[serde(deserialize_with = "null_as_default")]
    pub total: u64,
}

/// One PCI device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesPCIDevice {
    #[serde(deserialize_with = "null_as_default")]
    pub driver: String,
    #[serde(deserialize_with = "null_as_default")]
    pub driver_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub numa_node: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub pci_address: String,
    #[serde(deserialize_with = "null_as_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default")]
    pub vendor_id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub product: String,
    #[serde(deserialize_with = "null_as_default")]
    pub product_id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub iommu_group: u64,
}

/// The machine itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesSystem {
    #[serde(deserialize_with = "null_as_default")]
    pub uuid: String,
    #[serde(deserialize_with = "null_as_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default")]
    pub product: String,
    #[serde(deserialize_with = "null_as_default")]
    pub family: String,
    #[serde(deserialize_with = "null_as_default")]
    pub version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub sku: String,
    #[serde(deserialize_with = "null_as_default")]
    pub serial: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    pub firmware: Option<ResourcesSystemFirmware>,
    pub chassis: Option<ResourcesSystemChassis>,
    pub motherboard: Option<ResourcesSystemMotherboard>,
}

/// Its firmware.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesSystemFirmware {
    #[serde(deserialize_with = "null_as_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default")]
    pub date: String,
    #[serde(deserialize_with = "null_as_default")]
    pub version: String,
}

/// Its chassis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesSystemChassis {
    #[serde(deserialize_with = "null_as_default")]
    pub vendor: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub serial: String,
    #[serde(deserialize_with = "null_as_default")]
    pub version: String,
}

/// Its board.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesSystemMotherboard {
    #[serde(deserialize_with = "null_as_default")]
    pub vendor: String,
    #[serde(deserialize_with = "null_as_default")]
    pub product: String,
    #[serde(deserialize_with = "null_as_default")]
    pub serial: String,
    #[serde(deserialize_with = "null_as_default")]
    pub version: String,
}

/// Load averages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResourcesLoad {
    #[serde(rename = "Average1Min", deserialize_with = "null_as_default")]
    pub average1min: f64,
    #[serde(rename = "Average5Min", deserialize_with = "null_as_default")]
    pub average5min: f64,
    #[serde(rename = "Average10Min", deserialize_with = "null_as_default")]
    pub average10min: f64,
    #[serde(rename = "Processes", deserialize_with = "null_as_default")]
    pub processes: i64,
}
