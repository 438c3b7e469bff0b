//! A virtual machine's disk: qcow2 becomes a sparse raw file, by `qemu-img` inside the worker's confinement.

use std::{
    fs::File,
    io::{self, Seek},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
};

use rustix::fs::{self, AtFlags, Mode, OFlags};

use crate::{
    error::UnpackFault,
    extract,
    qcow2::Header,
    unpack::{DISK_FILE, UnpackLimits},
};

/// How a unified archive calls its disk.
pub(crate) const IN_ARCHIVE: &str = "rootfs.img";

/// Where a unified archive's entries land when it brings a disk.
pub(crate) fn place<'p>(parts: &[&'p [u8]]) -> Option<Vec<&'p [u8]>> {
    if parts == [IN_ARCHIVE.as_bytes()] { Some(parts.to_vec()) } else { extract::place_metadata(parts) }
}

/// The disk that [`place`] let through, open for reading.
pub(crate) fn take_from(target: &OwnedFd) -> Result<File, UnpackFault> {
    let failed = |errno| extract::fault("open", IN_ARCHIVE.as_bytes(), errno);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = fs::openat(target, IN_ARCHIVE, flags, Mode::empty()).map_err(failed)?;
    let kind = fs::FileType::from_raw_mode(fs::fstat(&file).map_err(failed)?.st_mode);
    if kind != fs::FileType::RegularFile {
        return Err(UnpackFault::Corrupt { file: IN_ARCHIVE.into(), reason: "it is no file".into() });
    }
    Ok(File::from(file))
}

/// Removes what [`place`] let through, once it is converted.
pub(crate) fn remove_from(target: &OwnedFd) -> Result<(), UnpackFault> {
    fs::unlinkat(target, IN_ARCHIVE, AtFlags::empty())
        .map_err(|errno| extract::fault("remove", IN_ARCHIVE.as_bytes(), errno))
}

/// Writes the disk to [`DISK_FILE`] in `target` and returns its size. A disk that leads to other files is refused before
/// `qemu-img` sees it, and could not reach them either.
pub(crate) fn unpack(
    program: &Path,
    mut file: File,
    label: &str,
    target: &OwnedFd,
    limits: &UnpackLimits,
) -> Result<u64, UnpackFault> {
    let corrupt = |reason: String| UnpackFault::Corrupt { file: label.into(), reason };
    let failed = |error: io::Error| UnpackFault::Confine(format!("it cannot run qemu-img: {error}"));
    let header = Header::read(&mut file).map_err(corrupt)?;
    if header.virtual_size > limits.bytes {
        let what = "the size of the disk".into();
        return Err(UnpackFault::Limit { file: label.into(), what, limit: limits.bytes });
    }
    file.rewind().map_err(failed)?;
    rustix::process::fchdir(target).map_err(|error| failed(error.into()))?;
    // The format is said and not guessed, so that nothing inside is taken for another one; no lock is asked for, since
    // nobody writes here.
    let done = Command::new(program)
        .args(["convert", "-U", "-f", "qcow2", "-O", "raw", "/proc/self/fd/0", DISK_FILE])
        .stdin(Stdio::from(file))
        .output()
        .map_err(failed)?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        if text.contains("No space left") {
            return Err(UnpackFault::NoSpace { entry: DISK_FILE.into() });
        }
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        return Err(corrupt(line.unwrap_or("qemu-img failed without a word").to_owned()));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let flushed = fs::openat(target, DISK_FILE, flags, Mode::empty()).and_then(|disk| {
        fs::fchmod(&disk, Mode::from_raw_mode(0o600))?;
        fs::fsync(&disk)
    });
    flushed.map_err(|errno| extract::fault("flush", DISK_FILE.as_bytes(), errno))?;
    Ok(header.virtual_size)
}
