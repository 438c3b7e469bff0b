//! File requests beneath a root whose every byte is somebody else's: paths are resolved by the kernel beneath it
//! (`openat2`), and what is opened is looked at before it is used.
//!
//! Invariant: knows no shim, no agent and no namespace; who calls has become who may do this.
#![forbid(unsafe_code)]

mod posix;

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, StatxFlags, Uid},
    io::Errno,
};
use stapes_file_api::{FileAnswer, FileKind, FileMeta, FileOp, WriteMode};
use stapes_sys::fs;

/// What a request answers: a message, and the descriptor that goes with it.
pub type Answer = io::Result<(FileAnswer, Option<OwnedFd>)>;

/// The directory of this process's descriptors, which [`apply`] needs: it may not be in view any more by then.
pub fn own_files() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Does `op` beneath `root`, with this process's rights. `content` is that of [`FileOp::Replace`], or the file of
/// [`FileOp::PutInPlace`]. The umask should be 0.
pub fn apply(root: BorrowedFd<'_>, op: &FileOp, content: Option<OwnedFd>, own_files: BorrowedFd<'_>) -> Answer {
    let done = |()| (FileAnswer::Done, None);
    if let Some(answer) = posix::apply(root, op) {
        return answer;
    }
    match op {
        FileOp::Stat { path } => {
            let fd = fs::open_in_root(root, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
            Ok((FileAnswer::Meta(meta(fd.as_fd())?), None))
        }
        FileOp::Read { path } => read(root, path),
        FileOp::Write { path, how, uid, gid, mode } => {
            write(root, path, *how, Owner { uid: *uid, gid: *gid, mode: *mode })
        }
        FileOp::WriteWhole { path, uid, gid, mode } => {
            let owner = Owner { uid: *uid, gid: *gid, mode: *mode };
            match beside(root, path, owner) {
                Ok(Some(fd)) => Ok((FileAnswer::Beside(meta(fd.as_fd())?), Some(fd))),
                // Written in place it either works or fails with the reason that counts.
                Ok(None) | Err(_) => write(root, path, WriteMode::Overwrite, owner),
            }
        }
        FileOp::PutInPlace { path } => put_in_place(root, path, content.ok_or(Errno::BADF)?, own_files).map(done),
        FileOp::MakeDirectory { path, uid, gid, mode } => {
            make_directory(root, path, Owner { uid: *uid, gid: *gid, mode: *mode }).map(done)
        }
        FileOp::MakeSymlink { path, target, uid, gid } => {
            let (parent, name) = fs::open_parent(root, path)?;
            rustix::fs::symlinkat(target.as_str(), &parent, &*name)?;
            let (uid, gid) = (Uid::from_raw(uid.unwrap_or(0)), Gid::from_raw(gid.unwrap_or(0)));
            rustix::fs::chownat(&parent, &*name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(done(()))
        }
        FileOp::Remove { path, recursive } => remove(root, path, *recursive).map(done),
        FileOp::Replace { path, uid, gid, mode } => {
            let content = content.ok_or(Errno::BADF)?;
            replace(root, path, content, Owner { uid: Some(*uid), gid: Some(*gid), mode: Some(*mode) }).map(done)
        }
        // What `posix` has and this has not.
        _ => Err(Errno::NOSYS.into()),
    }
}

/// What is to be applied; `None` leaves it as it is.
#[derive(Clone, Copy)]
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
}

impl Owner {
    fn apply(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.uid.is_some() || self.gid.is_some() {
            rustix::fs::fchown(fd, self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw))?;
        }
        // After chown, which clears the setuid bit.
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))?;
        }
        Ok(())
    }

    /// With what a new object has where nothing was said.
    fn or_default(self, mode: u32) -> Self {
        Self { uid: self.uid.or(Some(0)), gid: self.gid.or(Some(0)), mode: self.mode.or(Some(mode)) }
    }
}

fn meta(fd: BorrowedFd<'_>) -> io::Result<FileMeta> {
    Ok(meta_of(&rustix::fs::fstat(fd)?))
}

fn meta_of(stat: &rustix::fs::Stat) -> FileMeta {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    FileMeta {
        kind,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        size: stat.st_size as u64,
        modified: stat.st_mtime,
        format: stat.st_mode & 0o170_000,
    }
}

fn read(root: BorrowedFd<'_>, path: &str) -> Answer {
    let found = fs::open_in_root(root, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let meta = meta(found.as_fd())?;
    match meta.kind {
        FileKind::Symlink => {
            let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
            let target = target.into_string().map_err(|_| Errno::ILSEQ)?;
            Ok((FileAnswer::Link { target, meta }, None))
        }
        FileKind::File => {
            // Not blocking: it may have become a fifo since.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let opened = fs::open_in_root(root, path, flags, Mode::empty())?;
            let meta = self::meta(opened.as_fd())?;
            if meta.kind != FileKind::File {
                return Err(Errno::INVAL.into());
            }
            Ok((FileAnswer::Opened(meta), Some(opened)))
        }
        FileKind::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let opened = fs::open_in_root(root, path, flags, Mode::empty())?;
            Ok((FileAnswer::Listed(meta), Some(list(opened.as_fd())?)))
        }
        FileKind::Other => Err(Errno::INVAL.into()),
    }
}

/// The names of a directory in a file of memory: a directory may have more than a message holds.
fn list(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.extend_from_slice(name);
            names.push(0);
        }
    }
    let memory = rustix::fs::memfd_create("names", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&names)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}

fn write(root: BorrowedFd<'_>, path: &str, how: WriteMode, owner: Owner) -> Answer {
    let base = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let new = fs::open_in_root(root, path, base | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
    let (fd, owner) = match new {
        Ok(fd) => (fd, owner.or_default(0o644)),
        Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {
            let fd = fs::open_in_root(
                root,
                path,
                if how == WriteMode::Append { base | OFlags::APPEND } else { base },
                Mode::empty(),
            )?;
            (fd, owner)
        }
        Err(error) => return Err(error),
    };
    if meta(fd.as_fd())?.kind != FileKind::File {
        return Err(Errno::INVAL.into());
    }
    if how == WriteMode::Overwrite {
        rustix::fs::ftruncate(&fd, 0)?;
    }
    owner.apply(fd.as_fd())?;
    Ok((FileAnswer::Opened(meta(fd.as_fd())?), Some(fd)))
}

/// A file without a name in the directory of `path`, with the owner and mode that the file there has or a new one gets;
/// `None` if what is there must not be replaced.
fn beside(root: BorrowedFd<'_>, path: &str, owner: Owner) -> io::Result<Option<OwnedFd>> {
    if path.ends_with('/') {
        return Ok(None);
    }
    let (parent, name) = fs::open_parent(root, path)?;
    let owner = match fs::open_in_root(parent.as_fd(), &name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(there) => {
            if !is_replaceable(&parent, &name, &there)? {
                return Ok(None);
            }
            let meta = meta(there.as_fd())?;
            let Owner { uid, gid, mode } = owner;
            Owner { uid: uid.or(Some(meta.uid)), gid: gid.or(Some(meta.gid)), mode: mode.or(Some(meta.mode)) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => owner.or_default(0o644),
        Err(error) => return Err(error),
    };
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&parent, ".", flags, Mode::RUSR | Mode::WUSR)?;
    owner.apply(fd.as_fd())?;
    Ok(Some(fd))
}

/// A regular file that is nothing beyond this name, its content, owner and mode.
fn is_replaceable(parent: &OwnedFd, name: &str, there: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(there)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
        return Ok(false);
    }
    let mount = |fd| rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|stat| stat.stx_mnt_id);
    if mount(parent)? != mount(there)? {
        return Ok(false);
    }
    // A descriptor of O_PATH has no attributes to ask for. Looked at above: no device is opened, or only a race inside.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let attributes = rustix::fs::flistxattr(&opened, &mut [0u8; 0][..]);
    Ok(matches!(attributes, Ok(0) | Err(Errno::NOTSUP)))
}

fn put_in_place(root: BorrowedFd<'_>, path: &str, file: OwnedFd, own_files: BorrowedFd<'_>) -> io::Result<()> {
    let (parent, name) = fs::open_parent(root, path)?;
    // By the link in /proc: to link a bare descriptor takes a capability that root inside has not.
    let number = file.as_raw_fd().to_string();
    let link = |name: &str| rustix::fs::linkat(own_files, number.as_str(), &parent, name, AtFlags::SYMLINK_FOLLOW);
    match link(&name) {
        // Only rename(2) replaces.
        Err(Errno::EXIST) => {}
        other => return Ok(other?),
    }
    let beside = unique_name();
    link(&beside)?;
    rustix::fs::renameat(&parent, &*beside, &parent, &*name).map_err(|error| {
        let _ = rustix::fs::unlinkat(&parent, &*beside, AtFlags::empty());
        error.into()
    })
}

fn unique_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(".stapes-{:x}-{:x}", now.as_nanos(), std::process::id())
}

fn make_directory(root: BorrowedFd<'_>, path: &str, owner: Owner) -> io::Result<()> {
    let open = || fs::open_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    let Ok((parent, name)) = fs::open_parent(root, path) else { return open().map(drop) };
    match rustix::fs::mkdirat(&parent, &*name, Mode::RWXU) {
        Ok(()) => owner.or_default(0o755).apply(open()?.as_fd()),
        Err(Errno::EXIST) => open().map(drop),
        Err(error) => Err(error.into()),
    }
}

fn remove(root: BorrowedFd<'_>, path: &str, recursive: bool) -> io::Result<()> {
    let (parent, name) = fs::open_parent(root, path)?;
    if recursive {
        // Fails first where there is nothing: a whole tree that is gone halfway is success, one never there is not.
        rustix::fs::statat(&parent, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        return fs::remove_tree(parent.as_fd(), &name);
    }
    match rustix::fs::unlinkat(&parent, &*name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => Ok(rustix::fs::unlinkat(&parent, &*name, AtFlags::REMOVEDIR)?),
        other => Ok(other?),
    }
}

fn replace(root: BorrowedFd<'_>, path: &str, content: OwnedFd, owner: Owner) -> io::Result<()> {
    let (parent, name) = fs::open_parent(root, path)?;
    let beside = unique_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&parent, &*beside, flags, Mode::RUSR | Mode::WUSR)?;
    let fill = || {
        let mut bytes = Vec::new();
        let mut content = std::fs::File::from(content);
        rustix::fs::seek(&content, rustix::fs::SeekFrom::Start(0))?;
        content.read_to_end(&mut bytes)?;
        std::fs::File::from(fd.try_clone()?).write_all(&bytes)?;
        owner.apply(fd.as_fd())?;
        rustix::fs::renameat(&parent, &*beside, &parent, &*name).map_err(io::Error::from)
    };
    fill().inspect_err(|_| {
        let _ = rustix::fs::unlinkat(&parent, &*beside, AtFlags::empty());
    })
}
