//! `/1.0/instances/{name}/files`: read, write and remove paths of an instance.
//!
//! Owner, mode and type travel in headers. The driver opens the path and hands over the open file; the bytes move
//! between it and the connection here.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use hyper::{HeaderMap, Method};
use serde_json::json;
use stapes_api as api;
use stapes_engine::app::{instance_url, with_project};
use stapes_instance::{FileKind, FileMeta, FileReply, FileRequest, GuestFile, WriteMode};
use stapes_model::{InstanceName, ProjectName};

use crate::{
    reply::{ApiError, Body, Reply, Result, full},
    request::Context,
    route,
    router::Route,
    streams,
    transfer::{self, Writer},
};

/// Longest target of a symlink, as in symlink(2).
const LINK_LIMIT: usize = 4096;

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/instances/{name}/files" AccessFiles "Read a file, a symlink or a directory of an instance" => get),
        route!(POST "/1.0/instances/{name}/files" AccessFiles "Write a file, a symlink or a directory of an instance" => post),
        route!(DELETE "/1.0/instances/{name}/files" AccessFiles "Remove a file or directory of an instance" => delete),
        route!(GET "/1.0/instances/{name}/sftp" AccessFiles "Speak SFTP on the files of an instance" => streams::sftp),
    ]
}

/// Which path of which instance a request is about.
struct Subject {
    project: ProjectName,
    name: InstanceName,
    path: String,
}

impl Subject {
    fn of(context: &Context) -> Result<Self> {
        Ok(Self {
            project: context.project()?,
            name: context.instance_name()?,
            path: absolute(context.query.get("path").map_or("", String::as_str))?,
        })
    }

    fn event(&self, context: &Context, action: &str) {
        let source = with_project(format!("{}/files", instance_url(&self.project, &self.name)), &self.project);
        let requestor = context.caller.requestor();
        let details = json!({ "path": self.path });
        context.engine.events.lifecycle(self.project.as_str(), action, &source, Some(&requestor), details);
    }
}

/// The path as one from the instance's root: Incus reads `etc/hosts` as `/etc/hosts`. `..` stays, and cannot leave the
/// root where it is resolved.
fn absolute(path: &str) -> Result<String> {
    if path.is_empty() {
        return Err(ApiError::bad_request("path: missing"));
    }
    if path.contains('\0') {
        return Err(ApiError::bad_request("path: contains a NUL byte"));
    }
    Ok(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

async fn get(context: Context) -> Result {
    let subject = Subject::of(&context)?;
    let path = subject.path.clone();
    // HEAD wants the headers alone, and opens nothing.
    let head = context.request.method() == Method::HEAD;
    let request = if head { FileRequest::Stat { path } } else { FileRequest::Read { path } };
    let answer = context.engine.file(&subject.project, &subject.name, request).await?;
    if !head {
        subject.event(&context, "instance-file-retrieved");
    }
    match answer {
        FileReply::Meta(meta) => {
            let mut headers = described(&meta);
            if meta.kind == FileKind::File {
                headers.insert("content-type", "application/octet-stream".to_owned());
                headers.insert("content-length", meta.size.to_string());
            }
            Ok(Reply::Raw { headers, body: full("") })
        }
        FileReply::Opened { file, meta } => {
            // Files of /proc and /sys have no size until they are read.
            let length = (meta.size > 0).then_some(meta.size);
            let body = transfer::body(transfer::read(file, length));
            Ok(raw(&subject.path, &meta, length, body))
        }
        FileReply::Link { target, meta } => {
            let target = link_target(&subject.path, &target);
            Ok(raw(&subject.path, &meta, Some(target.len() as u64), full(target)))
        }
        FileReply::Listed { mut names, meta } => {
            names.sort_unstable();
            let mut headers = described(&meta);
            headers.insert("content-type", "application/json".to_owned());
            Ok(Reply::Raw { headers, body: full(json!(api::Response::sync(names)).to_string()) })
        }
        FileReply::Done | FileReply::Beside { .. } | FileReply::Entries { .. } => Err(unexpected(&subject.path)),
    }
}

fn unexpected(path: &str) -> ApiError {
    ApiError::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, format!("{path}: the answer does not fit the request"))
}

fn raw(path: &str, meta: &FileMeta, length: Option<u64>, body: Body) -> Reply {
    let mut headers = described(meta);
    headers.insert("content-type", "application/octet-stream".to_owned());
    if let Some(name) = Path::new(path).file_name().and_then(|name| name.to_str()) {
        headers.insert("content-disposition", format!("inline;filename={name}"));
    }
    if let Some(length) = length {
        headers.insert("content-length", length.to_string());
    }
    Reply::Raw { headers, body }
}

/// Incus answers where a relative link leads, seen from the root; `.` and `..` are taken out by their text.
fn link_target(link: &str, target: &str) -> String {
    let from = Path::new(link).parent().unwrap_or(Path::new("/"));
    let mut path = PathBuf::from("/");
    for part in from.join(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// The headers that describe a path, in both spellings.
fn described(meta: &FileMeta) -> BTreeMap<&'static str, String> {
    let kind = match meta.kind {
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::File | FileKind::Other => "file",
    };
    let pairs = [
        ("x-incus-uid", "x-lxd-uid", meta.uid.to_string()),
        ("x-incus-gid", "x-lxd-gid", meta.gid.to_string()),
        ("x-incus-mode", "x-lxd-mode", mode_text(meta.mode)),
        ("x-incus-type", "x-lxd-type", kind.to_owned()),
        ("x-incus-modified", "x-lxd-modified", time_text(meta.modified)),
    ];
    pairs.into_iter().flat_map(|(incus, lxd, value)| [(incus, value.clone()), (lxd, value)]).collect()
}

/// Four octal digits, and a leading zero always: Go's clients read a number without one as decimal.
fn mode_text(mode: u32) -> String {
    match mode & 0o7777 {
        mode @ 0..=0o777 => format!("{mode:04o}"),
        mode => format!("0{mode:o}"),
    }
}

/// Go's way to print a time, which is what Incus sends: `2026-01-31 12:00:00 +0000 UTC`.
fn time_text(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// What the headers of an upload ask for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kind: FileKind,
    how: WriteMode,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Self> {
        let kind = match text(headers, api::FILE_TYPE)? {
            None | Some("" | "file") => FileKind::File,
            Some("directory") => FileKind::Directory,
            Some("symlink") => FileKind::Symlink,
            Some(other) => return Err(refused(api::FILE_TYPE, other, "is none of file, directory, symlink")),
        };
        let how = match text(headers, api::FILE_WRITE)? {
            None | Some("" | "overwrite") => WriteMode::Overwrite,
            Some("append") => WriteMode::Append,
            Some(other) => return Err(refused(api::FILE_WRITE, other, "is neither overwrite nor append")),
        };
        Ok(Self { kind, how, uid: id(headers, api::FILE_UID)?, gid: id(headers, api::FILE_GID)?, mode: mode(headers)? })
    }
}

fn refused(header: &str, value: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("header {header}: {value:?} {why}"))
}

/// A header in either spelling.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let lxd = api::lxd_header(name);
    let Some(value) = headers.get(name).or_else(|| headers.get(lxd?)) else { return Ok(None) };
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| refused(name, "…", "has bytes that are no printable ASCII"))
}

/// A user or group id. -1, "leave it", is what some clients send for one that nobody gave.
fn id(headers: &HeaderMap, name: &str) -> Result<Option<u32>> {
    match text(headers, name)? {
        None | Some("" | "-1") => Ok(None),
        Some(digits) => match digits.parse() {
            Ok(id) if id != u32::MAX => Ok(Some(id)),
            _ => Err(refused(name, digits, "is no id from 0 to 4294967294")),
        },
    }
}

/// Always octal, with or without `0` or `0o` in front.
fn mode(headers: &HeaderMap) -> Result<Option<u32>> {
    let Some(digits) = text(headers, api::FILE_MODE)?.filter(|digits| !matches!(*digits, "" | "-1")) else {
        return Ok(None);
    };
    let bare = digits.strip_prefix("0o").unwrap_or(digits);
    let plain = bare.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(bare, 8) {
        Ok(mode) if plain && mode <= 0o7777 => Ok(Some(mode)),
        _ => Err(refused(api::FILE_MODE, digits, "is no octal mode from 0000 to 7777")),
    }
}

async fn post(mut context: Context) -> Result {
    let subject = Subject::of(&context)?;
    let wanted = Wanted::of(context.headers())?;
    let (path, uid, gid, mode) = (subject.path.clone(), wanted.uid, wanted.gid, wanted.mode);
    let request = match wanted.kind {
        FileKind::Directory => FileRequest::MakeDirectory { path, uid, gid, mode },
        FileKind::Symlink => FileRequest::MakeSymlink { path, target: link_body(&mut context).await?, uid, gid },
        FileKind::File | FileKind::Other if wanted.how == WriteMode::Overwrite => {
            FileRequest::WriteWhole { path, uid, gid, mode }
        }
        FileKind::File | FileKind::Other => FileRequest::Write { path, how: wanted.how, uid, gid, mode },
    };
    match context.engine.file(&subject.project, &subject.name, request).await? {
        FileReply::Done if wanted.kind != FileKind::File => {}
        FileReply::Opened { file, .. } if wanted.kind == FileKind::File => {
            receive(&mut context, &subject, file).await?
        }
        FileReply::Beside { file, .. } => {
            receive(&mut context, &subject, file.clone()).await?;
            let request = FileRequest::PutInPlace { path: subject.path.clone(), file };
            context.engine.file(&subject.project, &subject.name, request).await?;
        }
        _ => return Err(unexpected(&subject.path)),
    }
    subject.event(&context, "instance-file-pushed");
    Ok(Reply::empty())
}

/// Writes the body into a file of the instance.
async fn receive(context: &mut Context, subject: &Subject, file: GuestFile) -> Result<()> {
    let mut writer = Writer::new(file, format!("{} of {}", subject.path, subject.name));
    while let Some(piece) = transfer::next_piece(context.request.body_mut()).await? {
        writer.push(piece).await?;
    }
    writer.finish().await?;
    Ok(())
}

async fn link_body(context: &mut Context) -> Result<String> {
    let bytes = context.bytes().await?;
    if bytes.is_empty() || bytes.len() >= LINK_LIMIT || bytes.contains(&0) {
        let why = format!("the body, a symlink's target, must have 1 to {} bytes and no NUL", LINK_LIMIT - 1);
        return Err(ApiError::bad_request(why));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| ApiError::bad_request("the body, a symlink's target, is no UTF-8"))
}

async fn delete(context: Context) -> Result {
    let subject = Subject::of(&context)?;
    let recursive = match text(context.headers(), api::FILE_FORCE)? {
        None | Some("" | "false" | "0") => false,
        Some("true" | "1") => true,
        Some(other) => return Err(refused(api::FILE_FORCE, other, "is neither true nor false")),
    };
    let request = FileRequest::Remove { path: subject.path.clone(), recursive };
    match context.engine.file(&subject.project, &subject.name, request).await? {
        FileReply::Done => {
            subject.event(&context, "instance-file-deleted");
            Ok(Reply::empty())
        }
        _ => Err(unexpected(&subject.path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(&'static str, &'static str)]) -> Result<Wanted> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Wanted::of(&headers)
    }

    #[test]
    fn an_upload_without_headers_overwrites_a_file_and_leaves_its_owner() {
        let plain = Wanted { kind: FileKind::File, how: WriteMode::Overwrite, uid: None, gid: None, mode: None };
        assert_eq!(wanted(&[]).unwrap(), plain);
        assert_eq!(wanted(&[("X-Incus-uid", "-1"), ("X-Incus-mode", "-1"), ("X-Incus-type", "")]).unwrap(), plain);
    }

    #[test]
    fn both_spellings_are_read() {
        let read = wanted(&[
            ("X-LXD-uid", "1000"),
            ("x-incus-gid", "33"),
            ("X-LXD-type", "directory"),
            ("X-Incus-write", "append"),
        ]);
        let read = read.unwrap();
        assert_eq!((read.uid, read.gid), (Some(1000), Some(33)));
        assert_eq!((read.kind, read.how), (FileKind::Directory, WriteMode::Append));
    }

    #[test]
    fn a_mode_is_octal_however_it_is_written() {
        for (text, mode) in [("0644", 0o644), ("644", 0o644), ("0o755", 0o755), ("1777", 0o1777), ("0", 0)] {
            assert_eq!(wanted(&[("X-Incus-mode", text)]).unwrap().mode, Some(mode), "{text}");
        }
        for (mode, text) in [(0o644, "0644"), (0o7, "0007"), (0o4755, "04755"), (0o100_600, "0600")] {
            assert_eq!(mode_text(mode), text);
        }
    }

    #[test]
    fn an_ill_formed_header_is_refused_by_name() {
        for (header, value) in [
            ("X-Incus-uid", "root"),
            ("X-Incus-gid", "4294967295"),
            ("X-Incus-gid", "-2"),
            ("X-Incus-mode", "0888"),
            ("X-Incus-mode", "+644"),
            ("X-Incus-mode", "10000"),
            ("X-Incus-type", "fifo"),
            ("X-Incus-write", "prepend"),
        ] {
            let error = wanted(&[(header, value)]).unwrap_err();
            assert!(error.message.contains(header) && error.message.contains(value), "{}", error.message);
        }
    }

    #[test]
    fn a_link_is_told_as_seen_from_the_root() {
        for (link, target, told) in [
            ("/etc/os-release", "../usr/lib/os-release", "/usr/lib/os-release"),
            ("/bin", "usr/bin", "/usr/bin"),
            ("/a/b", "/x/./y", "/x/y"),
            ("/a", "../../..", "/"),
        ] {
            assert_eq!(link_target(link, target), told);
        }
    }

    #[test]
    fn a_time_reads_as_go_prints_it() {
        assert_eq!(time_text(1_700_000_000), "2023-11-14 22:13:20 +0000 UTC");
    }

    #[test]
    fn a_path_is_seen_from_the_root() {
        assert_eq!(absolute("etc/hosts").unwrap(), "/etc/hosts");
        assert_eq!(absolute("/../etc").unwrap(), "/../etc");
        assert!(absolute("").is_err() && absolute("/a\0b").is_err());
    }
}
