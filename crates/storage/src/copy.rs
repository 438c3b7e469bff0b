//! Copying a tree so that nothing but the time of the copy tells it from the original.
//!
//! The tree belongs to a guest, so that no path in it is trusted: every name is resolved beneath a directory
//! descriptor and no symbolic link is followed.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps,
        Uid,
    },
    io::Errno,
};

/// Which step failed on which path of the tree.
#[derive(Debug)]
pub(crate) struct CopyError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

trait Context<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, CopyError>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, CopyError> {
        self.map_err(|errno| CopyError { action, path: path.to_owned(), source: errno.into() })
    }
}

/// Regular files are copied by this many threads; more do not help on the disks that were measured.
const THREADS: usize = 2;
/// Longest queue of files; it also bounds the open directories.
const QUEUE: usize = 256;

struct Pair {
    from: OwnedFd,
    to: OwnedFd,
}

struct FileJob {
    dirs: Arc<Pair>,
    name: CString,
    stat: Stat,
    path: PathBuf,
}

/// Copies the directory `from` to `to`, which must not exist: owners, modes, times, extended attributes (file
/// capabilities and ACLs among them), hard links, holes and device nodes. Sockets are skipped, since they mean nothing
/// without their listener; what is mounted inside is copied as an empty directory.
///
/// With `reflink` data is shared where the file system can. Nothing is flushed.
pub(crate) fn copy_tree(from: &Path, to: &Path, reflink: bool) -> Result<(), CopyError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(CWD, from, flags, Mode::empty()).on("open", from)?;
    rustix::fs::mkdirat(CWD, to, Mode::from_raw_mode(0o700)).on("create", to)?;
    let target = rustix::fs::openat(CWD, to, flags, Mode::empty()).on("open", to)?;
    let mut walk = Walk { source, target, links: HashMap::new(), linked: Vec::new(), dirs: Vec::new() };

    let (queue, jobs) = mpsc::sync_channel::<FileJob>(QUEUE);
    let jobs = Mutex::new(jobs);
    let failed = Mutex::new(None);
    let walked = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    // The lock is held while waiting: the other worker waits for the same queue anyway.
                    let job = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    if let Err(error) = copy_file(&job, reflink) {
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
        let has_failed = || failed.lock().is_ok_and(|failed| failed.is_some());
        let walked = walk.run(&queue, has_failed);
        drop(queue);
        walked
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    walked?;
    walk.finish()
}

struct Walk {
    source: OwnedFd,
    target: OwnedFd,
    /// Files with several names: device and inode → the first name, relative to the root.
    links: HashMap<(u64, u64), PathBuf>,
    /// Further names: (first, further).
    linked: Vec<(PathBuf, PathBuf)>,
    /// Directories made, parents before children.
    dirs: Vec<(PathBuf, Stat)>,
}

impl Walk {
    /// Makes everything but the contents of regular files, which go to the queue.
    fn run(&mut self, queue: &mpsc::SyncSender<FileJob>, stop: impl Fn() -> bool) -> Result<(), CopyError> {
        let root = PathBuf::from(".");
        let stat = rustix::fs::fstat(&self.source).on("read", &root)?;
        self.dirs.push((root, stat));
        let mut next = 0;
        while next < self.dirs.len() && !stop() {
            let path = self.dirs[next].0.clone();
            next += 1;
            let from = match open_beneath(&self.source, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::XDEV) => continue,
                other => other.on("open", &path)?,
            };
            let to = open_beneath(&self.target, &path, OFlags::RDONLY | OFlags::DIRECTORY).on("open", &path)?;
            let dirs = Arc::new(Pair { from, to });
            for entry in Dir::read_from(&dirs.from).on("list", &path)? {
                let entry = entry.on("list", &path)?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    self.entry(&dirs, &path, entry.file_name(), queue)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dirs: &Arc<Pair>,
        parent: &Path,
        name: &CStr,
        queue: &mpsc::SyncSender<FileJob>,
    ) -> Result<(), CopyError> {
        let path = parent.join(OsStr::from_bytes(name.to_bytes()));
        let stat = rustix::fs::statat(&dirs.from, name, AtFlags::SYMLINK_NOFOLLOW).on("read", &path)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(&dirs.to, name, Mode::from_raw_mode(0o700)).on("create", &path)?;
            self.dirs.push((path, stat));
            return Ok(());
        }
        if stat.st_nlink > 1 {
            match self.links.entry((stat.st_dev, stat.st_ino)) {
                std::collections::hash_map::Entry::Occupied(first) => {
                    self.linked.push((first.get().clone(), path));
                    return Ok(());
                }
                std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(path.clone())),
            }
        }
        match kind {
            FileType::RegularFile => {
                let job = FileJob { dirs: Arc::clone(dirs), name: name.to_owned(), stat, path };
                // The receivers outlive the walk: sending cannot fail.
                let _ = queue.send(job);
                Ok(())
            }
            FileType::Socket => {
                self.links.remove(&(stat.st_dev, stat.st_ino));
                Ok(())
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&dirs.from, name, Vec::new()).on("read", &path)?;
                rustix::fs::symlinkat(target.as_c_str(), &dirs.to, name).on("create", &path)?;
                finish_special(dirs, name, &stat, &path)
            }
            _ => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(&dirs.to, name, kind, mode, stat.st_rdev).on("create", &path)?;
                finish_special(dirs, name, &stat, &path)?;
                // chown has cleared the set-id bits, and the umask its part.
                rustix::fs::chmodat(&dirs.to, name, mode, AtFlags::empty()).on("set the mode of", &path)
            }
        }
    }

    /// What must come last: further names, then directories, whose times every name in them changes.
    fn finish(&self) -> Result<(), CopyError> {
        for (first, further) in &self.linked {
            rustix::fs::linkat(&self.target, first, &self.target, further, AtFlags::empty()).on("link", further)?;
        }
        for (path, stat) in self.dirs.iter().rev() {
            let to = open_beneath(&self.target, path, OFlags::RDONLY | OFlags::DIRECTORY).on("open", path)?;
            let from = match open_beneath(&self.source, path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::XDEV) => None,
                other => Some(other.on("open", path)?),
            };
            finish_open(from.as_ref().map(AsFd::as_fd), to.as_fd(), stat, path)?;
        }
        Ok(())
    }
}

fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

fn copy_file(job: &FileJob, reflink: bool) -> Result<(), CopyError> {
    let path = &job.path;
    // NONBLOCK: were the file replaced by a FIFO meanwhile, opening it must not wait for a writer.
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = rustix::fs::openat(&job.dirs.from, &job.name, read, Mode::empty()).on("open", path)?;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = rustix::fs::openat(&job.dirs.to, &job.name, write, Mode::from_raw_mode(0o600)).on("create", path)?;
    let size = u64::try_from(job.stat.st_size).unwrap_or(0);
    if size > 0 && !(reflink && rustix::fs::ioctl_ficlone(&to, &from).is_ok()) {
        copy_data(&from, &to, &job.stat, size).on("copy", path)?;
    }
    finish_open(Some(from.as_fd()), to.as_fd(), &job.stat, path)
}

/// Copies the data and leaves the holes out.
fn copy_data(from: &OwnedFd, to: &OwnedFd, stat: &Stat, size: u64) -> Result<(), Errno> {
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if allocated >= size {
        return copy_range(from, to, 0, size);
    }
    let mut place = 0;
    while place < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(place)) {
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        copy_range(from, to, start, end.min(size))?;
        place = end;
    }
    rustix::fs::ftruncate(to, size)
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let length = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
            Ok(0) => break, // Cut short meanwhile.
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_buffer(from, to, read_at, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_buffer(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; 256 << 10];
    let mut place = start;
    while place < end {
        let want = usize::try_from(end - place).unwrap_or(usize::MAX).min(buffer.len());
        let count = match rustix::io::pread(from, &mut buffer[..want], place) {
            Ok(0) => break,
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let mut written = 0;
        while written < count {
            match rustix::io::pwrite(to, &buffer[written..count], place + written as u64) {
                Err(Errno::INTR) => {}
                other => written += other?,
            }
        }
        place += count as u64;
    }
    Ok(())
}

/// Owner, extended attributes, mode and times, in the one order that works: chown clears set-id bits and file
/// capabilities, an ACL changes the mode, and everything changes the times.
fn finish_open(from: Option<BorrowedFd<'_>>, to: BorrowedFd<'_>, stat: &Stat, path: &Path) -> Result<(), CopyError> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid)).on("set the owner of", path)?;
    if let Some(from) = from {
        copy_xattrs(
            |list| rustix::fs::flistxattr(from, list),
            |name, value| rustix::fs::fgetxattr(from, name, value),
            |name, value| rustix::fs::fsetxattr(to, name, value, rustix::fs::XattrFlags::empty()),
        )
        .on("copy the attributes of", path)?;
    }
    let mode = Mode::from_raw_mode(stat.st_mode as RawMode & 0o7777);
    rustix::fs::fchmod(to, mode).on("set the mode of", path)?;
    rustix::fs::futimens(to, &times(stat)).on("set the times of", path)
}

/// The same for what cannot be opened: symbolic links and device nodes. Their mode is the caller's.
fn finish_special(dirs: &Pair, name: &CStr, stat: &Stat, path: &Path) -> Result<(), CopyError> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(&dirs.to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .on("set the owner of", path)?;
    // There is no lgetxattr beneath a descriptor; the magic link of the directory is one of ours.
    let through_proc = |dir: &OwnedFd| {
        let mut text = OsString::from(format!("/proc/self/fd/{}/", dir.as_raw_fd()));
        text.push(OsString::from_vec(name.to_bytes().to_vec()));
        PathBuf::from(text)
    };
    let (from, to) = (through_proc(&dirs.from), through_proc(&dirs.to));
    copy_xattrs(
        |list| rustix::fs::llistxattr(&from, list),
        |name, value| rustix::fs::lgetxattr(&from, name, value),
        |name, value| rustix::fs::lsetxattr(&to, name, value, rustix::fs::XattrFlags::empty()),
    )
    .on("copy the attributes of", path)?;
    rustix::fs::utimensat(&dirs.to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).on("set the times of", path)
}

fn copy_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
    set: impl Fn(&CStr, &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let names = match sized(&list) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match sized(|value| get(name, value)) {
            Err(Errno::NODATA) => {} // Removed meanwhile.
            value => set(name, &value?)?,
        }
    }
    Ok(())
}

/// Calls with ever larger buffers until the answer fits: 64 KiB is the kernel's limit for both lists and values.
fn sized(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match call(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut large = vec![0; 64 << 10];
    let length = call(&mut large)?;
    large.truncate(length);
    Ok(large)
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the fields' types depend on the architecture")]
fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec),
    }
}
