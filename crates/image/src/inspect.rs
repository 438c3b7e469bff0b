//! Looks at image files: what they are, and their metadata.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use stapes_model::InstanceType;

use crate::{
    Compression, ImageError, ImageMetadata,
    compression::{self, MAGIC_LEN, Magic},
    metadata::MAX_METADATA_BYTES,
    paths,
    tarball::Walker,
    unpack::UnpackLimits,
};

/// An image's files: one (unified), or the metadata and the root (split).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFiles {
    pub meta: PathBuf,
    pub rootfs: Option<PathBuf>,
}

/// How the root comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKind {
    /// One archive with `rootfs/` inside.
    Unified,
    /// One archive with a virtual machine's `rootfs.img` inside.
    UnifiedDisk,
    SplitTar,
    SplitSquashfs,
    /// A virtual machine's qcow2 disk.
    SplitQcow2,
}

#[derive(Debug, Clone)]
pub struct Inspected {
    pub metadata: ImageMetadata,
    pub kind: ImageKind,
    pub instance_type: InstanceType,
    /// Of the file that carries the root; a squashfs or qcow2 is `None`, it compresses inside.
    pub compression: Compression,
    /// Bytes of all files: Incus's `size`.
    pub size: u64,
}

/// Reads the metadata and tells the kind, by magic bytes and never by name.
///
/// Works in the caller's process, with memory and size bounded; the root's content is not read for a split image.
pub fn inspect(files: &ImageFiles) -> Result<Inspected, ImageError> {
    let (meta_magic, meta_size) = magic(&files.meta)?;
    let meta_compression = match meta_magic {
        Magic::Tar => Compression::None,
        Magic::Compressed(compression) => compression,
        _ => return Err(format_error(&files.meta, "it is no tar archive, compressed or not")),
    };
    let mut found = read_meta(&files.meta, meta_compression, files.rootfs.is_none())?;
    let text = found.metadata.take().ok_or_else(|| format_error(&files.meta, "it has no metadata.yaml"))?;
    let metadata = ImageMetadata::parse(&text)?;
    let (kind, compression, size) = match &files.rootfs {
        None if found.disk => (ImageKind::UnifiedDisk, meta_compression, meta_size),
        None if found.rootfs => (ImageKind::Unified, meta_compression, meta_size),
        None => {
            return Err(format_error(
                &files.meta,
                "it has neither rootfs/ nor rootfs.img, and no root file came with it",
            ));
        }
        Some(rootfs) => {
            let (root_magic, root_size) = magic(rootfs)?;
            let (kind, compression) = match root_magic {
                Magic::Tar => (ImageKind::SplitTar, Compression::None),
                Magic::Compressed(compression) => (ImageKind::SplitTar, compression),
                Magic::Squashfs => (ImageKind::SplitSquashfs, Compression::None),
                Magic::Qcow2 => (ImageKind::SplitQcow2, Compression::None),
                Magic::Unknown => {
                    return Err(format_error(rootfs, "it is no tar archive, squashfs or qcow2 image"));
                }
            };
            (kind, compression, meta_size + root_size)
        }
    };
    let instance_type = match kind {
        ImageKind::UnifiedDisk | ImageKind::SplitQcow2 => InstanceType::VirtualMachine,
        ImageKind::Unified | ImageKind::SplitTar | ImageKind::SplitSquashfs => InstanceType::Container,
    };
    Ok(Inspected { metadata, kind, instance_type, compression, size })
}

pub(crate) fn magic(path: &Path) -> Result<(Magic, u64), ImageError> {
    let mut file = File::open(path).map_err(ImageError::io("open", path))?;
    let size = file.metadata().map_err(ImageError::io("look at", path))?.len();
    let mut head = Vec::with_capacity(MAGIC_LEN);
    file.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut head).map_err(ImageError::io("read", path))?;
    Ok((Magic::of(&head), size))
}

fn format_error(path: &Path, reason: &str) -> ImageError {
    ImageError::Format { file: label(path), reason: reason.into() }
}

/// How errors call a file: by its name, without the host's directories.
pub(crate) fn label(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[derive(Default)]
struct Found {
    metadata: Option<String>,
    rootfs: bool,
    disk: bool,
}

fn read_meta(path: &Path, compression: Compression, unified: bool) -> Result<Found, ImageError> {
    let file = File::open(path).map_err(ImageError::io("open", path))?;
    let plain = compression::reader(compression, file).map_err(ImageError::io("read", path))?;
    let plain = std::io::BufReader::with_capacity(64 * 1024, plain);
    let mut walker = Walker::new(plain, label(path), &UnpackLimits::default());
    let mut found = Found::default();
    while let Some(entry) = walker.next().map_err(ImageError::Unpack)? {
        // Wrong paths are the unpacking's to refuse; here they are just not what is looked for.
        match paths::relative(&entry.path).unwrap_or_default()[..] {
            [b"metadata.yaml"] if found.metadata.is_none() => {
                let text = walker.read_small(MAX_METADATA_BYTES).map_err(ImageError::Unpack)?;
                let text = String::from_utf8(text);
                found.metadata = Some(text.map_err(|_| format_error(path, "metadata.yaml is not UTF-8"))?);
            }
            [b"rootfs", ..] => found.rootfs = true,
            [b"rootfs.img"] => found.disk = true,
            _ => {}
        }
        // As soon as all is known the rest, most of a root, need not be decompressed.
        if found.metadata.is_some() && (!unified || found.rootfs || found.disk) {
            break;
        }
    }
    Ok(found)
}
