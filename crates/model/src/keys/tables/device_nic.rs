//! Keys of network devices, by kind.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ANY_INT, Key,
    Kind::{Address, Bool, Int, Interface, Mac, Str},
};

pub(in crate::keys) static DEVICES_INFINIBAND: &[Key] = &[
    Key::new("hwaddr", Mac, "The MAC address of the new interface (can be either the full 20-byte variant or the short 8-byte variant, which will only modify the last 8 bytes of the parent device)")
        .default_text("randomly assigned").refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The MTU of the new interface").default_text("parent MTU")
        .refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance").default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new("nictype", Str, "The device type (one of `physical` or `sriov`)").required("yes")
        .refused("devices of this type are not built yet"),
    Key::new("node_guid", Str, "The node GUID to assign to the virtual function (8 bytes of hex separated by colons)")
        .default_text("kernel assigned").refused("devices of this type are not built yet"),
    Key::new("parent", Str, "The name of the interface inside the instance").default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new("port_guid", Str, "The port GUID to assign to the virtual function (8 bytes of hex separated by colons)")
        .default_text("kernel assigned").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_BRIDGED: &[Key] = &[
    Key::new("attached", Bool, "Whether the NIC is plugged in or not").default("true")
        .refused("it is not built yet"),
    Key::new("boot.priority", Int { min: 0, max: u32::MAX as i64 }, "Boot priority for VMs (higher value boots first)"),
    Key::new("connected", Bool, "Whether the NIC is connected to the host network").default("true")
        .refused("it is not built yet"),
    Key::new("host_name", Interface, "The name of the interface on the host").default_text("randomly assigned"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface").default_text("randomly assigned"),
    Key::new("io.bus", Str, "Override the bus for the device (can be `virtio` or `usb`) (VM only)")
        .default("virtio").refused("it is not built yet"),
    Key::new("ipv4.address", Address { v6: false }, "An IPv4 address to assign to the instance through DHCP (can be `none` to restrict all IPv4 traffic when `security.ipv4_filtering` is set, or a CIDR value to statically configure the address inside an OCI container)"),
    Key::new("ipv4.gateway", Str, "IPv4 default gateway to statically configure inside an OCI container (`none` to prevent a default gateway from being applied)")
        .refused("it is not built yet"),
    Key::new("ipv4.routes", Str, "Comma-delimited list of IPv4 static routes to add on host to NIC")
        .refused("it is not built yet"),
    Key::new("ipv4.routes.external", Str, "Comma-delimited list of IPv4 static routes to route to the NIC and publish on uplink network (BGP)")
        .refused("it is not built yet"),
    Key::new("ipv6.address", Address { v6: true }, "An IPv6 address to assign to the instance through DHCP (can be `none` to restrict all IPv6 traffic when `security.ipv6_filtering` is set, or a CIDR value to statically configure the address inside an OCI container)"),
    Key::new("ipv6.gateway", Str, "IPv6 default gateway to statically configure inside an OCI container (`none` to prevent a default gateway from being applied)")
        .refused("it is not built yet"),
    Key::new("ipv6.routes", Str, "Comma-delimited list of IPv6 static routes to add on host to NIC")
        .refused("it is not built yet"),
    Key::new("ipv6.routes.external", Str, "Comma-delimited list of IPv6 static routes to route to the NIC and publish on uplink network (BGP)")
        .refused("it is not built yet"),
    Key::new("limits.egress", Str, "I/O limit in bit/s for outgoing traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("it is not built yet"),
    Key::new("limits.ingress", Str, "I/O limit in bit/s for incoming traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("it is not built yet"),
    Key::new("limits.max", Str, "I/O limit in bit/s for both incoming and outgoing traffic (same as setting both limits.ingress and limits.egress)")
        .refused("it is not built yet"),
    Key::new("limits.priority", Int { min: 0, max: u32::MAX as i64 }, "The priority for outgoing traffic, to be used by the kernel queuing discipline to prioritize network packets")
        .refused("it is not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("MTU of the parent device"),
    Key::new("name", Interface, "The name of the interface inside the instance").default_text("kernel assigned"),
    Key::new("network", Str, "The managed network to link the device to (instead of specifying the `nictype` directly)"),
    Key::new("parent", Str, "The name of the parent host device (required if specifying the `nictype` directly)"),
    Key::new("queue.tx.length", Int { min: 0, max: u32::MAX as i64 }, "The transmit queue length for the NIC")
        .refused("it is not built yet"),
    Key::new("security.acls", Str, "Comma-separated list of network ACLs to apply")
        .refused("it is not built yet"),
    Key::new("security.acls.default.egress.action", Str, "Action to use for egress traffic that doesn't match any ACL rule")
        .default("drop").refused("it is not built yet"),
    Key::new("security.acls.default.egress.logged", Bool, "Whether to log egress traffic that doesn't match any ACL rule")
        .default("false").refused("it is not built yet"),
    Key::new("security.acls.default.ingress.action", Str, "Action to use for ingress traffic that doesn't match any ACL rule")
        .default("drop").refused("it is not built yet"),
    Key::new("security.acls.default.ingress.logged", Bool, "Whether to log ingress traffic that doesn't match any ACL rule")
        .default("false").refused("it is not built yet"),
    Key::new("security.ipv4_filtering", Bool, "Prevent the instance from spoofing another instance's IPv4 address (enables `security.mac_filtering`)")
        .default("false").refused("it is not built yet"),
    Key::new("security.ipv6_filtering", Bool, "Prevent the instance from spoofing another instance's IPv6 address (enables `security.mac_filtering`)")
        .default("false").refused("it is not built yet"),
    Key::new("security.mac_filtering", Bool, "Prevent the instance from spoofing another instance's MAC address")
        .default("false").refused("it is not built yet"),
    Key::new("security.port_isolation", Bool, "Prevent the NIC from communicating with other NICs in the network that have port isolation enabled")
        .default("false").refused("it is not built yet"),
    Key::new("vlan", Str, "The VLAN ID to use for non-tagged traffic (can be none to remove port from default VLAN)")
        .refused("it is not built yet"),
    Key::new("vlan.tagged", ANY_INT, "Comma-delimited list of VLAN IDs or VLAN ranges to join for tagged traffic")
        .refused("it is not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_IPVLAN: &[Key] = &[
    Key::new("attached", Bool, "Whether the NIC is plugged in or not").default("true")
        .refused("devices of this type are not built yet"),
    Key::new("gvrp", Bool, "Register VLAN using GARP VLAN Registration Protocol").default("false")
        .refused("devices of this type are not built yet"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface").default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.address", Address { v6: false }, "Comma-delimited list of IPv4 static addresses to add to the instance (in l2 mode, these can be specified as CIDR values or singular addresses using a subnet of /24)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.gateway", Str, "In `l3s` mode, whether to add an automatic default IPv4 gateway (can be `auto` or `none`). In `l2` mode, the IPv4 address of the gateway")
        .default_text("`auto` (in `l3s` mode), `-` (in `l2` mode)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.host_table", ANY_INT, "The custom policy routing table ID to add IPv4 static routes to (in addition to the main routing table)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.address", Address { v6: true }, "Comma-delimited list of IPv6 static addresses to add to the instance (in `l2` mode, these can be specified as CIDR values or singular addresses using a subnet of /64)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.gateway", Str, "In `l3s` mode, whether to add an automatic default IPv6 gateway (can be `auto` or `none`). In `l2` mode, the IPv6 address of the gateway")
        .default_text("`auto` (in `l3s` mode), `-` (in `l2` mode)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.host_table", ANY_INT, "The custom policy routing table ID to add IPv6 static routes to (in addition to the main routing table)")
        .refused("devices of this type are not built yet"),
    Key::new("mode", Str, "The IPVLAN mode (either `l2` or `l3s`)").default("l3s")
        .refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("MTU of the parent device").refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance").default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new("parent", Str, "The name of the host device (required)")
        .refused("devices of this type are not built yet"),
    Key::new("vlan", Str, "The VLAN ID to attach to").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_MACVLAN: &[Key] = &[
    Key::new("attached", Bool, "Whether the NIC is plugged in or not")
        .default("true")
        .refused("devices of this type are not built yet"),
    Key::new("boot.priority", Int { min: 0, max: i64::MAX }, "Boot priority for VMs (higher value boots first)")
        .refused("devices of this type are not built yet"),
    Key::new("connected", Bool, "Whether the NIC is connected to the host network (VM only)")
        .default("true")
        .refused("devices of this type are not built yet"),
    Key::new("gvrp", Bool, "Register VLAN using GARP VLAN Registration Protocol")
        .default("false")
        .refused("devices of this type are not built yet"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface")
        .default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("io.bus", Str, "Override the bus for the device (can be `virtio` or `usb`) (VM only)")
        .default("virtio")
        .refused("devices of this type are not built yet"),
    Key::new("mode", Str, "Macvlan mode (one of `bridge`, `vepa`, `passthru` or `private`)")
        .default("bridge")
        .refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("MTU of the parent device")
        .refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance")
        .default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new(
        "network",
        Str,
        "The managed network to link the device to (instead of specifying the `nictype` directly)",
    )
    .refused("devices of this type are not built yet"),
    Key::new("parent", Str, "The name of the parent host device (required if specifying the `nictype` directly)")
        .refused("devices of this type are not built yet"),
    Key::new("vlan", Str, "The VLAN ID to attach to").refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_OVN: &[Key] = &[
    Key::new("acceleration", Str, "Enable hardware offloading (either `none`, `sriov` or `vdpa`)")
        .default("none").refused("devices of this type are not built yet"),
    Key::new("attached", Bool, "Whether the NIC is plugged in or not").default("true")
        .refused("devices of this type are not built yet"),
    Key::new("boot.priority", Int { min: 0, max: i64::MAX }, "Boot priority for VMs (higher value boots first)")
        .refused("devices of this type are not built yet"),
    Key::new("connected", Bool, "Whether the NIC is connected to the host network (requires `acceleration` set to `none`)")
        .default("true").refused("devices of this type are not built yet"),
    Key::new("host_name", Interface, "The name of the interface inside the host").default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface").default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("io.bus", Str, "Override the bus for the device (can be `virtio` or `usb`, requires `acceleration` set to `none`) (VM only)")
        .default("virtio").refused("devices of this type are not built yet"),
    Key::new("ipv4.address", Address { v6: false }, "An IPv4 address to assign to the instance through DHCP, `none` can be used to disable IP allocation (or a CIDR value to statically configure the address inside an OCI container)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.address.external", Str, "Select a specific external address (typically from a network forward)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.gateway", Str, "IPv4 default gateway to statically configure inside an OCI container (`none` to prevent a default gateway from being applied)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.routes", Str, "Comma-delimited list of IPv4 static routes to route to the NIC")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.routes.external", Str, "Comma-delimited list of IPv4 static routes to route to the NIC and publish on uplink network")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.address", Address { v6: true }, "An IPv6 address to assign to the instance through DHCP, `none` can be used to disable IP allocation (or a CIDR value to statically configure the address inside an OCI container)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.address.external", Str, "Select a specific external address (typically from a network forward)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.gateway", Str, "IPv6 default gateway to statically configure inside an OCI container (`none` to prevent a default gateway from being applied)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.routes", Str, "Comma-delimited list of IPv6 static routes to route to the NIC")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.routes.external", Str, "Comma-delimited list of IPv6 static routes to route to the NIC and publish on uplink network")
        .refused("devices of this type are not built yet"),
    Key::new("limits.egress", Str, "I/O limit in bit/s for outgoing traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.ingress", Str, "I/O limit in bit/s for incoming traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.max", Str, "I/O limit in bit/s for both incoming and outgoing traffic. (same as setting both limits.ingress and limits.egress / mutually exclusive with limits.ingress and limits.egress)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.priority", Int { min: 0, max: u32::MAX as i64 }, "The priority for outgoing traffic, to be used by the kernel queuing discipline to prioritize network packets")
        .default("100").refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("MTU of the parent network").refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance").default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new("nested", Str, "The parent NIC name to nest this NIC under (see also `vlan`)")
        .refused("devices of this type are not built yet"),
    Key::new("network", Str, "The managed network to link the device to (required)")
        .refused("devices of this type are not built yet"),
    Key::new("security.acls", Str, "Comma-separated list of network ACLs to apply")
        .refused("devices of this type are not built yet"),
    Key::new("security.acls.default.egress.action", Str, "Action to use for egress traffic that doesn't match any ACL rule")
        .default("reject").refused("devices of this type are not built yet"),
    Key::new("security.acls.default.egress.logged", Bool, "Whether to log egress traffic that doesn't match any ACL rule")
        .default("false").refused("devices of this type are not built yet"),
    Key::new("security.acls.default.ingress.action", Str, "Action to use for ingress traffic that doesn't match any ACL rule")
        .default("reject").refused("devices of this type are not built yet"),
    Key::new("security.acls.default.ingress.logged", Bool, "Whether to log ingress traffic that doesn't match any ACL rule")
        .default("false").refused("devices of this type are not built yet"),
    Key::new("security.promiscuous", Bool, "Have OVN send unknown network traffic to this network interface (required for some nesting cases)")
        .default("false").refused("devices of this type are not built yet"),
    Key::new("vlan", Str, "The VLAN ID to use when nesting (see also `nested`)")
        .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_P_P: &[Key] = &[
    Key::new("attached", Bool, "Whether the NIC is plugged in or not").default("true")
        .refused("devices of this type are not built yet"),
    Key::new("boot.priority", Int { min: 0, max: i64::MAX }, "Boot priority for VMs (higher value boots first)")
        .refused("devices of this type are not built yet"),
    Key::new("connected", Bool, "Whether the NIC is connected to the host network").default("true")
        .refused("devices of this type are not built yet"),
    Key::new("host_name", Interface, "The name of the interface on the host").default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface").default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("io.bus", Str, "Override the bus for the device (can be `virtio` or `usb`) (VM only)")
        .default("virtio").refused("devices of this type are not built yet"),
    Key::new("ipv4.routes", Str, "Comma-delimited list of IPv4 static routes to add on host to NIC")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.routes", Str, "Comma-delimited list of IPv6 static routes to add on host to NIC")
        .refused("devices of this type are not built yet"),
    Key::new("limits.egress", Str, "I/O limit in bit/s for outgoing traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.ingress", Str, "I/O limit in bit/s for incoming traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.max", Str, "I/O limit in bit/s for both incoming and outgoing traffic (same as setting both limits.ingress and limits.egress)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.priority", Int { min: 0, max: u32::MAX as i64 }, "The priority for outgoing traffic, to be used by the kernel queuing discipline to prioritize network packets")
        .refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("kernel assigned").refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance").default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new("queue.tx.length", Int { min: 0, max: u32::MAX as i64 }, "The transmit queue length for the NIC")
        .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_PHYSICAL: &[Key] = &[
    Key::new("attached", Bool, "Whether the NIC is plugged in or not")
        .default("true")
        .refused("devices of this type are not built yet"),
    Key::new("boot.priority", Int { min: 0, max: i64::MAX }, "Boot priority for VMs (higher value boots first)")
        .refused("devices of this type are not built yet"),
    Key::new("gvrp", Bool, "Register VLAN using GARP VLAN Registration Protocol")
        .default("false")
        .container()
        .condition("container")
        .refused("devices of this type are not built yet"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface")
        .default_text("randomly assigned")
        .container()
        .condition("container")
        .refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("MTU of the parent device")
        .container()
        .condition("container")
        .refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance")
        .default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new(
        "network",
        Str,
        "The managed network to link the device to (instead of specifying the `nictype` directly)",
    )
    .refused("devices of this type are not built yet"),
    Key::new("parent", Str, "The name of the parent host device (required if specifying the `nictype` directly)")
        .refused("devices of this type are not built yet"),
    Key::new("vlan", Str, "The VLAN ID to attach to")
        .container()
        .condition("container")
        .refused("devices of this type are not built yet"),
    Key::new("vlan.tagged", ANY_INT, "Comma-delimited list of VLAN IDs or VLAN ranges to join for tagged traffic")
        .container()
        .condition("container")
        .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_ROUTED: &[Key] = &[
    Key::new("attached", Bool, "Whether the NIC is plugged in or not").default("true")
        .refused("devices of this type are not built yet"),
    Key::new("connected", Bool, "Whether the NIC is connected to the host network").default("true")
        .refused("devices of this type are not built yet"),
    Key::new("gvrp", Bool, "Register VLAN using GARP VLAN Registration Protocol").default("false")
        .refused("devices of this type are not built yet"),
    Key::new("host_name", Interface, "The name of the interface on the host").default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface").default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("io.bus", Str, "Override the bus for the device (can be `virtio` or `usb`) (VM only)")
        .default("virtio").refused("devices of this type are not built yet"),
    Key::new("ipv4.address", Address { v6: false }, "Comma-delimited list of IPv4 static addresses to add to the instance")
        .refused("devices of this type are not built yet"),
    Key::new("ipv4.gateway", Str, "Whether to add an automatic default IPv4 gateway (can be `auto` or `none`)")
        .default("auto").refused("devices of this type are not built yet"),
    Key::new("ipv4.host_address", Str, "The IPv4 address to add to the host-side `veth` interface")
        .default("169.254.0.1").refused("devices of this type are not built yet"),
    Key::new("ipv4.host_table", ANY_INT, "Deprecated: Use `ipv4.host_tables` instead")
        .refused("devices of this type are not built yet")
        .long("The custom policy routing table ID to add IPv4 static routes to (in addition to the main routing table)"),
    Key::new("ipv4.host_tables", Str, "Comma-delimited list of routing tables IDs to add IPv4 static routes to")
        .default("254").refused("devices of this type are not built yet"),
    Key::new("ipv4.neighbor_probe", Bool, "Whether to probe the parent network for IP address availability")
        .default("true").refused("devices of this type are not built yet"),
    Key::new("ipv4.routes", Str, "Comma-delimited list of IPv4 static routes to add on host to NIC (without L2 ARP/NDP proxy)")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.address", Address { v6: true }, "Comma-delimited list of IPv6 static addresses to add to the instance")
        .refused("devices of this type are not built yet"),
    Key::new("ipv6.gateway", Str, "Whether to add an automatic default IPv6 gateway (can be `auto` or `none`)")
        .default("auto").refused("devices of this type are not built yet"),
    Key::new("ipv6.host_address", Str, "The IPv6 address to add to the host-side `veth` interface")
        .default("fe80::1").refused("devices of this type are not built yet"),
    Key::new("ipv6.host_table", ANY_INT, "Deprecated: Use `ipv6.host_tables` instead")
        .refused("devices of this type are not built yet")
        .long("The custom policy routing table ID to add IPv6 static routes to (in addition to the main routing table)"),
    Key::new("ipv6.host_tables", Str, "Comma-delimited list of routing tables IDs to add IPv6 static routes to")
        .default("254").refused("devices of this type are not built yet"),
    Key::new("ipv6.neighbor_probe", Bool, "Whether to probe the parent network for IP address availability")
        .default("true").refused("devices of this type are not built yet"),
    Key::new("ipv6.routes", Str, "Comma-delimited list of IPv6 static routes to add on host to NIC (without L2 ARP/NDP proxy)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.egress", Str, "I/O limit in bit/s for outgoing traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.ingress", Str, "I/O limit in bit/s for incoming traffic (various suffixes supported, see {ref}`instances-limit-units`)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.max", Str, "I/O limit in bit/s for both incoming and outgoing traffic (same as setting both limits.ingress and limits.egress)")
        .refused("devices of this type are not built yet"),
    Key::new("limits.priority", Int { min: 0, max: u32::MAX as i64 }, "The priority for outgoing traffic, to be used by the kernel queuing discipline to prioritize network packets")
        .refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("parent MTU").refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance").default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new("parent", Str, "The name of the parent host device to join the instance to")
        .refused("devices of this type are not built yet"),
    Key::new("queue.tx.length", Int { min: 0, max: u32::MAX as i64 }, "The transmit queue length for the NIC")
        .refused("devices of this type are not built yet"),
    Key::new("vlan", Str, "The VLAN ID to attach to").refused("devices of this type are not built yet"),
    Key::new("vrf", Str, "The VRF on the host in which the host-side interface and routes are created")
        .refused("devices of this type are not built yet"),
];

pub(in crate::keys) static DEVICES_NIC_SRIOV: &[Key] = &[
    Key::new("attached", Bool, "Whether the NIC is plugged in or not")
        .default("true")
        .refused("devices of this type are not built yet"),
    Key::new("boot.priority", Int { min: 0, max: i64::MAX }, "Boot priority for VMs (higher value boots first)")
        .refused("devices of this type are not built yet"),
    Key::new("hwaddr", Mac, "The MAC address of the new interface")
        .default_text("randomly assigned")
        .refused("devices of this type are not built yet"),
    Key::new("mtu", Int { min: 68, max: 65_535 }, "The Maximum Transmit Unit (MTU) of the new interface")
        .default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new("name", Interface, "The name of the interface inside the instance")
        .default_text("kernel assigned")
        .refused("devices of this type are not built yet"),
    Key::new(
        "network",
        Str,
        "The managed network to link the device to (instead of specifying the `nictype` directly)",
    )
    .refused("devices of this type are not built yet"),
    Key::new("parent", Str, "The name of the parent host device (required if specifying the `nictype` directly)")
        .refused("devices of this type are not built yet"),
    Key::new("pci", Str, "The PCI address of the parent host device").refused("devices of this type are not built yet"),
    Key::new("productid", Str, "The product ID of the parent host device")
        .refused("devices of this type are not built yet"),
    Key::new("security.mac_filtering", Bool, "Prevent the instance from spoofing another instance's MAC address")
        .default("false")
        .refused("devices of this type are not built yet"),
    Key::new(
        "security.trusted",
        Bool,
        "Allows the instance to configure the NIC in ways that may negatively impact security.",
    )
    .default_text("false, if supported by parent device")
    .refused("devices of this type are not built yet"),
    Key::new("vendorid", Str, "The vendor ID of the parent host device")
        .refused("devices of this type are not built yet"),
    Key::new("vlan", Str, "The VLAN ID to attach to").refused("devices of this type are not built yet"),
];
