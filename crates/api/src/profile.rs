//! `/1.0/profiles`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigMap, DevicesMap, config_map, devices_map, null_as_default};

/// Body of `POST /1.0/profiles`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProfilesPost {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// Body of `POST /1.0/profiles/{name}`: rename.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProfilePost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The writable part of a profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProfilePut {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
}

/// Configuration and devices that instances share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Profile {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "devices_map")]
    pub devices: DevicesMap,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub used_by: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}

impl Profile {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> ProfilePut {
        ProfilePut { config: self.config, description: self.description, devices: self.devices }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: ProfilePut) {
        self.config = put.config;
        self.description = put.description;
        self.devices = put.devices;
    }
}
