//! File systems that a device of the machine offers.

use std::{ffi::CString, io};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};
use stapes_agent_api::{Mount, MountKind};
use stapes_sys::fs;

/// A line of `/proc/self/mountinfo`; see proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
pub struct MountInfo {
    pub mount_point: String,
    pub kind: String,
    pub source: String,
}

/// What is mounted, in the order in which it was.
pub fn mounted() -> Vec<MountInfo> {
    parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn parse(text: &str) -> Vec<MountInfo> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some(MountInfo {
            mount_point: unescape(before.split(' ').nth(4)?),
            kind: after.next()?.to_owned(),
            source: unescape(after.next()?),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Blanks are written as `\040` and the like.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

/// Mounts a share where nothing else is; one that is there already is success.
pub fn mount(wanted: &Mount) -> io::Result<()> {
    let (kind, options) = match wanted.kind {
        MountKind::VirtioFs => ("virtiofs", ""),
        MountKind::Plan9 => ("9p", "trans=virtio,version=9p2000.L,msize=512000"),
    };
    let path = wanted.path.trim_end_matches('/');
    if !path.starts_with('/') {
        return Err(Errno::INVAL.into());
    }
    let top = mounted().into_iter().rev().find(|mount| mount.mount_point == path);
    if top.is_some_and(|mount| mount.kind == kind && mount.source == wanted.tag) {
        return Ok(());
    }
    let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fs::make_mount_point(std::os::fd::AsFd::as_fd(&root), path, true)?;
    let flags = if wanted.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    Ok(rustix::mount::mount(wanted.tag.as_str(), path, kind, flags, options.as_c_str())?)
}

/// Takes the topmost mount away; a path on which nothing is mounted is success.
pub fn unmount(path: &str) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_blanks() {
        let line = "36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/vda1 rw,errors=continue\nbroken\n";
        let expected = MountInfo { mount_point: "/mnt/a b".into(), kind: "ext4".into(), source: "/dev/vda1".into() };
        assert_eq!(parse(line), [expected]);
        assert_eq!(unescape("a\\b\\04"), "a\\b\\04");
    }
}
