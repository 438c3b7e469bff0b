//! `/1.0/instances/{name}/logs`: what an instance's console printed, and what became of its starts.

use stapes_engine::app::with_project;

use crate::{
    reply::{Reply, Result, full},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/instances/{name}/logs" ViewInstances "List the log files of an instance",
            answer Vec<String> => list),
        route!(GET "/1.0/instances/{name}/logs/{file}" ViewInstances "Get a log file of an instance" => get),
        route!(DELETE "/1.0/instances/{name}/logs/{file}" EditInstances "Delete a log file of an instance" => delete),
    ]
}

async fn list(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let files = context.engine.instance_logs(&project, &name)?;
    let urls = files.iter().map(|file| with_project(format!("/1.0/instances/{name}/logs/{file}"), &project));
    Reply::sync(&urls.collect::<Vec<_>>())
}

async fn get(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let text = context.engine.instance_log(&project, &name, context.param("file"))?;
    Ok(Reply::raw("application/octet-stream", full(text)))
}

async fn delete(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    context.engine.delete_instance_log(&project, &name, context.param("file"))?;
    Ok(Reply::empty())
}
