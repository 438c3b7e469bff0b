//! `/1.0/operations`: work that outlives its request.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{StatusCode, Timestamp, null_as_default};

/// Work under way or done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Operation {
    /// UUID; the last part of its path.
    #[serde(deserialize_with = "null_as_default")]
    pub id: String,
    /// task, websocket or token.
    #[serde(deserialize_with = "null_as_default")]
    pub class: String,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub updated_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub status_code: StatusCode,
    /// Paths of the objects it works on, by kind.
    #[serde(deserialize_with = "null_as_default")]
    pub resources: BTreeMap<String, Vec<String>>,
    /// Progress (`…_progress` keys), secrets of websockets (`fds`), results (`return`, `output`).
    pub metadata: Option<serde_json::Map<String, Value>>,
    #[serde(deserialize_with = "null_as_default")]
    pub may_cancel: bool,
    /// Why it failed; empty otherwise.
    #[serde(deserialize_with = "null_as_default")]
    pub err: String,
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
}
