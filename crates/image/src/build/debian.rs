//! `debian:<release>`: mmdebstrap's root, made ready to be a system container.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use stapes_model::InstanceType;
use tempfile::NamedTempFile;

use super::{BuildSpec, Progress, apt, cached, debian_vm, pack};
use crate::{ImageError, ImageFiles, ImageMetadata};

/// Counts up when the recipe below changes, so that no cache serves an older one.
const RECIPE: u32 = 1;
/// zstd's level: 3 packs a Debian root to a third and keeps up with mmdebstrap's stream.
const LEVEL: i32 = 3;

/// Number, code name, how people read it.
const RELEASES: &[(&str, &str)] = &[("11", "bullseye"), ("12", "bookworm"), ("13", "trixie"), ("unstable", "sid")];
/// Names a host's sources may use besides.
const OTHER_SUITES: &[&str] =
    &["stable", "oldstable", "oldoldstable", "testing", "unstable", "buster", "forky", "duke"];

const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,udev,iproute2,iputils-ping,procps,netbase,ca-certificates,libpam-systemd,less";

/// Steps as mmdebstrap announces them, and how much of the time is over by then (measured on a 20 s build).
const STEPS: &[(&str, u8, &str)] = &[
    ("running apt-get update", 3, "reading the archive's index"),
    ("downloading packages", 15, "downloading packages"),
    ("extracting archives", 30, "extracting packages"),
    ("installing essential packages", 40, "installing essential packages"),
    ("installing remaining packages", 55, "installing packages"),
    ("running --customize-hook", 85, "making it a container's root"),
    ("cleaning package lists", 90, "cleaning up"),
    ("creating tarball", 92, "packing"),
];

/// The releases that [`debian`] knows, as `12 (bookworm)`.
pub fn debian_releases() -> Vec<String> {
    RELEASES.iter().map(|(number, name)| format!("{number} ({name})")).collect()
}

pub(super) fn is_suite(name: &str) -> bool {
    RELEASES.iter().any(|(_, suite)| *suite == name) || OTHER_SUITES.contains(&name)
}

/// One release in one variant for one processor, found to exist.
pub(super) struct Wanted {
    pub number: &'static str,
    pub suite: &'static str,
    pub variant: &'static str,
    pub arch: &'static str,
    kernel_arch: String,
    /// Lines of a sources.list.
    lines: Vec<String>,
}

impl Wanted {
    fn of(spec: &BuildSpec) -> Result<Self, ImageError> {
        let asked = spec.release.trim().to_ascii_lowercase();
        let known = RELEASES.iter().find(|(number, suite)| *number == asked || *suite == asked);
        let Some((number, suite)) = known else {
            return Err(ImageError::UnknownRelease {
                asked: spec.release.clone(),
                known: debian_releases().join(", "),
            });
        };
        let asked = if spec.variant.is_empty() { "default" } else { &spec.variant };
        let Some(variant) = ["default", "cloud"].into_iter().find(|variant| *variant == asked) else {
            return Err(ImageError::UnknownRelease {
                asked: format!("{}/{asked}", spec.release),
                known: "the variants default and cloud".into(),
            });
        };
        let (kernel_arch, arch) = super::architecture(spec)?;
        Ok(Self { number, suite, variant, arch, kernel_arch, lines: apt::Mirrors::of_host().lines(suite) })
    }

    pub(super) fn failed(&self, reason: String) -> ImageError {
        ImageError::Build { what: format!("debian:{}/{}", self.number, self.variant), reason }
    }

    fn stem(&self) -> String {
        format!("debian-{}-{}-{}", self.suite, self.arch, self.variant)
    }

    /// What an image is called, with the day of its packages.
    pub(super) fn name(&self, time: u64) -> String {
        format!("{}-{}", self.stem(), serial(time))
    }

    pub(super) fn metadata(&self, time: u64, kind: &str) -> ImageMetadata {
        let Self { number, suite, variant, arch, .. } = self;
        let serial = serial(time);
        pack::metadata(
            &self.kernel_arch,
            time,
            &[
                ("architecture", arch),
                ("description", &format!("Debian {number} ({suite}) {arch} ({serial})")),
                ("name", &self.name(time)),
                ("os", "Debian"),
                ("release", suite),
                ("serial", &serial),
                ("type", kind),
                ("variant", variant),
                ("version", number),
            ],
        )
    }
}

/// Builds a Debian image, or finds it in the cache. Needs root and mmdebstrap; takes some 20 seconds, and for a virtual
/// machine 40 more. The container's image is built on the way to the machine's, and stays in the cache too.
pub fn debian(spec: &BuildSpec, progress: &mut dyn FnMut(Progress)) -> Result<ImageFiles, ImageError> {
    let wanted = Wanted::of(spec)?;
    let (files, present) = match spec.kind {
        InstanceType::Container => cached(spec, &format!("{}-{RECIPE}", wanted.stem())),
        InstanceType::VirtualMachine => cached(spec, &format!("{}-vm-{RECIPE}.{}", wanted.stem(), debian_vm::RECIPE)),
    };
    if present {
        progress(Progress { percent: Some(100), text: "already built".into() });
        return Ok(files);
    }
    if wanted.lines.is_empty() {
        let reason = "this host's apt sources name no mirror of Debian; add one to /etc/apt/sources.list.d";
        return Err(wanted.failed(reason.into()));
    }
    match spec.kind {
        InstanceType::Container => container(spec, &wanted, &files, progress)?,
        InstanceType::VirtualMachine => {
            debian_vm::require(&wanted)?;
            // Half of the time each, unless the first half is there already.
            let base = BuildSpec { kind: InstanceType::Container, ..spec.clone() };
            let half = |percent: Option<u8>| percent.map(|percent| percent / 2);
            let mut told = |at: Progress| progress(Progress { percent: half(at.percent), ..at });
            let base = debian(&base, &mut told)?.rootfs.unwrap_or_default();
            let mut told = |at: Progress| progress(Progress { percent: half(at.percent).map(|at| at + 50), ..at });
            debian_vm::build(spec, &wanted, &base, &files, &mut told)?;
        }
    }
    progress(Progress { percent: Some(100), text: "built".into() });
    Ok(files)
}

fn container(
    spec: &BuildSpec,
    wanted: &Wanted,
    files: &ImageFiles,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    let work = super::work_folder(spec)?;
    let time = super::build_time();
    let mut include = PACKAGES.to_owned();
    if wanted.suite != "bullseye" {
        // Part of the package systemd until then.
        include.push_str(",systemd-resolved");
    }
    if wanted.variant == "cloud" {
        include.push_str(",cloud-init");
    }
    let hook = put_hook(work.path(), "customize", HOOK)?;
    let mut command = mmdebstrap(wanted, &include, time, work.path());
    command.args(["--variant=apt", "--format=tar"]).arg(format!("--customize-hook={hook}"));
    let rootfs_path = files.rootfs.clone().unwrap_or_default();
    let output = Some(pack::temporary(&rootfs_path)?);
    let rootfs = run(with_sources(&mut command, wanted, "-"), STEPS, output, wanted, progress)?;
    work.close().map_err(ImageError::io("remove the build folder in", &spec.work_dir))?;
    rootfs.map_or(Ok(()), |rootfs| pack::persist(rootfs, &rootfs_path))?;
    pack::write_meta(&files.meta, &wanted.metadata(time, "tar"))
}

/// Writes a script that mmdebstrap shall run with the root as its argument.
pub(super) fn put_hook(work: &Path, name: &str, script: &str) -> Result<String, ImageError> {
    let hook = work.join(name);
    fs::write(&hook, script).map_err(ImageError::io("write", &hook))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).map_err(ImageError::io("make executable", &hook))?;
    Ok(hook.display().to_string())
}

/// mmdebstrap with what all builds share; variant, format and hooks are the caller's, and then [`with_sources`].
pub(super) fn mmdebstrap(wanted: &Wanted, include: &str, time: u64, work: &Path) -> Command {
    // In a pid namespace that ends with its first process, and that with this daemon: apt, dpkg and the scripts of packages
    // would go on for long.
    let mut command = Command::new("unshare");
    stapes_sys::exec::die_with_parent(&mut command)
        .args(["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--", "mmdebstrap", "--mode=root"])
        .arg(format!("--architectures={}", wanted.arch))
        .arg(format!("--include={include}"));
    for folder in ["man", "doc", "locale", "info", "lintian", "bug"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg("--dpkgopt=path-include=/usr/share/locale/locale.alias");
    let mut lasting = String::new();
    for (key, proxy) in apt::proxies() {
        command.arg(format!("--aptopt={key} \"{proxy}\""));
        if !apt::is_local(&proxy) {
            lasting.push_str(&format!("{key} \"{proxy}\";\n"));
        }
    }
    command
        .env("LC_ALL", "C.UTF-8")
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .env("TMPDIR", work)
        .env("STAPES_APT_PROXY", lasting)
        .env("STAPES_SUITE", wanted.suite);
    command
}

/// The end of mmdebstrap's command line: what to build, where to, and from where.
pub(super) fn with_sources<'a>(
    command: &'a mut Command,
    wanted: &Wanted,
    target: impl AsRef<std::ffi::OsStr>,
) -> &'a mut Command {
    command.arg(wanted.suite).arg(target).args(&wanted.lines)
}

/// Runs mmdebstrap: its archive is compressed on one thread as it comes, its talk becomes progress on this one.
pub(super) fn run(
    command: &mut Command,
    steps: &[(&str, u8, &str)],
    output: Option<NamedTempFile>,
    wanted: &Wanted,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<NamedTempFile>, ImageError> {
    let failed = |reason: String| wanted.failed(reason);
    let stdout = if output.is_some() { Stdio::piped() } else { Stdio::null() };
    let spawned = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| failed(format!("mmdebstrap could not be run: {error}")))?;
    let packer = child.stdout.take().zip(output).map(|(archive, output)| compress(archive, output));
    let mut errors = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // Progress bars rewrite their line with a carriage return.
        for piece in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            for line in String::from_utf8_lossy(&piece).split('\r').map(str::trim) {
                if let Some((_, percent, text)) = steps.iter().find(|(step, ..)| line.contains(step)) {
                    progress(Progress { percent: Some(*percent), text: (*text).into() });
                } else if line.starts_with("E:") || line.starts_with("W:") || line.contains("rror") {
                    errors.push(line.to_owned());
                }
            }
        }
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let packed = packer.map(|packer| packer.join());
    // As unshare and shells say that there is no such program.
    if status.code() == Some(127) {
        return Err(ImageError::MissingTool { program: "mmdebstrap", package: "mmdebstrap" });
    }
    if !status.success() {
        let from = errors.len().saturating_sub(5);
        return Err(failed(format!("mmdebstrap failed ({status}): {}", errors[from..].join("; "))));
    }
    match packed {
        None => Ok(None),
        Some(Ok(Ok(file))) => Ok(Some(file)),
        Some(Ok(Err(error))) => Err(failed(format!("its archive could not be written: {error}"))),
        Some(Err(_)) => Err(failed("its archive could not be written".into())),
    }
}

fn compress(mut archive: ChildStdout, output: NamedTempFile) -> JoinHandle<io::Result<NamedTempFile>> {
    std::thread::spawn(move || {
        let mut encoder = zstd::stream::write::Encoder::new(io::BufWriter::with_capacity(1 << 20, output), LEVEL)?;
        encoder.include_checksum(true)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match archive.read(&mut buffer)? {
                0 => break,
                count => encoder.write_all(&buffer[..count])?,
            }
        }
        encoder.finish()?.into_inner().map_err(|error| error.into_error())
    })
}

/// `20231114_00:00`, as image servers write it; days since 1970 by Howard Hinnant's `civil_from_days`.
fn serial(time: u64) -> String {
    let days = (time / 86_400) as i64 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, shift) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}{month:02}{day:02}_{:02}:{:02}", year_of_era + era * 400 + shift, time / 3600 % 24, time / 60 % 60)
}

/// Run by mmdebstrap with the root as its argument, before packing.
const HOOK: &str = include_str!("debian-customize.sh");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_release_names_the_known_ones() {
        let spec = BuildSpec {
            release: "99".into(),
            arch: String::new(),
            kind: InstanceType::Container,
            variant: String::new(),
            cache_dir: "/nonexistent".into(),
            work_dir: "/nonexistent".into(),
            refresh: false,
        };
        let error = debian(&spec, &mut |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown Debian release \"99\"; known are 11 (bullseye), 12 (bookworm), 13 (trixie), unstable (sid)"
        );
        assert_eq!(error.kind(), stapes_model::ErrorKind::NotFound);
    }

    #[test]
    fn a_serial_is_a_date() {
        assert_eq!(serial(1_700_000_000), "20231114_22:13");
        assert_eq!(serial(951_782_400), "20000229_00:00");
    }
}
