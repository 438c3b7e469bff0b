//! The container's file system tree, built by its first process.
//!
//! Everything is a detached mount that is put at a place resolved beneath the new root (`openat2`, `RESOLVE_IN_ROOT`),
//! so that a symlink in an image leads nowhere. proc and sysfs are made while the host's are still visible: the kernel
//! gives a user namespace new ones only as far as it could see the old.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags};
use stapes_shim_api::Start;
use stapes_sys::{
    fs,
    mount::{self, FsOption, NODEV, NOEXEC, NOSUID, RDONLY},
    pty::{self, Pty},
};

use crate::step::{Step, StepError};

/// The new root, and what file systems made for it are labelled with.
#[derive(Clone, Copy)]
struct Tree<'a> {
    root: BorrowedFd<'a>,
    context: Option<&'a str>,
}

impl Tree<'_> {
    /// A new file system, labelled where labels are kept.
    fn make(self, kind: &str, options: &[FsOption<'_>], attributes: u64) -> io::Result<OwnedFd> {
        let mut options = options.to_vec();
        if let Some(context) = self.context.filter(|_| ["tmpfs", "devpts"].contains(&kind)) {
            options.push(FsOption::Value("context", context));
        }
        mount::new_file_system(kind, &options, attributes)
    }
}

const SAFE: u64 = NOSUID | NODEV | NOEXEC;

/// Host nodes that every container has; the last two only where the host has them.
const NODES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "net/tun", "fuse"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Builds the tree from detached mounts (the root first, then those of `plan.mounts` and `plan.nodes`), makes it the
/// root, and returns the console: a pty of the container's own.
pub fn build(plan: &Start, fds: Vec<OwnedFd>) -> Result<Pty, StepError> {
    let mut fds = fds.into_iter();
    let root = fds
        .next()
        .ok_or_else(|| StepError::new("failed to find the root mount", io::Error::from(io::ErrorKind::NotFound)))?;
    mount::make_all_private().step(|| "failed to leave the host's mount propagation".to_owned())?;
    attach_root(&root)?;
    let root = root.as_fd();
    let tree = Tree { root, context: plan.file_context.as_deref() };
    file_system(tree, "/proc", "proc", &[], SAFE)?;
    file_system(tree, "/sys", "sysfs", &[], SAFE)?;
    cgroups(tree, plan)?;
    let console = devices(tree)?;
    if let Ok(place) = fs::open_in_root(root, "/run", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        tree.make("tmpfs", &[FsOption::Value("mode", "755")], NOSUID | NODEV)
            .and_then(|made| mount::attach(made.as_fd(), place.as_fd()))
            .step(|| "failed to mount tmpfs on /run".to_owned())?;
    }
    for (target, mount) in
        plan.mounts.iter().map(|one| (&one.target, Some(one))).chain(plan.nodes.iter().map(|one| (&one.target, None)))
    {
        let step = || format!("failed to mount on {target}");
        let from = fds.next().ok_or_else(|| StepError::new(step(), io::Error::from(io::ErrorKind::NotFound)))?;
        let is_directory = mount.is_some() && is_directory(from.as_fd());
        put(root, target, from.as_fd(), is_directory).step(step)?;
    }
    for (source, target) in &plan.overlays {
        overlay(root, source, target);
    }
    hide(tree, plan)?;
    mount::enter_root(root).step(|| "failed to change to the new root".to_owned())?;
    Ok(console)
}

/// Attaches the root over some directory of the host's tree: this copy of it goes away with pivot_root.
pub fn attach_root(root: &OwnedFd) -> Result<(), StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = ["/usr", "/tmp", "/etc", "/proc"]
        .into_iter()
        .find_map(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
    let step = || "failed to attach the root".to_owned();
    let place = place.ok_or_else(|| StepError::new(step(), io::Error::from(io::ErrorKind::NotFound)))?;
    mount::attach(root.as_fd(), place.as_fd()).step(step)
}

pub fn is_directory(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Puts a detached mount on `target` beneath the root, which is made when missing.
pub fn put(root: BorrowedFd<'_>, target: &str, from: BorrowedFd<'_>, directory: bool) -> io::Result<()> {
    let place = fs::make_mount_point(root, target, directory)?;
    mount::attach(from, place.as_fd())
}

fn file_system(
    tree: Tree<'_>,
    target: &str,
    kind: &str,
    options: &[FsOption<'_>],
    attributes: u64,
) -> Result<OwnedFd, StepError> {
    let step = || format!("failed to mount {kind} on {target}");
    let made = tree.make(kind, options, attributes).step(step)?;
    put(tree.root, target, made.as_fd(), true).step(step)?;
    Ok(made)
}

/// The same in a new directory `name` of a file system that was made a moment ago, so that nothing in it leads astray:
/// no path is resolved.
fn file_system_in(
    tree: Tree<'_>,
    dir: BorrowedFd<'_>,
    name: &str,
    kind: &str,
    options: &[FsOption<'_>],
    attributes: u64,
) -> Result<OwnedFd, StepError> {
    let step = || format!("failed to mount {kind} on {name}");
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)).step(step)?;
    let made = tree.make(kind, options, attributes).step(step)?;
    mount::attach_in(made.as_fd(), dir, name).step(step)?;
    Ok(made)
}

/// Puts a node on an empty file of its own in such a file system.
fn node_in(dir: BorrowedFd<'_>, name: &str, node: BorrowedFd<'_>) -> io::Result<()> {
    rustix::fs::mknodat(dir, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)?;
    mount::attach_in(node, dir, name)
}

/// The host's hierarchies as seen from the container's cgroup namespace.
fn cgroups(tree: Tree<'_>, plan: &Start) -> Result<(), StepError> {
    const BASE: &str = "/sys/fs/cgroup";
    let view = &plan.cgroup;
    if view.unified.as_deref() == Some("") {
        return file_system(tree, BASE, "cgroup2", &[], SAFE).map(drop);
    }
    if view.v1.is_empty() && view.unified.is_none() {
        return Ok(());
    }
    let base =
        file_system(tree, BASE, "tmpfs", &[FsOption::Value("mode", "755"), FsOption::Value("size", "64k")], SAFE)?;
    for (name, options) in &view.v1 {
        if let Some(payload) = view.v1_payloads.get(name) {
            let step = || format!("failed to bind {payload} on {BASE}/{name}");
            rustix::fs::mkdirat(&base, name, Mode::from_raw_mode(0o755)).step(step)?;
            let group = mount::clone_tree_with(Path::new(payload), SAFE).step(step)?;
            mount::attach_in(group.as_fd(), base.as_fd(), name).step(step)?;
            continue;
        }
        let options: Vec<FsOption<'_>> = options
            .iter()
            .map(|option| match option.split_once('=') {
                Some((key, value)) => FsOption::Value(key, value),
                None => FsOption::Flag(option),
            })
            .collect();
        file_system_in(tree, base.as_fd(), name, "cgroup", &options, SAFE)?;
    }
    if let Some(name) = &view.unified {
        file_system_in(tree, base.as_fd(), name, "cgroup2", &[], SAFE)?;
    }
    mount::set_attributes(base.as_fd(), RDONLY, false).step(|| format!("failed to make {BASE} read-only"))
}

/// `/dev` and what belongs in it. The console is a pty of the devpts inside, so that a checkpoint can carry it.
fn devices(tree: Tree<'_>) -> Result<Pty, StepError> {
    let dev =
        file_system(tree, "/dev", "tmpfs", &[FsOption::Value("mode", "755"), FsOption::Value("size", "512k")], NOSUID)?;
    let dev = dev.as_fd();
    for name in NODES {
        let step = || format!("failed to put /dev/{name} in place");
        match mount::clone_tree(Path::new(&format!("/dev/{name}")), false) {
            Ok(node) => {
                if let Some((parent, _)) = name.split_once('/') {
                    rustix::fs::mkdirat(dev, parent, Mode::from_raw_mode(0o755)).step(step)?;
                }
                node_in(dev, name, node.as_fd()).step(step)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StepError::new(step(), error)),
        }
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).step(|| format!("failed to link /dev/{name}"))?;
    }
    let ptys = [FsOption::Value("mode", "0620"), FsOption::Value("gid", "5"), FsOption::Value("ptmxmode", "0666")];
    let pts = file_system_in(tree, dev, "pts", "devpts", &ptys, NOSUID | NOEXEC)?;
    file_system_in(tree, dev, "shm", "tmpfs", &[FsOption::Value("mode", "1777")], NOSUID | NODEV)?;
    file_system_in(tree, dev, "mqueue", "mqueue", &[], SAFE)?;
    console(dev, pts.as_fd())
}

fn console(dev: BorrowedFd<'_>, pts: BorrowedFd<'_>) -> Result<Pty, StepError> {
    let step = || "failed to make the console".to_owned();
    let pty = pty::open(&format!("/proc/self/fd/{}/ptmx", pts.as_raw_fd())).step(step)?;
    pty::resize(pty.master.as_fd(), 80, 25).step(step)?;
    let number = pty::number(pty.master.as_fd()).step(step)?;
    let bind = mount::clone_tree_in(pts, &number.to_string()).step(step)?;
    node_in(dev, "console", bind.as_fd()).step(step)?;
    Ok(pty)
}

/// Binds a host file over one that the container has. Skipped where either is missing: LXCFS may serve fewer files.
fn overlay(root: BorrowedFd<'_>, source: &str, target: &str) {
    let Ok(from) = mount::clone_tree(Path::new(source), false) else { return };
    if let Ok(place) = fs::open_in_root(root, target, OFlags::PATH, Mode::empty()) {
        let _ = mount::attach(from.as_fd(), place.as_fd());
    }
}

fn hide(tree: Tree<'_>, plan: &Start) -> Result<(), StepError> {
    let root = tree.root;
    // One empty directory for all of them: a file system each would be one more to make now and to take down at the end.
    let mut empty: Option<OwnedFd> = None;
    for path in &plan.masked {
        let step = || format!("failed to hide {path}");
        let Ok(place) = fs::open_in_root(root, path, OFlags::PATH, Mode::empty()) else { continue };
        let directory = is_directory(place.as_fd());
        let cover = match &empty {
            // It is attached by now, which a copy needs.
            Some(empty) if directory => mount::clone_tree_at(empty.as_fd(), false),
            None if directory => mount::new_file_system("tmpfs", &[FsOption::Value("size", "0")], SAFE | RDONLY),
            _ => mount::clone_tree(Path::new("/dev/null"), false),
        };
        let cover = cover.step(step)?;
        mount::attach(cover.as_fd(), place.as_fd()).step(step)?;
        if directory && empty.is_none() {
            empty = Some(cover);
        }
    }
    // Taken while they are writable, attached over their read-only selves.
    let mut writable = Vec::new();
    for path in &plan.writable {
        let Ok(place) = fs::open_in_root(root, path, OFlags::PATH, Mode::empty()) else { continue };
        let step = || format!("failed to keep {path} writable");
        writable.push((path, mount::clone_tree_at(place.as_fd(), true).step(step)?));
    }
    for path in &plan.read_only {
        let step = || format!("failed to make {path} read-only");
        let Ok(place) = fs::open_in_root(root, path, OFlags::PATH, Mode::empty()) else { continue };
        let copy = mount::clone_tree_at(place.as_fd(), true).step(step)?;
        mount::set_attributes(copy.as_fd(), RDONLY, true).step(step)?;
        mount::attach(copy.as_fd(), place.as_fd()).step(step)?;
    }
    for (path, copy) in writable {
        put(root, path, copy.as_fd(), true).step(|| format!("failed to keep {path} writable"))?;
    }
    for (kind, path) in &plan.pristine {
        file_system(tree, path, kind, &[], SAFE)?;
    }
    Ok(())
}
