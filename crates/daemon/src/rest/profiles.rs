//! `/1.0/profiles`.

use std::sync::Arc;

use stapes_api as api;
use stapes_engine::{app::with_project, records};

use crate::{
    convert,
    reply::{Reply, Result, etag, to_value},
    request::Context,
    rest::instances::{patched, scope},
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/profiles" ViewProfiles "List the profiles", answer Vec<api::Profile> => list),
        route!(POST "/1.0/profiles" EditProfiles "Create a profile", body api::ProfilesPost => create),
        route!(GET "/1.0/profiles/{name}" ViewProfiles "Get a profile", answer api::Profile => get),
        route!(PUT "/1.0/profiles/{name}" EditProfiles "Replace a profile", body api::ProfilePut => put),
        route!(PATCH "/1.0/profiles/{name}" EditProfiles "Change some of a profile", body api::ProfilePut => patch),
        route!(POST "/1.0/profiles/{name}" EditProfiles "Rename a profile", body api::ProfilePost => rename),
        route!(DELETE "/1.0/profiles/{name}" EditProfiles "Delete a profile" => delete),
    ]
}

async fn list(context: Context) -> Result {
    let project = scope(&context)?;
    let mut objects = Vec::new();
    {
        let tables = context.engine.index.read();
        let here = |profile: &&records::Profile| project.as_ref().is_none_or(|project| *project == profile.project);
        for profile in tables.profiles.values().map(|stored| &*stored.value).filter(here) {
            let url = with_project(format!("/1.0/profiles/{}", profile.name), &profile.project);
            objects.push((url, to_value(&convert::profile(&tables, profile))?));
        }
    }
    super::collection(&context, objects)
}

async fn create(mut context: Context) -> Result {
    let project = context.project()?;
    let body: api::ProfilesPost = context.json().await?;
    let profile = records::Profile {
        project,
        name: body.name.parse()?,
        description: body.description,
        config: body.config,
        devices: body.devices,
    };
    let location = format!("/1.0/profiles/{}", profile.name);
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.fast(move || engine.create_profile(profile)).await?;
    Ok(Reply::Created { location })
}

fn shown(context: &Context) -> Result<(api::Profile, records::Profile)> {
    let stored = context.engine.profile(&context.project()?, &context.name("name")?)?;
    let shown = convert::profile(&context.engine.index.read(), &stored);
    Ok((shown, (*stored.value).clone()))
}

async fn get(context: Context) -> Result {
    let (shown, _) = shown(&context)?;
    Reply::tagged(&shown, &shown.clone().writable())
}

async fn put(mut context: Context) -> Result {
    let body: api::ProfilePut = context.json().await?;
    let (shown, record) = shown(&context)?;
    context.check_etag(&etag(&shown.writable())?)?;
    replace(&context, record, body).await
}

async fn patch(mut context: Context) -> Result {
    let (shown, record) = shown(&context)?;
    let writable = shown.writable();
    let put = patched(&mut context, &writable).await?;
    replace(&context, record, put).await
}

async fn replace(context: &Context, mut record: records::Profile, body: api::ProfilePut) -> Result {
    record.description = body.description;
    record.config = body.config;
    record.config.retain(|_, value| !value.is_empty());
    record.devices = body.devices;
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.fast(move || engine.update_profile(&record)).await?;
    Ok(Reply::empty())
}

async fn rename(mut context: Context) -> Result {
    let (project, name) = (context.project()?, context.name("name")?);
    let body: api::ProfilePost = context.json().await?;
    let to = body.name.parse()?;
    let location = format!("/1.0/profiles/{to}");
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.fast(move || engine.rename_profile(&project, &name, &to)).await?;
    Ok(Reply::Created { location })
}

async fn delete(context: Context) -> Result {
    let (project, name) = (context.project()?, context.name("name")?);
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.fast(move || engine.delete_profile(&project, &name)).await?;
    Ok(Reply::empty())
}
