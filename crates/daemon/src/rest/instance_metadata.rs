//! `/1.0/instances/{name}/metadata`: what the image said about itself, and its templates.

use std::sync::Arc;

use serde_json::Value;
use stapes_api as api;
use stapes_engine::{index::Stored, records};
use stapes_image::ImageMetadata;

use crate::{
    reply::{ApiError, Reply, Result, etag, full, to_value},
    request::Context,
    rest::instances::merge,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/instances/{name}/metadata" ViewInstances "Get the metadata of an instance's image",
            answer api::ImageMetadata => get),
        route!(PUT "/1.0/instances/{name}/metadata" EditInstances "Replace the metadata of an instance's image",
            body api::ImageMetadata => put),
        route!(PATCH "/1.0/instances/{name}/metadata" EditInstances "Change some of the metadata of an instance's image",
            body api::ImageMetadata => patch),
        route!(GET "/1.0/instances/{name}/metadata/templates" ViewInstances
            "List the templates of an instance's image, or read the one that path names", answer Vec<String> => templates),
    ]
}

/// The metadata in the API's form; an instance made empty has none, which reads as its defaults.
async fn stored(context: &Context) -> Result<(Stored<records::Instance>, Value)> {
    let instance = context.engine.instance(&context.project()?, &context.instance_name()?)?;
    let (engine, wanted) = (Arc::clone(&context.engine), instance.clone());
    let metadata = context.engine.lanes.fast(move || engine.instance_metadata(&wanted)).await?;
    let shown = match metadata {
        // The file's form is JSON too, with ids and modes as the API has them.
        Some(metadata) => serde_json::from_str::<api::ImageMetadata>(&metadata.to_yaml()).map_err(|error| {
            ApiError::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, format!("the metadata cannot be shown: {error}"))
        })?,
        None => api::ImageMetadata::default(),
    };
    Ok((instance, to_value(&shown)?))
}

async fn get(context: Context) -> Result {
    let (_, shown) = stored(&context).await?;
    Reply::tagged(&shown, &shown)
}

async fn put(mut context: Context) -> Result {
    let body: api::ImageMetadata = context.json().await?;
    let (instance, shown) = stored(&context).await?;
    context.check_etag(&etag(&shown)?)?;
    replace(&context, instance, &to_value(&body)?).await
}

async fn patch(mut context: Context) -> Result {
    let body: Value = context.json().await?;
    let (instance, mut shown) = stored(&context).await?;
    context.check_etag(&etag(&shown)?)?;
    merge(&mut shown, &body);
    replace(&context, instance, &shown).await
}

/// JSON is YAML: the new metadata passes the same checks as an image's file.
async fn replace(context: &Context, instance: Stored<records::Instance>, wanted: &Value) -> Result {
    let metadata = ImageMetadata::parse(&wanted.to_string()).map_err(stapes_engine::Error::from)?;
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.fast(move || engine.set_instance_metadata(&instance, &metadata)).await?;
    Ok(Reply::empty())
}

async fn templates(context: Context) -> Result {
    let instance = context.engine.instance(&context.project()?, &context.instance_name()?)?;
    let engine = Arc::clone(&context.engine);
    match context.query.get("path").filter(|name| !name.is_empty()).cloned() {
        Some(name) => {
            let text = context.engine.lanes.fast(move || engine.instance_template(&instance, &name)).await?;
            Ok(Reply::raw("application/octet-stream", full(text)))
        }
        None => Reply::sync(&context.engine.lanes.fast(move || engine.instance_templates(&instance)).await?),
    }
}
