//! `busybox` for virtual machines: the container's root with a few kernel modules; it boots in seconds without KVM.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use stapes_sys::exec::Exec;

use super::{
    BuildSpec, Progress, apt,
    busybox::{INITTAB, failed},
    disk::{self, Disk, Ids, Platform},
    guest,
    initramfs::Initramfs,
    modules::{self, Modules},
};
use crate::{ImageError, ImageFiles};

/// Counts up when the recipe below changes; the container's recipe counts beside it.
pub(super) const RECIPE: u32 = 2;
const DISK_SIZE: u64 = 256 << 20;

/// What finds the root.
const EARLY: &[&str] =
    &["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "nvme", "ext4", "crc32c_generic"];
/// Devices that machines have here, the agent's channels and shares, and the power button.
const LATE: &[&str] = &[
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "virtio_mem",
    "vmw_vsock_virtio_transport",
    "virtiofs",
    "9p",
    "9pnet_virtio",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "nls_utf8",
    "isofs",
    "button",
    "evdev",
];

const INIT: &str = "#!/bin/busybox sh
# Finds the root by its UUID on whatever bus it is, and becomes its init.
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /early); do busybox modprobe $module; done 2>/dev/null
for word in $(busybox cat /proc/cmdline); do
  case $word in root=*) root=${word#root=};; esac
done
tries=0
while :; do
  case $root in
    UUID=*) device=$(busybox findfs \"$root\" 2>/dev/null);;
    *) device=$root;;
  esac
  [ -n \"$device\" ] && busybox mount -t ext4 -o ro \"$device\" /root 2>/dev/null && break
  tries=$((tries + 1))
  if [ $tries -gt 200 ]; then
    echo \"no disk has the root $root\"
    busybox poweroff -f
  fi
  busybox usleep 50000
done
for folder in proc sys dev; do busybox mount -o move /$folder /root/$folder; done
exec busybox switch_root /root /sbin/init
";

const RC: &str = "#!/bin/sh
mount -o remount,rw /
mount -t tmpfs -o mode=0755,nosuid,nodev run /run
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=0620 devpts /dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev tmp /tmp
for module in $(cat /etc/modules); do modprobe $module; done 2>/dev/null
[ -s /etc/hostname ] && hostname -F /etc/hostname
ip link set lo up
for link in /sys/class/net/e*; do
  [ -e \"$link\" ] || continue
  ip link set \"${link##*/}\" up
  udhcpc -i \"${link##*/}\" -b -S -t 10 -T 1 >/dev/null 2>&1 &
done
acpid -l /dev/null -p /run/acpid.pid
: > /run/booted
";

/// What busybox's acpid runs for the power button.
const POWER_ACTION: &str = "#!/bin/sh\nexec poweroff\n";

/// Builds the disk from `base`, the container's root archive.
pub(super) fn build(
    spec: &BuildSpec,
    arch: &str,
    base: &Path,
    files: &ImageFiles,
    time: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    let platform = Platform::of(arch)?;
    disk::require_tools()?;
    let work = super::work_folder(spec)?;
    progress(Progress { percent: Some(10), text: "downloading a kernel".into() });
    let missing = |package: &str| ImageError::Build {
        what: "busybox".into(),
        reason: format!("this host's apt offers no {package}; run `apt-get update`, or add Debian to its sources"),
    };
    let kernel = platform.kernel_package();
    let kernel = apt::stands_for(&kernel, "linux-image-").map_err(failed)?.ok_or_else(|| missing(&kernel))?;
    let [shim, grub] = platform.boot_packages();
    let packages = apt::download(&[&kernel, &shim, &grub], work.path()).map_err(failed)?;

    progress(Progress { percent: Some(50), text: "putting the root together".into() });
    let root = work.path().join("root");
    fs::create_dir(&root).map_err(ImageError::io("create", &root))?;
    super::extract_own(base, &root)?;
    let ids = Ids::of(&format!("busybox-{arch}-{kernel}-{time}"));
    fill(&root, &packages, kernel.trim_start_matches("linux-image-"), platform, &ids)?;

    progress(Progress { percent: Some(70), text: "making a disk of it".into() });
    let disk = Disk { platform, ids: &ids, root: &root, boot: &packages, size: DISK_SIZE, time };
    disk.write(work.path(), files.rootfs.as_deref().unwrap_or(Path::new("")))?;
    work.close().map_err(ImageError::io("remove the build folder in", &spec.work_dir))
}

/// Adds to the container's root what a machine has more.
fn fill(root: &Path, packages: &Path, version: &str, platform: &Platform, ids: &Ids) -> Result<(), ImageError> {
    let busybox = root.join("bin/busybox");
    let program = fs::read(&busybox).map_err(ImageError::io("read", &busybox))?;
    let modules = Modules::parse(&dependencies(&busybox, packages, version)?);
    let folder = module_folder(packages, version);
    let read = |file: &String| fs::read(folder.join(file)).map_err(ImageError::io("read", folder.join(file)));

    let early = modules.closure(EARLY);
    let mut archive = Initramfs::default();
    let target = format!("lib/modules/{version}");
    for folder in folders(
        ["bin", "dev", "proc", "sys", "root"].map(|name| format!("{name}/x")).iter().chain(&targets(&target, &early)),
    ) {
        archive.directory(&folder);
    }
    archive.console();
    archive.file("bin/busybox", 0o755, &program);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("early", 0o644, EARLY.join("\n").as_bytes());
    archive.file(&format!("{target}/modules.dep"), 0o644, modules::to_dep(&early).as_bytes());
    for file in early.keys() {
        archive.file(&format!("{target}/{file}"), 0o644, &read(file)?);
    }
    let initrd = zstd::stream::encode_all(&archive.finish()[..], 10).map_err(ImageError::io("pack", root))?;
    guest::put(root, "boot/initrd.img", 0o644, initrd)?;

    let late = modules.closure(&[EARLY, LATE].concat());
    for file in late.keys() {
        guest::put(root, &format!("{target}/{file}"), 0o644, read(file)?)?;
    }
    guest::put(root, &format!("{target}/modules.dep"), 0o644, modules::to_dep(&late))?;
    guest::put(root, "etc/modules", 0o644, LATE.join("\n") + "\n")?;

    let image = packages.join(format!("boot/vmlinuz-{version}"));
    let image = fs::read(&image).map_err(ImageError::io("read", &image))?;
    guest::put(root, "boot/vmlinuz", 0o644, image)?;
    let menu = disk::grub_menu(platform, ids, &[("Busybox", "/boot/vmlinuz", "/boot/initrd.img")]);
    guest::put(root, "boot/grub/grub.cfg", 0o644, menu)?;
    guest::put(root, "etc/init.d/rcS", 0o755, RC)?;
    guest::put(root, "etc/acpi/PWRF/00000080", 0o755, POWER_ACTION)?;
    let agent = guest::install_busybox(root)?;
    let serial = platform.serial;
    let inittab = format!("{INITTAB}{serial}::respawn:/bin/getty -L 115200 {serial} vt100\n{agent}");
    guest::put(root, "etc/inittab", 0o644, inittab)
}

/// Where a kernel's package has its modules: since Debian 13 below `/usr`.
fn module_folder(packages: &Path, version: &str) -> PathBuf {
    let folders = ["usr/lib/modules", "lib/modules"].map(|folder| packages.join(folder).join(version));
    let [new, old] = folders;
    if new.is_dir() { new } else { old }
}

/// The text of `modules.dep`, which is made when a kernel is installed, and this one is not.
fn dependencies(busybox: &Path, packages: &Path, version: &str) -> Result<String, ImageError> {
    let folder = module_folder(packages, version);
    // `-b` is followed by lib/modules/<version>.
    let base = folder.ancestors().nth(3).unwrap_or(packages);
    Exec::new(busybox).args(["depmod", "-b"]).arg(base).arg(version).run().map_err(failed)?;
    let path = folder.join("modules.dep");
    fs::read_to_string(&path).map_err(ImageError::io("read", &path))
}

fn targets(target: &str, modules: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    modules.keys().map(|file| format!("{target}/{file}")).collect()
}

/// Every directory above these files, each once and parents first.
fn folders<'a>(files: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut found = std::collections::BTreeSet::new();
    for file in files {
        let above = Path::new(file).ancestors().skip(1).map(|path| path.to_string_lossy().into_owned());
        found.extend(above.filter(|path| !path.is_empty()));
    }
    // In this order a directory comes before what is in it.
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_their_content() {
        let files = ["a/b/c".to_owned(), "a/d/e/f".to_owned()];
        assert_eq!(folders(files.iter()), ["a", "a/b", "a/d", "a/d/e"]);
    }
}
