//! The few calls that everything here is made of. Nothing keeps a descriptor.

use std::path::{Path, PathBuf};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RawDir},
    io::Errno,
};

use crate::CgroupError;

/// Directories of the cgroup file system have one mode whoever asks; ours is what a tool would show.
const DIR_MODE: Mode = Mode::from_bits_retain(0o755);

pub(crate) fn mkdir(path: &Path) -> Result<(), CgroupError> {
    rustix::fs::mkdir(path, DIR_MODE).map_err(|errno| CgroupError::call("mkdir", path, errno))
}

/// Like [`mkdir`]; a group that exists already is success.
pub(crate) fn ensure_dir(path: &Path) -> Result<(), CgroupError> {
    match rustix::fs::mkdir(path, DIR_MODE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(CgroupError::call("mkdir", path, errno)),
    }
}

/// Removes an empty group; a missing one is success.
pub(crate) fn rmdir(path: &Path) -> Result<(), CgroupError> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(CgroupError::call("rmdir", path, errno)),
    }
}

pub(crate) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let failed = |errno| CgroupError::call(&format!("write {value:?} to "), path, errno);
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    rustix::io::write(&file, value.as_bytes()).map_err(failed)?;
    Ok(())
}

/// The whole text of a small kernel file.
pub(crate) fn read(path: &Path) -> Result<String, CgroupError> {
    let failed = |errno| CgroupError::call("read", path, errno);
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let mut text = Vec::with_capacity(4096);
    let mut chunk = [0_u8; 4096];
    loop {
        match rustix::io::read(&file, &mut chunk) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A file that holds one number; `max` and anything else that is no number is `None`.
pub(crate) fn read_number(path: &Path) -> Option<u64> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // The kernel gives all of it at once, and lists of many instances read thousands.
    let mut text = [0_u8; 32];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut text[..])).ok()?;
    std::str::from_utf8(&text[..count]).ok()?.trim().parse().ok()
}

pub(crate) fn chown(path: &Path, uid: u32, gid: u32) -> Result<(), CgroupError> {
    let (owner, group) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(CWD, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| CgroupError::call("chown", path, errno))
}

/// The groups directly beneath one; none if it is missing.
pub(crate) fn child_groups(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |errno| CgroupError::call("getdents", path, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno)),
    };
    let mut buffer = Vec::with_capacity(8192);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    let mut groups = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // A group removed under our eyes.
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(failed(errno)),
        };
        let name = entry.file_name().to_bytes();
        if entry.file_type().is_dir() && name != b"." && name != b".." {
            groups.push(path.join(std::ffi::OsStr::new(&*String::from_utf8_lossy(name))));
        }
    }
    Ok(groups)
}
