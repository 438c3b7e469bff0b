//! File requests, done by the agent in the guest.

use std::{any::Any, sync::Arc, time::Duration};

use stapes_agent_api::{self as wire, FileAnswer, FileOp, MAX_BYTES, Reply, Request};
use stapes_instance::{
    Access, Create, DriverError, FileKind, FileMeta, FileReply, FileRequest, GuestFile, RemoteFile, WriteMode,
};

use crate::{
    agent::{AgentError, Link},
    remote::OpenFile,
    running::agent_error,
};
use stapes_model::InstanceId;

const PATIENCE: Duration = Duration::from_secs(35);

/// What the agent is asked, and the bytes that go along.
fn operation(request: &FileRequest) -> (FileOp, Vec<u8>) {
    use FileRequest as R;
    let op = match request.clone() {
        R::Stat { path } => FileOp::Stat { path },
        R::Read { path } => FileOp::Read { path },
        R::MakeDirectory { path, uid, gid, mode } => FileOp::MakeDirectory { path, uid, gid, mode },
        R::MakeSymlink { path, target, uid, gid } => FileOp::MakeSymlink { path, target, uid, gid },
        R::Remove { path, recursive } => FileOp::Remove { path, recursive },
        R::Replace { path, content, uid, gid, mode } => return (FileOp::Replace { path, uid, gid, mode }, content),
        R::Follow { path } => FileOp::Follow { path },
        R::List { path } => FileOp::List { path },
        R::CreateDirectory { path, mode } => FileOp::CreateDirectory { path, mode },
        R::Change { path, uid, gid, size, mode, times } => FileOp::Change { path, uid, gid, mode, size, times },
        R::Rename { path, to, replace } => FileOp::Rename { path, to, replace },
        R::HardLink { path, to } => FileOp::HardLink { path, to },
        R::Unlink { path, directory } => FileOp::Unlink { path, directory },
        R::Write { path, how, uid, gid, mode } => FileOp::Write { path, how: write_mode(how), uid, gid, mode },
        R::WriteWhole { path, uid, gid, mode } => FileOp::WriteWhole { path, uid, gid, mode },
        R::PutInPlace { path, .. } => FileOp::PutInPlace { path },
        R::Open { path, access, create, append, truncate, mode } => {
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
            FileOp::Open { path, access, create, append, truncate, mode }
        }
    };
    (op, Vec::new())
}

fn write_mode(how: WriteMode) -> wire::WriteMode {
    match how {
        WriteMode::Overwrite => wire::WriteMode::Overwrite,
        WriteMode::Append => wire::WriteMode::Append,
    }
}

/// The file that is to be put in place, by its handle and the session that knows it. `EXDEV` for one of another guest,
/// or of this one before its last start.
fn known(link: &Arc<Link>, request: &FileRequest) -> Result<Option<(u64, u64)>, DriverError> {
    const EXDEV: i32 = 18;
    let FileRequest::PutInPlace { path, file } = request else { return Ok(None) };
    let ours = match file {
        GuestFile::Remote(file) => (&**file as &dyn Any).downcast_ref::<OpenFile>().and_then(|file| file.on(link)),
        GuestFile::Local(_) => None,
    };
    let reason = "the instance was started or stopped since the file was made".to_owned();
    ours.map(Some).ok_or_else(|| DriverError::File { path: path.clone(), reason, errno: EXDEV })
}

fn path(request: &FileRequest) -> &str {
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

/// One request and its answer.
pub fn perform(id: InstanceId, link: &Arc<Link>, request: &FileRequest) -> Result<FileReply, DriverError> {
    let path = path(request);
    let (op, bytes) = operation(request);
    let (session, handle) = match known(link, request)? {
        Some((session, handle)) => (session, Some(handle)),
        // Before it is asked: what it opens then is its own, or is never touched.
        None => (link.session(), None),
    };
    let failed = |error| match error {
        AgentError::Failed(failure) if failure.kind == wire::FailureKind::File => {
            DriverError::File { path: path.to_owned(), reason: failure.message, errno: failure.errno }
        }
        error => agent_error(id, error),
    };
    let (reply, bytes) = link.ask_in(session, Request::File { op, handle }, bytes, PATIENCE).map_err(failed)?;
    let Reply::File { answer, handle } = reply else { return Err(agent_error(id, AgentError::Strange)) };
    let opened = |handle: Option<u64>| {
        let handle = handle.ok_or_else(|| agent_error(id, AgentError::Strange))?;
        Ok(GuestFile::Remote(Arc::new(OpenFile::new(link, session, handle)) as Arc<dyn RemoteFile>))
    };
    let content = match (&answer, handle) {
        (FileAnswer::Listed(_) | FileAnswer::Entries(_), Some(handle)) => {
            let content = read_all(link, handle);
            close(link, handle);
            content.map_err(failed)?
        }
        _ => bytes,
    };
    Ok(match answer {
        FileAnswer::Done => FileReply::Done,
        FileAnswer::Meta(found) => FileReply::Meta(meta(found)),
        FileAnswer::Link { target, meta: found } => FileReply::Link { target, meta: meta(found) },
        FileAnswer::Listed(found) => FileReply::Listed { names: names(&content), meta: meta(found) },
        FileAnswer::Entries(found) => {
            let entries = content.split(|byte| *byte == 0).filter_map(entry).collect();
            FileReply::Entries { entries, meta: meta(found) }
        }
        FileAnswer::Opened(found) => FileReply::Opened { file: opened(handle)?, meta: meta(found) },
        FileAnswer::Beside(found) => FileReply::Beside { file: opened(handle)?, meta: meta(found) },
    })
}

fn close(link: &Link, handle: u64) {
    // One that is not closed is closed with the session.
    let _ = link.ask(Request::FileClose { handle }, Vec::new(), PATIENCE);
}

/// More names than this are a guest that plays with us.
const MOST_BYTES: usize = 64 << 20;

fn read_all(link: &Link, handle: u64) -> Result<Vec<u8>, AgentError> {
    let mut content = Vec::new();
    while content.len() < MOST_BYTES {
        let request = Request::FileRead { handle, offset: content.len() as u64, length: MAX_BYTES as u32 };
        let (reply, bytes) = link.ask(request, Vec::new(), PATIENCE)?;
        if !matches!(reply, Reply::Bytes) {
            return Err(AgentError::Strange);
        }
        content.extend_from_slice(&bytes);
        if bytes.len() < MAX_BYTES {
            break;
        }
    }
    Ok(content)
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

fn names(content: &[u8]) -> Vec<String> {
    let names = content.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort_unstable();
    names
}

/// `st_mode uid gid size mtime name`.
fn entry(line: &[u8]) -> Option<(String, FileMeta)> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<i64>().ok();
    let mode = u32::try_from(number()?).ok()?;
    let (uid, gid) = (u32::try_from(number()?).ok()?, u32::try_from(number()?).ok()?);
    let (size, modified) = (u64::try_from(number()?).ok()?, number()?);
    let name = String::from_utf8_lossy(fields.next()?).into_owned();
    let kind = match mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Other,
    };
    Some((name, FileMeta { kind, uid, gid, mode: mode & 0o7777, size, modified, format: mode & 0o170_000 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_garbage_is_passed_over() {
        let (name, meta) = entry(b"33188 1 2 30 -5 a name").unwrap();
        assert_eq!((name.as_str(), meta.kind, meta.mode, meta.modified), ("a name", FileKind::File, 0o644, -5));
        for garbage in [&b""[..], b"x", b"1 2 3", b"-1 0 0 0 0 n", b"33188 0 0 -1 0 n", b"33188 0 0 1 0"] {
            assert!(entry(garbage).is_none(), "{garbage:?}");
        }
        assert_eq!(names(b"b\0a\0"), ["a", "b"]);
    }
}
