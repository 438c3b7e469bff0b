//! Storage pools and volumes. Start at [`Pool`]; one file or folder per driver in `drivers/`.
//!
//! Invariant: knows nothing of instances, REST or the database; a volume's owner is an opaque id.
//! Invariant: blocking code only; the daemon decides which thread it runs on.
//! Invariant: nobody outside asks which driver it has; what differs is a capability.
#![forbid(unsafe_code)]

mod config;
mod copy;
mod drivers;
mod error;
mod host;
mod layout;
mod pool;
mod volume;

pub use drivers::{DriverInfo, create, default_config, destroy, drivers, open, validate};
pub use error::PoolError;
pub use pool::{Pool, PoolConfig, PoolPaths, Snapshots, Space};
pub use volume::{VolumeKind, VolumeRef};
