//! `debian:<release>`: mmdebstrap's root, made ready to be a system container.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    process::{ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use tempfile::NamedTempFile;

use super::{BuildSpec, Progress, apt, cached, pack};
use crate::{ImageError, ImageFiles};

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

/// Builds a Debian image, or finds it in the cache. Needs root and mmdebstrap; takes some 20 seconds.
pub fn debian(spec: &BuildSpec, progress: &mut dyn FnMut(Progress)) -> Result<ImageFiles, ImageError> {
    let asked = spec.release.trim().to_ascii_lowercase();
    let known = RELEASES.iter().find(|(number, suite)| *number == asked || *suite == asked);
    let Some((number, suite)) = known else {
        return Err(ImageError::UnknownRelease { asked: spec.release.clone(), known: debian_releases().join(", ") });
    };
    let variant = if spec.variant.is_empty() { "default" } else { &spec.variant };
    let what = format!("debian:{number}/{variant}");
    let failed = |reason: String| ImageError::Build { what: what.clone(), reason };
    if !["default", "cloud"].contains(&variant) {
        return Err(ImageError::UnknownRelease {
            asked: format!("{}/{variant}", spec.release),
            known: "the variants default and cloud".into(),
        });
    }
    let (kernel_arch, debian_arch) = super::architecture(spec)?;
    let (files, present) = cached(spec, &format!("debian-{suite}-{debian_arch}-{variant}-{RECIPE}"));
    if present {
        progress(Progress { percent: Some(100), text: "already built".into() });
        return Ok(files);
    }
    let mirrors = apt::Mirrors::of_host();
    let lines = mirrors.lines(suite);
    if lines.is_empty() {
        return Err(failed(
            "this host's apt sources name no mirror of Debian; add one to /etc/apt/sources.list.d".into(),
        ));
    }
    super::make_folder(&spec.cache_dir)?;
    super::make_folder(&spec.work_dir)?;
    let work = tempfile::Builder::new().prefix("build-").tempdir_in(&spec.work_dir);
    let work = work.map_err(ImageError::io("create a folder in", &spec.work_dir))?;
    // apt fetches as the user _apt, who must be able to walk in.
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755))
        .map_err(ImageError::io("open up", work.path()))?;

    let time = super::build_time();
    let command = command(suite, debian_arch, variant, &lines, time, work.path())?;
    let rootfs_path = files.rootfs.clone().unwrap_or_default();
    let rootfs = run(command, pack::temporary(&rootfs_path)?, progress).map_err(|error| match error {
        RunError::Missing => ImageError::MissingTool { program: "mmdebstrap", package: "mmdebstrap" },
        RunError::Failed(reason) => failed(reason),
    })?;
    work.close().map_err(ImageError::io("remove the build folder in", &spec.work_dir))?;

    let serial = serial(time);
    let metadata = pack::metadata(
        &kernel_arch,
        time,
        &[
            ("architecture", debian_arch),
            ("description", &format!("Debian {number} ({suite}) {debian_arch} ({serial})")),
            ("name", &format!("debian-{suite}-{debian_arch}-{variant}-{serial}")),
            ("os", "Debian"),
            ("release", suite),
            ("serial", &serial),
            ("type", "tar"),
            ("variant", variant),
            ("version", number),
        ],
    );
    pack::persist(rootfs, &rootfs_path)?;
    pack::write_meta(&files.meta, &metadata)?;
    progress(Progress { percent: Some(100), text: "built".into() });
    Ok(files)
}

fn command(
    suite: &str,
    arch: &str,
    variant: &str,
    lines: &[String],
    time: u64,
    work: &std::path::Path,
) -> Result<Command, ImageError> {
    let hook = work.join("customize");
    fs::write(&hook, HOOK).map_err(ImageError::io("write", &hook))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).map_err(ImageError::io("make executable", &hook))?;
    let mut include = PACKAGES.to_owned();
    if suite != "bullseye" {
        // Part of the package systemd until then.
        include.push_str(",systemd-resolved");
    }
    if variant == "cloud" {
        include.push_str(",cloud-init");
    }
    // In a pid namespace that ends with its first process, and that with this daemon: apt, dpkg and the scripts of packages
    // would go on for long.
    let mut command = Command::new("unshare");
    stapes_sys::exec::die_with_parent(&mut command)
        .args(["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--", "mmdebstrap"])
        .args(["--mode=root", "--variant=apt", "--format=tar"])
        .arg(format!("--architectures={arch}"))
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
        .arg(format!("--customize-hook={}", hook.display()))
        .arg(suite)
        .arg("-")
        .args(lines)
        .env("LC_ALL", "C.UTF-8")
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .env("TMPDIR", work)
        .env("STAPES_APT_PROXY", lasting)
        .env("STAPES_SUITE", suite);
    Ok(command)
}

enum RunError {
    Missing,
    Failed(String),
}

/// Runs mmdebstrap: its archive is compressed on one thread as it comes, its talk becomes progress on this one.
fn run(
    mut command: Command,
    output: NamedTempFile,
    progress: &mut dyn FnMut(Progress),
) -> Result<NamedTempFile, RunError> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| RunError::Failed(format!("mmdebstrap could not be run: {error}")))?;
    let packer = child.stdout.take().map(|archive| compress(archive, output));
    let mut errors = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // Progress bars rewrite their line with a carriage return.
        for piece in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            for line in String::from_utf8_lossy(&piece).split('\r').map(str::trim) {
                if let Some((_, percent, text)) = STEPS.iter().find(|(step, ..)| line.contains(step)) {
                    progress(Progress { percent: Some(*percent), text: (*text).into() });
                } else if line.starts_with("E:") || line.starts_with("W:") || line.contains("rror") {
                    errors.push(line.to_owned());
                }
            }
        }
    }
    let status = child.wait().map_err(|error| RunError::Failed(error.to_string()))?;
    let packed = packer.and_then(|packer| packer.join().ok());
    // As unshare and shells say that there is no such program.
    if status.code() == Some(127) {
        return Err(RunError::Missing);
    }
    if !status.success() {
        let from = errors.len().saturating_sub(5);
        return Err(RunError::Failed(format!("mmdebstrap failed ({status}): {}", errors[from..].join("; "))));
    }
    match packed {
        Some(Ok(file)) => Ok(file),
        Some(Err(error)) => Err(RunError::Failed(format!("its archive could not be written: {error}"))),
        None => Err(RunError::Failed("its archive could not be written".into())),
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
