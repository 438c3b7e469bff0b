//! The table itself: one file a group, all of them listed in [`GROUPS`].

mod device_disk;
mod device_nic;
mod device_other;
mod instance;
mod network_bridge;
mod project;
mod security;
mod server;
mod storage;
mod volatile;

use super::Group;

/// Every key there is, in the groups under which `GET /1.0/metadata/configuration` shows them.
pub static GROUPS: &[Group] = &[
    Group { entity: "instance", name: "boot", keys: instance::INSTANCE_BOOT },
    Group { entity: "instance", name: "cloud-init", keys: instance::INSTANCE_CLOUD_INIT },
    Group { entity: "instance", name: "migration", keys: instance::INSTANCE_MIGRATION },
    Group { entity: "instance", name: "miscellaneous", keys: instance::INSTANCE_MISCELLANEOUS },
    Group { entity: "instance", name: "nvidia", keys: instance::INSTANCE_NVIDIA },
    Group { entity: "instance", name: "oci", keys: instance::INSTANCE_OCI },
    Group { entity: "instance", name: "raw", keys: instance::INSTANCE_RAW },
    Group { entity: "instance", name: "resource-limits", keys: instance::INSTANCE_RESOURCE_LIMITS },
    Group { entity: "instance", name: "snapshots", keys: instance::INSTANCE_SNAPSHOTS },
    Group { entity: "kernel", name: "limits", keys: instance::KERNEL_LIMITS },
    Group { entity: "instance", name: "security", keys: security::INSTANCE_SECURITY },
    Group { entity: "instance", name: "volatile", keys: volatile::INSTANCE_VOLATILE },
    Group { entity: "devices", name: "disk", keys: device_disk::DEVICES_DISK },
    Group { entity: "devices", name: "infiniband", keys: device_nic::DEVICES_INFINIBAND },
    Group { entity: "devices", name: "nic_bridged", keys: device_nic::DEVICES_NIC_BRIDGED },
    Group { entity: "devices", name: "nic_ipvlan", keys: device_nic::DEVICES_NIC_IPVLAN },
    Group { entity: "devices", name: "nic_macvlan", keys: device_nic::DEVICES_NIC_MACVLAN },
    Group { entity: "devices", name: "nic_ovn", keys: device_nic::DEVICES_NIC_OVN },
    Group { entity: "devices", name: "nic_p2p", keys: device_nic::DEVICES_NIC_P_P },
    Group { entity: "devices", name: "nic_physical", keys: device_nic::DEVICES_NIC_PHYSICAL },
    Group { entity: "devices", name: "nic_routed", keys: device_nic::DEVICES_NIC_ROUTED },
    Group { entity: "devices", name: "nic_sriov", keys: device_nic::DEVICES_NIC_SRIOV },
    Group { entity: "devices", name: "gpu_mdev", keys: device_other::DEVICES_GPU_MDEV },
    Group { entity: "devices", name: "gpu_mig", keys: device_other::DEVICES_GPU_MIG },
    Group { entity: "devices", name: "gpu_native_context", keys: device_other::DEVICES_GPU_NATIVE_CONTEXT },
    Group { entity: "devices", name: "gpu_physical", keys: device_other::DEVICES_GPU_PHYSICAL },
    Group { entity: "devices", name: "gpu_sriov", keys: device_other::DEVICES_GPU_SRIOV },
    Group { entity: "devices", name: "pci", keys: device_other::DEVICES_PCI },
    Group { entity: "devices", name: "proxy", keys: device_other::DEVICES_PROXY },
    Group { entity: "devices", name: "tpm", keys: device_other::DEVICES_TPM },
    Group { entity: "devices", name: "unix-char-block", keys: device_other::DEVICES_UNIX_CHAR_BLOCK },
    Group { entity: "devices", name: "unix-hotplug", keys: device_other::DEVICES_UNIX_HOTPLUG },
    Group { entity: "devices", name: "usb", keys: device_other::DEVICES_USB },
    Group { entity: "network_bridge", name: "bgp", keys: network_bridge::NETWORK_BRIDGE_BGP },
    Group { entity: "network_bridge", name: "common", keys: network_bridge::NETWORK_BRIDGE_COMMON },
    Group { entity: "storage_btrfs", name: "common", keys: storage::STORAGE_BTRFS_COMMON },
    Group { entity: "storage_dir", name: "common", keys: storage::STORAGE_DIR_COMMON },
    Group { entity: "storage_volume_btrfs", name: "common", keys: storage::STORAGE_VOLUME_BTRFS_COMMON },
    Group { entity: "storage_volume_dir", name: "common", keys: storage::STORAGE_VOLUME_DIR_COMMON },
    Group { entity: "server", name: "acme", keys: server::SERVER_ACME },
    Group { entity: "server", name: "authorization", keys: server::SERVER_AUTHORIZATION },
    Group { entity: "server", name: "cluster", keys: server::SERVER_CLUSTER },
    Group { entity: "server", name: "core", keys: server::SERVER_CORE },
    Group { entity: "server", name: "images", keys: server::SERVER_IMAGES },
    Group { entity: "server", name: "logging", keys: server::SERVER_LOGGING },
    Group { entity: "server", name: "loki", keys: server::SERVER_LOKI },
    Group { entity: "server", name: "miscellaneous", keys: server::SERVER_MISCELLANEOUS },
    Group { entity: "server", name: "network", keys: server::SERVER_NETWORK },
    Group { entity: "server", name: "oidc", keys: server::SERVER_OIDC },
    Group { entity: "project", name: "features", keys: project::PROJECT_FEATURES },
    Group { entity: "project", name: "limits", keys: project::PROJECT_LIMITS },
    Group { entity: "project", name: "restricted", keys: project::PROJECT_RESTRICTED },
    Group { entity: "project", name: "specific", keys: project::PROJECT_SPECIFIC },
    Group { entity: "image", name: "requirements", keys: project::IMAGE_REQUIREMENTS },
];
