//! `/1.0/images/aliases`. Names may contain slashes.

use stapes_api as api;
use stapes_engine::app::with_project;

use crate::{
    convert,
    reply::{Reply, Result, etag, to_value},
    request::Context,
    rest::instances::patched,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/images/aliases" ViewImages "List the image aliases", answer Vec<api::ImageAliasesEntry> => list),
        route!(POST "/1.0/images/aliases" EditImages "Create an image alias", body api::ImageAliasesPost => create),
        route!(GET "/1.0/images/aliases/{*name}" ViewImages "Get an image alias", answer api::ImageAliasesEntry => get),
        route!(PUT "/1.0/images/aliases/{*name}" EditImages "Replace an image alias",
            body api::ImageAliasesEntryPut => put),
        route!(PATCH "/1.0/images/aliases/{*name}" EditImages "Change some of an image alias",
            body api::ImageAliasesEntryPut => patch),
        route!(POST "/1.0/images/aliases/{*name}" EditImages "Rename an image alias",
            body api::ImageAliasesEntryPost => rename),
        route!(DELETE "/1.0/images/aliases/{*name}" EditImages "Delete an image alias" => delete),
    ]
}

async fn list(context: Context) -> Result {
    let project = context.project()?;
    let mut objects = Vec::new();
    for alias in context.engine.index.read().aliases.values().filter(|alias| alias.project == project) {
        let url = with_project(format!("/1.0/images/aliases/{}", alias.name), &alias.project);
        objects.push((url, to_value(&convert::alias(alias))?));
    }
    super::collection(&context, objects)
}

async fn create(mut context: Context) -> Result {
    let project = context.project()?;
    let body: api::ImageAliasesPost = context.json().await?;
    let location = format!("/1.0/images/aliases/{}", body.name);
    context.engine.create_alias(&project, body.name.parse()?, body.description, &body.target)?;
    Ok(Reply::Created { location })
}

async fn get(context: Context) -> Result {
    let alias = convert::alias(&*context.engine.alias(&context.project()?, &context.name("name")?)?);
    Reply::tagged(&alias, &alias.clone().writable())
}

async fn put(mut context: Context) -> Result {
    let body: api::ImageAliasesEntryPut = context.json().await?;
    let (project, name) = (context.project()?, context.name("name")?);
    let shown = convert::alias(&*context.engine.alias(&project, &name)?);
    context.check_etag(&etag(&shown.writable())?)?;
    context.engine.update_alias(&project, &name, &body.description, &body.target)?;
    Ok(Reply::empty())
}

async fn patch(mut context: Context) -> Result {
    let (project, name) = (context.project()?, context.name("name")?);
    let writable = convert::alias(&*context.engine.alias(&project, &name)?).writable();
    let put: api::ImageAliasesEntryPut = patched(&mut context, &writable).await?;
    context.engine.update_alias(&project, &name, &put.description, &put.target)?;
    Ok(Reply::empty())
}

async fn rename(mut context: Context) -> Result {
    let (project, name) = (context.project()?, context.name("name")?);
    let body: api::ImageAliasesEntryPost = context.json().await?;
    let location = format!("/1.0/images/aliases/{}", body.name);
    context.engine.rename_alias(&project, &name, body.name.parse()?)?;
    Ok(Reply::Created { location })
}

async fn delete(context: Context) -> Result {
    context.engine.delete_alias(&context.project()?, &context.name("name")?)?;
    Ok(Reply::empty())
}
