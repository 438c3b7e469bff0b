//! `/1.0/instances/{name}/exec`, and the output that it recorded.

use stapes_api as api;
use stapes_engine::app::{ExecCommand, ExecOutput};

use crate::{
    reply::{ApiError, Reply, Result, stream_file},
    request::Context,
    route,
    router::Route,
    streams::{self, Streams},
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(POST "/1.0/instances/{name}/exec" ExecInstances "Run a command in an instance",
            body api::InstanceExecPost, answer api::Operation => post),
        route!(GET "/1.0/instances/{name}/logs/exec-output" ExecInstances "List the recorded output",
            answer Vec<String> => list),
        route!(GET "/1.0/instances/{name}/logs/exec-output/{file}" ExecInstances "Get recorded output" => get),
        route!(DELETE "/1.0/instances/{name}/logs/exec-output/{file}" ExecInstances "Delete recorded output" => delete),
    ]
}

/// Columns or rows; nothing sensible counts as a terminal of the usual size.
fn size(wanted: i64, usual: u16) -> u16 {
    u16::try_from(wanted).ok().filter(|size| *size > 0).unwrap_or(usual)
}

async fn post(mut context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let body: api::InstanceExecPost = context.json().await?;
    if body.record_output && (body.wait_for_websocket || body.interactive) {
        return Err(ApiError::bad_request("record-output: excludes wait-for-websocket and interactive"));
    }
    let command = ExecCommand {
        command: body.command,
        environment: body.environment.into_iter().collect(),
        uid: body.user,
        gid: body.group,
        cwd: Some(body.cwd).filter(|cwd| !cwd.is_empty()),
    };
    let target = context.engine.exec_target(&project, &name, command)?;
    let operation = if body.wait_for_websocket {
        let streams = match body.interactive {
            true => Streams::Terminal { columns: size(body.width, 80), rows: size(body.height, 25) },
            false => Streams::Pipes,
        };
        streams::exec(&context.daemon, target, streams, &context.caller)
    } else {
        let output = if body.record_output { ExecOutput::Record } else { ExecOutput::Discard };
        context.engine.exec_detached(target, output, Some(context.caller.requestor())).await
    };
    Ok(Reply::Async(operation))
}

async fn list(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let files = context.engine.exec_outputs(&project, &name)?;
    let urls = files.iter().map(|file| format!("/1.0/instances/{name}/logs/exec-output/{file}"));
    Reply::sync(&urls.collect::<Vec<_>>())
}

async fn get(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let file = context.engine.exec_output_file(&project, &name, context.param("file"))?;
    Ok(Reply::raw("application/octet-stream", stream_file(file)))
}

async fn delete(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    context.engine.delete_exec_output(&project, &name, context.param("file"))?;
    Ok(Reply::empty())
}
