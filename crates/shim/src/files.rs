//! File requests, done in a short-lived forked child: a FUSE mount inside stalls nobody else.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use stapes_files::apply;
use stapes_shim_api::{Failure, FailureKind, FileAnswer, FileOp};
use stapes_sys::{
    namespace::{self, NEWNS, NEWUSER},
    privilege, process,
};

/// Joins the container (when `init` is given) and does `op` beneath its root, or beneath `root`.
pub fn perform(
    op: &FileOp,
    content: Option<OwnedFd>,
    init: Option<(BorrowedFd<'_>, bool)>,
    root: Option<OwnedFd>,
) -> Result<(FileAnswer, Option<OwnedFd>), Failure> {
    let failed = |error: io::Error| Failure {
        kind: FailureKind::File,
        message: error.to_string(),
        errno: error.raw_os_error().unwrap_or(5),
        code: 0,
    };
    let _ = rustix::process::umask(Mode::empty());
    // Before the container's mounts are the only ones in view.
    let own_files = stapes_files::own_files().map_err(failed)?;
    let root = match (init, root) {
        (Some((init, has_users)), _) => enter(init, has_users),
        (None, Some(root)) => drop_rights().map(|()| root),
        (None, None) => Err(Errno::BADF.into()),
    };
    root.and_then(|root| apply(root.as_fd(), op, content, own_files.as_fd())).map_err(failed)
}

/// On a host directory, only what serving others' files takes: chown, and passing over modes and owners.
fn drop_rights() -> io::Result<()> {
    const CHOWN_TO_FSETID: u64 = 0b1_1111;
    privilege::set_thread_caps(CHOWN_TO_FSETID, CHOWN_TO_FSETID, 0)
        .map_err(|error| io::Error::from_raw_os_error(error.source_error().raw_os_error().unwrap_or(1)))
}

/// Becomes root inside, in the container's mounts, and opens its root.
fn enter(init: BorrowedFd<'_>, has_users: bool) -> io::Result<OwnedFd> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    namespace::setns(init, if has_users { NEWUSER | NEWNS } else { NEWNS })?;
    process::set_ids(0, 0, &[])?;
    Ok(rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
