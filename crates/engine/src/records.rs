//! The objects of the store. Values are JSON; keys are `<prefix>/<identity>`.
//!
//! Keys are chosen so that a name is one small row (`instance-name/…` → id): renaming touches no other object.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stapes_model::{
    AliasName, Fingerprint, IdRange, InstanceId, InstanceName, InstanceType, NetworkName, PoolName, ProfileName,
    ProjectName,
};

pub type Config = BTreeMap<String, String>;
pub type Devices = BTreeMap<String, BTreeMap<String, String>>;

/// An object of the store.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    const PREFIX: &'static str;

    fn key(&self) -> String;

    fn to_bytes(&self) -> Vec<u8> {
        // A record is maps, strings and numbers: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub name: InstanceName,
    pub project: ProjectName,
    #[serde(rename = "type")]
    pub kind: InstanceType,
    pub architecture: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub ephemeral: bool,
    pub created_at: DateTime<Utc>,
    #[serde(default)]
    pub last_used_at: Option<DateTime<Utc>>,
    pub profiles: Vec<ProfileName>,
    /// Local configuration, `volatile.*` and `image.*` included.
    pub config: Config,
    /// Local devices.
    pub devices: Devices,
    /// Pool of its root volume.
    pub pool: PoolName,
    /// Host ids; `None` only for a privileged instance that never had a range.
    #[serde(default)]
    pub ids: Option<IdRange>,
}

impl Instance {
    /// Whether it ran when its power state was last recorded.
    pub fn ran(&self) -> bool {
        self.config.get("volatile.last_state.power").is_some_and(|power| power == "RUNNING")
    }
}

impl Record for Instance {
    const PREFIX: &'static str = "instance/";

    fn key(&self) -> String {
        instance_key(&self.id)
    }
}

pub fn instance_key(id: &InstanceId) -> String {
    format!("instance/{id}")
}

/// Row that makes a name unique in its project; its value is the id.
pub fn instance_name_key(project: &ProjectName, name: &InstanceName) -> String {
    format!("instance-name/{project}/{name}")
}

/// Rows that make host-wide things unique under compare-and-set; their value is the owner's id.
pub fn id_range_claim(base: u32) -> String {
    format!("claim/id-range/{base:010}")
}

pub fn address_claim(network: &str, address: std::net::IpAddr) -> String {
    format!("claim/address/{network}/{address}")
}

pub fn mac_claim(network: &str, mac: &str) -> String {
    format!("claim/mac/{network}/{mac}")
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub project: ProjectName,
    pub name: ProfileName,
    #[serde(default)]
    pub description: String,
    pub config: Config,
    pub devices: Devices,
}

impl Record for Profile {
    const PREFIX: &'static str = "profile/";

    fn key(&self) -> String {
        profile_key(&self.project, &self.name)
    }
}

pub fn profile_key(project: &ProjectName, name: &ProfileName) -> String {
    format!("profile/{project}/{name}")
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub name: PoolName,
    pub driver: String,
    #[serde(default)]
    pub description: String,
    pub config: Config,
}

impl Record for Pool {
    const PREFIX: &'static str = "pool/";

    fn key(&self) -> String {
        format!("pool/{}", self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub name: NetworkName,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub description: String,
    pub config: Config,
}

impl Record for Network {
    const PREFIX: &'static str = "network/";

    fn key(&self) -> String {
        format!("network/{}", self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub project: ProjectName,
    pub fingerprint: Fingerprint,
    #[serde(rename = "type")]
    pub kind: InstanceType,
    pub architecture: String,
    pub filename: String,
    pub size: u64,
    pub public: bool,
    #[serde(default)]
    pub auto_update: bool,
    #[serde(default)]
    pub cached: bool,
    pub properties: BTreeMap<String, String>,
    #[serde(default)]
    pub profiles: Vec<ProfileName>,
    pub created_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub uploaded_at: DateTime<Utc>,
    #[serde(default)]
    pub last_used_at: Option<DateTime<Utc>>,
    /// Where it was built or fetched from: (`protocol`, `server`, `alias`).
    #[serde(default)]
    pub source: Option<ImageSource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    pub protocol: String,
    pub server: String,
    pub alias: String,
}

impl Record for Image {
    const PREFIX: &'static str = "image/";

    fn key(&self) -> String {
        image_key(&self.project, &self.fingerprint)
    }
}

pub fn image_key(project: &ProjectName, fingerprint: &Fingerprint) -> String {
    format!("image/{project}/{fingerprint}")
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageAlias {
    pub project: ProjectName,
    pub name: AliasName,
    #[serde(default)]
    pub description: String,
    pub target: Fingerprint,
    #[serde(rename = "type")]
    pub kind: InstanceType,
}

impl Record for ImageAlias {
    const PREFIX: &'static str = "image-alias/";

    fn key(&self) -> String {
        alias_key(&self.project, &self.name)
    }
}

pub fn alias_key(project: &ProjectName, name: &AliasName) -> String {
    format!("image-alias/{project}/{name}")
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub name: ProjectName,
    #[serde(default)]
    pub description: String,
    pub config: Config,
}

impl Record for Project {
    const PREFIX: &'static str = "project/";

    fn key(&self) -> String {
        format!("project/{}", self.name)
    }
}

/// The server's own configuration: one row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub config: Config,
}

impl Record for Server {
    const PREFIX: &'static str = "server/";

    fn key(&self) -> String {
        "server/config".to_owned()
    }
}
