//! `/1.0/images`: list, read, change, export, delete. Adding one is in `image_upload`.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path, sync::Arc};

use futures_util::StreamExt;
use hyper::{Method, body::Frame};
use stapes_api as api;
use stapes_engine::{
    app::{ImageEdit, bulk_task, with_project},
    index::Stored,
    records,
};
use stapes_model::InstanceType;

use crate::{
    convert,
    reply::{ApiError, Reply, Result, etag, full, to_value},
    request::Context,
    rest::instances::{patched, scope},
    route,
    router::Route,
    transfer,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/images" ViewImages "List the images", answer Vec<api::Image> => list),
        route!(GET "/1.0/images/{fingerprint}" ViewImages "Get an image", answer api::Image => get),
        route!(PUT "/1.0/images/{fingerprint}" EditImages "Replace what may be changed of an image",
            body api::ImagePut => put),
        route!(PATCH "/1.0/images/{fingerprint}" EditImages "Change some of an image", body api::ImagePut => patch),
        route!(DELETE "/1.0/images/{fingerprint}" EditImages "Delete an image", answer api::Operation => delete),
        route!(GET "/1.0/images/{fingerprint}/export" ViewImages "Download an image's files" => export),
        route!(POST "/1.0/images/{fingerprint}/export" EditImages "Push an image to another server" => push),
        route!(POST "/1.0/images/{fingerprint}/refresh" EditImages "Update an image from its source" => refresh),
        route!(POST "/1.0/images/{fingerprint}/secret" EditImages "Make a one-time download secret" => secret),
    ]
}

async fn list(context: Context) -> Result {
    let project = scope(&context)?;
    let mut objects = Vec::new();
    {
        let tables = context.engine.index.read();
        let here = |image: &&records::Image| project.as_ref().is_none_or(|project| *project == image.project);
        for image in tables.images.values().map(|stored| &*stored.value).filter(here) {
            let url = with_project(format!("/1.0/images/{}", image.fingerprint), &image.project);
            objects.push((url, to_value(&convert::image(&tables, image))?));
        }
    }
    super::collection(&context, objects)
}

fn stored(context: &Context) -> Result<Stored<records::Image>> {
    Ok(context.engine.image_by_fingerprint(&context.project()?, context.param("fingerprint"))?)
}

fn shown(context: &Context) -> Result<(api::Image, Stored<records::Image>)> {
    let image = stored(context)?;
    Ok((convert::image(&context.engine.index.read(), &image), image))
}

async fn get(context: Context) -> Result {
    let (shown, _) = shown(&context)?;
    Reply::tagged(&shown, &shown.clone().writable())
}

async fn put(mut context: Context) -> Result {
    let body: api::ImagePut = context.json().await?;
    let (shown, image) = shown(&context)?;
    context.check_etag(&etag(&shown.writable())?)?;
    replace(&context, image, body).await
}

async fn patch(mut context: Context) -> Result {
    let (shown, image) = shown(&context)?;
    let writable = shown.writable();
    let put = patched(&mut context, &writable).await?;
    replace(&context, image, put).await
}

/// The engine's form of what a client may change.
pub(super) fn edit_of(put: api::ImagePut) -> Result<ImageEdit> {
    let mut profiles = Vec::with_capacity(put.profiles.len());
    for name in put.profiles {
        profiles.push(name.parse()?);
    }
    let mut properties = put.properties;
    properties.retain(|_, value| !value.is_empty());
    let expires_at = (!put.expires_at.is_unset()).then_some(put.expires_at.0);
    Ok(ImageEdit { public: put.public, auto_update: put.auto_update, properties, profiles, expires_at })
}

async fn replace(context: &Context, image: Stored<records::Image>, put: api::ImagePut) -> Result {
    let edit = edit_of(put)?;
    for profile in &edit.profiles {
        context.engine.profile(&image.project, profile)?;
    }
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.fast(move || engine.update_image(&image.project, &image.fingerprint, edit)).await?;
    Ok(Reply::empty())
}

async fn delete(context: Context) -> Result {
    let image = stored(&context)?;
    let mut spec = bulk_task("Deleting image", &image.project, Some(context.caller.requestor()));
    let url = with_project(format!("/1.0/images/{}", image.fingerprint), &image.project);
    spec.resources.insert("images".to_owned(), vec![url]);
    let engine = Arc::clone(&context.engine);
    Ok(Reply::Async(context.engine.operations.run(spec, |operation| async move {
        let worker = Arc::clone(&engine);
        let work = move || worker.delete_image(&operation, &image.project, &image.fingerprint);
        engine.lanes.slow(work).await
    })))
}

async fn push(context: Context) -> Result {
    stored(&context)?;
    Err(ApiError::bad_request("pushing an image to another server is not supported yet; export it and import it there"))
}

async fn refresh(context: Context) -> Result {
    stored(&context)?;
    Err(ApiError::bad_request("refreshing an image is not supported yet; delete it and add it again"))
}

async fn secret(context: Context) -> Result {
    stored(&context)?;
    Err(ApiError::bad_request(
        "download secrets are not supported yet; make the image public, or export it as a trusted client",
    ))
}

/// A stored file about to be sent.
struct Sent {
    field: &'static str,
    filename: String,
    file: File,
    size: u64,
}

/// Opens a stored file; its name gets the ending that its content calls for.
fn open(path: &Path, field: &'static str, stem: &str) -> std::io::Result<Sent> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut head = Vec::with_capacity(512);
    (&file).take(512).read_to_end(&mut head)?;
    std::io::Seek::rewind(&mut &file)?;
    Ok(Sent { field, filename: format!("{stem}{}", stapes_image::file_extension(&head)), file, size })
}

async fn export(context: Context) -> Result {
    let image = stored(&context)?;
    let head = context.request.method() == Method::HEAD;
    let engine = Arc::clone(&context.engine);
    let work = move || {
        let files = engine.image_files(&image.fingerprint);
        let opened = match &files.rootfs {
            None => open(&files.meta, "metadata", image.fingerprint.as_str()).map(|file| vec![file]),
            Some(rootfs) => {
                let field = if image.kind == InstanceType::VirtualMachine { "rootfs.img" } else { "rootfs" };
                let metadata = open(&files.meta, "metadata", &format!("meta-{}", image.fingerprint));
                metadata.and_then(|file| Ok(vec![file, open(rootfs, field, image.fingerprint.as_str())?]))
            }
        };
        opened.map_err(|error| {
            stapes_engine::Error::failed(format!("failed to open the files of image {}", image.fingerprint), error)
        })
    };
    let files = context.engine.lanes.fast(work).await?;
    Ok(answer(files, &context.engine.world.uuid(), head))
}

/// One file as it is, two as parts of a form, as Incus sends them.
fn answer(mut files: Vec<Sent>, boundary: &str, head: bool) -> Reply {
    let mut headers = BTreeMap::new();
    if files.len() == 1
        && let Some(only) = files.pop()
    {
        headers.insert("content-type", "application/octet-stream".to_owned());
        headers.insert("content-disposition", format!("inline;filename={}", only.filename));
        headers.insert("content-length", only.size.to_string());
        let body = if head { full("") } else { transfer::body(transfer::read(only.file, Some(only.size))) };
        return Reply::Raw { headers, body };
    }
    headers.insert("content-type", format!("multipart/form-data; boundary={boundary}"));
    let tail = format!("\r\n--{boundary}--\r\n");
    let mut length = tail.len() as u64;
    let mut pieces = Vec::new();
    for (number, sent) in files.into_iter().enumerate() {
        let start = if number == 0 { "" } else { "\r\n" };
        let Sent { field, filename, .. } = &sent;
        let part = format!(
            "{start}--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{filename}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        length += part.len() as u64 + sent.size;
        pieces.push((part, Some(sent)));
    }
    pieces.push((tail, None));
    headers.insert("content-length", length.to_string());
    if head {
        return Reply::Raw { headers, body: full("") };
    }
    let stream = futures_util::stream::iter(pieces).flat_map(|(text, sent)| {
        let text = futures_util::stream::iter([Ok(Frame::data(text.into()))]);
        // One stream type for both: no file is one of no length.
        let content = futures_util::stream::iter(sent).flat_map(|sent| transfer::read(sent.file, Some(sent.size)));
        text.chain(content)
    });
    Reply::Raw { headers, body: transfer::body(stream) }
}
