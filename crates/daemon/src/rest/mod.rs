//! One file a resource; each lists its routes.

mod aliases;
mod console;
mod events;
mod exec;
mod files;
mod image_upload;
mod images;
mod instance_metadata;
mod instances;
mod internal;
mod logs;
mod metadata;
mod networks;
mod operations;
mod profiles;
mod projects;
mod server;
mod state;
mod storage;
mod warnings;

use serde_json::Value;

use crate::{
    reply::{ApiError, Reply, Result},
    request::Context,
    router::Route,
};

/// Every route there is, in the order of the documentation.
pub fn routes() -> Vec<Route> {
    let mut routes = server::routes();
    routes.extend(instances::routes());
    routes.extend(state::routes());
    routes.extend(exec::routes());
    routes.extend(console::routes());
    routes.extend(logs::routes());
    routes.extend(files::routes());
    routes.extend(instance_metadata::routes());
    routes.extend(images::routes());
    routes.extend(image_upload::routes());
    routes.extend(aliases::routes());
    routes.extend(profiles::routes());
    routes.extend(projects::routes());
    routes.extend(networks::routes());
    routes.extend(storage::routes());
    routes.extend(operations::routes());
    routes.extend(events::routes());
    routes.extend(metadata::routes());
    routes.extend(warnings::routes());
    routes.extend(internal::routes());
    routes
}

/// Answers a collection: URLs without recursion, objects with it, both after the `filter`.
fn collection(context: &Context, objects: Vec<(String, Value)>) -> Result {
    let filter = match context.query.get("filter").filter(|text| !text.is_empty()) {
        Some(text) => Some(
            stapes_model::filter::Filter::parse(text)
                .map_err(|error| ApiError::bad_request(format!("filter: {error}")))?,
        ),
        None => None,
    };
    let kept = objects.into_iter().filter(|(_, object)| filter.as_ref().is_none_or(|filter| filter.matches(object)));
    if context.recursion() == 0 {
        return Reply::sync(&kept.map(|(url, _)| url).collect::<Vec<_>>());
    }
    Reply::sync(&kept.map(|(_, object)| object).collect::<Vec<_>>())
}
