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
mod disk;
mod error;
mod extract;
mod fingerprint;
mod inspect;
pub mod metadata;
mod paths;
mod pax;
mod pipe;
mod qcow2;
pub mod store;
mod tarball;
pub mod templates;
mod unpack;
mod whole;
pub mod worker;
mod xattr;

pub use compression::{Compression, file_extension};
pub use error::{ImageError, UnpackFault};
pub use extract::UnpackReport;
pub use fingerprint::{Hasher, fingerprint};
pub use inspect::{ImageFiles, ImageKind, Inspected, inspect};
pub use metadata::{ImageMetadata, TemplateSpec};
pub use unpack::{DISK_FILE, UnpackLimits, WorkerCommand, unpack};
pub use whole::check_whole;

/// Entrances for fuzz targets: whatever the bytes are, these return.
#[doc(hidden)]
pub mod fuzzing {
    use crate::{pax::Pax, tarball::Walker, unpack::UnpackLimits};

    pub fn tar(bytes: &[u8]) {
        let limits = UnpackLimits { entries: 10_000, bytes: 1 << 30, depth: 64, name_length: 4096 };
        let mut walker = Walker::new(bytes, "fuzz", &limits);
        while let Ok(Some(entry)) = walker.next() {
            let _ = crate::paths::relative(&entry.path);
            let _ = entry.acl_access.as_deref().map(crate::xattr::acl);
        }
    }

    pub fn pax(bytes: &[u8]) {
        let _ = Pax::parse(bytes);
    }

    pub fn qcow2(bytes: &[u8]) {
        let _ = crate::qcow2::Header::parse(bytes);
    }

    pub fn metadata(bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = crate::ImageMetadata::parse(text);
        }
    }

    pub fn template(bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = crate::templates::render_text(text);
        }
    }
}
