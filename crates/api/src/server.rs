//! `/1.0`: what the server is and its own configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigMap, config_map, null_as_default};

/// Facts about the host and the daemon that do not change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerEnvironment {
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub architectures: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate_fingerprint: String,
    #[serde(deserialize_with = "null_as_default")]
    pub driver: String,
    #[serde(deserialize_with = "null_as_default")]
    pub driver_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub firewall: String,
    #[serde(deserialize_with = "null_as_default")]
    pub kernel: String,
    #[serde(deserialize_with = "null_as_default")]
    pub kernel_architecture: String,
    #[serde(deserialize_with = "config_map")]
    pub kernel_features: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub kernel_version: String,
    #[serde(deserialize_with = "config_map")]
    pub lxc_features: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub os_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub os_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
    #[serde(deserialize_with = "null_as_default")]
    pub server: String,
    #[serde(deserialize_with = "null_as_default")]
    pub server_clustered: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub server_event_mode: String,
    #[serde(deserialize_with = "null_as_default")]
    pub server_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub server_pid: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub server_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub storage: String,
    #[serde(deserialize_with = "null_as_default")]
    pub storage_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub storage_supported_drivers: Vec<ServerStorageDriverInfo>,
}

/// A storage driver this server offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerStorageDriverInfo {
    #[serde(rename = "Name", deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "Version", deserialize_with = "null_as_default")]
    pub version: String,
    #[serde(rename = "Remote", deserialize_with = "null_as_default")]
    pub remote: bool,
}

/// Server configuration, as `PUT /1.0` takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerPut {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
}

/// What `GET /1.0` tells a caller it does not trust.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerUntrusted {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub api_extensions: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub api_status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub api_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub auth: String,
    #[serde(deserialize_with = "null_as_default")]
    pub public: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub auth_methods: Vec<String>,
}

/// What `GET /1.0` tells a trusted caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Server {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub api_extensions: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub api_status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub api_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub auth: String,
    #[serde(deserialize_with = "null_as_default")]
    pub public: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub auth_methods: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub auth_user_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub auth_user_method: String,
    #[serde(deserialize_with = "null_as_default")]
    pub environment: ServerEnvironment,
}
