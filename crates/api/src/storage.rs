//! `/1.0/storage-pools` and their volumes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigMap, Timestamp, config_map, is_default, null_as_default, resources::ResourcesStoragePoolInodes,
    resources::ResourcesStoragePoolSpace,
};

/// Body of `POST /1.0/storage-pools`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StoragePoolsPost {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub driver: String,
}

/// A storage pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StoragePool {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub driver: String,
    #[serde(deserialize_with = "null_as_default")]
    pub used_by: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub locations: Vec<String>,
    /// What the pool does without on its host, and why; a field of Stapes.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub stapes_shortcomings: Vec<String>,
}

/// The writable part of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StoragePoolPut {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
}

/// Space and inodes of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StoragePoolState {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub space: ResourcesStoragePoolSpace,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub inodes: ResourcesStoragePoolInodes,
}

/// Body of `POST …/volumes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumesPost {
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
}

/// Body of `POST …/volumes/{type}/{name}`: rename or move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumePost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub pool: String,
    #[serde(deserialize_with = "null_as_default")]
    pub migration: bool,
    pub target: Option<StorageVolumePostTarget>,
    #[serde(deserialize_with = "null_as_default")]
    pub volume_only: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub project: String,
    #[serde(deserialize_with = "null_as_default")]
    pub source: StorageVolumeSource,
}

/// Where a push migration of a volume goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumePostTarget {
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub operation: String,
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub secrets: ConfigMap,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolume {
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
    pub used_by: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
    #[serde(deserialize_with = "null_as_default")]
    pub content_type: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
}

/// The writable part of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumePut {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub restore: String,
}

/// Where a new volume comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumeSource {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub pool: String,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub mode: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub operation: String,
    #[serde(deserialize_with = "config_map", skip_serializing_if = "is_default")]
    pub secrets: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub volume_only: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub refresh: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub refresh_exclude_older: bool,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub project: String,
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
}

/// Live figures of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumeState {
    pub usage: Option<StorageVolumeStateUsage>,
}

/// Space a volume uses, in bytes; `total` 0 means no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumeStateUsage {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub used: u64,
    #[serde(deserialize_with = "null_as_default")]
    pub total: i64,
}

/// Body of `POST …/volumes/{type}/{name}/snapshots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumeSnapshotsPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    pub expires_at: Option<Timestamp>,
}

/// Body of `POST …/volumes/{type}/{name}/snapshots/{snapshot}`: rename.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumeSnapshotPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub migration: bool,
    pub target: Option<StorageVolumePostTarget>,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumeSnapshot {
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    pub expires_at: Option<Timestamp>,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub content_type: String,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
}

/// The writable part of a volume snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageVolumeSnapshotPut {
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    pub expires_at: Option<Timestamp>,
}

impl StoragePool {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> StoragePoolPut {
        StoragePoolPut { config: self.config, description: self.description }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: StoragePoolPut) {
        self.config = put.config;
        self.description = put.description;
    }
}

impl StorageVolume {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> StorageVolumePut {
        StorageVolumePut { config: self.config, description: self.description, restore: self.restore }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: StorageVolumePut) {
        self.config = put.config;
        self.description = put.description;
        self.restore = put.restore;
    }
}

impl StorageVolumeSnapshot {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> StorageVolumeSnapshotPut {
        StorageVolumeSnapshotPut { description: self.description, expires_at: self.expires_at }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: StorageVolumeSnapshotPut) {
        self.description = put.description;
        self.expires_at = put.expires_at;
    }
}
