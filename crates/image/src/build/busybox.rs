//! `busybox`: a root of one static program, a few megabytes, for tests and benchmarks.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use stapes_sys::exec::{Exec, ExecError};

use super::{BuildSpec, Progress, cached, pack};
use crate::{ImageError, ImageFiles};

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

const INITTAB: &str = "::sysinit:/etc/init.d/rcS\n::ctrlaltdel:/sbin/reboot\n::shutdown:/bin/true\n";

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

/// Builds the busybox image, or finds it in the cache. Uses the host's busybox-static, else fetches it with apt.
pub fn busybox(spec: &BuildSpec, progress: &mut dyn FnMut(Progress)) -> Result<ImageFiles, ImageError> {
    let (kernel_arch, debian_arch) = super::architecture(spec)?;
    let (files, present) = cached(spec, &format!("busybox-{debian_arch}-{RECIPE}"));
    if present {
        progress(Progress { percent: Some(100), text: "already built".into() });
        return Ok(files);
    }
    super::make_folder(&spec.cache_dir)?;
    super::make_folder(&spec.work_dir)?;
    progress(Progress { percent: Some(10), text: "looking for busybox-static".into() });
    let work = tempfile::Builder::new().prefix("build-").tempdir_in(&spec.work_dir);
    let work = work.map_err(ImageError::io("create a folder in", &spec.work_dir))?;
    let program = program(work.path()).map_err(failed)?;
    let applets = Exec::new(&program).arg("--list").run().map_err(failed)?;
    let applets = String::from_utf8_lossy(&applets).into_owned();
    let content = fs::read(&program).map_err(ImageError::io("read", &program))?;

    progress(Progress { percent: Some(50), text: "packing".into() });
    let time = super::build_time();
    let rootfs_path = files.rootfs.clone().unwrap_or_default();
    let bytes = rootfs(&content, &applets, time).map_err(ImageError::io("pack", &rootfs_path))?;
    let mut rootfs = pack::temporary(&rootfs_path)?;
    rootfs.write_all(&bytes).map_err(ImageError::io("write", &rootfs_path))?;
    let metadata = pack::metadata(
        &kernel_arch,
        time,
        &[
            ("architecture", debian_arch),
            ("description", &format!("Busybox {debian_arch}")),
            ("name", &format!("busybox-{debian_arch}")),
            ("os", "Busybox"),
            ("release", "1"),
            ("type", "tar"),
            ("variant", "default"),
        ],
    );
    pack::persist(rootfs, &rootfs_path)?;
    pack::write_meta(&files.meta, &metadata)?;
    progress(Progress { percent: Some(100), text: "built".into() });
    Ok(files)
}

fn failed(error: ExecError) -> ImageError {
    ImageError::Build { what: "busybox".into(), reason: error.to_string() }
}

/// The static program: the installed package's, since plain `busybox` is linked dynamically, or a downloaded one.
fn program(work: &Path) -> Result<PathBuf, ExecError> {
    let list = fs::read_to_string("/var/lib/dpkg/info/busybox-static.list").unwrap_or_default();
    if let Some(installed) = list.lines().map(Path::new).find(|path| path.ends_with("bin/busybox") && path.is_file()) {
        return Ok(installed.to_owned());
    }
    let script = "cd \"$1\" && apt-get -o APT::Sandbox::User=root -q download busybox-static >&2 && \
                  dpkg-deb -x busybox-static_*.deb root && find root -type f -name busybox";
    let found =
        Exec::new("sh").args(["-c", script, "sh"]).arg(work).patience(std::time::Duration::from_secs(120)).run()?;
    Ok(work.join(String::from_utf8_lossy(&found).lines().next().unwrap_or("root/bin/busybox")))
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
