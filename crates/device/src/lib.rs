//! Instance devices: from configuration to plan.
//!
//! [`parse()`] judges one device, [`requests`] all of an instance: what it needs of storage ([`RootVolume`]) and network
//! ([`LinkRef`]), which the engine resolves, and what goes into the plan as it is.
//!
//! Invariant: pure. What must be looked up on the host (a device node's numbers) is asked of a function that the caller
//! passes; names and indexes that must be unique on the host come from the caller too.
#![forbid(unsafe_code)]

mod disk;
mod error;
mod names;
mod nic;
mod parse;
mod set;
#[cfg(test)]
mod tests;
mod unix;

use std::collections::BTreeMap;

pub use disk::{Bind, Disk, Root};
pub use error::DeviceError;
pub use names::host_interface_name;
pub use nic::{Attachment, LinkFacts, Nic};
pub use parse::{TYPES, parse, parse_all};
pub use set::{LinkRef, Requests, RootVolume, requests};
pub use unix::{NodeStat, UnixNode};

/// A device's configuration: key to value, `type` among them.
pub type Config = BTreeMap<String, String>;

/// One device, its values checked and typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    Disk(Disk),
    Nic(Nic),
    Unix(UnixNode),
    /// Masks a device that a profile has under this name.
    None,
}
