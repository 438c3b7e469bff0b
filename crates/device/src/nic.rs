use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stapes_instance::Link;
use stapes_model::{NameError, NetworkName, keys::parse_mac};

use crate::{Config, DeviceError, parse::Values};

/// What a network device's host end joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A managed network: it knows its bridge, and gives the address.
    Network(NetworkName),
    /// A bridge of the host that Stapes does not manage.
    Bridge(String),
}

/// A bridged network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub attachment: Attachment,
    /// Interface name inside, if configured.
    pub guest_name: Option<String>,
    /// Interface name on the host, if configured; else [`host_interface_name`](crate::host_interface_name).
    pub host_name: Option<String>,
    /// If configured; else generated once and stored.
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    /// Higher boots first.
    pub boot_priority: Option<u32>,
    /// Fixed addresses, for the lease and the neighbour entries.
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

/// What the engine has resolved for one network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkFacts {
    pub host_name: String,
    /// Unique on this host and high; from the caller's counter.
    pub guest_index: u32,
    pub mac: [u8; 6],
    /// The bridge to join; it may be a further bridge of the network.
    pub bridge: Option<String>,
    /// The network's, where the device has none of its own.
    pub mtu: Option<u32>,
    pub addresses: Vec<IpAddr>,
    pub gateways: Vec<IpAddr>,
    pub gateway_mac: Option<[u8; 6]>,
}

pub(crate) fn parse(device: &str, config: &Config) -> Result<Nic, DeviceError> {
    let values = Values { device, config };
    let bad = |key, value: &str, error: NameError| DeviceError::invalid(device, key, value, error.to_string());
    let attachment = match (values.get("network"), values.get("parent")) {
        (Some(network), None) => Attachment::Network(network.parse().map_err(|error| bad("network", network, error))?),
        (Some(_), Some(parent)) => {
            return Err(DeviceError::invalid(
                device,
                "parent",
                parent,
                "the network names its bridge; set one of the two",
            ));
        }
        // A network's name follows the kernel's rule for interfaces.
        (None, Some(parent)) => match parent.parse::<NetworkName>() {
            Ok(parent) => Attachment::Bridge(parent.as_str().to_owned()),
            Err(error) => return Err(bad("parent", parent, error)),
        },
        (None, None) => {
            let why = "set it to a managed network, or nictype=bridged and parent= to a bridge of the host";
            return Err(DeviceError::Missing { device: device.to_owned(), key: "network", why });
        }
    };
    Ok(Nic {
        attachment,
        guest_name: values.get("name").map(str::to_owned),
        host_name: values.get("host_name").map(str::to_owned),
        mac: values.get("hwaddr").and_then(parse_mac),
        mtu: values.get("mtu").and_then(|text| text.parse().ok()),
        boot_priority: values.get("boot.priority").and_then(|text| text.parse().ok()),
        ipv4: values.get("ipv4.address").and_then(|text| text.parse().ok()),
        ipv6: values.get("ipv6.address").and_then(|text| text.parse().ok()),
    })
}

impl Nic {
    /// The plan's piece for this device, called `guest_name` inside.
    pub fn link(&self, device: &str, guest_name: &str, facts: LinkFacts) -> Link {
        Link {
            device: device.to_owned(),
            host_name: self.host_name.clone().unwrap_or(facts.host_name),
            guest_name: guest_name.to_owned(),
            guest_index: facts.guest_index,
            mac: self.mac.unwrap_or(facts.mac),
            mtu: self.mtu.or(facts.mtu),
            bridge: facts.bridge,
            addresses: facts.addresses,
            gateways: facts.gateways,
            gateway_mac: facts.gateway_mac,
        }
    }
}
