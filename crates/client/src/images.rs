//! Uploading and downloading images.

use hyper::Method;
use stapes_api::{self as api, ConfigMap, Operation};
use tokio::io::AsyncRead;

use crate::target::escape;
use crate::{Client, Download, Error, Outcome, Target, Upload};

const BOUNDARY: &str = "stapes-image-8ef5b3c1d2f94a6b";

/// An image to upload: one unified file, or metadata with a root file system beside it.
pub struct ImageUpload<M, R> {
    pub metadata: (String, M, Option<u64>),
    /// Name, content, length; the name of the form field is `rootfs`, or `rootfs.img` for a disk image.
    pub rootfs: Option<(String, R, Option<u64>)>,
    pub rootfs_is_disk: bool,
    pub public: bool,
    pub properties: ConfigMap,
    pub aliases: Vec<String>,
}

impl<M, R> std::fmt::Debug for ImageUpload<M, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageUpload of {}", self.metadata.0)
    }
}

impl Client {
    /// Uploads an image; its fingerprint is in the operation's metadata once that is over.
    pub async fn import_image<M, R>(&self, image: ImageUpload<M, R>) -> Result<Operation, Error>
    where
        M: AsyncRead + Send + Sync + 'static,
        R: AsyncRead + Send + Sync + 'static,
    {
        let properties = form(image.properties.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let aliases = form(image.aliases.iter().map(|name| ("alias", name.as_str())));
        let (name, metadata, length) = image.metadata;
        let (body, kind) = match image.rootfs {
            None => (Upload::reader(metadata, length), "application/octet-stream".to_owned()),
            Some((rootfs_name, rootfs, rootfs_length)) => {
                let field = if image.rootfs_is_disk { "rootfs.img" } else { "rootfs" };
                let body = Upload::bytes(part_head("metadata", &name, true))
                    .then_reader(metadata, length)
                    .then_bytes(part_head(field, &rootfs_name, false))
                    .then_reader(rootfs, rootfs_length)
                    .then_bytes(format!("\r\n--{BOUNDARY}--\r\n"));
                (body, format!("multipart/form-data; boundary={BOUNDARY}"))
            }
        };
        let mut headers = vec![("Content-Type", kind.as_str()), (api::IMAGE_FILENAME, name.as_str())];
        if image.public {
            headers.push((api::IMAGE_PUBLIC, "true"));
        }
        if !properties.is_empty() {
            headers.push((api::IMAGE_PROPERTIES, &properties));
        }
        if !aliases.is_empty() {
            headers.push((api::IMAGE_ALIASES, &aliases));
        }
        match self.upload(Method::POST, "/1.0/images", body, &headers).await? {
            Outcome::Started(operation) => Ok(operation),
            Outcome::Done(_) => Err(Error::protocol("stapesd answered an image upload without an operation")),
        }
    }

    /// Opens the files of an image: one unified file, or a multipart body; the `Content-Type` tells.
    pub async fn export_image(&self, fingerprint: &str) -> Result<Download, Error> {
        self.download(Target::new("/1.0/images").join(fingerprint).join("export")).await
    }
}

fn part_head(field: &str, filename: &str, is_first: bool) -> String {
    let filename: String = filename.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\').collect();
    let start = if is_first { "" } else { "\r\n" };
    format!(
        "{start}--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{filename}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
}

fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        escape(&mut out, key);
        out.push('=');
        escape(&mut out, value);
    }
    out
}
