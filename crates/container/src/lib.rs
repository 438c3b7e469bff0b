//! The container driver: a plan becomes control groups, detached mounts and a closed list of instructions for the shim.
//!
//! Start at [`ContainerDriver`]. The daemon's side does what needs the host's paths (groups, limits); the shim and its
//! children do what needs a process of one thread (namespaces, mounts, exec), so that no namespace code is linked here.
//!
//! Invariant: no call waits for a guest longer than its named patience, and no thread of ours forks or joins anything.
#![forbid(unsafe_code)]

pub mod capabilities;
pub mod lsm;
pub mod masks;
pub mod seccomp;

mod ahead;
mod convert;
mod driver;
mod nursery;
mod owners;
mod registry;
mod render;
mod running;
mod supervise;
mod warm;
mod wire;

pub use driver::{ContainerDriver, Settings};

/// Entrances for fuzz targets: whatever the bytes are, these return.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::ahead::read_links;
}
