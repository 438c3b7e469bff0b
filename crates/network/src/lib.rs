//! Networks, addresses, DHCP and DNS configuration, firewall.
#![forbid(unsafe_code)]
