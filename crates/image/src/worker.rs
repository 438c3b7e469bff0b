//! The confined child that reads foreign archives.
//!
//! The daemon starts itself again, and that process calls [`main`] first thing. It enters a user namespace in which every
//! id is itself (so it can give files to any owner, but has no capability over the host: no device nodes, no mounts),
//! opens its sources and its target, and then shuts itself in: Landlock leaves it the target to write, seccomp takes
//! signals, sockets and namespaces away, capabilities shrink to those of giving files away, and memory is limited.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, path_beneath_rules,
};
use rustix::{
    fs::{self, Mode, OFlags},
    process::{Resource, Rlimit},
    thread::{CapabilitySet, CapabilitySets},
};
use stapes_sys::confine;

use crate::{
    UnpackReport, compression, disk,
    error::UnpackFault,
    extract::{self, Extractor, place_metadata, place_unified},
    inspect::{ImageKind, label},
    pipe::Pipe,
    tarball::Walker,
    unpack::{Job, READY, UnpackLimits},
};

/// Address space of the worker and, each, of unsquashfs and qemu-img: decompressors need some 200 MiB.
const MEMORY: u64 = 4 << 30;
/// Where the dynamic linker and the tools live.
const READ_EXECUTE: &[&str] = &["/usr", "/lib", "/lib64", "/bin", "/sbin"];
const READ_ONLY: &[&str] =
    &["/etc/ld.so.cache", "/etc/ld.so.preload", "/proc/self", "/proc/meminfo", "/sys/devices/system/cpu"];

/// The worker's whole life: namespace, job from standard input, work, answer on standard output.
///
/// Call it while the process has one thread. The exit code only repeats the answer.
pub fn main() -> ExitCode {
    let answer = work();
    let text = serde_json::to_string(&answer).unwrap_or_default();
    let written = writeln!(io::stdout(), "{text}");
    if answer.is_ok() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work() -> Result<UnpackReport, UnpackFault> {
    confine::die_with_parent().map_err(|error| cannot("die with its parent", error))?;
    confine::enter_user_namespace().map_err(|error| {
        cannot("enter a user namespace (is user.max_user_namespaces 0, or a sandbox around the daemon?)", error)
    })?;
    writeln!(io::stdout(), "{READY}").map_err(|error| cannot("speak", error))?;
    let mut text = String::new();
    io::stdin().take(1 << 20).read_to_string(&mut text).map_err(|error| cannot("read its job", error))?;
    // An empty job: the parent is gone or gave up.
    let job: Job =
        serde_json::from_str(&text).map_err(|error| UnpackFault::Confine(format!("no job was given: {error}")))?;

    let meta = open_source(&job.files.meta)?;
    let rootfs = job.files.rootfs.as_deref().map(open_source).transpose()?;
    let target = fs::open(&job.target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| extract::fault("open", job.target.as_os_str().as_encoded_bytes(), errno))?;
    let tool = match job.kind {
        ImageKind::SplitSquashfs => Some(find_tool("unsquashfs", "squashfs-tools")?),
        ImageKind::SplitQcow2 | ImageKind::UnifiedDisk => Some(find_tool("qemu-img", "qemu-utils")?),
        ImageKind::Unified | ImageKind::SplitTar => None,
    };
    shut_in(&target, tool.is_some(), rootfs.as_ref(), &job.limits)?;

    match (tool, rootfs) {
        (Some(program), rootfs) if job.kind != ImageKind::SplitSquashfs => {
            unpack_disk(&program, meta, rootfs, &job, &target)
        }
        (tool, rootfs) => unpack_tree(tool.as_deref(), meta, rootfs, &job, &target),
    }
}

/// Metadata and the disk; there is no `rootfs/`.
fn unpack_disk(
    program: &Path,
    meta: File,
    disk: Option<File>,
    job: &Job,
    target: &OwnedFd,
) -> Result<UnpackReport, UnpackFault> {
    let place: Place = if disk.is_some() { place_metadata } else { disk::place };
    let mut report = unpack_tar(meta, &job.files.meta, target, &job.limits, place)?;
    let (file, name) = match (disk, &job.files.rootfs) {
        (Some(file), Some(path)) => (file, label(path)),
        _ => {
            // The archive's disk was counted as one of its files.
            let file = disk::take_from(target)?;
            report.bytes -= file.metadata().map_or(0, |metadata| metadata.len()).min(report.bytes);
            (file, disk::IN_ARCHIVE.to_owned())
        }
    };
    let size = disk::unpack(program, file, &name, target, &job.limits)?;
    if job.files.rootfs.is_none() {
        disk::remove_from(target)?;
    }
    report.bytes += size;
    report.disk = Some(size);
    Ok(report)
}

/// Metadata and a directory tree.
fn unpack_tree(
    unsquashfs: Option<&Path>,
    meta: File,
    rootfs: Option<File>,
    job: &Job,
    target: &OwnedFd,
) -> Result<UnpackReport, UnpackFault> {
    let place: Place = if job.kind == ImageKind::Unified { place_unified } else { place_metadata };
    let mut report = unpack_tar(meta, &job.files.meta, target, &job.limits, place)?;
    let made = fs::mkdirat(target, "rootfs", Mode::from_raw_mode(0o755));
    if !matches!(made, Ok(()) | Err(rustix::io::Errno::EXIST)) {
        made.map_err(|errno| extract::fault("create", b"rootfs", errno))?;
    }
    if let (Some(rootfs), Some(path)) = (rootfs, &job.files.rootfs) {
        let more = match unsquashfs {
            Some(program) => squashfs::unpack(program, rootfs, &label(path), target, &job.limits)?,
            None => unpack_root(rootfs, path, target, &job.limits)?,
        };
        report.entries += more.entries;
        report.bytes += more.bytes;
        report.skipped_devices += more.skipped_devices;
        report.skipped_xattrs += more.skipped_xattrs;
        report.skipped_other += more.skipped_other;
    }
    Ok(report)
}

fn cannot(what: &str, error: impl std::fmt::Display) -> UnpackFault {
    UnpackFault::Confine(format!("it cannot {what}: {error}"))
}

fn open_source(path: &Path) -> Result<File, UnpackFault> {
    File::open(path).map_err(|error| UnpackFault::Read { file: label(path), reason: error.to_string() })
}

fn find_tool(program: &str, package: &str) -> Result<std::path::PathBuf, UnpackFault> {
    ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| UnpackFault::MissingTool { program: program.into(), package: package.into() })
}

/// From here on: the target to write, the system's programs and the image to read where a tool has to, nothing else.
fn shut_in(target: &OwnedFd, tool: bool, image: Option<&File>, limits: &UnpackLimits) -> Result<(), UnpackFault> {
    for (resource, most) in
        [(Resource::Core, 0), (Resource::As, MEMORY), (Resource::Nofile, 512), (Resource::Fsize, limits.bytes)]
    {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit).map_err(|error| cannot("limit itself", error))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| cannot("give up new privileges", error))?;
    landlock(target, tool, image).map_err(|error| cannot("shut itself in with Landlock", error))?;
    drop_capabilities().map_err(|error| cannot("drop its capabilities", error))?;
    confine::forbid_dangerous_calls().map_err(|error| cannot("load its seccomp filter", error))
}

/// Best effort by design: an older kernel enforces less of it, and the user namespace and seccomp remain.
fn landlock(target: &OwnedFd, tool: bool, image: Option<&File>) -> Result<(), Box<dyn std::error::Error>> {
    let abi = ABI::V6;
    let everything = AccessFs::from_all(abi);
    // Inside the target all but running programs and making devices; REFER, since hard links cross directories.
    let write = everything & !(AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeChar | AccessFs::MakeSock);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rule(PathBeneath::new(target, write))?;
    if tool {
        rules = rules
            .add_rules(path_beneath_rules(READ_EXECUTE, AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(READ_ONLY, AccessFs::ReadFile | AccessFs::ReadDir))?
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?;
        if let Some(file) = image {
            rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
        }
    }
    rules.restrict_self()?;
    Ok(())
}

/// Keeps what giving files away needs, in every set, so that a tool gets no more either.
fn drop_capabilities() -> rustix::io::Result<()> {
    let keep = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP;
    for capability in CapabilitySet::all().iter().filter(|capability| !keep.contains(*capability)) {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A kernel that does not know the newest ones.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

fn open_tar(file: File, path: &Path, limits: &UnpackLimits) -> Result<Walker<Pipe>, UnpackFault> {
    let read = |reason: String| UnpackFault::Read { file: label(path), reason };
    let mut file = file;
    let mut head = Vec::new();
    Read::by_ref(&mut file)
        .take(compression::MAGIC_LEN as u64)
        .read_to_end(&mut head)
        .map_err(|error| read(error.to_string()))?;
    io::Seek::rewind(&mut file).map_err(|error| read(error.to_string()))?;
    let compression = match compression::Magic::of(&head) {
        compression::Magic::Tar => crate::Compression::None,
        compression::Magic::Compressed(compression) => compression,
        _ => return Err(UnpackFault::Corrupt { file: label(path), reason: "it is no tar archive".into() }),
    };
    let plain = compression::reader(compression, file).map_err(|error| read(error.to_string()))?;
    Ok(Walker::new(Pipe::spawn(plain), label(path), limits))
}

/// Where an archive's entries land.
type Place = for<'a, 'p> fn(&'a [&'p [u8]]) -> Option<Vec<&'p [u8]>>;

fn unpack_tar(
    file: File,
    path: &Path,
    target: &OwnedFd,
    limits: &UnpackLimits,
    place: Place,
) -> Result<UnpackReport, UnpackFault> {
    let mut walker = open_tar(file, path, limits)?;
    let mut extractor = Extractor::new(target.as_fd(), label(path), limits);
    extractor.extract(&mut walker, place)?;
    extractor.finish()
}

/// A root archive has its entries at the top (`./bin`), or all of them in `rootfs/`.
fn unpack_root(file: File, path: &Path, target: &OwnedFd, limits: &UnpackLimits) -> Result<UnpackReport, UnpackFault> {
    let mut walker = open_tar(file, path, limits)?;
    let open = |at: &OwnedFd, name: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(at, name, flags, Mode::empty())
    };
    let failed = |errno| extract::fault("open", b"rootfs", errno);
    let root = open(target, "rootfs").map_err(failed)?;
    let mut extractor = Extractor::new(root.as_fd(), label(path), limits);
    extractor.extract(&mut walker, |parts| Some(parts.to_vec()))?;
    let report = extractor.finish()?;

    let mut names = Vec::new();
    for entry in fs::Dir::read_from(&root).map_err(failed)?.take(4) {
        let entry = entry.map_err(failed)?;
        names.push(entry.file_name().to_bytes().to_vec());
    }
    names.retain(|name| name != b"." && name != b"..");
    if names == [b"rootfs"] && open(&root, "rootfs").is_ok() {
        let moved = fs::renameat(&root, "rootfs", target, ".rootfs")
            .and_then(|()| fs::unlinkat(target, "rootfs", fs::AtFlags::REMOVEDIR))
            .and_then(|()| fs::renameat(target, ".rootfs", target, "rootfs"));
        moved.map_err(|errno| extract::fault("move up", b"rootfs", errno))?;
    }
    Ok(report)
}

/// squashfs, through `unsquashfs` inside the same confinement.
mod squashfs {
    use super::*;

    /// Lists first (its sizes and device nodes), then unpacks.
    pub(super) fn unpack(
        program: &Path,
        file: File,
        label: &str,
        target: &OwnedFd,
        limits: &UnpackLimits,
    ) -> Result<UnpackReport, UnpackFault> {
        let corrupt = |reason: String| UnpackFault::Corrupt { file: label.into(), reason };
        rustix::process::fchdir(target).map_err(|error| cannot("enter its target", error))?;
        let mut report = UnpackReport::default();
        if let Some(missing) = missing_bytes(&file) {
            let reason = format!("{missing} bytes of it are missing");
            return Err(UnpackFault::Truncated { file: label.into(), reason });
        }
        let listing = run(program, &["-no-progress", "-lln"], &file)?;
        if !listing.status.success() {
            return Err(corrupt(complaint(&listing.stderr)));
        }
        for line in listing.stdout.split(|byte| *byte == b'\n') {
            count(line, &mut report);
        }
        for (what, found, limit) in [
            ("the number of entries", report.entries, limits.entries),
            ("the size of all files", report.bytes, limits.bytes),
        ] {
            if found > limit {
                return Err(UnpackFault::Limit { file: label.into(), what: what.into(), limit });
            }
        }
        let done = run(program, &["-no-progress", "-quiet", "-force", "-dest", "rootfs"], &file)?;
        match done.status.code() {
            Some(0) => Ok(report),
            // 2: some file could not be made as it is in the image. Device nodes are allowed to fail, and nothing else.
            Some(2) if only_devices_failed(&done.stderr) => Ok(report),
            _ if String::from_utf8_lossy(&done.stderr).contains("No space left") => {
                Err(UnpackFault::NoSpace { entry: "rootfs".into() })
            }
            _ => Err(corrupt(complaint(&done.stderr))),
        }
    }

    /// What the superblock says is there (`bytes_used`, at 40) less what is; unsquashfs may notice only half-way.
    fn missing_bytes(file: &File) -> Option<u64> {
        use std::os::unix::fs::FileExt;
        let mut used = [0; 8];
        file.read_exact_at(&mut used, 40).ok()?;
        let size = file.metadata().ok()?.len();
        u64::from_le_bytes(used).checked_sub(size).filter(|missing| *missing > 0)
    }

    fn run(program: &Path, args: &[&str], file: &File) -> Result<std::process::Output, UnpackFault> {
        let failed = |error: io::Error| cannot("run unsquashfs", error);
        let input = file.try_clone().map_err(failed)?;
        // Not bound to this process's life: to fork with something to do before the exec takes a call that is forbidden here.
        let output = Command::new(program).args(args).arg("/proc/self/fd/0").stdin(Stdio::from(input)).output();
        output.map_err(failed)
    }

    /// One line of `-lln`: `drwxr-xr-x 0/0   123 2023-11-14 22:13 squashfs-root/etc`; a device has `1, 3` for a size.
    fn count(line: &[u8], report: &mut UnpackReport) {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_whitespace();
        let (Some(mode), Some(_owner), Some(size)) = (words.next(), words.next(), words.next()) else { return };
        report.entries += 1;
        match mode.as_bytes().first() {
            Some(b'b' | b'c') => report.skipped_devices += 1,
            Some(b'-') => report.bytes = report.bytes.saturating_add(size.parse().unwrap_or(0)),
            _ => {}
        }
    }

    fn only_devices_failed(stderr: &[u8]) -> bool {
        let text = String::from_utf8_lossy(stderr);
        let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
        lines.peek().is_some()
            && lines.all(|line| {
                line.contains("character device") || line.contains("block device") || line.contains("superuser")
            })
    }

    fn complaint(stderr: &[u8]) -> String {
        let text = String::from_utf8_lossy(stderr);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        format!("unsquashfs: {}", line.unwrap_or("failed without a word"))
    }
}
