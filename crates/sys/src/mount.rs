//! The mount API of Linux 5.2 (fsopen(2), move_mount(2), open_tree(2)) and idmapped mounts (mount_setattr(2), 5.12).
//!
//! Every helper works on detached mounts: nothing of ours ever appears in the host's mount table.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
        unmount,
    },
};

pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const IDMAP: u64 = libc::MOUNT_ATTR_IDMAP;

/// One option of a new file system.
#[derive(Debug, Clone, Copy)]
pub enum FsOption<'a> {
    Flag(&'a str),
    Value(&'a str, &'a str),
}

/// Makes a new instance of a file system, detached. `attributes` are `RDONLY`, `NOSUID`, `NODEV`, `NOEXEC`.
pub fn new_file_system(kind: &str, options: &[FsOption<'_>], attributes: u64) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options {
        match option {
            FsOption::Flag(name) => fsconfig_set_flag(&context, *name)?,
            FsOption::Value(name, value) => fsconfig_set_string(&context, *name, *value)?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached copy of the mount at `path` and, with `recursive`, of those beneath: a bind mount without a place yet.
///
/// It is private. A copy of a shared mount (all of them are where systemd runs) would be one more of its peers: what the
/// guest mounts beneath would appear on the host, and pivot_root(2) refuses a shared root.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, path, tree_flags(recursive))?;
    make_private(tree.as_fd(), recursive)?;
    Ok(tree)
}

/// The same of one mount, which gets these attributes beside those that it has.
pub fn clone_tree_with(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, path, tree_flags(false))?;
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    set_attr(tree.as_fd(), &attr, false)?;
    Ok(tree)
}

/// The same from an open descriptor (`O_PATH` will do).
pub fn clone_tree_at(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let tree = open_tree(fd, "", tree_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)?;
    make_private(tree.as_fd(), recursive)?;
    Ok(tree)
}

fn make_private(tree: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    set_attr(tree, &attr, recursive)
}

/// The same of `name` in an open directory, itself and not what a symlink of that name leads to.
pub fn clone_tree_in(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(open_tree(dir, name, tree_flags(false) | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn tree_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Puts a detached mount on the place that `target` (an `O_PATH` descriptor) is open on.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Puts a detached mount on `name` in an open directory; a symlink of that name is `ENOTDIR` or `EINVAL`, not followed.
pub fn attach_in(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(move_mount(mount, "", dir, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Turns attributes of a mount on; `recursive` reaches those beneath.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_attr(mount, &attr, recursive)
}

/// Makes owners appear as `user_namespace` maps them: id 0 on disk is its root. Only on a detached mount, once.
/// `EINVAL` where the file system cannot do it.
pub fn set_idmap(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let userns_fd = user_namespace.as_raw_fd() as u64;
    set_attr(mount, &libc::mount_attr { attr_set: IDMAP, attr_clr: 0, propagation: 0, userns_fd }, recursive)
}

fn set_attr(mount: BorrowedFd<'_>, attr: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and `attr` is read within the size given.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Cuts every mount of this namespace off from the one it was copied from.
pub fn make_all_private() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes every mount beneath the root shared among its later copies, as systemd and containers inside expect.
pub fn make_all_shared() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// Makes `new_root` (an open directory that is a mount point) the root, and lets go of everything mounted before.
pub fn enter_root(new_root: BorrowedFd<'_>) -> io::Result<()> {
    // With the old root stacked on the new one no directory is needed to put it; see pivot_root(2), NOTES.
    rustix::process::fchdir(new_root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
