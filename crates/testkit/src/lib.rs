//! Test support: whole daemons in namespaces of their own, images made on the spot, and reported skips.
//!
//! The HTTP client in [`http`] is deliberately not `stapes-client`: a mistake that client and daemon share would pass
//! unseen, and the benchmark wants a client that costs next to nothing.
#![forbid(unsafe_code)]

pub mod http;
pub mod image;
pub mod testbed;
pub mod ws;

mod daemon;
mod leaks;
mod needs;

pub use daemon::{Daemon, Output, eventually, launch_body};
pub use http::{Api, ApiError, Connection, Response};
pub use image::ImageBuilder;
pub use needs::{Host, Need, binaries_dir, host_with};
