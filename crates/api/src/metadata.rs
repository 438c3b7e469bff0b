//! `/1.0/metadata/configuration`: the configuration keys, for documentation and completion.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{is_default, null_as_default};

/// A group of configuration keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetadataConfigGroup {
    #[serde(deserialize_with = "null_as_default")]
    pub keys: Vec<BTreeMap<String, MetadataConfigKey>>,
}

/// One configuration key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetadataConfigKey {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub condition: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub scope: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub defaultdesc: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub liveupdate: String,
    #[serde(deserialize_with = "null_as_default")]
    pub shortdesc: String,
    #[serde(deserialize_with = "null_as_default")]
    pub longdesc: String,
}

/// Configuration keys by entity (`instance`, `network-bridge`…), then by group.
pub type MetadataConfig = BTreeMap<String, BTreeMap<String, MetadataConfigGroup>>;

/// Answer of `GET /1.0/metadata/configuration`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetadataConfiguration {
    #[serde(deserialize_with = "null_as_default")]
    pub configs: MetadataConfig,
}
