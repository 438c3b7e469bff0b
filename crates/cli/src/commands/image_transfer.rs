//! `image import`, `image export`, `image copy`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use stapes_api::{ConfigMap, ImageAlias, ImagesPost, ImagesPostSource, Operation};
use stapes_client::{Download, ImageUpload, Method};
use tokio::io::AsyncReadExt;

use super::image::fingerprint;
use super::image_alias::give;
use crate::context::{Ctx, Remote};
use crate::failure::{About, Failure, Result, fail};
use crate::progress::Progress;
use crate::units;

#[derive(Args, Debug)]
pub struct Import {
    /// Image (or metadata and root file system), REMOTE:, and KEY=VALUE properties
    #[arg(required = true, value_name = "FILE> <[ROOTFS] [KEY=VALUE")]
    words: Vec<String>,
    /// Name it (again for more names)
    #[arg(long)]
    alias: Vec<String>,
    /// Let everyone see it
    #[arg(long)]
    public: bool,
    /// Take the names from images that have them
    #[arg(long)]
    reuse: bool,
}

#[derive(Args, Debug)]
pub struct Export {
    image: String,
    /// File or directory to write to
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    #[arg(long, hide = true)]
    vm: bool,
}

#[derive(Args, Debug)]
pub struct Copy {
    /// Such as debian:12
    #[arg(value_name = "REMOTE:IMAGE")]
    image: String,
    /// Where to: local:
    #[arg(value_name = "REMOTE:", default_value = "local:")]
    to: String,
    /// Name the copy (again for more names)
    #[arg(long)]
    alias: Vec<String>,
    /// Name it as its source does
    #[arg(long)]
    copy_aliases: bool,
    /// Keep it up to date
    #[arg(long)]
    auto_update: bool,
    /// Let everyone see it
    #[arg(long)]
    public: bool,
    /// Take the names from images that have them
    #[arg(long)]
    reuse: bool,
    #[arg(long, default_value = "pull", hide = true)]
    mode: String,
    #[arg(long, short, hide = true)]
    profile: Vec<String>,
    /// Into another project
    #[arg(long)]
    target_project: Option<String>,
    /// The one for virtual machines
    #[arg(long)]
    vm: bool,
}

/// The fingerprint that an operation on images came to.
fn fingerprint_of(operation: &Operation) -> Result<String> {
    let found = operation.metadata.as_ref().and_then(|m| m.get("fingerprint")).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| Failure::new("the daemon did not say the image's fingerprint"))
}

impl Import {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let mut files = Vec::new();
        let mut properties = ConfigMap::new();
        for word in &self.words {
            match word.split_once('=') {
                Some((key, value)) if !Path::new(word).exists() => {
                    properties.insert(key.trim().to_owned(), value.trim().to_owned());
                }
                _ if word.ends_with(':') => _ = ctx.local(word)?,
                _ => files.push(word.as_str()),
            }
        }
        let operation = match files.as_slice() {
            [url] if url.starts_with("https://") => self.fetch(ctx, url, properties).await?,
            [url, ..] if url.starts_with("http://") => fail!("images are fetched by https only, not from {url}"),
            [metadata] => self.upload(ctx, metadata, None, properties).await?,
            [metadata, rootfs] => self.upload(ctx, metadata, Some(rootfs), properties).await?,
            _ => fail!("`stapes image import` takes one file, or metadata and root file system"),
        };
        let done = ctx.wait(&operation, "Importing the image").await?;
        let fingerprint = fingerprint_of(&done)?;
        ctx.say(format!("Image imported with fingerprint: {fingerprint}"))?;
        for alias in &self.alias {
            give(ctx, &fingerprint, alias, self.reuse).await?;
        }
        Ok(())
    }

    async fn fetch(&self, ctx: &Ctx, url: &str, properties: ConfigMap) -> Result<Operation> {
        let source = ImagesPostSource {
            kind: "url".to_owned(),
            mode: "pull".to_owned(),
            protocol: "direct".to_owned(),
            url: url.to_owned(),
            ..ImagesPostSource::default()
        };
        let post = ImagesPost { source: Some(source), public: self.public, properties, ..ImagesPost::default() };
        Ok(ctx.client.begin(Method::POST, "/1.0/images", Some(&post)).await?)
    }

    async fn upload(&self, ctx: &Ctx, file: &str, rootfs: Option<&str>, properties: ConfigMap) -> Result<Operation> {
        let progress = Progress::new(ctx.quiet, "Transferring image");
        let rootfs = match rootfs {
            Some(rootfs) => Some(open(rootfs).await?),
            None => None,
        };
        let rootfs_is_disk = match &rootfs {
            Some((_, file, _)) => is_qcow2(file).await?,
            None => false,
        };
        let (name, content, length) = open(file).await?;
        let image = ImageUpload {
            metadata: (name, Counted::new(content, progress), length),
            rootfs,
            rootfs_is_disk,
            public: self.public,
            properties,
            aliases: Vec::new(),
        };
        Ok(ctx.client.import_image(image).await?)
    }
}

async fn open(path: &str) -> Result<(String, tokio::fs::File, Option<u64>)> {
    let problem = || format!("cannot read {path}");
    let mut file = tokio::fs::File::open(path).await.about(problem)?;
    let found = file.metadata().await.about(problem)?;
    if found.is_dir() {
        return Err(Failure::new(format!("{path} is a directory, and an image is a file"))
            .hint(format!("pack it: `tar -C {path} -czf image.tar.gz .`")));
    }
    file.set_max_buf_size(1 << 20);
    let name = Path::new(path).file_name().map_or(path.into(), |name| name.to_string_lossy());
    Ok((name.into_owned(), file, found.is_file().then_some(found.len())))
}

async fn is_qcow2(file: &tokio::fs::File) -> Result<bool> {
    let again = || "cannot read the root file system".to_owned();
    let mut file = file.try_clone().await.about(again)?;
    let mut magic = [0; 4];
    let read = file.read(&mut magic).await.about(again)?;
    // The clone shares its position with the file.
    tokio::io::AsyncSeekExt::rewind(&mut file).await.about(again)?;
    Ok(read == 4 && magic == *b"QFI\xfb")
}

/// A reader that shows how much went through.
struct Counted {
    file: tokio::fs::File,
    sent: i64,
    progress: Progress,
}

impl Counted {
    fn new(file: tokio::fs::File, progress: Progress) -> Self {
        Counted { file, sent: 0, progress }
    }
}

impl tokio::io::AsyncRead for Counted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let poll = std::pin::Pin::new(&mut self.file).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.sent += read as i64;
            let text = units::decimal(self.sent);
            self.progress.show(&text);
        }
        poll
    }
}

impl Export {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let fingerprint = fingerprint(ctx, &self.image).await?;
        let mut download = ctx.client.export_image(&fingerprint).await?;
        let target = PathBuf::from(self.target.as_deref().unwrap_or("."));
        let kind = download.header("Content-Type").unwrap_or_default().to_owned();
        if let Some(boundary) = kind.split("boundary=").nth(1).filter(|_| kind.starts_with("multipart/")) {
            return split(ctx, download, boundary.trim_matches('"'), &target, &fingerprint).await;
        }
        let name = download.header("Content-Disposition").and_then(filename_in);
        let name = name.unwrap_or_else(|| format!("{fingerprint}.tar"));
        let path = match (target.is_dir(), Path::new(&name).extension()) {
            (true, _) => target.join(&name),
            // Incus adds the image's own extension to a target that has none.
            (false, Some(_)) if target.extension().is_none() => {
                let extension = name.split_once('.').map_or("", |(_, extension)| extension);
                target.with_extension(extension)
            }
            _ => target,
        };
        let problem = || format!("cannot write {}", path.display());
        let mut progress = Progress::new(ctx.quiet, "Exporting the image");
        let mut file = tokio::fs::File::create(&path).await.about(problem)?;
        let mut total = 0;
        while let Some(chunk) = download.chunk().await? {
            tokio::io::AsyncWriteExt::write_all(&mut file, &chunk).await.about(problem)?;
            total += chunk.len() as i64;
            progress.show(&units::decimal(total));
        }
        tokio::io::AsyncWriteExt::flush(&mut file).await.about(problem)?;
        progress.clear();
        ctx.say("Image exported successfully!")
    }
}

/// The last path component of the file name in a Content-Disposition header.
fn filename_in(header: &str) -> Option<String> {
    let name = header.split("filename=").nth(1)?.split(';').next()?.trim().trim_matches('"');
    let name = Path::new(name).file_name()?.to_str()?;
    Some(name.to_owned())
}

/// Writes the parts of a split image as they come: `TARGET` for the metadata, `TARGET.root` for the root file system.
async fn split(ctx: &Ctx, mut download: Download, boundary: &str, target: &Path, fingerprint: &str) -> Result<()> {
    let base = if target.is_dir() { target.join(fingerprint) } else { target.to_owned() };
    let mut parts = Parts::new(boundary);
    let mut out: Option<(PathBuf, std::fs::File)> = None;
    let mut progress = Progress::new(ctx.quiet, "Exporting the image");
    let mut total = 0;
    loop {
        let chunk = download.chunk().await?;
        let is_end = chunk.is_none();
        total += chunk.as_ref().map_or(0, |chunk| chunk.len() as i64);
        for piece in parts.feed(chunk.as_deref().unwrap_or_default(), is_end) {
            match piece {
                Piece::Head(head) => {
                    let name = filename_in(&head).unwrap_or_default();
                    let extension = name.split_once('.').map_or_else(String::new, |(_, e)| format!(".{e}"));
                    let suffix = if head.contains("name=\"rootfs") { ".root" } else { extension.as_str() };
                    let path = PathBuf::from(format!("{}{suffix}", base.display()));
                    let file = std::fs::File::create(&path).about(|| format!("cannot write {}", path.display()))?;
                    out = Some((path, file));
                }
                Piece::Data(bytes) => {
                    let Some((path, file)) = &mut out else { continue };
                    std::io::Write::write_all(file, &bytes).about(|| format!("cannot write {}", path.display()))?;
                }
            }
        }
        progress.show(&units::decimal(total));
        if is_end {
            break;
        }
    }
    progress.clear();
    if !parts.is_complete {
        fail!("the image ended in the middle; what was written is not complete");
    }
    ctx.say("Image exported successfully!")
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// The headers of a part.
    Head(String),
    Data(Vec<u8>),
}

/// A multipart body, piece by piece, without holding more than a chunk and a boundary.
#[derive(Debug)]
struct Parts {
    delimiter: Vec<u8>,
    held: Vec<u8>,
    in_head: bool,
    is_complete: bool,
}

impl Parts {
    fn new(boundary: &str) -> Self {
        // The body starts as if a line had ended before it.
        let held = b"\r\n".to_vec();
        Parts { delimiter: format!("\r\n--{boundary}").into_bytes(), held, in_head: false, is_complete: false }
    }

    fn feed(&mut self, chunk: &[u8], is_end: bool) -> Vec<Piece> {
        self.held.extend_from_slice(chunk);
        let mut pieces = Vec::new();
        while !self.is_complete {
            if self.in_head {
                let Some(end) = find(&self.held, b"\r\n\r\n") else { break };
                pieces.push(Piece::Head(String::from_utf8_lossy(&self.held[..end]).into_owned()));
                self.held.drain(..end + 4);
                self.in_head = false;
                continue;
            }
            match find(&self.held, &self.delimiter) {
                Some(at) => {
                    // What follows the delimiter tells whether this was the last part.
                    if self.held.len() < at + self.delimiter.len() + 2 && !is_end {
                        break;
                    }
                    if at > 0 {
                        pieces.push(Piece::Data(self.held[..at].to_vec()));
                    }
                    self.held.drain(..at + self.delimiter.len());
                    self.is_complete = self.held.starts_with(b"--");
                    self.in_head = !self.is_complete;
                }
                None => {
                    let keep = if is_end { 0 } else { self.delimiter.len() };
                    let free = self.held.len().saturating_sub(keep);
                    if free > 0 {
                        pieces.push(Piece::Data(self.held.drain(..free).collect()));
                    }
                    break;
                }
            }
        }
        pieces
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        let at = from + at;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

impl Copy {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        ctx.local(&self.to)?;
        let (remote, image) = ctx.remote(&self.image)?;
        if remote != Remote::Debian {
            return Err(Failure::new("images are copied from debian: only, so far")
                .hint("for example `stapes image copy debian:12 local: --alias debian/12`"));
        }
        let image = if image.is_empty() { "default" } else { image };
        let source = ImagesPostSource {
            kind: "image".to_owned(),
            mode: "pull".to_owned(),
            protocol: "debian".to_owned(),
            server: "debian".to_owned(),
            alias: image.to_owned(),
            image_type: if self.vm { "virtual-machine" } else { "container" }.to_owned(),
            ..ImagesPostSource::default()
        };
        let copied = self.copy_aliases.then(|| format!("debian/{image}"));
        let aliases: Vec<String> = self.alias.iter().cloned().chain(copied).collect();
        let as_alias = |name: &String| ImageAlias { name: name.clone(), ..ImageAlias::default() };
        let post = ImagesPost {
            source: Some(source),
            public: self.public,
            auto_update: self.auto_update,
            aliases: if self.reuse { Vec::new() } else { aliases.iter().map(as_alias).collect() },
            ..ImagesPost::default()
        };
        let target = stapes_client::Target::new("/1.0/images").query_some("project", self.target_project.as_deref());
        let operation = ctx.client.begin(Method::POST, target, Some(&post)).await?;
        let done = ctx.wait(&operation, "Copying the image").await?;
        if self.reuse {
            let fingerprint = fingerprint_of(&done)?;
            for alias in &aliases {
                give(ctx, &fingerprint, alias, true).await?;
            }
        }
        ctx.say("Image copied successfully!")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multipart_body_splits_the_same_however_it_is_cut() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"m.tar.xz\"\r\n\r\nME\r\n-TA\r\n--B\r\n\
            Content-Disposition: form-data; name=\"rootfs\"; filename=\"r.squashfs\"\r\n\r\nROOT\r\n--B--\r\n";
        for size in [1, 2, 7, 1000] {
            let mut parts = Parts::new("B");
            let mut files: Vec<(String, Vec<u8>)> = Vec::new();
            let chunks: Vec<&[u8]> = body.chunks(size).chain([&b""[..]]).collect();
            for (index, chunk) in chunks.iter().enumerate() {
                for piece in parts.feed(chunk, index + 1 == chunks.len()) {
                    match piece {
                        Piece::Head(head) => files.push((filename_in(&head).unwrap(), Vec::new())),
                        Piece::Data(data) => files.last_mut().unwrap().1.extend(data),
                    }
                }
            }
            assert!(parts.is_complete);
            let wanted = [("m.tar.xz".to_owned(), b"ME\r\n-TA".to_vec()), ("r.squashfs".to_owned(), b"ROOT".to_vec())];
            assert_eq!(files, wanted, "cut every {size} bytes");
        }
    }

    #[test]
    fn a_file_name_from_the_server_is_one_component() {
        assert_eq!(filename_in("inline;filename=../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(filename_in("inline"), None);
    }
}
