//! `/1.0/instances/{name}/snapshots`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigMap, DevicesMap, Timestamp, config_map, devices_map, instance::InstancePostTarget, is_default,
    null_as_default,
};

/// Body of `POST …/snapshots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceSnapshotsPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stateful: bool,
    pub expires_at: Option<Timestamp>,
}

/// Body of `POST …/snapshots/{name}`: rename or move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceSnapshotPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub migration: bool,
    pub target: Option<InstancePostTarget>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub live: bool,
}

/// The writable part of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceSnapshotPut {
    #[serde(deserialize_with = "null_as_default")]
    pub expires_at: Timestamp,
}

/// A snapshot of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceSnapshot {
    #[serde(deserialize_with = "null_as_default")]
    pub expires_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub ephemeral: bool,
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub expanded_config: ConfigMap,
    #[serde(deserialize_with = "devices_map", skip_serializing_if = "is_default")]
    pub expanded_devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub last_used_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub stateful: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub size: i64,
}

impl InstanceSnapshot {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> InstanceSnapshotPut {
        InstanceSnapshotPut { expires_at: self.expires_at }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: InstanceSnapshotPut) {
        self.expires_at = put.expires_at;
    }
}
