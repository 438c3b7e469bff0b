//! What the host is asked: file systems, mounts, room.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use rustix::fs::StatVfs;

use crate::Space;

pub(crate) const XFS: u64 = 0x5846_5342;
pub(crate) const BTRFS: u64 = 0x9123_683e;

/// The magic number of the file system that holds `path`, or its nearest ancestor that is there; statfs(2).
pub(crate) fn magic(path: &Path) -> io::Result<u64> {
    #[allow(clippy::unnecessary_cast, reason = "the field's type depends on the architecture")]
    let magic = rustix::fs::statfs(existing(path))?.f_type as u64;
    Ok(magic & 0xffff_ffff)
}

/// `path`, or its nearest ancestor that is there.
pub(crate) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let StatVfs { f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, .. } = rustix::fs::statvfs(path)?;
    Ok(Space {
        total: f_blocks * f_frsize,
        used: f_blocks.saturating_sub(f_bfree) * f_frsize,
        free: f_bavail * f_frsize,
        inodes_total: f_files,
        inodes_used: f_files.saturating_sub(f_ffree),
        backing_free: None,
    })
}

/// Whether two files beside each other in `dir` can share data. Leaves nothing behind.
pub(crate) fn can_reflink(dir: &Path) -> bool {
    let open = || {
        // An unnamed file: no crash leaves it.
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::openat(rustix::fs::CWD, dir, flags, rustix::fs::Mode::from_raw_mode(0o600))
    };
    let attempt = || {
        let (from, to) = (open()?, open()?);
        rustix::io::write(&from, &[b'x'; 4096])?;
        rustix::fs::ioctl_ficlone(&to, &from)
    };
    attempt().is_ok()
}

/// Whether the kernel has btrfs, loading its module where it is one.
pub(crate) fn kernel_has_btrfs() -> bool {
    let listed = || {
        std::fs::read_to_string("/proc/filesystems")
            .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().last() == Some("btrfs")))
    };
    // A failing modprobe is one way of not having it.
    listed() || (stapes_sys::exec::Exec::new("modprobe").arg("btrfs").run().is_ok() && listed())
}

/// What is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub fs_type: String,
    /// The device as the mounter named it.
    pub source: PathBuf,
}

/// What is mounted on top at exactly `path`, in this process's mount namespace; proc_pid_mountinfo(5).
pub(crate) fn mounted_at(path: &Path) -> io::Result<Option<Mount>> {
    let path = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut mounts = table.split(|byte| *byte == b'\n').filter_map(parse_mount);
    // Later lines are mounted over earlier ones.
    Ok(mounts.rfind(|(at, _)| *at == path).map(|(_, mount)| mount))
}

fn parse_mount(line: &[u8]) -> Option<(PathBuf, Mount)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = unescape(fields.nth(4)?);
    // Any number of optional fields, then a hyphen.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = unescape(rest.next()?);
    Some((at, Mount { fs_type, source }))
}

/// Undoes the kernel's `\040` for blanks and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| std::str::from_utf8(tail.get(..3)?).ok()).flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The program, where a shell run by root would find it.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .any(|dir| dir.as_os_str().as_bytes().starts_with(b"/") && dir.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_a_blank_is_read() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - btrfs /dev/loop0 rw,errors=continue";
        let (at, mount) = parse_mount(line).unwrap();
        assert_eq!(at, Path::new("/mnt 2"));
        assert_eq!(mount, Mount { fs_type: "btrfs".to_owned(), source: "/dev/loop0".into() });
    }

    #[test]
    fn a_line_cut_short_is_no_mount() {
        for line in [&b""[..], b"36 35 98:0 /", b"36 35 98:0 / / rw -", b"1 2 3 4 5 6"] {
            assert_eq!(parse_mount(line), None);
        }
    }

    #[test]
    fn the_nearest_ancestor_answers_for_what_is_not_there() {
        assert_eq!(existing(Path::new("/proc/self/nonexistent/x")), Path::new("/proc/self"));
    }
}
