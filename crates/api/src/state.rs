//! `/1.0/instances/{name}/state`: what a running instance uses, and how to change its power state.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{StatusCode, Timestamp, is_default, null_as_default};

/// Body of `PUT /1.0/instances/{name}/state`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStatePut {
    /// One of start, stop, restart, freeze, unfreeze.
    #[serde(deserialize_with = "null_as_default")]
    pub action: String,
    /// Seconds to wait for a graceful change; -1 waits for ever.
    #[serde(deserialize_with = "null_as_default")]
    pub timeout: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub force: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub stateful: bool,
}

/// Live figures of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceState {
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub status_code: StatusCode,
    pub disk: Option<BTreeMap<String, InstanceStateDisk>>,
    #[serde(deserialize_with = "null_as_default")]
    pub memory: InstanceStateMemory,
    pub network: Option<BTreeMap<String, InstanceStateNetwork>>,
    /// Pid of the init or of QEMU on the host; 0 while stopped, -1 unknown.
    #[serde(deserialize_with = "null_as_default")]
    pub pid: i64,
    /// -1 where it cannot be counted.
    #[serde(deserialize_with = "null_as_default")]
    pub processes: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub cpu: InstanceStateCPU,
    #[serde(deserialize_with = "null_as_default")]
    pub started_at: Timestamp,
    pub os_info: Option<InstanceStateOSInfo>,
    /// How it runs, one line a fact: `accelerator` of a virtual machine; a field of Stapes.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub stapes_facts: BTreeMap<String, String>,
}

/// Use of one disk device, in bytes; `total` 0 means no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStateDisk {
    #[serde(deserialize_with = "null_as_default")]
    pub usage: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub total: i64,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStateCPU {
    /// Nanoseconds since start.
    #[serde(deserialize_with = "null_as_default")]
    pub usage: i64,
    /// Nanoseconds a second allows.
    #[serde(deserialize_with = "null_as_default")]
    pub allocated_time: i64,
}

/// Memory use, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStateMemory {
    #[serde(deserialize_with = "null_as_default")]
    pub usage: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub usage_peak: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub total: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub swap_usage: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub swap_usage_peak: i64,
}

/// One network interface as the guest sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStateNetwork {
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<InstanceStateNetworkAddress>,
    #[serde(deserialize_with = "null_as_default")]
    pub counters: InstanceStateNetworkCounters,
    #[serde(deserialize_with = "null_as_default")]
    pub hwaddr: String,
    #[serde(deserialize_with = "null_as_default")]
    pub host_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub mtu: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub state: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
}

/// One address of an interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStateNetworkAddress {
    #[serde(deserialize_with = "null_as_default")]
    pub family: String,
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
    #[serde(deserialize_with = "null_as_default")]
    pub netmask: String,
    #[serde(deserialize_with = "null_as_default")]
    pub scope: String,
}

/// Traffic of an interface since it came up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStateNetworkCounters {
    #[serde(deserialize_with = "null_as_default")]
    pub bytes_received: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub bytes_sent: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub packets_received: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub packets_sent: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub errors_received: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub errors_sent: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub packets_dropped_outbound: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub packets_dropped_inbound: i64,
}

/// What the guest agent says about the operating system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceStateOSInfo {
    #[serde(deserialize_with = "null_as_default")]
    pub os: String,
    #[serde(deserialize_with = "null_as_default")]
    pub os_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub kernel_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub hostname: String,
    #[serde(deserialize_with = "null_as_default")]
    pub fqdn: String,
}
