//! Websockets: exec, console, events. Start at [`exec`](exec::exec) and [`connect`].
//!
//! A session is an operation that waits for its websockets; [`connect`] hands each to the session whose secret it names.
//! Invariant: a client that leaves, stalls or lies ends its own session and nothing else, and every session ends.

mod console;
mod control;
mod descriptor;
mod events;
mod exec;
mod pump;
mod sessions;
mod sftp;
mod upgrade;

use std::sync::Arc;

pub use console::console;
pub use exec::{Streams, exec};
pub use sessions::Sessions;
pub use sftp::sftp;

use crate::{
    reply::{Reply, Result},
    request::Context,
};

/// `GET /1.0/operations/{id}/websocket?secret=`.
pub async fn connect(context: Context) -> Result {
    let id = context.param("id").to_owned();
    context.engine.operations.get(&id)?;
    let secret = context.query.get("secret").map(String::as_str).unwrap_or_default();
    let Context { daemon, caller, request, .. } = &context;
    if !request.headers().contains_key(hyper::header::SEC_WEBSOCKET_KEY) {
        return Err(crate::reply::ApiError::bad_request("this is a websocket; connect with an upgrade request"));
    }
    let place = daemon.sessions.take(&id, secret, caller.uid)?;
    let (answer, socket) = upgrade::upgrade(context.request)?;
    tokio::spawn(async move {
        if let Some(socket) = socket.await {
            // A session that ended meanwhile drops the socket, which closes it.
            let _ = place.send(socket);
        }
    });
    Ok(Reply::Upgrade(answer))
}

/// `GET /1.0/events`.
pub async fn events(context: Context) -> Result {
    let project = match context.flag("all-projects") {
        true => None,
        false => Some(context.project()?.to_string()),
    };
    let types = context.query.get("type").map(String::as_str).unwrap_or_default();
    let wanted = events::Wanted::new(types, project, context.query.get("since").map(String::as_str))?;
    let engine = Arc::clone(&context.engine);
    // From here on nothing is missed, however long the upgrade takes.
    let events = engine.events.subscribe();
    let (answer, socket) = upgrade::upgrade(context.request)?;
    tokio::spawn(async move {
        if let Some(socket) = socket.await {
            events::follow(socket, events, engine, wanted).await;
        }
    });
    Ok(Reply::Upgrade(answer))
}
