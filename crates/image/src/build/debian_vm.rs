//! `debian:<release>` for virtual machines: the container's root, a kernel and a signed boot loader, on a disk.
//!
//! GRUB's menu names `/vmlinuz` and `/vmlinuz.old`, links that Debian's kernel packages keep: an upgrade in the guest needs
//! no other step. What is on the EFI system partition (shim, GRUB and four lines that find the root) stays as it was built
//! until the guest runs `grub-install`, for which `/boot/efi` is in fstab.

use std::{fs, fs::File, io, path::Path};

use super::{
    BuildSpec, Progress,
    debian::{self, Wanted},
    disk::{self, Disk, Ids, Platform},
    guest, pack,
};
use crate::{ImageError, ImageFiles};

/// Counts up when the recipe below changes; the container's recipe counts beside it.
pub(super) const RECIPE: u32 = 2;
/// What a disk has at least; it grows with what it is given.
const DISK_SIZE: u64 = 2 << 30;

/// `e2fsprogs` checks the root at boot.
const PACKAGES: &str = "initramfs-tools,zstd,e2fsprogs";

const STEPS: &[(&str, u8, &str)] = &[
    ("running --setup-hook", 5, "unpacking the container's root"),
    ("running apt-get update", 20, "reading the archive's index"),
    ("downloading packages", 30, "downloading a kernel"),
    ("extracting archives", 45, "extracting packages"),
    ("installing packages", 55, "installing a kernel"),
    ("running --customize-hook", 75, "making it a virtual machine's root"),
];

/// Fails where no machine can be built, before the container's root is.
pub(super) fn require(wanted: &Wanted) -> Result<(), ImageError> {
    Platform::of(wanted.arch)?;
    disk::require_tools()
}

/// Builds the disk from `base`, the container's root archive.
pub(super) fn build(
    spec: &BuildSpec,
    wanted: &Wanted,
    base: &Path,
    files: &ImageFiles,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    let platform = Platform::of(wanted.arch)?;
    let work = super::work_folder(spec)?;
    let time = super::build_time();
    let ids = Ids::of(&wanted.name(time));

    // mmdebstrap's hook reads it with tar alone, which may know no zstd.
    let archive = work.path().join("base.tar");
    decompress(base, &archive).map_err(ImageError::io("unpack", base))?;
    let root = work.path().join("root");
    let mut include = format!("{PACKAGES},{},{}", platform.kernel_package(), platform.boot_packages().join(","));
    if !["bullseye", "bookworm"].contains(&wanted.suite) {
        // Part of the package systemd until then.
        include.push_str(",systemd-repart");
    }
    let setup = debian::put_hook(work.path(), "setup", include_str!("debian-vm-setup.sh"))?;
    let customize = debian::put_hook(work.path(), "customize", include_str!("debian-vm-customize.sh"))?;
    let mut command = debian::mmdebstrap(wanted, &include, time, work.path());
    command
        .args(["--variant=custom", "--format=directory"])
        .arg(format!("--setup-hook={setup}"))
        .arg(format!("--customize-hook={customize}"))
        .env("STAPES_BASE", &archive)
        .env("STAPES_ROOT_UUID", &ids.root);
    debian::run(debian::with_sources(&mut command, wanted, &root), STEPS, None, wanted, progress)?;
    fs::remove_file(&archive).map_err(ImageError::io("remove", &archive))?;

    guest::install_systemd(&root)?;
    let kernels =
        [("Debian", "/vmlinuz", "/initrd.img"), ("Debian, the kernel before", "/vmlinuz.old", "/initrd.img.old")];
    guest::put(&root, "boot/grub/grub.cfg", 0o644, disk::grub_menu(platform, &ids, &kernels))?;
    progress(Progress { percent: Some(80), text: "making a disk of it".into() });
    let disk = Disk { platform, ids: &ids, root: &root, boot: &root, size: DISK_SIZE, time };
    disk.write(work.path(), files.rootfs.as_deref().unwrap_or(Path::new("")))?;
    work.close().map_err(ImageError::io("remove the build folder in", &spec.work_dir))?;
    pack::write_meta(&files.meta, &wanted.metadata(time, "disk-kvm.img"))
}

fn decompress(archive: &Path, to: &Path) -> io::Result<()> {
    let mut plain = zstd::stream::read::Decoder::new(File::open(archive)?)?;
    io::copy(&mut plain, &mut File::create(to)?).map(drop)
}
