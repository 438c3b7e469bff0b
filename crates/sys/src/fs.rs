//! Paths that others chose, opened beneath a directory descriptor. See openat2(2).

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags},
    io::Errno,
};

fn in_root() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

/// Opens `path` as if `root` were `/`: `..` and symlinks cannot lead out of it, and no magic link is followed.
pub fn open_in_root(root: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    // The kernel answers EAGAIN when a rename raced the check of "..".
    for _ in 0..32 {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, in_root()) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// The directory that holds `path`, and its last name. Fails with `EINVAL` for `/` and for a path ending in `..`.
pub fn open_parent(root: BorrowedFd<'_>, path: &str) -> io::Result<(OwnedFd, String)> {
    let (parent, name) = split(path)?;
    Ok((open_in_root(root, &parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?, name))
}

fn split(path: &str) -> io::Result<(String, String)> {
    let trimmed = path.trim_end_matches('/');
    let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    if name.is_empty() || name == "." || name == ".." {
        return Err(Errno::INVAL.into());
    }
    Ok((if parent.is_empty() { "/".to_owned() } else { parent.to_owned() }, name.to_owned()))
}

/// Makes every missing directory of `path` beneath `root`, and returns the last one open as a path.
pub fn make_directories(root: BorrowedFd<'_>, path: &str, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in_root(root, path, flags, Mode::empty()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let mut so_far = PathBuf::from("/");
    let mut last = open_in_root(root, "/", flags, Mode::empty())?;
    for part in Path::new(path).components() {
        let Component::Normal(name) = part else { continue };
        so_far.push(name);
        let text = so_far.to_str().ok_or(Errno::INVAL)?;
        last = match open_in_root(root, text, flags, Mode::empty()) {
            Ok(found) => found,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                match rustix::fs::mkdirat(&last, Path::new(name), Mode::from_raw_mode(mode)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open_in_root(root, text, flags, Mode::empty())?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(last)
}

/// Makes a place to mount on: an existing `path`, or a new directory or empty file with its missing parents.
pub fn make_mount_point(root: BorrowedFd<'_>, path: &str, directory: bool) -> io::Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    if directory {
        return make_directories(root, path, 0o755);
    }
    let (parent, name) = split(path)?;
    let parent = make_directories(root, &parent, 0o755)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&parent, &*name, flags, Mode::from_raw_mode(0o644))?);
    open_in_root(root, path, OFlags::PATH, Mode::empty())
}

/// Removes `name` in `parent` and everything beneath it, never crossing into another mount and never following a
/// symlink. Something already gone is success.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let dir = rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?;
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let child = entry.file_name().to_str().map_err(|_| Errno::ILSEQ)?;
        if child != "." && child != ".." {
            remove_tree(std::os::fd::AsFd::as_fd(&dir), child)?;
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    struct Scratch(PathBuf, OwnedFd);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("stapes-fs-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root")).unwrap();
            let root = rustix::fs::open(path.join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            Self(path, root)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_and_dots_cannot_lead_out_of_the_root() {
        let scratch = Scratch::new("out");
        std::fs::write(scratch.0.join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../../../../secret", scratch.0.join("root/link")).unwrap();
        for path in ["../secret", "/../secret", "link", "a/../../secret"] {
            assert!(open_in_root(scratch.1.as_fd(), path, OFlags::PATH, Mode::empty()).is_err(), "{path}");
        }
        make_mount_point(scratch.1.as_fd(), "/../../made/here", false).unwrap();
        assert!(scratch.0.join("root/made/here").is_file());
    }

    #[test]
    fn removing_a_tree_does_not_follow_links() {
        let scratch = Scratch::new("rm");
        std::fs::create_dir_all(scratch.0.join("root/a/b")).unwrap();
        std::fs::create_dir_all(scratch.0.join("kept")).unwrap();
        std::fs::write(scratch.0.join("kept/file"), "x").unwrap();
        std::os::unix::fs::symlink(scratch.0.join("kept"), scratch.0.join("root/a/b/link")).unwrap();
        remove_tree(scratch.1.as_fd(), "a").unwrap();
        assert!(scratch.0.join("kept/file").exists() && !scratch.0.join("root/a").exists());
    }
}
