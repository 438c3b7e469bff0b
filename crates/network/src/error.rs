use std::{io, net::Ipv4Addr, path::PathBuf};

use stapes_model::{ErrorKind, NetworkName, keys::KeyError};
use stapes_sys::exec::ExecError;

/// What can go wrong with a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("network {network}: unknown type {kind:?} (this version makes bridges)")]
    UnknownKind { network: NetworkName, kind: String },
    #[error("network {network}: {error}")]
    Key { network: NetworkName, error: KeyError },
    /// A value that is good by itself and contradicts another key's.
    #[error("network {network}: {key}: {value:?} is not allowed: {rule}")]
    Value { network: NetworkName, key: String, value: String, rule: &'static str },
    #[error("network {network}: no free {subnet} is left for `auto`; set {key} to a subnet of yours, or to none")]
    NoFreeSubnet { network: NetworkName, subnet: &'static str, key: &'static str },
    #[error("network {network}: {subnet} overlaps {taken}, which this host uses already; set {key} to another subnet")]
    Overlap { network: NetworkName, key: &'static str, subnet: ipnet::IpNet, taken: ipnet::IpNet },
    #[error("network {network}: all {count} addresses of ipv4.dhcp.ranges are taken; widen ipv4.address or the ranges")]
    NoFreeAddress { network: NetworkName, count: u64 },
    #[error("network {network}: address {address} is outside of {subnet}")]
    AddressOutside { network: NetworkName, address: Ipv4Addr, subnet: String },
    #[error("network {network}: address {address} is taken")]
    AddressTaken { network: NetworkName, address: Ipv4Addr },
    #[error("network {network} has no IPv4 address")]
    NoIpv4 { network: NetworkName },
    #[error("network {network}: an interface of that name exists and is not ours; rename it or choose another name")]
    Foreign { network: NetworkName },
    #[error("network {network}: failed to {action}")]
    Kernel {
        network: NetworkName,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("failed to {action}")]
    Host {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("network {network}: failed to set {path}")]
    Sysctl {
        network: NetworkName,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{program} is not installed; install the package {package}")]
    Missing { program: String, package: &'static str },
    #[error("network {network}: radvd does not take the configuration of its router advertisements")]
    Advertisements {
        network: NetworkName,
        #[source]
        source: ExecError,
    },
    #[error("network {network}: the firewall rules were refused")]
    Firewall {
        network: NetworkName,
        #[source]
        source: ExecError,
    },
}

impl NetworkError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Key { error, .. } => error.kind(),
            Self::UnknownKind { .. } | Self::Value { .. } => ErrorKind::BadRequest,
            Self::AddressOutside { .. } | Self::NoIpv4 { .. } => ErrorKind::BadRequest,
            Self::Missing { .. } => ErrorKind::Unsupported,
            Self::NoFreeSubnet { .. } | Self::NoFreeAddress { .. } => ErrorKind::Exhausted,
            Self::Overlap { .. } | Self::AddressTaken { .. } | Self::Foreign { .. } => ErrorKind::Conflict,
            Self::Kernel { .. } | Self::Host { .. } | Self::Sysctl { .. } | Self::File { .. } => ErrorKind::Internal,
            Self::Firewall { .. } | Self::Advertisements { .. } => ErrorKind::Internal,
        }
    }
}
