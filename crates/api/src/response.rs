//! The envelope around every JSON answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::null_as_default;

/// Which of the envelope's fields mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResponseType {
    /// Done; the answer is in `metadata`.
    #[default]
    Sync,
    /// Under way; `operation` is its path, `metadata` the [`crate::Operation`].
    Async,
    /// Refused or failed; see `error` and `error_code`.
    Error,
}

/// The envelope. `T` is what `metadata` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, bound(deserialize = "T: Deserialize<'de> + Default"))]
#[schemars(bound = "T: JsonSchema + Default + Serialize")]
pub struct Response<T = Value> {
    #[serde(rename = "type")]
    pub kind: ResponseType,
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
    #[serde(deserialize_with = "null_as_default")]
    pub status_code: u16,
    #[serde(deserialize_with = "null_as_default")]
    pub operation: String,
    #[serde(deserialize_with = "null_as_default")]
    pub error_code: u16,
    #[serde(deserialize_with = "null_as_default")]
    pub error: String,
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: T,
}

impl<T: Default> Response<T> {
    /// HTTP 200 with an answer.
    pub fn sync(metadata: T) -> Self {
        Response { status: "Success".to_owned(), status_code: 200, metadata, ..Self::default() }
    }

    /// HTTP 202; `operation` is the operation's path.
    pub fn background(operation: String, metadata: T) -> Self {
        Response {
            kind: ResponseType::Async,
            status: "Operation created".to_owned(),
            status_code: 100,
            operation,
            metadata,
            ..Self::default()
        }
    }

    /// An error with the HTTP status `code`.
    pub fn error(code: u16, message: String) -> Self {
        Response { kind: ResponseType::Error, error_code: code, error: message, ..Self::default() }
    }
}

/// What Stapes puts into the metadata of an error, beyond Incus: the chain of causes, outermost first, and a remedy.
///
/// A failed operation carries the same under [`ErrorDetails::OPERATION_KEY`] in its metadata. `error` (or `err`) then
/// holds the first line only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ErrorDetails {
    #[serde(deserialize_with = "null_as_default")]
    pub causes: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl ErrorDetails {
    /// Key of these details in an operation's metadata.
    pub const OPERATION_KEY: &str = "stapes_error";
}
