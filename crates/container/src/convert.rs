//! Between the driver contract's words and the wire's.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
};

use stapes_instance::{
    Access, Create, DriverError, Event, ExitReason, ExitStatus, FileKind, FileMeta, FileReply, FileRequest, GuestFile,
    WriteMode,
};
use stapes_model::InstanceId;
use stapes_shim_api as wire;

/// The request and the file that goes with it: for a replacement its content, in a file of memory.
pub fn file_op(request: &FileRequest) -> io::Result<(wire::FileOp, Option<OwnedFd>)> {
    use FileRequest as R;
    let path = path(request).to_owned();
    let op = match request.clone() {
        R::Stat { .. } => wire::FileOp::Stat { path },
        R::Read { .. } => wire::FileOp::Read { path },
        R::Write { how, uid, gid, mode, .. } => {
            let how = match how {
                WriteMode::Overwrite => wire::WriteMode::Overwrite,
                WriteMode::Append => wire::WriteMode::Append,
            };
            wire::FileOp::Write { path, how, uid, gid, mode }
        }
        R::WriteWhole { uid, gid, mode, .. } => wire::FileOp::WriteWhole { path, uid, gid, mode },
        R::PutInPlace { file: GuestFile::Local(file), .. } => {
            return Ok((wire::FileOp::PutInPlace { path }, Some(file.try_clone()?.into())));
        }
        // The file of a machine: the instance was another when it was opened.
        R::PutInPlace { file: GuestFile::Remote(_), .. } => return Err(io::ErrorKind::CrossesDevices.into()),
        R::MakeDirectory { uid, gid, mode, .. } => wire::FileOp::MakeDirectory { path, uid, gid, mode },
        R::MakeSymlink { target, uid, gid, .. } => wire::FileOp::MakeSymlink { path, target, uid, gid },
        R::Remove { recursive, .. } => wire::FileOp::Remove { path, recursive },
        R::Replace { uid, gid, mode, content, .. } => {
            let memory = rustix::fs::memfd_create("content", rustix::fs::MemfdFlags::CLOEXEC)?;
            let mut file = File::from(memory);
            file.write_all(&content)?;
            return Ok((wire::FileOp::Replace { path, uid, gid, mode }, Some(file.into())));
        }
        R::Follow { .. } => wire::FileOp::Follow { path },
        R::List { .. } => wire::FileOp::List { path },
        R::Open { access, create, append, truncate, mode, .. } => {
            let access = match access {
                Access::Read => wire::Access::Read,
                Access::Write => wire::Access::Write,
                Access::Both => wire::Access::Both,
            };
            let create = match create {
                Create::Never => wire::Create::Never,
                Create::IfMissing => wire::Create::IfMissing,
                Create::Always => wire::Create::Always,
            };
            wire::FileOp::Open { path, access, create, append, truncate, mode }
        }
        R::CreateDirectory { mode, .. } => wire::FileOp::CreateDirectory { path, mode },
        R::Change { uid, gid, size, mode, times, .. } => wire::FileOp::Change { path, uid, gid, mode, size, times },
        R::Rename { to, replace, .. } => wire::FileOp::Rename { path, to, replace },
        R::HardLink { to, .. } => wire::FileOp::HardLink { path, to },
        R::Unlink { directory, .. } => wire::FileOp::Unlink { path, directory },
    };
    Ok((op, None))
}

pub fn path(request: &FileRequest) -> &str {
    use FileRequest as R;
    match request {
        R::Stat { path }
        | R::Read { path }
        | R::Write { path, .. }
        | R::WriteWhole { path, .. }
        | R::PutInPlace { path, .. }
        | R::MakeDirectory { path, .. }
        | R::MakeSymlink { path, .. }
        | R::Remove { path, .. }
        | R::Replace { path, .. }
        | R::Follow { path }
        | R::List { path }
        | R::Open { path, .. }
        | R::CreateDirectory { path, .. }
        | R::Change { path, .. }
        | R::Rename { path, .. }
        | R::HardLink { path, .. }
        | R::Unlink { path, .. } => path,
    }
}

fn meta(meta: wire::FileMeta) -> FileMeta {
    let kind = match meta.kind {
        wire::FileKind::File => FileKind::File,
        wire::FileKind::Directory => FileKind::Directory,
        wire::FileKind::Symlink => FileKind::Symlink,
        wire::FileKind::Other => FileKind::Other,
    };
    let wire::FileMeta { uid, gid, mode, size, modified, format, .. } = meta;
    FileMeta { kind, uid, gid, mode, size, modified, format }
}

/// The whole of a file of memory.
fn content(path: &str, fd: OwnedFd) -> Result<Vec<u8>, DriverError> {
    let mut file = File::from(fd);
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(|error| DriverError::other(format!("failed to read the names in {path}"), error))?;
    Ok(bytes)
}

/// `st_mode uid gid size mtime name`. A name that is not UTF-8 has its other bytes replaced, as in [`FileReply::Listed`].
fn entry(line: &[u8]) -> Option<(String, FileMeta)> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let mode: u32 = field()?.parse().ok()?;
    let (uid, gid) = (field()?.parse().ok()?, field()?.parse().ok()?);
    let (size, modified) = (field()?.parse().ok()?, field()?.parse().ok()?);
    let name = String::from_utf8_lossy(fields.next()?).into_owned();
    let kind = match mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Other,
    };
    Some((name, FileMeta { kind, uid, gid, mode: mode & 0o7777, size, modified, format: mode & 0o170_000 }))
}

pub fn file_reply(path: &str, answer: wire::FileAnswer, fd: Option<OwnedFd>) -> Result<FileReply, DriverError> {
    let missing =
        || DriverError::Other { doing: format!("{path}: the answer came without its descriptor"), source: None };
    Ok(match answer {
        wire::FileAnswer::Done => FileReply::Done,
        wire::FileAnswer::Meta(found) => FileReply::Meta(meta(found)),
        wire::FileAnswer::Link { target, meta: found } => FileReply::Link { target, meta: meta(found) },
        wire::FileAnswer::Opened(found) => {
            FileReply::Opened { file: fd.ok_or_else(missing)?.into(), meta: meta(found) }
        }
        wire::FileAnswer::Beside(found) => {
            FileReply::Beside { file: fd.ok_or_else(missing)?.into(), meta: meta(found) }
        }
        wire::FileAnswer::Listed(found) => {
            let bytes = content(path, fd.ok_or_else(missing)?)?;
            let mut names: Vec<String> = bytes
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect();
            names.sort_unstable();
            FileReply::Listed { names, meta: meta(found) }
        }
        wire::FileAnswer::Entries(found) => {
            let bytes = content(path, fd.ok_or_else(missing)?)?;
            let entries = bytes.split(|byte| *byte == 0).filter_map(entry).collect();
            FileReply::Entries { entries, meta: meta(found) }
        }
    })
}

pub fn exit_status(status: wire::ExitStatus) -> ExitStatus {
    match status {
        wire::ExitStatus::Code(code) => ExitStatus::Code(code),
        wire::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
        wire::ExitStatus::Unknown => ExitStatus::Unknown,
    }
}

pub fn event(event: wire::Event) -> Event {
    match event {
        wire::Event::ExecExited { exec, status } => Event::ExecExited { exec, status: exit_status(status) },
        wire::Event::Exited { reason, status } => {
            let reason = match reason {
                wire::ExitReason::Halt => ExitReason::Halt,
                wire::ExitReason::Reboot => ExitReason::Reboot,
                wire::ExitReason::Killed => ExitReason::Killed,
            };
            Event::Exited { reason, status: exit_status(status) }
        }
    }
}

/// What went wrong, for a caller who asked about `id` and `subject` (a path or a program).
pub fn failure(id: InstanceId, subject: &str, failure: wire::Failure) -> DriverError {
    use wire::FailureKind as K;
    let wire::Failure { kind, message, errno, code } = failure;
    match kind {
        K::Start => DriverError::Start { id, step: message, source: None },
        K::Command => DriverError::Command { command: subject.to_owned(), reason: message, code },
        K::File => DriverError::File { path: subject.to_owned(), reason: message, errno },
        K::State => DriverError::NotRunning { id },
        K::Unsupported => DriverError::Unsupported {
            what: format!("this request of instance {id}"),
            reason: format!("its shim is older than the daemon; restart the instance ({message})"),
        },
        K::TimedOut | K::Other => DriverError::Other { doing: message, source: None },
    }
}
