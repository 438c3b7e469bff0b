//! `/1.0/operations`: look, wait, cancel, and the websockets of exec and console.

use std::{collections::BTreeMap, time::Duration};

use stapes_api as api;
use stapes_engine::operations::Snapshot;

use crate::{
    reply::{Reply, Result, to_value},
    request::Context,
    route,
    router::Route,
    streams,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/operations" ViewOperations "List the operations under way", answer Vec<api::Operation> => list),
        route!(GET "/1.0/operations/{id}" ViewOperations "Get an operation", answer api::Operation => get),
        route!(DELETE "/1.0/operations/{id}" ManageOperations "Cancel an operation" => cancel),
        route!(GET "/1.0/operations/{id}/wait" ViewOperations "Wait for an operation's end",
            answer api::Operation => wait),
        route!(GET "/1.0/operations/{id}/websocket" Public "Connect to an operation's stream" => websocket),
    ]
}

async fn list(context: Context) -> Result {
    let operations = context.engine.operations.list();
    if context.recursion() > 0 || context.query.contains_key("filter") {
        let mut objects = Vec::new();
        for operation in &operations {
            objects.push((format!("/1.0/operations/{}", operation.id), to_value(operation)?));
        }
        if context.recursion() == 0 {
            return super::collection(&context, objects);
        }
        return Reply::sync(&by_status(&operations, to_value)?);
    }
    Reply::sync(&by_status(&operations, |operation| Ok(format!("/1.0/operations/{}", operation.id).into()))?)
}

/// Incus groups operations by their status in lower case.
fn by_status(
    operations: &[Snapshot],
    show: impl Fn(&Snapshot) -> Result<serde_json::Value>,
) -> Result<BTreeMap<String, Vec<serde_json::Value>>> {
    let mut groups: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for operation in operations {
        groups.entry(format!("{:?}", operation.status).to_lowercase()).or_default().push(show(operation)?);
    }
    Ok(groups)
}

async fn get(context: Context) -> Result {
    Reply::sync(&context.engine.operations.snapshot(context.param("id"))?)
}

async fn cancel(context: Context) -> Result {
    context.engine.operations.get(context.param("id"))?.cancel()?;
    Ok(Reply::empty())
}

/// Waits at most `timeout` seconds, for ever when it is negative or absent; then answers the state as it is.
async fn wait(context: Context) -> Result {
    let id = context.param("id");
    let Ok(operation) = context.engine.operations.get(id) else {
        return Reply::sync(&context.engine.operations.snapshot(id)?);
    };
    let patience = context.query.get("timeout").and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
    match u64::try_from(patience) {
        Err(_) => Reply::sync(&operation.finished().await),
        Ok(seconds) => {
            let ended = tokio::time::timeout(Duration::from_secs(seconds), operation.finished()).await;
            Reply::sync(&ended.unwrap_or_else(|_| operation.snapshot()))
        }
    }
}

async fn websocket(context: Context) -> Result {
    streams::connect(context).await
}
