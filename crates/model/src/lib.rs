//! Names, sizes, id ranges, the configuration-key tables, and pure state transitions.
//!
//! Invariant: no I/O. Text from outside becomes one of these types once, at the edge; inside nobody re-checks.
#![forbid(unsafe_code)]

mod error;
mod expand;
pub mod filter;
mod id;
mod idmap;
pub mod keys;
mod limits;
mod name;
mod size;
pub mod state;

pub use error::ErrorKind;
pub use expand::{Config, Devices, expand};
pub use id::InstanceId;
pub use idmap::{IdMap, IdRange};
pub use limits::{Limits, Rlimit, Usage};
pub use name::{
    AliasName, DeviceName, Fingerprint, InstanceName, NameError, NetworkName, PoolName, ProfileName, ProjectName,
};
pub use size::{ByteSize, SizeError};

/// What an instance is. Serialised as Incus's `type` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceType {
    Container,
    VirtualMachine,
}

impl InstanceType {
    /// The word of the API: `container` or `virtual-machine`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtual-machine",
        }
    }
}

impl std::fmt::Display for InstanceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
