//! `/1.0/projects`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigMap, config_map, null_as_default};

/// Body of `POST /1.0/projects`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProjectsPost {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// Body of `POST /1.0/projects/{name}`: rename.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProjectPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The writable part of a project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProjectPut {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
}

/// A name space for instances, images and more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Project {
    #[serde(deserialize_with = "config_map")]
    pub config: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub used_by: Vec<String>,
}

/// What a project uses of its limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProjectState {
    #[serde(deserialize_with = "null_as_default")]
    pub resources: BTreeMap<String, ProjectStateResource>,
}

/// One limit of a project and its use; limit -1 means none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProjectStateResource {
    #[serde(rename = "Limit", deserialize_with = "null_as_default")]
    pub limit: i64,
    #[serde(rename = "Usage", deserialize_with = "null_as_default")]
    pub usage: i64,
}

impl Project {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> ProjectPut {
        ProjectPut { config: self.config, description: self.description }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: ProjectPut) {
        self.config = put.config;
        self.description = put.description;
    }
}
