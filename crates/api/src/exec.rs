//! `exec` and `console`: request bodies and the messages of their control websocket.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigMap, config_map, null_as_default};

/// A message on the control websocket of `exec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceExecControl {
    /// window-resize or signal.
    #[serde(deserialize_with = "null_as_default")]
    pub command: String,
    #[serde(deserialize_with = "config_map")]
    pub args: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub signal: i64,
}

/// Body of `POST /1.0/instances/{name}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceExecPost {
    #[serde(deserialize_with = "null_as_default")]
    pub command: Vec<String>,
    /// Starts the command only when the websockets are connected.
    #[serde(rename = "wait-for-websocket", deserialize_with = "null_as_default")]
    pub wait_for_websocket: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub interactive: bool,
    #[serde(deserialize_with = "config_map")]
    pub environment: ConfigMap,
    /// Columns of the terminal.
    #[serde(deserialize_with = "null_as_default")]
    pub width: i64,
    /// Rows of the terminal.
    #[serde(deserialize_with = "null_as_default")]
    pub height: i64,
    /// Keeps output in log files; excludes websockets.
    #[serde(rename = "record-output", deserialize_with = "null_as_default")]
    pub record_output: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub user: u32,
    #[serde(deserialize_with = "null_as_default")]
    pub group: u32,
    #[serde(deserialize_with = "null_as_default")]
    pub cwd: String,
}

/// A message on the control websocket of `console`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceConsoleControl {
    #[serde(deserialize_with = "null_as_default")]
    pub command: String,
    #[serde(deserialize_with = "config_map")]
    pub args: ConfigMap,
}

/// Body of `POST /1.0/instances/{name}/console`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstanceConsolePost {
    #[serde(deserialize_with = "null_as_default")]
    pub width: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub height: i64,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub force: bool,
}
