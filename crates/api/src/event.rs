//! `/1.0/events`: messages of the event websocket.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ConfigMap, Timestamp, config_map, is_default, null_as_default};

/// A message of the event websocket; `metadata` depends on `kind`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Event {
    /// operation, lifecycle, logging or network-acl.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub timestamp: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Value,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub location: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub project: String,
}

/// Metadata of a `logging` event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EventLogging {
    #[serde(deserialize_with = "null_as_default")]
    pub message: String,
    #[serde(deserialize_with = "null_as_default")]
    pub level: String,
    #[serde(deserialize_with = "config_map")]
    pub context: ConfigMap,
}

/// Metadata of a `lifecycle` event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EventLifecycle {
    #[serde(deserialize_with = "null_as_default")]
    pub action: String,
    #[serde(deserialize_with = "null_as_default")]
    pub source: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub context: serde_json::Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requestor: Option<EventLifecycleRequestor>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub project: String,
}

/// Who caused a lifecycle event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EventLifecycleRequestor {
    #[serde(deserialize_with = "null_as_default")]
    pub username: String,
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
}
