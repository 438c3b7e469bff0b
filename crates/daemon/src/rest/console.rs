//! `/1.0/instances/{name}/console`: a terminal on it, and what it printed.

use stapes_api as api;
use stapes_instance::require;

use crate::{
    reply::{ApiError, Reply, Result, full},
    request::Context,
    route,
    router::Route,
    streams,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/instances/{name}/console" AccessConsole "Get what the console printed" => log),
        route!(POST "/1.0/instances/{name}/console" AccessConsole "Connect to the console",
            body api::InstanceConsolePost, answer api::Operation => post),
        route!(DELETE "/1.0/instances/{name}/console" AccessConsole "Empty the console log" => clear),
    ]
}

async fn log(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    match context.query.get("type").map_or("log", String::as_str) {
        "log" | "" => {}
        "vga" => {
            let instance = context.engine.instance(&project, &name)?;
            require(instance.kind, "console.vga").map_err(stapes_engine::Error::from)?;
        }
        other => return Err(ApiError::bad_request(format!("type: {other:?} is none of log, vga"))),
    }
    Ok(Reply::raw("application/octet-stream", full(context.engine.console_log(&project, &name)?)))
}

async fn post(mut context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let body: api::InstanceConsolePost = context.json().await?;
    let instance = context.engine.instance(&project, &name)?;
    let capability = match body.kind.as_str() {
        "" | "console" => "console",
        "vga" => "console.vga",
        other => return Err(ApiError::bad_request(format!("type: {other:?} is none of console, vga"))),
    };
    require(instance.kind, capability).map_err(stapes_engine::Error::from)?;
    let side = |wanted: i64| u16::try_from(wanted).ok().filter(|side| *side > 0);
    let size = side(body.width).zip(side(body.height));
    Ok(Reply::Async(streams::console(&context.daemon, &project, &name, size, body.force, &context.caller)?))
}

async fn clear(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    context.engine.clear_console_log(&project, &name)?;
    Ok(Reply::empty())
}
