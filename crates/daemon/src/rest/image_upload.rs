//! `POST /1.0/images`: an upload of image files, or a source to make an image from.
//!
//! Files are written beside the stored images while the request is read; only when all arrived does the operation start.
//! They are removed when the request or the operation ends without having taken them.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::{HeaderMap, header};
use stapes_api as api;
use stapes_engine::{
    app::{ImageEdit, ImportedImage, bulk_task},
    operations::Operation,
};
use stapes_image::ImageFiles;
use stapes_model::{AliasName, Fingerprint, ProfileName, ProjectName};

use crate::{
    convert,
    multipart::{Event, Multipart, MultipartError},
    percent::percent_decode,
    reply::{ApiError, Reply, Result},
    request::Context,
    rest::images::edit_of,
    route,
    router::Route,
    transfer::{self, Writer},
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(POST "/1.0/images" CreateImages "Add an image: upload its files, or name a source", body api::ImagesPost,
        answer api::Operation => post),
    ]
}

async fn post(context: Context) -> Result {
    let content_type = context.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        // What curl says of its `-d` when nobody says otherwise.
        "application/json" | "application/x-www-form-urlencoded" => from_source(context).await,
        _ => upload(context, &content_type).await,
    }
}

/// What the headers of an upload say of the image.
#[derive(Debug, Default)]
struct Described {
    filename: Option<String>,
    edit: ImageEdit,
    aliases: Vec<(AliasName, String)>,
    expected: Option<Fingerprint>,
}

impl Described {
    fn of(headers: &HeaderMap) -> Result<Self> {
        let public = match text(headers, api::IMAGE_PUBLIC)? {
            None | Some("" | "false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => return Err(refused(api::IMAGE_PUBLIC, format_args!("{other:?} is neither true nor false"))),
        };
        let mut edit = ImageEdit { public, ..ImageEdit::default() };
        edit.properties.extend(form(headers, api::IMAGE_PROPERTIES)?);
        for (_, name) in form(headers, api::IMAGE_PROFILES)?.into_iter().filter(|(key, _)| key == "profile") {
            let profile: ProfileName = name.parse().map_err(|error| refused(api::IMAGE_PROFILES, error))?;
            edit.profiles.push(profile);
        }
        let mut aliases = Vec::new();
        for (_, name) in form(headers, api::IMAGE_ALIASES)?.into_iter().filter(|(key, _)| key == "alias") {
            let alias: AliasName = name.parse().map_err(|error| refused(api::IMAGE_ALIASES, error))?;
            aliases.push((alias, String::new()));
        }
        let expected = text(headers, api::IMAGE_FINGERPRINT)?.filter(|text| !text.is_empty());
        let expected = expected.map(str::parse).transpose().map_err(|error| refused(api::IMAGE_FINGERPRINT, error))?;
        let filename = text(headers, api::IMAGE_FILENAME)?.filter(|text| !text.is_empty()).map(base_name);
        Ok(Self { filename, edit, aliases, expected })
    }
}

fn refused(header: &str, why: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("header {header}: {why}"))
}

/// A header in either spelling. Not all senders escape what is beyond ASCII, so any UTF-8 is taken.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let lxd = api::lxd_header(name).unwrap_or_default();
    let Some(value) = headers.get(name).or_else(|| headers.get(lxd)) else { return Ok(None) };
    std::str::from_utf8(value.as_bytes()).map(|text| Some(text.trim())).map_err(|_| refused(name, "it is no UTF-8"))
}

/// The `a=b&c=d` in a header.
fn form(headers: &HeaderMap, name: &str) -> Result<Vec<(String, String)>> {
    let pairs = text(headers, name)?.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(&text.replace('+', " "));
            let broken = || refused(name, format_args!("{pair:?} is not valid percent-encoded text"));
            Ok((decode(key).ok_or_else(broken)?, decode(value).ok_or_else(broken)?))
        })
        .collect()
}

/// A file's name without its directories: it is shown, and offered when the image is exported.
fn base_name(text: &str) -> String {
    let name = text.rsplit(['/', '\\']).next().unwrap_or_default();
    name.chars().filter(|letter| !letter.is_control()).take(255).collect()
}

/// Files of an upload, removed with this unless the engine has moved them away.
#[derive(Debug)]
struct Files {
    /// Path and a part's suffix make a file's name; the sweep at the daemon's start knows the prefix.
    stem: PathBuf,
    metadata: Option<PathBuf>,
    rootfs: Option<PathBuf>,
}

impl Files {
    fn new(context: &Context) -> Self {
        let stem = context.engine.paths.images().join(format!(".upload-{}", context.engine.world.uuid()));
        Self { stem, metadata: None, rootfs: None }
    }

    /// Opens the file of a part; each part comes once.
    fn create(&mut self, part: &str) -> Result<Writer> {
        let place = match part {
            "metadata" => &mut self.metadata,
            "rootfs" | "rootfs.img" => &mut self.rootfs,
            other => {
                let why = format!("the upload has a part {other:?}; metadata, rootfs and rootfs.img are known");
                return Err(ApiError::bad_request(why));
            }
        };
        if place.is_some() {
            return Err(ApiError::bad_request(format!("the upload has more than one part {part:?}")));
        }
        let mut path = self.stem.clone().into_os_string();
        path.push(if part == "metadata" { ".meta" } else { ".rootfs" });
        let path = PathBuf::from(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|error| {
            let status = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            ApiError::new(status, format!("failed to make {}: {error}", path.display()))
        })?;
        let what = format!("the upload {}", path.display());
        *place = Some(path);
        Ok(Writer::new(file, what))
    }

    fn paths(&self) -> Option<ImageFiles> {
        Some(ImageFiles { meta: self.metadata.clone()?, rootfs: self.rootfs.clone() })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.metadata, &self.rootfs].into_iter().flatten() {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "an upload could not be removed");
        }
        _ => {}
    }
}

async fn upload(mut context: Context, content_type: &str) -> Result {
    let project = context.project()?;
    let described = Described::of(context.headers())?;
    check(&context, &project, &described.edit, &described.aliases)?;
    let mut files = Files::new(&context);
    let mut filename = None;
    match Multipart::for_content_type(content_type) {
        Some(parser) => filename = receive_parts(&mut context, &mut files, parser.map_err(malformed)?).await?,
        None => {
            let mut writer = files.create("metadata")?;
            while let Some(piece) = transfer::next_piece(context.request.body_mut()).await? {
                writer.push(piece).await?;
            }
            if writer.finish().await? == 0 {
                return Err(ApiError::bad_request("the upload is empty"));
            }
        }
    }
    let Some(paths) = files.paths() else {
        return Err(ApiError::bad_request("the upload has no part \"metadata\""));
    };
    let imported = ImportedImage {
        project: project.clone(),
        files: paths,
        filename: described.filename.or(filename).unwrap_or_default(),
        edit: described.edit,
        aliases: described.aliases,
        expected: described.expected,
        source: None,
    };
    let engine = Arc::clone(&context.engine);
    let spec = bulk_task("Downloading image", &project, Some(context.caller.requestor()));
    Ok(Reply::Async(context.engine.operations.run(spec, |operation| async move {
        let (worker, within) = (Arc::clone(&engine), project.clone());
        let work = move || {
            let fingerprint = worker.import_image(imported)?;
            drop(files);
            worker.image_by_fingerprint(&within, fingerprint.as_str())
        };
        let image = engine.lanes.slow(work).await?;
        tell(&operation, &image.fingerprint, image.size);
        Ok(())
    })))
}

/// Incus's form: the size is text.
fn tell(operation: &Operation, fingerprint: &Fingerprint, size: u64) {
    operation.set_metadata("fingerprint", fingerprint.to_string());
    operation.set_metadata("size", size.to_string());
}

fn malformed(error: MultipartError) -> ApiError {
    ApiError::bad_request(format!("the multipart upload cannot be read: {error}"))
}

/// Writes each part into its file; answers the metadata's file name.
async fn receive_parts(context: &mut Context, files: &mut Files, mut parser: Multipart) -> Result<Option<String>> {
    let mut writer = None;
    let mut metadata_name = None;
    while let Some(piece) = transfer::next_piece(context.request.body_mut()).await? {
        parser.feed(&piece);
        while let Some(event) = parser.next().map_err(malformed)? {
            match (event, &mut writer) {
                (Event::Part { name, filename }, _) => {
                    writer = Some(files.create(&name)?);
                    if name == "metadata" {
                        metadata_name = filename.as_deref().map(base_name);
                    }
                }
                (Event::Data(data), Some(writer)) => writer.push(data).await?,
                (Event::PartEnd, writer) => {
                    if let Some(writer) = writer.take() {
                        writer.finish().await?;
                    }
                }
                // The parser tells a part's beginning before its content.
                (Event::Data(_), None) => {}
            }
        }
    }
    parser.finish().map_err(malformed)?;
    Ok(metadata_name)
}

/// What can be refused before bytes move.
fn check(context: &Context, project: &ProjectName, edit: &ImageEdit, aliases: &[(AliasName, String)]) -> Result<()> {
    for profile in &edit.profiles {
        context.engine.profile(project, profile)?;
    }
    for (alias, _) in aliases {
        if context.engine.alias(project, alias).is_ok() {
            let why = format!("image alias {:?} already exists", alias.as_str());
            return Err(ApiError::new(hyper::StatusCode::CONFLICT, why));
        }
    }
    Ok(())
}

async fn from_source(mut context: Context) -> Result {
    let project = context.project()?;
    let body: api::ImagesPost = context.json().await?;
    let source = body.source.ok_or_else(|| ApiError::bad_request("source: missing"))?;
    match (source.kind.as_str(), source.protocol.as_str()) {
        ("image", "debian") => {}
        ("image" | "", protocol) => {
            let from = if source.server.is_empty() { "another project" } else { source.server.as_str() };
            return Err(ApiError::bad_request(format!(
                "source: images cannot be copied from {from} (protocol {protocol:?}) yet; upload the image's files, or use \
                 protocol \"debian\""
            )));
        }
        (kind @ ("instance" | "container" | "virtual-machine" | "snapshot"), _) => {
            return Err(ApiError::bad_request(format!(
                "source.type: {kind:?}: making an image from an instance is not supported yet"
            )));
        }
        ("url", _) => {
            return Err(ApiError::bad_request(
                "source.type: \"url\": stapesd does not fetch images from URLs yet; download the file and upload it",
            ));
        }
        (kind, _) => {
            return Err(ApiError::bad_request(format!(
                "source.type: {kind:?} is none of image, instance, snapshot, url"
            )));
        }
    }
    if source.alias.is_empty() {
        return Err(ApiError::bad_request("source.alias: missing; name a release such as \"12\""));
    }
    let kind = convert::instance_type(&source.image_type)?;
    let mut aliases = Vec::new();
    for alias in body.aliases {
        aliases.push((alias.name.parse()?, alias.description));
    }
    let put = api::ImagePut {
        auto_update: body.auto_update,
        properties: body.properties,
        public: body.public,
        expires_at: body.expires_at,
        profiles: body.profiles,
    };
    let edit = (put != api::ImagePut::default()).then(|| edit_of(put)).transpose()?;
    check(&context, &project, edit.as_ref().unwrap_or(&ImageEdit::default()), &aliases)?;
    let engine = Arc::clone(&context.engine);
    let spec = bulk_task("Downloading image", &project, Some(context.caller.requestor()));
    Ok(Reply::Async(context.engine.operations.run(spec, move |operation| async move {
        let image = engine.add_debian_image(&operation, &project, &source.alias, kind, edit, aliases).await?;
        tell(&operation, &image.fingerprint, image.size);
        Ok(())
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(pairs: &[(&'static str, &'static str)]) -> Result<Described> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Described::of(&headers)
    }

    #[test]
    fn headers_say_what_the_image_is() {
        let read = described(&[
            ("X-Incus-filename", "../../etc/image.tar.xz"),
            ("X-LXD-public", "true"),
            ("X-Incus-properties", "os=Debian&description=Debian+12+%28amd64%29"),
            ("X-Incus-aliases", "alias=debian%2F12&alias=d12"),
            ("X-Incus-profiles", "profile=default&profile=web"),
        ]);
        let read = read.unwrap();
        assert_eq!(read.filename.as_deref(), Some("image.tar.xz"));
        assert!(read.edit.public && read.expected.is_none());
        assert_eq!(read.edit.properties["description"], "Debian 12 (amd64)");
        assert_eq!(read.aliases.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["debian/12", "d12"]);
        assert_eq!(read.edit.profiles.iter().map(ProfileName::as_str).collect::<Vec<_>>(), ["default", "web"]);
    }

    #[test]
    fn no_headers_say_nothing() {
        let read = described(&[]).unwrap();
        assert!(read.filename.is_none() && !read.edit.public && read.aliases.is_empty());
    }

    #[test]
    fn an_ill_formed_header_is_refused_by_name() {
        for (header, value) in [
            ("X-Incus-public", "perhaps"),
            ("X-Incus-properties", "os=%zz"),
            ("X-Incus-fingerprint", "abc"),
            ("X-Incus-profiles", "profile="),
        ] {
            let error = described(&[(header, value)]).unwrap_err();
            assert!(error.message.contains(header), "{}", error.message);
        }
    }
}
