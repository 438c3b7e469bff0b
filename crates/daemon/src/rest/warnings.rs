//! `/1.0/warnings`: none are kept yet; an empty list, so that clients that look do not fail.

use stapes_api as api;

use crate::{
    reply::{Reply, Result},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/warnings" ViewWarnings "List the warnings", answer Vec<api::Warning> => list),
        route!(GET "/1.0/certificates" ViewServer "List the trusted certificates", answer Vec<String> => list),
        route!(GET "/1.0/cluster" ViewServer "Get the cluster's state" => cluster),
    ]
}

async fn list(_: Context) -> Result {
    Reply::sync(&Vec::<String>::new())
}

async fn cluster(_: Context) -> Result {
    Reply::sync(&serde_json::json!({ "server_name": "", "enabled": false, "member_config": [] }))
}
