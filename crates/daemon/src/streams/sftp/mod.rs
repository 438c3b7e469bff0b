//! `/1.0/instances/{name}/sftp`: SFTP version 3 on an upgraded connection, which is all that the `file` commands of
//! Incus's client use.
//!
//! Paths are resolved by the shim's child, one request each; open files and listings are kept here, and their bytes move
//! between the descriptor and the connection. Requests on one handle, and requests on paths, are done in the order in
//! which they came; handles do not wait for each other.

mod answer;
mod lane;
mod request;
mod session;

use std::sync::Arc;

use crate::{
    reply::{Reply, Result},
    request::Context,
    streams::upgrade,
};

pub async fn sftp(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let instance = context.engine.instance(&project, &name)?;
    stapes_instance::require(instance.kind, "files").map_err(stapes_engine::Error::from)?;
    let events = context.engine.events.subscribe();
    let (answer, stream) = upgrade::upgrade_to(context.request, "sftp")?;
    let session = session::Session::new(Arc::clone(&context.engine), project, name);
    tokio::spawn(async move {
        if let Some(stream) = stream.await {
            session::serve(stream, Arc::new(session), events).await;
        }
    });
    Ok(Reply::Upgrade(answer))
}
