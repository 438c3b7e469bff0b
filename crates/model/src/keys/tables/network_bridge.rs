//! Keys of managed bridges.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ANY_INT, Key,
    Kind::{Blob, Bool, Domain, Domains, Enum, Int, Ip, Ips, LeaseTime, Mac, Networks, Ranges, Routes, Str, Subnet},
};

pub(in crate::keys) static NETWORK_BRIDGE_BGP: &[Key] = &[
    Key::new("bgp.peers.NAME.address", Str, "Peer address (IPv4 or IPv6) for use by `ovn` downstream networks")
        .condition("BGP server")
        .refused("BGP is not built yet"),
    Key::new("bgp.peers.NAME.asn", ANY_INT, "Peer AS number for use by `ovn` downstream networks")
        .condition("BGP server")
        .refused("BGP is not built yet"),
    Key::new("bgp.peers.NAME.holdtime", ANY_INT, "Peer session hold time (in seconds; optional)")
        .default("180")
        .condition("BGP server")
        .refused("BGP is not built yet"),
    Key::new(
        "bgp.peers.NAME.interface",
        Str,
        "Interface name for BGP unnumbered peering (alternative to the peer address)",
    )
    .condition("BGP server")
    .refused("BGP is not built yet"),
    Key::new("bgp.peers.NAME.password", Str, "Peer session password (optional) for use by `ovn` downstream networks")
        .default_text("- (no password)")
        .condition("BGP server")
        .refused("BGP is not built yet"),
];

pub(in crate::keys) static NETWORK_BRIDGE_COMMON: &[Key] = &[
    Key::new("bgp.ipv4.instances", Bool, "Whether to advertise a /32 route for the IPv4 address of each running instance")
        .default("false").condition("BGP server").refused("BGP is not built yet"),
    Key::new("bgp.ipv4.nexthop", Str, "Override the next-hop for advertised prefixes").default_text("local address")
        .condition("BGP server").scope("local").refused("BGP is not built yet"),
    Key::new("bgp.ipv6.instances", Bool, "Whether to advertise a /128 route for the IPv6 address of each running instance")
        .default("false").condition("BGP server").refused("BGP is not built yet"),
    Key::new("bgp.ipv6.nexthop", Str, "Override the next-hop for advertised prefixes").default_text("local address")
        .condition("BGP server").scope("local").refused("BGP is not built yet"),
    Key::new("bridge.driver", Enum(&["native", "openvswitch"]), "Bridge driver: `native` or `openvswitch`")
        .default("native").refused("it is not built yet"),
    Key::new("bridge.external_interfaces", Str, "Comma-separated list of unconfigured network interfaces to include in the bridge")
        .refused("it is not built yet"),
    Key::new("bridge.hwaddr", Mac, "MAC address for the bridge"),
    Key::new("bridge.mtu", Int { min: 1280, max: 65_535 }, "Bridge MTU (default varies if tunnel in use)")
        .default("1500"),
    Key::new("bridge.multicast_snooping", Bool, "Whether to enable multicast snooping on the bridge")
        .default("true").condition("native bridge"),
    Key::new("dns.domain", Domain, "Domain to advertise to DHCP clients and use for DNS resolution")
        .default("incus"),
    Key::new("dns.mode", Enum(&["none", "managed", "dynamic"]), "DNS registration mode: none for no DNS record, managed for Incus-generated static records or dynamic for client-generated records")
        .default("managed"),
    Key::new("dns.nameservers", Ips, "DNS server IPs to advertise to DHCP clients and via Router Advertisements. Both IPv4 and IPv6 addresses get pushed via DHCP, and IPv6 addresses are also advertised as RDNSS via RA.")
        .default_text("IPv4 and IPv6 address"),
    Key::new("dns.search", Domains, "Full comma-separated domain search list, defaulting to `dns.domain` value"),
    Key::new("dns.zone.forward", Str, "Comma-separated list of DNS zone names for forward DNS records")
        .default("managed").refused("DNS zones are not built yet"),
    Key::new("dns.zone.reverse.ipv4", Str, "DNS zone name for IPv4 reverse DNS records").default("managed")
        .refused("DNS zones are not built yet"),
    Key::new("dns.zone.reverse.ipv6", Str, "DNS zone name for IPv6 reverse DNS records").default("managed")
        .refused("DNS zones are not built yet"),
    Key::new("ipv4.address", Subnet { v6: false }, "IPv4 address for the bridge (use `none` to turn off IPv4 or `auto` to generate a new random unused subnet) (CIDR)")
        .default_text("- (initial value on creation: `auto`)").condition("standard mode"),
    Key::new("ipv4.dhcp", Bool, "Whether to allocate addresses using DHCP").default("true")
        .condition("IPv4 address"),
    Key::new("ipv4.dhcp.expiry", LeaseTime, "When to expire DHCP leases").default("1h").condition("IPv4 DHCP"),
    Key::new("ipv4.dhcp.gateway", Ip { v6: false }, "Address of the gateway for the subnet (use `none` to turn off gateway announcement)")
        .default_text("IPv4 address").condition("IPv4 DHCP"),
    Key::new("ipv4.dhcp.ranges", Ranges { v6: false }, "Comma-separated list of IP ranges to use for DHCP (FIRST-LAST format)")
        .default_text("all addresses").condition("IPv4 DHCP"),
    Key::new("ipv4.dhcp.routes", Routes, "Static routes to provide via DHCP option 121, as a comma-separated list of alternating subnets (CIDR) and gateway addresses (same syntax as dnsmasq)")
        .condition("IPv4 DHCP"),
    Key::new("ipv4.firewall", Bool, "Whether to generate filtering firewall rules for this network")
        .default("true").condition("IPv4 address"),
    Key::new("ipv4.nat", Bool, "Whether to NAT")
        .default_text("`false`(initial value on creation if `ipv4.address` is set to `auto`: `true`)")
        .condition("IPv4 address"),
    Key::new("ipv4.nat.address", Ip { v6: false }, "The source address used for outbound traffic from the bridge")
        .condition("IPv4 address"),
    Key::new("ipv4.nat.order", Enum(&["before", "after"]), "Whether to add the required NAT rules before or after any pre-existing rules (no effect with the `nftables` firewall driver)")
        .default("before").condition("IPv4 address"),
    Key::new("ipv4.ovn.ranges", Str, "Comma-separated list of IPv4 ranges to use for child OVN network routers (FIRST-LAST format)")
        .refused("OVN is not built yet"),
    Key::new("ipv4.routes", Networks { v6: false }, "Comma-separated list of additional IPv4 CIDR subnets to route to the bridge")
        .condition("IPv4 address"),
    Key::new("ipv4.routing", Bool, "Whether to route traffic in and out of the bridge").default("true")
        .condition("IPv4 DHCP"),
    Key::new("ipv6.address", Subnet { v6: true }, "IPv6 address for the bridge (use `none` to turn off IPv6 or `auto` to generate a new random unused subnet) (CIDR)")
        .default_text("- (initial value on creation: `auto`)").condition("standard mode"),
    Key::new("ipv6.dhcp", Bool, "Whether to provide additional network configuration over DHCP").default("true")
        .condition("IPv6 DHCP"),
    Key::new("ipv6.dhcp.expiry", LeaseTime, "When to expire DHCP leases").default("1h").condition("IPv6 DHCP"),
    Key::new("ipv6.dhcp.ranges", Ranges { v6: true }, "Comma-separated list of IPv6 ranges to use for DHCP (FIRST-LAST format)")
        .default_text("all addresses").condition("IPv6 stateful DHCP"),
    Key::new("ipv6.dhcp.stateful", Bool, "Whether to allocate addresses using DHCP").default("false")
        .condition("IPv6 DHCP"),
    Key::new("ipv6.firewall", Bool, "Whether to generate filtering firewall rules for this network")
        .default("true").condition("IPv6 address"),
    Key::new("ipv6.nat", Bool, "Whether to NAT")
        .default_text("`false` (initial value on creation if `ipv6.address` is set to `auto`: `true`)")
        .condition("IPv6 address"),
    Key::new("ipv6.nat.address", Ip { v6: true }, "The source address used for outbound traffic from the bridge")
        .condition("IPv6 address"),
    Key::new("ipv6.nat.order", Enum(&["before", "after"]), "Whether to add the required NAT rules before or after any pre-existing rules (no effect with the `nftables` firewall driver)")
        .default("before").condition("IPv6 address"),
    Key::new("ipv6.ovn.ranges", Str, "Comma-separated list of IPv6 ranges to use for child OVN network routers (FIRST-LAST format)")
        .refused("OVN is not built yet"),
    Key::new("ipv6.ra", Bool, "Whether to send IPv6 router advertisements").default("true")
        .condition("IPv6 address"),
    Key::new("ipv6.routes", Networks { v6: true }, "Comma-separated list of additional IPv6 CIDR subnets to route to the bridge")
        .condition("IPv6 address"),
    Key::new("ipv6.routing", Bool, "Whether to route traffic in and out of the bridge").default("true")
        .condition("IPv6 address"),
    Key::new("raw.dnsmasq", Blob, "Additional dnsmasq configuration to append to the configuration file"),
    Key::new("security.acls", Str, "Comma-separated list of Network ACLs to apply to NICs connected to this network (see {ref}`network-acls-bridge-limitations`)")
        .refused("network ACLs are not built yet"),
    Key::new("security.acls.default.egress.action", Str, "Action to use for egress traffic that doesn't match any ACL rule")
        .default("reject").condition("`security.acls`").refused("network ACLs are not built yet"),
    Key::new("security.acls.default.egress.logged", Bool, "Whether to log egress traffic that doesn't match any ACL rule")
        .default("false").condition("`security.acls`").refused("network ACLs are not built yet"),
    Key::new("security.acls.default.ingress.action", Str, "Action to use for ingress traffic that doesn't match any ACL rule")
        .default("reject").condition("`security.acls`").refused("network ACLs are not built yet"),
    Key::new("security.acls.default.ingress.logged", Bool, "Whether to log ingress traffic that doesn't match any ACL rule")
        .default("false").condition("`security.acls`").refused("network ACLs are not built yet"),
    Key::new("tunnel.NAME.group", Str, "Multicast address for `vxlan` (used if local and remote aren't set)")
        .default("239.0.0.1").condition("`vxlan`").refused("tunnels are not built yet"),
    Key::new("tunnel.NAME.id", ANY_INT, "Specific tunnel ID to use for the `vxlan` tunnel").default("0")
        .condition("`vxlan`").refused("tunnels are not built yet"),
    Key::new("tunnel.NAME.interface", Str, "Specific host interface to use for the tunnel").condition("`vxlan`")
        .refused("tunnels are not built yet"),
    Key::new("tunnel.NAME.local", Str, "Local address for the tunnel (not necessary for multicast `vxlan`)")
        .condition("`gre` or `vxlan`").refused("tunnels are not built yet"),
    Key::new("tunnel.NAME.port", ANY_INT, "Specific port to use for the `vxlan` tunnel").default("0")
        .condition("`vxlan`").refused("tunnels are not built yet"),
    Key::new("tunnel.NAME.protocol", Str, "Tunneling protocol: `vxlan` or `gre`").condition("standard mode")
        .refused("tunnels are not built yet"),
    Key::new("tunnel.NAME.remote", Str, "Remote address for the tunnel (not necessary for multicast `vxlan`)")
        .condition("`gre` or `vxlan`").refused("tunnels are not built yet"),
    Key::new("tunnel.NAME.ttl", ANY_INT, "Specific TTL to use for multicast routing topologies").default("1")
        .condition("`vxlan`").refused("tunnels are not built yet"),
    Key::new("volatile.network.*", Str, "What the daemon notes about the network"),
    Key::new("user.*", Str, "User-provided free-form key/value pairs"),
];
