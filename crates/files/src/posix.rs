//! What SFTP asks of files: open(2), rename(2), chmod(2) and their like, as they are, beneath a root.

use std::{
    fmt::Write as _,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid},
    io::Errno,
};
use stapes_file_api::{Access, Create, FileAnswer, FileKind, FileOp};
use stapes_sys::fs;

use crate::{Answer, Owner, meta, meta_of};

/// Does `op`; `None` if it is none of these.
pub fn apply(root: BorrowedFd<'_>, op: &FileOp) -> Option<Answer> {
    let done = |result: io::Result<()>| Some(result.map(|()| (FileAnswer::Done, None)));
    match op {
        FileOp::Follow { path } => Some(follow(root, path)),
        FileOp::List { path } => Some(list(root, path)),
        FileOp::Open { path, access, create, append, truncate, mode } => {
            let how = How { access: *access, create: *create, append: *append, truncate: *truncate };
            Some(open(root, path, how, *mode))
        }
        FileOp::CreateDirectory { path, mode } => done(create_directory(root, path, *mode)),
        FileOp::Change { path, uid, gid, size, mode, times } => {
            done(change(root, path, Owner { uid: *uid, gid: *gid, mode: *mode }, *size, *times))
        }
        FileOp::Rename { path, to, replace } => done(rename(root, path, to, *replace)),
        FileOp::HardLink { path, to } => done(hard_link(root, path, to)),
        FileOp::Unlink { path, directory } => done(unlink(root, path, *directory)),
        _ => None,
    }
}

fn follow(root: BorrowedFd<'_>, path: &str) -> Answer {
    let fd = fs::open_in_root(root, path, OFlags::PATH, Mode::empty())?;
    Ok((FileAnswer::Meta(meta(fd.as_fd())?), None))
}

/// The entries in a file of memory: a directory may have more than a message holds.
fn list(root: BorrowedFd<'_>, path: &str) -> Answer {
    let directory = fs::open_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut text = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
            Ok(stat) => stat,
            // Removed since.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let meta = meta_of(&stat);
        let mut line = String::new();
        let mode = meta.format | meta.mode;
        let _ = write!(line, "{mode} {} {} {} {} ", meta.uid, meta.gid, meta.size, meta.modified);
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(name.to_bytes_with_nul());
    }
    let memory = rustix::fs::memfd_create("entries", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&text)?;
    Ok((FileAnswer::Entries(meta(directory.as_fd())?), Some(file.into())))
}

#[derive(Clone, Copy)]
struct How {
    access: Access,
    create: Create,
    append: bool,
    truncate: bool,
}

fn open(root: BorrowedFd<'_>, path: &str, how: How, mode: Option<u32>) -> Answer {
    // Not blocking: it may be a fifo, or become one.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= match how.access {
        Access::Read => OFlags::RDONLY,
        Access::Write => OFlags::WRONLY,
        Access::Both => OFlags::RDWR,
    };
    if how.append {
        flags |= OFlags::APPEND;
    }
    let made = match how.create {
        Create::Never => None,
        // A new file gets its owner; one that is there keeps what it has.
        Create::IfMissing | Create::Always => {
            let new = OFlags::CREATE | OFlags::EXCL;
            match fs::open_in_root(root, path, flags | new, Mode::RUSR | Mode::WUSR) {
                Ok(fd) => {
                    Owner { uid: Some(0), gid: Some(0), mode: Some(mode.unwrap_or(0o644)) }.apply(fd.as_fd())?;
                    Some(fd)
                }
                Err(error) if how.create == Create::IfMissing && error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => return Err(error),
            }
        }
    };
    let fd = match made {
        Some(fd) => fd,
        None => {
            // Opening a device can do something; looking first lets only a race through, inside the instance.
            let there = fs::open_in_root(root, path, OFlags::PATH, Mode::empty())?;
            may_open(there.as_fd(), how)?;
            fs::open_in_root(root, path, flags, Mode::empty())?
        }
    };
    may_open(fd.as_fd(), how)?;
    if how.truncate && how.access != Access::Read {
        rustix::fs::ftruncate(&fd, 0)?;
    }
    Ok((FileAnswer::Opened(meta(fd.as_fd())?), Some(fd)))
}

/// Clients open a directory for reading too, before they look what it is.
fn may_open(fd: BorrowedFd<'_>, how: How) -> io::Result<()> {
    match meta(fd)?.kind {
        FileKind::File => Ok(()),
        FileKind::Directory if how.access == Access::Read => Ok(()),
        FileKind::Directory => Err(Errno::ISDIR.into()),
        FileKind::Symlink | FileKind::Other => Err(Errno::OPNOTSUPP.into()),
    }
}

fn create_directory(root: BorrowedFd<'_>, path: &str, mode: Option<u32>) -> io::Result<()> {
    // EINVAL: `/`, or a path that ends in dots. Both are there if anything is.
    let (parent, name) = fs::open_parent(root, path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => Errno::EXIST.into(),
        _ => error,
    })?;
    rustix::fs::mkdirat(&parent, &*name, Mode::RWXU)?;
    let made =
        fs::open_in_root(parent.as_fd(), &name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    Owner { uid: Some(0), gid: Some(0), mode: Some(mode.unwrap_or(0o755)) }.apply(made.as_fd())
}

fn change(
    root: BorrowedFd<'_>,
    path: &str,
    owner: Owner,
    size: Option<u64>,
    times: Option<(i64, i64)>,
) -> io::Result<()> {
    let found = fs::open_in_root(root, path, OFlags::PATH, Mode::empty())?;
    let base = OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match meta(found.as_fd())?.kind {
        FileKind::File if size.is_some() => fs::open_in_root(root, path, base | OFlags::WRONLY, Mode::empty())?,
        FileKind::File | FileKind::Directory => fs::open_in_root(root, path, base | OFlags::RDONLY, Mode::empty())?,
        FileKind::Symlink | FileKind::Other => {
            if size.is_some() || owner.mode.is_some() || times.is_some() {
                return Err(Errno::OPNOTSUPP.into());
            }
            let (uid, gid) = (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw));
            return Ok(rustix::fs::chownat(&found, "", uid, gid, AtFlags::EMPTY_PATH)?);
        }
    };
    if let Some(size) = size {
        rustix::fs::ftruncate(&fd, size)?;
    }
    owner.apply(fd.as_fd())?;
    if let Some((accessed, modified)) = times {
        let at = |seconds| Timespec { tv_sec: seconds, tv_nsec: 0 };
        let stamps = Timestamps { last_access: at(accessed), last_modification: at(modified) };
        rustix::fs::futimens(&fd, &stamps)?;
    }
    Ok(())
}

fn rename(root: BorrowedFd<'_>, path: &str, to: &str, replace: bool) -> io::Result<()> {
    let (from_parent, from) = fs::open_parent(root, path)?;
    let (to_parent, to) = fs::open_parent(root, to)?;
    if replace {
        return Ok(rustix::fs::renameat(&from_parent, &*from, &to_parent, &*to)?);
    }
    match rustix::fs::renameat_with(&from_parent, &*from, &to_parent, &*to, RenameFlags::NOREPLACE) {
        // A file system that does not know the flag: look first.
        Err(Errno::INVAL) => match rustix::fs::statat(&to_parent, &*to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(rustix::fs::renameat(&from_parent, &*from, &to_parent, &*to)?),
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) => Err(error.into()),
        },
        other => Ok(other?),
    }
}

fn hard_link(root: BorrowedFd<'_>, path: &str, to: &str) -> io::Result<()> {
    let (from_parent, from) = fs::open_parent(root, path)?;
    let (to_parent, to) = fs::open_parent(root, to)?;
    Ok(rustix::fs::linkat(&from_parent, &*from, &to_parent, &*to, AtFlags::empty())?)
}

fn unlink(root: BorrowedFd<'_>, path: &str, directory: bool) -> io::Result<()> {
    let (parent, name) = fs::open_parent(root, path)?;
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    Ok(rustix::fs::unlinkat(&parent, &*name, flags)?)
}
