//! `/1.0/certificates`: who may connect over the network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Timestamp, null_as_default};

/// Body of `POST /1.0/certificates`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CertificatesPost {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub restricted: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub projects: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub trust_token: String,
    #[serde(deserialize_with = "null_as_default")]
    pub token: bool,
}

/// The writable part of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CertificatePut {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub restricted: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub projects: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
}

/// A trusted certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Certificate {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub restricted: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub projects: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub certificate: String,
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    #[serde(deserialize_with = "null_as_default")]
    pub fingerprint: String,
}

/// Contents of a trust token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CertificateAddToken {
    #[serde(deserialize_with = "null_as_default")]
    pub client_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub fingerprint: String,
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub secret: String,
    #[serde(deserialize_with = "null_as_default")]
    pub expires_at: Timestamp,
}

impl Certificate {
    /// The part of this object that a client may write back with `PUT`.
    pub fn writable(self) -> CertificatePut {
        CertificatePut {
            name: self.name,
            kind: self.kind,
            restricted: self.restricted,
            projects: self.projects,
            certificate: self.certificate,
            description: self.description,
        }
    }

    /// Replaces the writable part, as `PUT` does.
    pub fn set_writable(&mut self, put: CertificatePut) {
        self.name = put.name;
        self.kind = put.kind;
        self.restricted = put.restricted;
        self.projects = put.projects;
        self.certificate = put.certificate;
        self.description = put.description;
    }
}
