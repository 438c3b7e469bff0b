//! Fills an empty volume with an image, by way of the confined worker.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::{
    ImageError, UnpackReport,
    error::UnpackFault,
    inspect::{self, ImageFiles, ImageKind},
};

/// How much an image may hold; whoever sets them knows the volume's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackLimits {
    pub entries: u64,
    /// Content of all files, holes counted.
    pub bytes: u64,
    /// Components of a path.
    pub depth: u64,
    /// Bytes of a whole path.
    pub name_length: u64,
}

impl Default for UnpackLimits {
    /// Four million entries, 256 GiB, 256 directories deep, PATH_MAX.
    fn default() -> Self {
        Self { entries: 4_000_000, bytes: 256 << 30, depth: 256, name_length: 4096 }
    }
}

/// How to start the worker: the daemon names itself, with arguments that lead to [`crate::worker::main`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub args: Vec<String>,
}

/// What the worker is told, as JSON on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub files: ImageFiles,
    pub kind: ImageKind,
    pub target: PathBuf,
    pub limits: UnpackLimits,
}

/// The worker's first line, once it waits for its id maps.
pub(crate) const READY: &str = "ready";

/// A virtual machine's disk among what was unpacked: raw, sparse, 0600.
pub const DISK_FILE: &str = "root.img";

/// Unpacks into the empty directory `target`: `metadata.yaml`, `templates/`, and `rootfs/` or, for a virtual machine,
/// [`DISK_FILE`].
///
/// Debian's 175 MB in 6,500 files take about half a second on a quiet ext4. Measure on files not deleted a moment ago:
/// ext4 will not reuse an inode for five seconds and searches past all of them, which costs ten times the unpacking.
///
/// Needs root. After an error `target` holds whatever was written; the caller deletes the volume.
pub fn unpack(
    files: &ImageFiles,
    target: &Path,
    limits: &UnpackLimits,
    worker: &WorkerCommand,
) -> Result<UnpackReport, ImageError> {
    let mut listing = fs::read_dir(target).map_err(ImageError::io("open", target))?;
    // A fresh ext4 volume has its own lost+found, and nothing of an image's name clashes with it.
    if listing.any(|entry| entry.map_or(true, |entry| entry.file_name() != "lost+found")) {
        return Err(ImageError::NotEmpty(target.to_owned()));
    }
    let kind = inspect::inspect(files)?.kind;
    let absolute = |path: &Path| std::path::absolute(path).map_err(ImageError::io("find", path));
    let rootfs = files.rootfs.as_deref().map(absolute).transpose()?;
    let files = ImageFiles { meta: absolute(&files.meta)?, rootfs };
    run(&Job { files, kind, target: absolute(target)?, limits: *limits }, worker)
}

fn run(job: &Job, worker: &WorkerCommand) -> Result<UnpackReport, ImageError> {
    let program = worker.program.display().to_string();
    let failed = |reason: String| ImageError::Worker { program: program.clone(), reason };
    let mut child = Command::new(&worker.program)
        .args(&worker.args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let complaints = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // A worker that chatters without end must not fill our memory; what is too much is thrown away.
            let _ = stderr.by_ref().take(16 * 1024).read_to_end(&mut text);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            String::from_utf8_lossy(&text).trim().to_owned()
        })
    });
    let answer = talk(&mut child, job);
    if answer.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let complaints = complaints.and_then(|thread| thread.join().ok()).unwrap_or_default();
    match answer {
        Ok(Ok(report)) if status.success() => Ok(report),
        Ok(Ok(_)) => Err(failed(format!("it ended with {status}: {complaints}"))),
        Ok(Err(fault)) => Err(ImageError::Unpack(fault)),
        Err(reason) if complaints.is_empty() => Err(failed(format!("{reason} ({status})"))),
        Err(reason) => Err(failed(format!("{reason} ({status}): {complaints}"))),
    }
}

/// Maps the worker's ids, gives it its job, and waits for its answer.
fn talk(child: &mut Child, job: &Job) -> Result<Result<UnpackReport, UnpackFault>, String> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("it has no pipes".into());
    };
    let mut stdout = BufReader::new(stdout.take(1 << 20));
    let mut line = String::new();
    stdout.read_line(&mut line).map_err(|error| error.to_string())?;
    if line.trim() != READY {
        // It could not even enter its namespace; then the line is the answer already.
        return serde_json::from_str(&line).map_err(|_| "it ended before it was ready".to_owned());
    }
    for map in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{map}", child.id());
        fs::write(&path, stapes_sys::confine::IDENTITY_MAP)
            .map_err(|error| format!("failed to write {path}: {error}"))?;
    }
    let job = serde_json::to_vec(job).map_err(|error| error.to_string())?;
    stdin.write_all(&job).map_err(|error| format!("it did not take its job: {error}"))?;
    drop(stdin);
    let mut answer = String::new();
    stdout.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    serde_json::from_str(&answer).map_err(|_| "it ended without an answer".to_owned())
}
