//! Workflows, operations and reconciliation, without HTTP.
//!
//! `app/` has one file a workflow; `operations/` runs them; `reconcile` makes the host agree with the store, at start-up
//! and after a crash alike.
//!
//! Invariant: knows no wire type and no route. Blocking drivers are called on the lanes only.
#![forbid(unsafe_code)]

pub mod app;
mod engine;
mod error;
pub mod events;
mod failpoint;
mod host;
pub mod id_ranges;
pub mod index;
mod lanes;
pub mod live;
mod locks;
pub mod operations;
mod paths;
mod reconcile;
pub mod records;
mod reserve;
mod shape;
mod sweep;
mod world;

pub use engine::{Engine, Parts};
pub use error::{Error, Result, chain};
pub use host::{HostNetwork, KernelNetwork};
pub use lanes::Lanes;
pub use paths::Paths;
pub use world::{RealWorld, World};
