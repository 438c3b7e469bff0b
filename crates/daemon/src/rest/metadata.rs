//! `/1.0/metadata/configuration`: every configuration key, from the one table.

use crate::{
    reply::{Reply, Result},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![route!(GET "/1.0/metadata/configuration" Public "Describe every configuration key" => configuration)]
}

async fn configuration(_: Context) -> Result {
    Ok(Reply::Sync { metadata: stapes_model::keys::metadata_configuration(), etag: None })
}
