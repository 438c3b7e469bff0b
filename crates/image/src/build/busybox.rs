//! `busybox`: a root of one static program, a few megabytes, for tests and benchmarks.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use stapes_sys::exec::{Exec, ExecError};

use stapes_model::InstanceType;

use super::{BuildSpec, Progress, apt, busybox_vm, cached, pack};
use crate::{ImageError, ImageFiles, ImageMetadata};

const RECIPE: u32 = 1;

const DIRECTORIES: &[&str] = &[
    "bin",
    "dev",
    "etc",
    "etc/init.d",
    "etc/udhcpc",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "usr",
    "usr/bin",
    "usr/sbin",
    "usr/share",
    "usr/share/udhcpc",
    "var",
    "var/lib",
    "var/log",
];

pub(super) const INITTAB: &str = "::sysinit:/etc/init.d/rcS\n::ctrlaltdel:/sbin/reboot\n::shutdown:/bin/true\n";

const RC: &str = "#!/bin/sh
[ -f /etc/hostname ] && hostname -F /etc/hostname
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -b -S -t 10 -T 1 >/dev/null 2>&1 &
fi
: > /run/booted
";

const UDHCPC: &str = "#!/bin/sh
case \"$1\" in
  deconfig) ip -4 addr flush dev \"$interface\"; ip link set \"$interface\" up;;
  bound|renew)
    ip addr replace \"$ip/${mask:-24}\" dev \"$interface\"
    [ -n \"$router\" ] && ip route replace default via ${router%% *} dev \"$interface\"
    : > /etc/resolv.conf
    [ -n \"$domain\" ] && echo \"search $domain\" >> /etc/resolv.conf
    for d in $dns; do echo \"nameserver $d\" >> /etc/resolv.conf; done;;
esac
";

/// Builds the busybox image, or finds it in the cache. Uses the host's busybox-static, else fetches it with apt; a virtual
/// machine's kernel and boot loader are always fetched.
pub fn busybox(spec: &BuildSpec, progress: &mut dyn FnMut(Progress)) -> Result<ImageFiles, ImageError> {
    let (kernel_arch, debian_arch) = super::architecture(spec)?;
    let (files, present) = match spec.kind {
        InstanceType::Container => cached(spec, &format!("busybox-{debian_arch}-{RECIPE}")),
        InstanceType::VirtualMachine => {
            cached(spec, &format!("busybox-vm-{debian_arch}-{RECIPE}.{}", busybox_vm::RECIPE))
        }
    };
    if present {
        progress(Progress { percent: Some(100), text: "already built".into() });
        return Ok(files);
    }
    let time = super::build_time();
    let metadata = |kind| metadata(&kernel_arch, debian_arch, time, kind);
    match spec.kind {
        InstanceType::Container => {
            container(spec, &files, time, progress)?;
            pack::write_meta(&files.meta, &metadata("tar"))?;
        }
        InstanceType::VirtualMachine => {
            let base = BuildSpec { kind: InstanceType::Container, ..spec.clone() };
            let mut told = |at: Progress| progress(Progress { percent: at.percent.map(|at| at / 10), ..at });
            let base = busybox(&base, &mut told)?.rootfs.unwrap_or_default();
            busybox_vm::build(spec, debian_arch, &base, &files, time, progress)?;
            pack::write_meta(&files.meta, &metadata("disk-kvm.img"))?;
        }
    }
    progress(Progress { percent: Some(100), text: "built".into() });
    Ok(files)
}

fn container(
    spec: &BuildSpec,
    files: &ImageFiles,
    time: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    progress(Progress { percent: Some(10), text: "looking for busybox-static".into() });
    let work = super::work_folder(spec)?;
    let program = program(work.path()).map_err(failed)?;
    let applets = Exec::new(&program).arg("--list").run().map_err(failed)?;
    let applets = String::from_utf8_lossy(&applets).into_owned();
    let content = fs::read(&program).map_err(ImageError::io("read", &program))?;

    progress(Progress { percent: Some(50), text: "packing".into() });
    let rootfs_path = files.rootfs.clone().unwrap_or_default();
    let bytes = rootfs(&content, &applets, time).map_err(ImageError::io("pack", &rootfs_path))?;
    let mut rootfs = pack::temporary(&rootfs_path)?;
    rootfs.write_all(&bytes).map_err(ImageError::io("write", &rootfs_path))?;
    pack::persist(rootfs, &rootfs_path)
}

fn metadata(kernel_arch: &str, debian_arch: &str, time: u64, kind: &str) -> ImageMetadata {
    pack::metadata(
        kernel_arch,
        time,
        &[
            ("architecture", debian_arch),
            ("description", &format!("Busybox {debian_arch}")),
            ("name", &format!("busybox-{debian_arch}")),
            ("os", "Busybox"),
            ("release", "1"),
            ("type", kind),
            ("variant", "default"),
        ],
    )
}

pub(super) fn failed(error: ExecError) -> ImageError {
    ImageError::Build { what: "busybox".into(), reason: error.to_string() }
}

/// The static program: the installed package's, since plain `busybox` is linked dynamically, or a downloaded one.
fn program(work: &Path) -> Result<PathBuf, ExecError> {
    let list = fs::read_to_string("/var/lib/dpkg/info/busybox-static.list").unwrap_or_default();
    if let Some(installed) = list.lines().map(Path::new).find(|path| path.ends_with("bin/busybox") && path.is_file()) {
        return Ok(installed.to_owned());
    }
    let root = apt::download(&["busybox-static"], work)?;
    let found = ["bin/busybox", "usr/bin/busybox"].map(|path| root.join(path));
    let [first, second] = found;
    Ok(if first.is_file() { first } else { second })
}

fn rootfs(program: &[u8], applets: &str, time: u64) -> io::Result<Vec<u8>> {
    let mut archive = pack::Archive::new(zstd::stream::write::Encoder::new(Vec::new(), 3)?, time);
    for directory in DIRECTORIES {
        archive.directory(directory, if *directory == "root" { 0o700 } else { 0o755 })?;
    }
    archive.directory("tmp", 0o1777)?;
    archive.file("bin/busybox", 0o755, program)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox" && !applet.contains('/')) {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    for applet in ["halt", "ifconfig", "init", "ip", "poweroff", "reboot", "udhcpc"] {
        archive.symlink(&format!("sbin/{applet}"), "../bin/busybox")?;
    }
    archive.file("etc/inittab", 0o644, INITTAB.as_bytes())?;
    archive.file("etc/init.d/rcS", 0o755, RC.as_bytes())?;
    archive.file("usr/share/udhcpc/default.script", 0o755, UDHCPC.as_bytes())?;
    archive.symlink("etc/udhcpc/default.script", "../../usr/share/udhcpc/default.script")?;
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file("etc/hostname", 0o644, b"busybox\n")?;
    archive.finish()?.finish()
}
