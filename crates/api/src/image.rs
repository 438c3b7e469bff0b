//! `/1.0/images` and their aliases.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigMap, Timestamp, config_map, is_default, null_as_default};

/// JSON body of `POST /1.0/images`; uploads send headers instead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImagesPost {
    #[serde(deserialize_with = "null_as_default")]
    pub auto_update: bool,
    #[serde(deserialize_with = "config_map")]
    pub properties: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub public: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub expires_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub filename: String,
    pub source: Option<ImagesPostSource>,
    #[serde(deserialize_with = "null_as_default")]
    pub compression_algorithm: String,
    #[serde(deserialize_with = "null_as_default")]
    pub aliases: Vec<ImageAlias>,
}

/// Where a new image comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImagesPostSource {
    #[serde(deserialize_with = "null_as_default")]
    pub alias: String,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    #[serde(deserialize_with = "null_as_default")]
    pub server: String,
    #[serde(deserialize_with = "null_as_default")]
    pub image_type: String,
    #[serde(deserialize_with = "null_as_default")]
    pub mode: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub url: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub fingerprint: String,
    #[serde(deserialize_with = "null_as_default")]
    pub secret: String,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}

/// The writable part of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImagePut {
    #[serde(deserialize_with = "null_as_default")]
    pub auto_update: bool,
    #[serde(deserialize_with = "config_map")]
    pub properties: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub public: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub expires_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
}

/// An image in the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Image {
    #[serde(deserialize_with = "null_as_default")]
    pub auto_update: bool,
    #[serde(deserialize_with = "config_map")]
    pub properties: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub public: bool,
    /// Year 1 where it never expires.
    #[serde(deserialize_with = "null_as_default")]
    pub expires_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub profiles: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub aliases: Vec<ImageAlias>,
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "null_as_default")]
    pub cached: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub filename: String,
    #[serde(deserialize_with = "null_as_default")]
    pub fingerprint: String,
    /// Bytes as stored.
    #[serde(deserialize_with = "null_as_default")]
    pub size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_source: Option<ImageSource>,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub last_used_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub uploaded_at: Timestamp,
    #[serde(deserialize_with = "null_as_default")]
    pub project: String,
}

/// A name of an image, seen from the image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageAlias {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
}

/// Where an image was downloaded from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageSource {
    #[serde(deserialize_with = "null_as_default")]
    pub alias: String,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    #[serde(deserialize_with = "null_as_default")]
    pub server: String,
    #[serde(deserialize_with = "null_as_default")]
    pub image_type: String,
}

/// Body of `POST /1.0/images/aliases`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageAliasesPost {
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub target: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
}

/// Body of `POST /1.0/images/aliases/{name}`: rename.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageAliasesEntryPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// The writable part of an alias.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageAliasesEntryPut {
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub target: String,
}

/// A name of an image, seen from the alias.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageAliasesEntry {
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub target: String,
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
}

/// `metadata.yaml` of an image; dates are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageMetadata {
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "null_as_default")]
    pub creation_date: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub expiry_date: i64,
    #[serde(deserialize_with = "config_map")]
    pub properties: ConfigMap,
    #[serde(deserialize_with = "null_as_default")]
    pub templates: BTreeMap<String, Option<ImageMetadataTemplate>>,
}

/// A template an image renders into its instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageMetadataTemplate {
    #[serde(deserialize_with = "null_as_default")]
    pub when: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub create_only: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub template: String,
    #[serde(deserialize_with = "config_map")]
    pub properties: ConfigMap,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub uid: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub gid: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_default")]
    pub mode: String,
}

impl Image {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> ImagePut {
        ImagePut {
            auto_update: self.auto_update,
            properties: self.properties,
            public: self.public,
            expires_at: self.expires_at,
            profiles: self.profiles,
        }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: ImagePut) {
        self.auto_update = put.auto_update;
        self.properties = put.properties;
        self.public = put.public;
        self.expires_at = put.expires_at;
        self.profiles = put.profiles;
    }
}

impl ImageAliasesEntry {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> ImageAliasesEntryPut {
        ImageAliasesEntryPut { description: self.description, target: self.target }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: ImageAliasesEntryPut) {
        self.description = put.description;
        self.target = put.target;
    }
}
