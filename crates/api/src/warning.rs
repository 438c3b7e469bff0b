//! `/1.0/warnings`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Timestamp, null_as_default};

/// Something the operator should look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Warning {
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub uuid: String,
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub count: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub first_seen_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub last_seen_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub last_message: String,
    #[serde(deserialize_with = "null_as_default")]
    pub severity: String,
    #[serde(deserialize_with = "null_as_default")]
    pub entity_url: String,
}

/// The writable part of a warning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WarningPut {
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
}

impl Warning {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> WarningPut {
        WarningPut { status: self.status }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: WarningPut) {
        self.status = put.status;
    }
}
