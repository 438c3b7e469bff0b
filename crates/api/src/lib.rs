//! REST wire types of the Incus API 1.0 as Stapes speaks it.
//!
//! Field names on the wire are Incus's; in Rust `type` reads `kind` and hyphens read `_`. Reading is as lenient as
//! Go's decoder (a missing field or `null` is the zero value; a number or boolean in a string map becomes its text), and
//! writing prints what Incus prints: zero values stay unless Incus omits them, an absent object is `null`, an empty list
//! `[]`. Types here know nothing of the daemon's own model.
#![forbid(unsafe_code)]

mod certificate;
mod event;
mod exec;
mod extensions;
mod headers;
mod image;
mod instance;
mod lenient;
mod metadata;
mod network;
mod operation;
mod preseed;
mod profile;
mod project;
mod resources;
mod response;
mod server;
mod snapshot;
mod state;
mod status;
mod storage;
mod timestamp;
mod warning;

pub use certificate::*;
pub use event::*;
pub use exec::*;
pub use extensions::*;
pub use headers::*;
pub use image::*;
pub use instance::*;
pub use lenient::{ConfigMap, DevicesMap};
pub use metadata::*;
pub use network::*;
pub use operation::*;
pub use preseed::*;
pub use profile::*;
pub use project::*;
pub use resources::*;
pub use response::*;
pub use server::*;
pub use snapshot::*;
pub use state::*;
pub use status::StatusCode;
pub use storage::*;
pub use timestamp::Timestamp;
pub use warning::*;

use lenient::{config_map, devices_map, is_default, null_as_default};

/// The only version of the API there is.
pub const API_VERSION: &str = "1.0";

#[cfg(test)]
mod tests;
