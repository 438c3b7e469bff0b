//! Builds images on this host, from its distribution's archive: no image server is needed.
//!
//! The result is a split image, `meta.tar.xz` and `rootfs.tar.zst`, because it is the fastest to make, import and unpack:
//! mmdebstrap's tar stream is compressed as it comes, without a directory or a second archive in between; zstd
//! decompresses at several times the speed of a disk; and our own extractor writes it without another program, which a
//! squashfs would need.
//!
//! A virtual machine's image is `meta.tar.xz` and `disk.qcow2`: the container's root with a kernel and a boot loader
//! beside it, so that both types run the same system. Its disk is made of files alone; see `disk.rs`.

mod apt;
mod busybox;
mod busybox_vm;
mod debian;
mod debian_vm;
mod disk;
mod guest;
mod initramfs;
mod modules;
mod pack;

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use stapes_model::InstanceType;

pub use busybox::busybox;
pub use debian::{debian, debian_releases};

use crate::{ImageError, ImageFiles, UnpackLimits, compression, extract::Extractor, tarball::Walker};

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct BuildSpec {
    /// By number or code name: `12`, `bookworm`, `sid`. Ignored for busybox.
    pub release: String,
    /// The kernel's name or Debian's; empty: this host's.
    pub arch: String,
    /// What shall run it: each type has its own files of the same system.
    pub kind: InstanceType,
    /// `default`, or `cloud` with cloud-init inside; empty: `default`.
    pub variant: String,
    /// Where the finished files stay; a second build of the same thing only looks here.
    pub cache_dir: PathBuf,
    /// Where the root is put together; it needs some 700 MB, for a virtual machine 1,500, and must not be mounted `nodev`
    /// or `noexec`.
    pub work_dir: PathBuf,
    /// Build although it is in the cache.
    pub refresh: bool,
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub percent: Option<u8>,
    pub text: String,
}

/// A stem of names in the cache: `<stem>.meta.tar.xz`, and `<stem>.rootfs.tar.zst` or `<stem>.disk.qcow2`.
fn cached(spec: &BuildSpec, stem: &str) -> (ImageFiles, bool) {
    let root = match spec.kind {
        InstanceType::Container => "rootfs.tar.zst",
        InstanceType::VirtualMachine => "disk.qcow2",
    };
    let meta = spec.cache_dir.join(format!("{stem}.meta.tar.xz"));
    let rootfs = spec.cache_dir.join(format!("{stem}.{root}"));
    // The metadata is written last, so its presence says that both are whole.
    let present = meta.is_file() && rootfs.is_file() && !spec.refresh;
    (ImageFiles { meta, rootfs: Some(rootfs) }, present)
}

/// A folder for one build, removed with it; others may walk in, since apt fetches as the user `_apt`.
fn work_folder(spec: &BuildSpec) -> Result<tempfile::TempDir, ImageError> {
    use std::os::unix::fs::PermissionsExt;
    make_folder(&spec.cache_dir)?;
    make_folder(&spec.work_dir)?;
    let work = tempfile::Builder::new().prefix("build-").tempdir_in(&spec.work_dir);
    let work = work.map_err(ImageError::io("create a folder in", &spec.work_dir))?;
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755))
        .map_err(ImageError::io("open up", work.path()))?;
    Ok(work)
}

/// Fills `target` with a root archive that this host built.
fn extract_own(archive: &Path, target: &Path) -> Result<(), ImageError> {
    let limits = UnpackLimits::default();
    let (magic, _) = crate::inspect::magic(archive)?;
    let compression = match magic {
        compression::Magic::Compressed(compression) => compression,
        _ => crate::Compression::None,
    };
    let file = File::open(archive).map_err(ImageError::io("open", archive))?;
    let plain = compression::reader(compression, file).map_err(ImageError::io("read", archive))?;
    let folder = File::open(target).map_err(ImageError::io("open", target))?;
    let name = crate::inspect::label(archive);
    let mut walker = Walker::new(std::io::BufReader::with_capacity(64 * 1024, plain), name.clone(), &limits);
    let mut extractor = Extractor::new(folder.as_fd(), name, &limits);
    let done = extractor.extract(&mut walker, |parts| Some(parts.to_vec()));
    done.and_then(|()| extractor.finish()).map(drop).map_err(ImageError::Unpack)
}

fn make_folder(path: &Path) -> Result<(), ImageError> {
    std::fs::create_dir_all(path).map_err(ImageError::io("create", path))
}

/// The architecture in the kernel's and in Debian's words.
fn architecture(spec: &BuildSpec) -> Result<(String, &'static str), ImageError> {
    let asked = if spec.arch.is_empty() { std::env::consts::ARCH } else { &spec.arch };
    let asked = if asked == "x86" { "i686" } else { asked };
    let kernel = crate::metadata::architecture_name(asked)?;
    let debian = crate::metadata::debian_architecture(&kernel).ok_or_else(|| ImageError::Metadata {
        field: "architecture".into(),
        reason: format!("Debian has no {kernel}"),
    })?;
    Ok((kernel, debian))
}

/// The time that files and metadata get: `SOURCE_DATE_EPOCH`, or today's midnight, so that two builds of one day from
/// an unchanged archive give the same fingerprint.
fn build_time() -> u64 {
    const DAY: u64 = 86_400;
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_secs() / DAY * DAY
    })
}
