//! The document that `admin init --preseed` reads and `--dump` prints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigMap, DevicesMap, config_map, devices_map, is_default, null_as_default, project::ProjectsPost,
    storage::StoragePoolsPost, storage::StorageVolumeSource,
};

/// The part of a preseed for one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InitLocalPreseed {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub networks: Vec<InitNetworksProjectPost>,
    #[serde(deserialize_with = "null_as_default")]
    pub storage_pools: Vec<StoragePoolsPost>,
    #[serde(deserialize_with = "null_as_default")]
    pub storage_volumes: Vec<InitStorageVolumesProjectPost>,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<InitProfileProjectPost>,
    #[serde(deserialize_with = "null_as_default")]
    pub projects: Vec<ProjectsPost>,
}

/// A network and the project it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InitNetworksProjectPost {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}

/// A profile and the project it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InitProfileProjectPost {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}

/// A volume with its pool and project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InitStorageVolumesProjectPost {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub restore: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub source: StorageVolumeSource,
    #[serde(deserialize_with = "null_as_default")]
    pub content_type: String,
    #[serde(deserialize_with = "null_as_default")]
    pub pool: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}
