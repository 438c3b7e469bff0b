//! Files of instances, streamed both ways.

use hyper::Method;
use stapes_api as api;

use crate::{Client, Download, Error, Outcome, Target, Upload};

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
}

impl FileKind {
    pub fn name(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
        }
    }
}

/// Owner and mode of a file; `None` leaves it to the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileAttributes {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// A path of an instance, read.
#[derive(Debug)]
pub struct PulledFile {
    pub kind: FileKind,
    pub attributes: FileAttributes,
    /// The bytes of a file, the target of a symlink; for a directory see [`PulledFile::entries`].
    pub content: Download,
}

impl PulledFile {
    /// Names in a directory.
    pub async fn entries(self) -> Result<Vec<String>, Error> {
        let body = self.content.bytes().await?;
        let envelope: api::Response<Vec<String>> = serde_json::from_slice(&body)
            .map_err(|cause| Error::protocol("stapesd's directory listing is no JSON envelope").because(&cause))?;
        Ok(envelope.metadata)
    }
}

fn target(instance: &str, path: &str) -> Target {
    Target::new("/1.0/instances").join(instance).join("files").query("path", path)
}

impl Client {
    /// Opens a path of an instance for reading.
    pub async fn pull_file(&self, instance: &str, path: &str) -> Result<PulledFile, Error> {
        let content = self.download(target(instance, path)).await?;
        let number = |name, base| content.header(name).and_then(|v| parse_number(v, base));
        let attributes = FileAttributes {
            uid: number(api::FILE_UID, 10),
            gid: number(api::FILE_GID, 10),
            mode: number(api::FILE_MODE, 8).map(|mode| mode & 0o7777),
        };
        let kind = match content.header(api::FILE_TYPE) {
            Some("directory") => FileKind::Directory,
            Some("symlink") => FileKind::Symlink,
            _ => FileKind::File,
        };
        Ok(PulledFile { kind, attributes, content })
    }

    /// Writes a path of an instance: a file's bytes, a symlink's target, or (with an empty body) a directory.
    pub async fn push_file(
        &self,
        instance: &str,
        path: &str,
        kind: FileKind,
        attributes: FileAttributes,
        content: Upload,
    ) -> Result<(), Error> {
        let mut headers = vec![
            (api::FILE_TYPE, kind.name().to_owned()),
            (api::FILE_WRITE, "overwrite".to_owned()),
            ("Content-Type", "application/octet-stream".to_owned()),
        ];
        headers.extend(attributes.uid.map(|uid| (api::FILE_UID, uid.to_string())));
        headers.extend(attributes.gid.map(|gid| (api::FILE_GID, gid.to_string())));
        headers.extend(attributes.mode.map(|mode| (api::FILE_MODE, format!("{mode:04o}"))));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match self.upload(Method::POST, target(instance, path), content, &headers).await? {
            Outcome::Done(_) => Ok(()),
            Outcome::Started(operation) => self.wait(&operation.id).await.map(|_| ()),
        }
    }

    /// Deletes a path of an instance; `force` takes a directory with all it holds.
    pub async fn delete_file(&self, instance: &str, path: &str, force: bool) -> Result<(), Error> {
        let headers: &[_] = if force { &[(api::FILE_FORCE, "true")] } else { &[] };
        self.exchange(Method::DELETE, &target(instance, path), None, headers).await.map(|_| ())
    }
}

fn parse_number(text: &str, base: u32) -> Option<u32> {
    let digits = if base == 8 { text.strip_prefix("0o").unwrap_or(text) } else { text };
    u32::from_str_radix(digits, base).ok()
}
