//! `/1.0/networks`, their state and leases.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigMap, config_map, null_as_default};

/// Body of `POST /1.0/networks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworksPost {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
}

/// Body of `POST /1.0/networks/{name}`: rename.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The writable part of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkPut {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
}

/// A network, managed by the daemon or found on the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Network {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub used_by: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub managed: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub locations: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}

/// An address handed out on a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkLease {
    #[serde(deserialize_with = "null_as_default")]
    pub hostname: String,
    #[serde(deserialize_with = "null_as_default")]
    pub hwaddr: String,
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
}

/// Live state of a network interface of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkState {
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<NetworkStateAddress>,
    pub counters: Option<NetworkStateCounters>,
    #[serde(deserialize_with = "null_as_default")]
    pub hwaddr: String,
    #[serde(deserialize_with = "null_as_default")]
    pub mtu: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub state: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    pub bond: Option<NetworkStateBond>,
    pub bridge: Option<NetworkStateBridge>,
    pub vlan: Option<NetworkStateVLAN>,
    pub ovn: Option<NetworkStateOVN>,
}

/// One address of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkStateAddress {
    #[serde(deserialize_with = "null_as_default")]
    pub family: String,
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
    #[serde(deserialize_with = "null_as_default")]
    pub netmask: String,
    #[serde(deserialize_with = "null_as_default")]
    pub scope: String,
}

/// Traffic of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkStateCounters {
    #[serde(deserialize_with = "null_as_default")]
    pub bytes_received: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub bytes_sent: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub packets_received: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub packets_sent: i64,
}

/// State of a bond.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkStateBond {
    #[serde(deserialize_with = "null_as_default")]
    pub mode: String,
    #[serde(deserialize_with = "null_as_default")]
    pub transmit_policy: String,
    #[serde(deserialize_with = "null_as_default")]
    pub up_delay: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub down_delay: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub mii_frequency: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub mii_state: String,
    #[serde(deserialize_with = "null_as_default")]
    pub lower_devices: Vec<String>,
}

/// State of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkStateBridge {
    #[serde(deserialize_with = "null_as_default")]
    pub id: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stp: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub forward_delay: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub vlan_default: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub vlan_filtering: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub upper_devices: Vec<String>,
}

/// State of a VLAN interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkStateVLAN {
    #[serde(deserialize_with = "null_as_default")]
    pub lower_device: String,
    #[serde(deserialize_with = "null_as_default")]
    pub vid: u64,
}

/// State of an OVN network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkStateOVN {
    #[serde(deserialize_with = "null_as_default")]
    pub chassis: String,
    #[serde(deserialize_with = "null_as_default")]
    pub logical_router: String,
    #[serde(deserialize_with = "null_as_default")]
    pub logical_switch: String,
    #[serde(deserialize_with = "null_as_default")]
    pub uplink_ipv4: String,
    #[serde(deserialize_with = "null_as_default")]
    pub uplink_ipv6: String,
}

impl Network {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> NetworkPut {
        NetworkPut { config: self.config, description: self.description }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: NetworkPut) {
        self.config = put.config;
        self.description = put.description;
    }
}
