//! `/1.0/projects`, as far as projects exist: reading the default one.

use stapes_api as api;

use crate::{
    convert,
    reply::{ApiError, Reply, Result, to_value},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/projects" ViewProjects "List the projects", answer Vec<api::Project> => list),
        route!(POST "/1.0/projects" EditProjects "Create a project", body api::ProjectsPost => create),
        route!(GET "/1.0/projects/{name}" ViewProjects "Get a project", answer api::Project => get),
    ]
}

async fn list(context: Context) -> Result {
    let mut objects = Vec::new();
    {
        let tables = context.engine.index.read();
        for project in tables.projects.values() {
            objects.push((format!("/1.0/projects/{}", project.name), to_value(&convert::project(&tables, project))?));
        }
    }
    super::collection(&context, objects)
}

async fn create(_: Context) -> Result {
    Err(ApiError::bad_request("projects other than \"default\" are not supported yet"))
}

async fn get(context: Context) -> Result {
    let stored = context.engine.project(&context.name("name")?)?;
    let shown = convert::project(&context.engine.index.read(), &stored);
    Reply::tagged(&shown, &shown.clone().writable())
}
