//! Writes archive entries beneath a directory descriptor, and nowhere else.
//!
//! Parents are opened with `openat2(RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS)`; the last component is only ever
//! made, never followed. `tar`'s own `unpack` checks paths and then uses them, which a symlink swapped in between beats.

use std::{
    collections::HashMap,
    io::BufRead,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::UnpackFault,
    paths,
    tarball::{Entry, Kind, Walker},
    unpack::UnpackLimits,
    xattr,
};

/// What was unpacked, and what was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackReport {
    pub entries: u64,
    /// Content of all files.
    pub bytes: u64,
    /// Device nodes are left out: an unprivileged container cannot use them, and gets its own /dev.
    pub skipped_devices: u64,
    /// Attributes that this kernel, file system or confinement does not take (`trusted.*`, SELinux labels).
    pub skipped_xattrs: u64,
    /// Entries outside `metadata.yaml`, `templates/` and `rootfs/`.
    pub skipped_other: u64,
    /// Bytes of a virtual machine's disk, as the machine sees it; a volume for it cannot be smaller.
    pub disk: Option<u64>,
}

/// Open directories kept, by their path; most archives write a directory's files in a row.
const OPEN_DIRECTORIES: usize = 96;

pub(crate) struct Extractor<'a> {
    root: BorrowedFd<'a>,
    file: String,
    limits: UnpackLimits,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Directory times are set last, since every file made inside changes them.
    times: HashMap<Vec<u8>, (i64, u32)>,
    pub report: UnpackReport,
}

impl<'a> Extractor<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, file: impl Into<String>, limits: &UnpackLimits) -> Self {
        let file = file.into();
        let (open, times, report) = (HashMap::new(), HashMap::new(), UnpackReport::default());
        Self { root, file, limits: *limits, open, times, report }
    }

    /// Writes every entry; `place` says where an entry's path lands (`None`: it is left out).
    pub(crate) fn extract<R: BufRead>(
        &mut self,
        walker: &mut Walker<R>,
        place: impl for<'p> Fn(&[&'p [u8]]) -> Option<Vec<&'p [u8]>>,
    ) -> Result<(), UnpackFault> {
        while let Some(entry) = walker.next()? {
            let parts = paths::relative(&entry.path).map_err(|reason| self.refuse(&entry, reason))?;
            let Some(parts) = place(&parts) else {
                self.report.skipped_other += 1;
                continue;
            };
            if parts.len() as u64 > self.limits.depth {
                return Err(walker.limit("the depth of a path", self.limits.depth));
            }
            self.report.entries += 1;
            let Some((name, parents)) = parts.split_last() else {
                // The root itself: only its owner and mode matter.
                if entry.kind == Kind::Directory {
                    let root = self.directory(&entry, &[], true)?;
                    self.finish_node(&entry, root.as_fd())?;
                    self.times.insert(Vec::new(), entry.mtime);
                }
                continue;
            };
            match entry.kind {
                Kind::Device => {
                    self.report.skipped_devices += 1;
                    continue;
                }
                Kind::Directory => {
                    self.make_directory(&entry, parents, name)?;
                    self.times.insert(parts.join(&b'/'), entry.mtime);
                }
                Kind::File => self.make_file(&entry, parents, name, walker)?,
                Kind::Symlink => self.make_symlink(&entry, parents, name)?,
                Kind::Fifo => self.make_fifo(&entry, parents, name)?,
                Kind::Hardlink => {
                    let target = paths::relative(&entry.link);
                    let target = target.map_err(|reason| self.refuse(&entry, format!("its link target: {reason}")))?;
                    let target = place(&target)
                        .ok_or_else(|| self.refuse(&entry, "its link target lies outside the image's root"))?;
                    self.make_hardlink(&entry, parents, name, &target)?;
                }
            }
        }
        walker.finish()
    }

    /// Sets the times of all directories, deepest or not: setting one touches no other.
    pub(crate) fn finish(mut self) -> Result<UnpackReport, UnpackFault> {
        for (path, mtime) in std::mem::take(&mut self.times) {
            let fault = |errno| fault("set the time of", &path, errno);
            if path.is_empty() {
                fs::futimens(self.root, &times(mtime)).map_err(fault)?;
            } else {
                let directory = open_beneath(self.root, &path).map_err(fault)?;
                fs::futimens(&directory, &times(mtime)).map_err(fault)?;
            }
        }
        Ok(self.report)
    }

    fn refuse(&self, entry: &Entry, reason: impl Into<String>) -> UnpackFault {
        UnpackFault::Refused { file: self.file.clone(), entry: entry.name(), reason: reason.into() }
    }

    fn path_fault(&self, entry: &Entry, doing: &str, errno: Errno) -> UnpackFault {
        match errno {
            Errno::LOOP => self.refuse(entry, "its path leads through a symbolic link"),
            Errno::XDEV => self.refuse(entry, "its path leads out of the image"),
            Errno::NOTDIR => self.refuse(entry, "its path leads through something that is no directory"),
            Errno::ISDIR => self.refuse(entry, "a directory is there already"),
            Errno::NAMETOOLONG => self.refuse(entry, "its name is too long"),
            Errno::NOENT => self.refuse(entry, "what it refers to does not exist"),
            errno => fault(doing, &entry.path, errno),
        }
    }

    /// The directory of these components; where `make` says so, missing ones are made (root's, 0755).
    fn directory(&mut self, entry: &Entry, parts: &[&[u8]], make: bool) -> Result<Rc<OwnedFd>, UnpackFault> {
        let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
        if let Some(open) = self.open.get(&path) {
            return Ok(Rc::clone(open));
        }
        let directory = match open_beneath(self.root, &path) {
            Ok(directory) => Rc::new(directory),
            Err(Errno::NOENT) if make => {
                let (name, parents) = parts.split_last().ok_or_else(|| self.refuse(entry, "its root is gone"))?;
                let parent = self.directory(entry, parents, true)?;
                match fs::mkdirat(&*parent, *name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(self.path_fault(entry, "create the directory of", errno)),
                }
                Rc::new(open_beneath(self.root, &path).map_err(|errno| self.path_fault(entry, "open", errno))?)
            }
            Err(errno) => return Err(self.path_fault(entry, "open the directory of", errno)),
        };
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        // A directory once made is never removed or replaced here, so a kept descriptor stays right.
        self.open.insert(path, Rc::clone(&directory));
        Ok(directory)
    }

    /// Makes a node, in place of an earlier one of the same name (the later entry wins), but never of a directory.
    fn replacing<T>(
        &self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, UnpackFault> {
        match make() {
            Err(Errno::EXIST) => {
                fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(|errno| self.path_fault(entry, "replace", errno))?;
                make()
            }
            made => made,
        }
        .map_err(|errno| self.path_fault(entry, "create", errno))
    }

    fn make_directory(&mut self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> Result<(), UnpackFault> {
        let parent = self.directory(entry, parents, true)?;
        let make = || fs::mkdirat(&*parent, name, Mode::from_raw_mode(0o700));
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // Listed twice is fine for a directory; anything else of that name gives way.
                let there = fs::statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW);
                let there = there.map_err(|errno| self.path_fault(entry, "look at", errno))?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    self.replacing(entry, &parent, name, make)?;
                }
            }
            Err(errno) => return Err(self.path_fault(entry, "create", errno)),
        }
        let path: Vec<&[u8]> = parents.iter().copied().chain([name]).collect();
        let directory = self.directory(entry, &path, false)?;
        self.finish_node(entry, directory.as_fd())
    }

    fn make_file<R: BufRead>(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &[u8],
        walker: &mut Walker<R>,
    ) -> Result<(), UnpackFault> {
        let parent = self.directory(entry, parents, true)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            self.replacing(entry, &parent, name, || fs::openat(&*parent, name, flags, Mode::from_raw_mode(0o600)))?;
        let failed = |errno| fault("write", &entry.path, errno);
        match &entry.segments {
            None => write_content(&file, 0, entry.size, entry, walker)?,
            Some(segments) => {
                for (offset, length) in segments {
                    write_content(&file, *offset, *length, entry, walker)?;
                }
                fs::ftruncate(&file, entry.size).map_err(failed)?;
            }
        }
        self.report.bytes += entry.size;
        self.finish_node(entry, file.as_fd())?;
        fs::futimens(&file, &times(entry.mtime)).map_err(failed)
    }

    fn make_symlink(&mut self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> Result<(), UnpackFault> {
        let parent = self.directory(entry, parents, true)?;
        // Its text may say anything: it is followed inside the instance only.
        self.replacing(entry, &parent, name, || fs::symlinkat(entry.link.as_slice(), &*parent, name))?;
        self.finish_name(entry, &parent, name)
    }

    fn make_fifo(&mut self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> Result<(), UnpackFault> {
        let parent = self.directory(entry, parents, true)?;
        self.replacing(entry, &parent, name, || {
            fs::mknodat(&*parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        })?;
        // Ours alone until the archive is done: nobody can swap the name between these calls.
        self.finish_name(entry, &parent, name)?;
        fs::chmodat(&*parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(|errno| fault("set the mode of", &entry.path, errno))
    }

    fn make_hardlink(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &[u8],
        target: &[&[u8]],
    ) -> Result<(), UnpackFault> {
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(self.refuse(entry, "it links to a directory"));
        };
        let from = self.directory(entry, target_parents, false)?;
        let parent = self.directory(entry, parents, true)?;
        if (target_parents, target_name) == (parents, &name) {
            return Ok(());
        }
        // Without AT_SYMLINK_FOLLOW a link to a symlink is one more name of the symlink.
        self.replacing(entry, &parent, name, || {
            match fs::linkat(&*from, *target_name, &*parent, name, AtFlags::empty()) {
                // A directory cannot have two names: the kernel says EPERM, which would read like our confinement.
                Err(Errno::PERM) => Err(Errno::ISDIR),
                other => other,
            }
        })
    }

    fn finish_name(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), UnpackFault> {
        let failed = |errno| fault("set the owner of", &entry.path, errno);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Owner, mode, attributes, in the order in which none undoes another: chown clears setuid bits and capabilities.
    fn finish_node(&mut self, entry: &Entry, node: BorrowedFd<'_>) -> Result<(), UnpackFault> {
        let failed = |errno| fault("set the owner and mode of", &entry.path, errno);
        fs::fchown(node, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(failed)?;
        fs::fchmod(node, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
        for (name, value) in &entry.xattrs {
            let value = match name.as_slice() {
                b"security.capability" => xattr::capability(value),
                b"system.posix_acl_access" | b"system.posix_acl_default" => Some(value.clone()),
                name if name.starts_with(b"user.") => Some(value.clone()),
                _ => None,
            };
            self.set_xattr(entry, node, name, value)?;
        }
        for (name, text) in [
            (b"system.posix_acl_access".as_slice(), &entry.acl_access),
            (b"system.posix_acl_default".as_slice(), &entry.acl_default),
        ] {
            if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                self.set_xattr(entry, node, name, xattr::acl(text))?;
            }
        }
        Ok(())
    }

    fn set_xattr(
        &mut self,
        entry: &Entry,
        node: BorrowedFd<'_>,
        name: &[u8],
        value: Option<Vec<u8>>,
    ) -> Result<(), UnpackFault> {
        let set = value.map(|value| fs::fsetxattr(node, name, &value, XattrFlags::empty()));
        match set {
            Some(Ok(())) => Ok(()),
            None | Some(Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL)) => {
                self.report.skipped_xattrs += 1;
                Ok(())
            }
            Some(Err(errno)) => Err(fault("set an attribute of", &entry.path, errno)),
        }
    }
}

fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Without NOFOLLOW: with it a symbolic link at the end is ENOTDIR instead of the ELOOP that names it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // EAGAIN: something was renamed meanwhile and the kernel could not be sure; openat2(2) says to repeat.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn write_content<R: BufRead>(
    file: &OwnedFd,
    mut offset: u64,
    mut length: u64,
    entry: &Entry,
    walker: &mut Walker<R>,
) -> Result<(), UnpackFault> {
    while length > 0 {
        let chunk = walker.chunk()?;
        if chunk.is_empty() {
            return Err(UnpackFault::Corrupt {
                file: entry.name(),
                reason: "its content is shorter than it says".into(),
            });
        }
        let count = chunk.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let written = match rustix::io::pwrite(file, &chunk[..count], offset) {
            Err(Errno::INTR) => continue,
            other => other.map_err(|errno| fault("write", &entry.path, errno))?,
        };
        walker.consume(written);
        offset += written as u64;
        length -= written as u64;
    }
    Ok(())
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) as _ };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn fault(doing: &str, path: &[u8], errno: Errno) -> UnpackFault {
    let entry = path.escape_ascii().to_string();
    match errno {
        Errno::NOSPC | Errno::DQUOT => UnpackFault::NoSpace { entry },
        errno => UnpackFault::Write { doing: doing.into(), entry, reason: std::io::Error::from(errno).to_string() },
    }
}

/// Where a metadata or unified archive's entries land: only what an image has.
pub(crate) fn place_unified<'p>(parts: &[&'p [u8]]) -> Option<Vec<&'p [u8]>> {
    match parts {
        [] | [b"metadata.yaml"] | [b"templates" | b"rootfs", ..] => Some(parts.to_vec()),
        _ => None,
    }
}

/// Where a metadata archive's entries land when the root comes in a file of its own.
pub(crate) fn place_metadata<'p>(parts: &[&'p [u8]]) -> Option<Vec<&'p [u8]>> {
    if parts.first() == Some(&b"rootfs".as_slice()) { None } else { place_unified(parts) }
}
