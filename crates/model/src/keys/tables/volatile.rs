//! `volatile.*`: what the daemon notes in an instance's configuration.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ANY_INT, Key,
    Kind::{Bool, Str},
};

pub(in crate::keys) static INSTANCE_VOLATILE: &[Key] = &[
    Key::new("volatile.<name>.apply_quota", Str, "Disk quota")
        .long("The disk quota is applied the next time the instance starts."),
    Key::new("volatile.<name>.ceph_rbd", Str, "RBD device path for Ceph disk devices"),
    Key::new("volatile.<name>.host_name", Str, "Network device name on the host"),
    Key::new("volatile.<name>.hwaddr", Str, "Network device MAC address")
        .long("The network device MAC address is used when no `hwaddr` property is set on the device itself."),
    Key::new("volatile.<name>.io.bus", Str, "IO bus in use")
        .long("The IO bus stores the actual IO bus being used, checked in case `io.bus=auto`."),
    Key::new("volatile.<name>.last_state.created", Str, "Whether the network device physical device was created")
        .long("Possible values are `true` or `false`."),
    Key::new("volatile.<name>.last_state.hwaddr", Str, "Network device original MAC")
        .long("The original MAC that was used when moving a physical device into an instance."),
    Key::new("volatile.<name>.last_state.ip_addresses", Str, "Last used IP addresses")
        .long("Comma-separated list of the last used IP addresses of the network device."),
    Key::new("volatile.<name>.last_state.mtu", Str, "Network device original MTU")
        .long("The original MTU that was used when moving a physical device into an instance."),
    Key::new("volatile.<name>.last_state.pci.driver", Str, "PCI original host driver")
        .long("The original host driver for the PCI device."),
    Key::new("volatile.<name>.last_state.pci.parent", Str, "PCI parent host device")
        .long("The parent host device used when allocating a PCI device to an instance."),
    Key::new("volatile.<name>.last_state.pci.slot.name", Str, "PCI parent slot name")
        .long("The parent host device PCI slot name."),
    Key::new("volatile.<name>.last_state.usb.bus", Str, "USB bus address").long("The original USB bus address."),
    Key::new("volatile.<name>.last_state.usb.device", Str, "USB device identifier")
        .long("The original USB device identifier."),
    Key::new("volatile.<name>.last_state.vdpa.name", Str, "VDPA device name")
        .long("The VDPA device name used when moving a VDPA device file descriptor into an instance."),
    Key::new("volatile.<name>.last_state.vf.hwaddr", Str, "SR-IOV virtual function original MAC")
        .long("The original MAC used when moving a VF into an instance."),
    Key::new("volatile.<name>.last_state.vf.id", Str, "SR-IOV virtual function ID")
        .long("The ID used when moving a VF into an instance."),
    Key::new("volatile.<name>.last_state.vf.parent", Str, "SR-IOV parent host device")
        .long("The parent host device used when allocating a VF into an instance."),
    Key::new("volatile.<name>.last_state.vf.spoofcheck", Str, "SR-IOV virtual function original spoof check setting")
        .long("The original spoof check setting used when moving a VF into an instance."),
    Key::new("volatile.<name>.last_state.vf.trusted", Str, "SR-IOV virtual function original trusted setting")
        .long("The original trusted setting used when moving a VF into an instance."),
    Key::new("volatile.<name>.last_state.vf.vlan", Str, "SR-IOV virtual function original VLAN")
        .long("The original VLAN used when moving a VF into an instance."),
    Key::new("volatile.<name>.mig.uuid", Str, "MIG instance UUID").long("The NVIDIA MIG instance UUID."),
    Key::new("volatile.<name>.name", Str, "Network interface name inside of the instance")
        .long("The network interface name inside of the instance when no `name` property is set on the device itself."),
    Key::new("volatile.<name>.vgpu.uuid", Str, "virtual GPU instance UUID")
        .long("The NVIDIA virtual GPU instance UUID."),
    Key::new("volatile.apply_nvram", Bool, "Whether to regenerate VM NVRAM the next time the instance starts"),
    Key::new("volatile.apply_template", Str, "Template hook")
        .long("The template with the given name is triggered upon next startup."),
    Key::new("volatile.base_image", Str, "Hash of the base image")
        .long("The hash of the image that the instance was created from (empty if the instance was not created from an image)."),
    Key::new("volatile.cloud_init.instance-id", Str, "`instance-id` (UUID) exposed to `cloud-init`"),
    Key::new("volatile.cluster.group", Str, "The original cluster group for the instance")
        .long(r#"The cluster group(s) that the instance was restricted to at creation time.
This is used during re-scheduling events like an evacuation to keep the instance within the requested set."#),
    Key::new("volatile.container.oci", Bool, "Whether the container is an OCI application container")
        .default("false"),
    Key::new("volatile.cpu.nodes", Str, "Instance NUMA node")
        .long("The NUMA node that was selected for the instance."),
    Key::new("volatile.evacuate.origin", Str, "The origin of the evacuated instance")
        .long("The cluster member that the instance lived on before evacuation."),
    Key::new("volatile.idmap.base", ANY_INT, "The first ID in the instance's primary idmap range"),
    Key::new("volatile.idmap.current", Str, "The idmap currently in use by the instance"),
    Key::new("volatile.idmap.next", Str, "The idmap to use the next time the instance starts"),
    Key::new("volatile.last_state.agent", Str, "Instance agent state as of last host shutdown"),
    Key::new("volatile.last_state.idmap", Str, "Serialized instance UID/GID map"),
    Key::new("volatile.last_state.power", Str, "Instance state as of last host shutdown"),
    Key::new("volatile.last_state.ready", Str, "Instance marked itself as ready"),
    Key::new("volatile.rebalance.last_move", ANY_INT, "Timestamp of last move by automatic live-migration"),
    Key::new("volatile.uuid", Str, "Instance UUID")
        .long("The instance UUID is globally unique across all servers and projects."),
    Key::new("volatile.uuid.generation", Str, "Instance generation UUID")
        .long(r#"The instance generation UUID changes whenever the instance's place in time moves backwards.
It is globally unique across all servers and projects."#),
    Key::new("volatile.vm.boot_state", Str, "JSON encoded VM properties used during live migration and other state restoration."),
    Key::new("volatile.vm.needs_reset", Bool, "Indicates that the VM needs a full reset on next reboot"),
    Key::new("volatile.vm.rtc_adjustment", ANY_INT, "Real Time Clock change adjustment")
        .long("Real Time Clock adjustment time to allow virtual machines to run on a different base than the host."),
    Key::new("volatile.vm.rtc_offset", ANY_INT, "Real Time Clock change offset")
        .long("Real Time Clock offset to allow virtual machines to run on a different base than the host."),
    Key::new("volatile.vsock_id", Str, "Instance `vsock ID` used as of last start"),
];
