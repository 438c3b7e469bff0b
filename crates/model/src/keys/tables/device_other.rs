//! Keys of the remaining device types.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ANY_INT, ID, Key,
    Kind::{Bool, Int, Mode, Path, Str},
};

pub(in crate::keys) static DEVICES_GPU_MDEV: &[Key] = &[
    Key::new("id", Str, "The DRM card ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("mdev", Str, "The mediated device profile to use (required - for example, `i915-GVTg_V5_4`)")
        .required("yes")
        .refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the GPU device").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_GPU_MIG: &[Key] = &[
    Key::new("id", Str, "The DRM card ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("mig.ci", ANY_INT, "Existing MIG compute instance ID").refused("devices of this type are not built yet"),
    Key::new("mig.gi", ANY_INT, "Existing MIG GPU instance ID").refused("devices of this type are not built yet"),
    Key::new("mig.uuid", Str, "Existing MIG device UUID (MIG- prefix can be omitted)")
        .refused("devices of this type are not built yet"),
    Key::new("pci", Str, "The PCI address of the GPU device").refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the GPU device").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_GPU_NATIVE_CONTEXT: &[Key] = &[
    Key::new("blob.size", Str, "Size of the host-visible blob memory window for the `virtio-gpu` device")
        .default("2GiB")
        .refused("devices of this type are not built yet"),
    Key::new("id", Str, "The DRM card ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("pci", Str, "The PCI address of the GPU device").refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the GPU device").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_GPU_PHYSICAL: &[Key] = &[
    Key::new("gid", ID, "GID of the device owner in the instance (container only)")
        .default("0")
        .refused("devices of this type are not built yet"),
    Key::new("id", Str, "The DRM card ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("mode", Mode, "Mode of the device in the instance (container only)")
        .default("0660")
        .refused("devices of this type are not built yet"),
    Key::new("pci", Str, "The PCI address of the GPU device").refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the GPU device").refused("devices of this type are not built yet"),
    Key::new("uid", ID, "UID of the device owner in the instance (container only)")
        .default("0")
        .refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the GPU device").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_GPU_SRIOV: &[Key] = &[
    Key::new("id", Str, "The DRM card ID of the parent GPU device").refused("devices of this type are not built yet"),
    Key::new("pci", Str, "The PCI address of the parent GPU device").refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the parent GPU device")
        .refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the parent GPU device")
        .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_PCI: &[Key] = &[
    Key::new("address", Str, "PCI address of the device")
        .required("yes")
        .refused("devices of this type are not built yet"),
    Key::new("firmware", Bool, "Whether to expose the device's option ROM to the VM")
        .default("true")
        .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_PROXY: &[Key] = &[
    Key::new("bind", Str, "Which side to bind on (`host`/`instance`)")
        .default("host")
        .refused("devices of this type are not built yet"),
    Key::new("connect", Str, "The address and port to connect to (`<type>:<addr>:<port>[-<port>][,<port>]`)")
        .required("yes")
        .refused("devices of this type are not built yet"),
    Key::new("gid", ID, "GID of the owner of the listening Unix socket")
        .default("0")
        .refused("devices of this type are not built yet"),
    Key::new("listen", Str, "The address and port to bind and listen (`<type>:<addr>:<port>[-<port>][,<port>]`)")
        .required("yes")
        .refused("devices of this type are not built yet"),
    Key::new("mode", Mode, "Mode for the listening Unix socket")
        .default("0644")
        .refused("devices of this type are not built yet"),
    Key::new("nat", Bool, "Whether to optimize proxying via NAT")
        .default("false")
        .refused("devices of this type are not built yet"),
    Key::new("proxy_protocol", Bool, "Whether to use the HAProxy PROXY protocol to transmit sender information")
        .default("false")
        .refused("devices of this type are not built yet"),
    Key::new("security.gid", ID, "What GID to drop privilege to")
        .default("0")
        .refused("devices of this type are not built yet"),
    Key::new("security.uid", ID, "What UID to drop privilege to")
        .default("0")
        .refused("devices of this type are not built yet"),
    Key::new("uid", ID, "UID of the owner of the listening Unix socket")
        .default("0")
        .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_TPM: &[Key] = &[
    Key::new("path", Path, "Only for containers: path inside the instance (for example, `/dev/tpm0`)")
        .required("for containers")
        .refused("devices of this type are not built yet"),
    Key::new(
        "pathrm",
        Str,
        "Only for containers: resource manager path inside the instance (for example, `/dev/tpmrm0`)",
    )
    .required("for containers")
    .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_UNIX_CHAR_BLOCK: &[Key] = &[
    Key::new("gid", ID, "GID of the device owner in the instance").default("0"),
    Key::new("limits.read", Str, "I/O limit in byte/s and/or IOPS (comma separated) for read operations")
        .refused("it is not built yet"),
    Key::new("limits.write", Str, "I/O limit in byte/s and/or IOPS (comma separated) for write operations")
        .refused("it is not built yet"),
    Key::new("major", Int { min: 0, max: 4_095 }, "Device major number").default_text("device on host"),
    Key::new("minor", Int { min: 0, max: 1_048_575 }, "Device minor number").default_text("device on host"),
    Key::new("mode", Mode, "Mode of the device in the instance").default("0660"),
    Key::new("path", Path, "Path inside the instance (one of `source` and `path` must be set)"),
    Key::new("required", Bool, "Whether this device is required to start the instance").default("true"),
    Key::new("source", Str, "Path on the host (one of `source` and `path` must be set)"),
    Key::new("uid", ID, "UID of the device owner in the instance").default("0"),
];

pub(in crate::keys) static DEVICES_UNIX_HOTPLUG: &[Key] = &[
    Key::new("gid", ID, "GID of the device owner in the instance")
        .default("0")
        .refused("devices of this type are not built yet"),
    Key::new("mode", Mode, "Mode of the device in the instance")
        .default("0660")
        .refused("devices of this type are not built yet"),
    Key::new("pci", Str, "The PCI address of a USB controller to monitor")
        .refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the USB device").refused("devices of this type are not built yet"),
    Key::new("required", Bool, "Whether this device is required to start the instance")
        .default("true")
        .refused("devices of this type are not built yet"),
    Key::new("uid", ID, "UID of the device owner in the instance")
        .default("0")
        .refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the USB device").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_USB: &[Key] = &[
    Key::new("attached", Bool, "Whether the USB device is plugged in or not").default("true")
        .refused("devices of this type are not built yet"),
    Key::new("busnum", ANY_INT, "The bus number of which the USB device is attached")
        .refused("devices of this type are not built yet"),
    Key::new("devnum", ANY_INT, "The device number of the USB device")
        .refused("devices of this type are not built yet"),
    Key::new("gid", ID, "Only for containers: GID of the device owner in the instance").default("0")
        .refused("devices of this type are not built yet"),
    Key::new("mode", Mode, "Only for containers: Mode of the device in the instance").default("0660")
        .refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the USB device")
        .refused("devices of this type are not built yet"),
    Key::new("required", Bool, "Whether this device is required to start the instance (the default is `false`, and all devices can be hotplugged)")
        .default("false").refused("devices of this type are not built yet"),
    Key::new("serial", Str, "The serial number of the USB device")
        .refused("devices of this type are not built yet"),
    Key::new("uid", ID, "Only for containers: UID of the device owner in the instance").default("0")
        .refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the USB device")
        .refused("devices of this type are not built yet"),
];
