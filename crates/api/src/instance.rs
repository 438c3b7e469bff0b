//! `/1.0/instances`: containers and virtual machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigMap, DevicesMap, StatusCode, Timestamp, config_map, devices_map, is_default, null_as_default,
    snapshot::InstanceSnapshot, state::InstanceState, state::InstanceStatePut,
};

/// Body of `POST /1.0/instances`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstancesPost {
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub ephemeral: bool,
    /// `null`, not an empty list, asks for the default profile.
    pub profiles: Option<Vec<String>>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub restore: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stateful: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub source: InstanceSource,
    /// A size such as `c2-m4`, turned into limits by the server.
    #[serde(deserialize_with = "null_as_default")]
    pub instance_type: String,
    /// container or virtual-machine.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    /// Starts it as part of the same operation.
    #[serde(deserialize_with = "null_as_default")]
    pub start: bool,
}

/// Body of `PUT /1.0/instances`: one power action for all instances of a project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstancesPut {
    pub state: Option<InstanceStatePut>,
}

/// Body of `POST /1.0/instances/{name}`: rename or move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstancePost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub migration: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub live: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub instance_only: bool,
    pub target: Option<InstancePostTarget>,
    #[serde(deserialize_with = "null_as_default")]
    pub pool: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
    #[serde(deserialize_with = "null_as_default")]
    pub allow_inconsistent: bool,
    #[serde(rename = "Config", alias = "config", deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(rename = "Devices", alias = "devices", deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(rename = "Profiles", alias = "profiles", deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
}

/// Where a push migration goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstancePostTarget {
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub operation: String,
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub secrets: ConfigMap,
}

/// The writable part of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstancePut {
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub ephemeral: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub restore: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stateful: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
}

/// Body of `POST /1.0/instances/{name}/rebuild`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceRebuildPost {
    #[serde(deserialize_with = "null_as_default")]
    pub source: InstanceSource,
}

/// An instance as `recursion=1` lists it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Instance {
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub ephemeral: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub restore: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stateful: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
    /// Own configuration over that of the profiles.
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub expanded_config: ConfigMap,
    #[serde(deserialize_with = "devices_map", skip_serializing_if = "is_default")]
    pub expanded_devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub status_code: StatusCode,
    /// 1970-01-01 for one that never ran.
    #[serde(deserialize_with = "null_as_default")]
    pub last_used_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
    /// container or virtual-machine.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}

/// An instance with state, snapshots and backups, as `recursion=2` lists it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceFull {
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub ephemeral: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub restore: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stateful: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub expanded_config: ConfigMap,
    #[serde(deserialize_with = "devices_map", skip_serializing_if = "is_default")]
    pub expanded_devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub status_code: StatusCode,
    #[serde(deserialize_with = "null_as_default")]
    pub last_used_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
    pub backups: Option<Vec<InstanceBackup>>,
    pub state: Option<InstanceState>,
    pub snapshots: Option<Vec<InstanceSnapshot>>,
}

/// Where a new instance comes from: an image, another instance, a migration, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceSource {
    /// image, copy, migration or none.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub alias: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub fingerprint: String,
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub properties: ConfigMap,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub server: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub secret: String,
    /// incus, simplestreams, or `debian`: built by this server from the archive.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub protocol: String,
    #[serde(rename = "base-image", deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub base_image: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub mode: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub operation: String,
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub secrets: ConfigMap,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub source: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub live: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub instance_only: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub refresh: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub refresh_exclude_older: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub project: String,
    #[serde(deserialize_with = "null_as_default")]
    pub allow_inconsistent: bool,
}

/// A stored backup of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceBackup {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub expires_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub instance_only: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub optimized_storage: bool,
}

impl Instance {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> InstancePut {
        InstancePut {
            architecture: self.architecture,
            config: self.config,
            devices: self.devices,
            ephemeral: self.ephemeral,
            profiles: self.profiles,
            restore: self.restore,
            stateful: self.stateful,
            description: self.description,
        }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: InstancePut) {
        self.architecture = put.architecture;
        self.config = put.config;
        self.devices = put.devices;
        self.ephemeral = put.ephemeral;
        self.profiles = put.profiles;
        self.restore = put.restore;
        self.stateful = put.stateful;
        self.description = put.description;
    }
}

impl InstanceFull {
    /// Joins an instance with what `recursion=2` adds.
    pub fn new(
        instance: Instance,
        state: Option<InstanceState>,
        snapshots: Option<Vec<InstanceSnapshot>>,
        backups: Option<Vec<InstanceBackup>>,
    ) -> Self {
        InstanceFull {
            architecture: instance.architecture,
            config: instance.config,
            devices: instance.devices,
            ephemeral: instance.ephemeral,
            profiles: instance.profiles,
            restore: instance.restore,
            stateful: instance.stateful,
            description: instance.description,
            created_at: instance.created_at,
            expanded_config: instance.expanded_config,
            expanded_devices: instance.expanded_devices,
            name: instance.name,
            status: instance.status,
            status_code: instance.status_code,
            last_used_at: instance.last_used_at,
            location: instance.location,
            kind: instance.kind,
            project: instance.project,
            backups,
            state,
            snapshots,
        }
    }

    /// The instance alone, as `recursion=1` lists it.
    pub fn instance(self) -> Instance {
        Instance {
            architecture: self.architecture,
            config: self.config,
            devices: self.devices,
            ephemeral: self.ephemeral,
            profiles: self.profiles,
            restore: self.restore,
            stateful: self.stateful,
            description: self.description,
            created_at: self.created_at,
            expanded_config: self.expanded_config,
            expanded_devices: self.expanded_devices,
            name: self.name,
            status: self.status,
            status_code: self.status_code,
            last_used_at: self.last_used_at,
            location: self.location,
            kind: self.kind,
            project: self.project,
        }
    }
}
