//! Images: formats, confined unpacking, fingerprints, building, templates.
//!
//! What comes in is never trusted. Archives are opened by a child without capabilities over the host ([`worker`]);
//! paths are created beneath a directory descriptor; templates and cloud-init are pure text → text.
//!
//! Invariant: knows nothing of pools, instances or REST. It is handed an empty directory and fills it.
#![forbid(unsafe_code)]

pub mod build;
pub mod cloud_init;
mod compression;
mod error;
mod extract;
mod fingerprint;
mod inspect;
pub mod metadata;
mod paths;
mod pax;
mod pipe;
pub mod store;
mod tarball;
pub mod templates;
mod unpack;
pub mod worker;
mod xattr;

pub use compression::Compression;
pub use error::{ImageError, UnpackFault};
pub use extract::UnpackReport;
pub use fingerprint::{Hasher, fingerprint};
pub use inspect::{ImageFiles, ImageKind, Inspected, inspect};
pub use metadata::{ImageMetadata, TemplateSpec};
pub use unpack::{UnpackLimits, WorkerCommand, unpack};
