//! `/1.0/instances`: list, create, read, change, rename, delete.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use stapes_api as api;
use stapes_engine::{
    app::{CreateInstance, CreateSource, Expanded, InstanceEdit, instance_url},
    index::Stored,
    records,
};
use stapes_model::{InstanceName, ProfileName, ProjectName};

use crate::{
    convert,
    reply::{ApiError, Each, Reply, Result, etag, to_text, to_value},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/instances" ViewInstances "List the instances", answer Vec<api::Instance> => list),
        route!(POST "/1.0/instances" CreateInstances "Create an instance", body api::InstancesPost,
            answer api::Operation => create),
        route!(PUT "/1.0/instances" UpdateInstanceState "Change the state of all instances", body api::InstancesPut,
            answer api::Operation => super::state::put_all),
        route!(GET "/1.0/instances/{name}" ViewInstances "Get an instance", answer api::Instance => get),
        route!(PUT "/1.0/instances/{name}" EditInstances "Replace an instance's configuration", body api::InstancePut,
            answer api::Operation => put),
        route!(PATCH "/1.0/instances/{name}" EditInstances "Change some of an instance's configuration",
            body api::InstancePut => patch),
        route!(POST "/1.0/instances/{name}" EditInstances "Rename an instance", body api::InstancePost,
            answer api::Operation => rename),
        route!(DELETE "/1.0/instances/{name}" DeleteInstances "Delete an instance", answer api::Operation => delete),
        route!(GET "/1.0/instances/{name}/snapshots" ViewInstances "List an instance's snapshots",
            answer Vec<api::InstanceSnapshot> => snapshots),
        route!(GET "/1.0/instances/{name}/backups" ViewInstances "List an instance's backups",
            answer Vec<String> => snapshots),
    ]
}

/// The collection answers for one project, or with `all-projects` for all.
pub(super) fn scope(context: &Context) -> Result<Option<ProjectName>> {
    if context.flag("all-projects") { Ok(None) } else { context.project().map(Some) }
}

async fn list(context: Context) -> Result {
    let project = scope(&context)?;
    let wanted = context.query.get("instance-type").filter(|word| !word.is_empty());
    let wanted = wanted.map(|word| convert::instance_type(word)).transpose()?;
    let mut instances = context.engine.instances(project.as_ref());
    instances.retain(|(instance, _)| wanted.is_none_or(|kind| instance.kind == kind));
    if context.recursion() == 0 && !context.query.contains_key("filter") {
        let urls: Vec<_> =
            instances.iter().map(|(instance, _)| instance_url(&instance.project, &instance.name)).collect();
        return Reply::sync(&urls);
    }
    let instances = Arc::new(instances);
    let states = match context.recursion() {
        2 => Some(states(&context, Arc::clone(&instances)).await?),
        _ => None,
    };
    // Whoever read the states is done with them, so nothing is copied here.
    let instances = Arc::unwrap_or_clone(instances);
    let shown = |(instance, expanded): (Stored<records::Instance>, Expanded)| {
        let status = context.engine.status(&instance);
        convert::instance(&instance, expanded, status)
    };
    if !context.query.contains_key("filter") {
        let plain = instances.into_iter().map(shown);
        return match states {
            None => to_text(&Each::of(plain)),
            Some(states) => {
                to_text(&Each::of(plain.zip(states).map(|(instance, state)| convert::instance_full(instance, state))))
            }
        };
    }
    let mut objects = Vec::with_capacity(instances.len());
    for (number, (instance, expanded)) in instances.into_iter().enumerate() {
        let url = instance_url(&instance.project, &instance.name);
        let shown = shown((instance, expanded));
        let object = match states.as_ref().and_then(|states| states.get(number)) {
            Some(state) => to_value(&convert::instance_full(shown, state.clone()))?,
            None => to_value(&shown)?,
        };
        objects.push((url, object));
    }
    super::collection(&context, objects)
}

async fn states(
    context: &Context,
    instances: Arc<Vec<(Stored<records::Instance>, Expanded)>>,
) -> Result<Vec<api::InstanceState>> {
    let engine = Arc::clone(&context.engine);
    let work = move || {
        let instances: Vec<_> = instances.iter().map(|(instance, expanded)| (&*instance.value, expanded)).collect();
        engine.states(&instances)
    };
    Ok(context.engine.lanes.fast(work).await?.iter().map(convert::state).collect())
}

async fn get(context: Context) -> Result {
    let instance = context.engine.instance(&context.project()?, &context.instance_name()?)?;
    let expanded = context.engine.expanded(&instance);
    let state = match context.recursion() {
        0 => None,
        _ => states(&context, Arc::new(vec![(instance.clone(), expanded.clone())])).await?.into_iter().next(),
    };
    let shown = convert::instance(&instance, expanded, context.engine.status(&instance));
    match state {
        Some(state) => Reply::tagged(&convert::instance_full(shown, state), &editable(&instance)),
        None => Reply::tagged(&shown, &editable(&instance)),
    }
}

/// What an instance's tag covers: what `PUT` replaces, without what the daemon itself keeps changing.
fn editable(instance: &records::Instance) -> Value {
    let config: std::collections::BTreeMap<_, _> =
        instance.config.iter().filter(|(key, _)| !key.starts_with("volatile.")).collect();
    serde_json::json!([
        instance.architecture,
        config,
        instance.devices,
        instance.ephemeral,
        instance.profiles,
        instance.description,
    ])
}

async fn create(mut context: Context) -> Result {
    let project = context.project()?;
    let body: api::InstancesPost = context.json().await?;
    let source = source(&body.source)?;
    if body.stateful {
        return Err(ApiError::bad_request("stateful: an instance cannot be created with state"));
    }
    if !body.instance_type.is_empty() {
        return Err(ApiError::bad_request(
            "instance_type: sizes by name are not supported; set limits.cpu and limits.memory",
        ));
    }
    if !body.architecture.is_empty() && body.architecture != std::env::consts::ARCH {
        return Err(ApiError::bad_request(format!(
            "architecture: this host is {}, not {:?}",
            std::env::consts::ARCH,
            body.architecture
        )));
    }
    let request = CreateInstance {
        project,
        name: if body.name.is_empty() { None } else { Some(body.name.parse::<InstanceName>()?) },
        kind: convert::instance_type(&body.kind)?,
        description: body.description,
        ephemeral: body.ephemeral,
        profiles: body.profiles.as_deref().map(names).transpose()?,
        config: body.config,
        devices: body.devices,
        source,
        start: body.start,
        requestor: Some(context.caller.requestor()),
    };
    Ok(Reply::Async(context.engine.create_instance(request)?))
}

fn names(names: &[String]) -> Result<Vec<ProfileName>> {
    names.iter().map(|name| Ok(name.parse()?)).collect()
}

fn source(source: &api::InstanceSource) -> Result<CreateSource> {
    match (source.kind.as_str(), source.protocol.as_str()) {
        ("none", _) => Ok(CreateSource::Empty),
        ("image", "debian") => Ok(CreateSource::Debian(source.alias.clone())),
        ("image", _) if !source.server.is_empty() => Err(ApiError::bad_request(format!(
            "source.server: images of remote servers such as {:?} cannot be fetched yet; import the image, or use debian:12",
            source.server
        ))),
        ("image", _) if !source.fingerprint.is_empty() => Ok(CreateSource::Image(source.fingerprint.clone())),
        ("image", _) if !source.alias.is_empty() => Ok(CreateSource::Image(source.alias.clone())),
        ("image", _) => Err(ApiError::bad_request("source: an image needs an alias or a fingerprint")),
        (kind @ ("copy" | "migration"), _) => {
            Err(ApiError::bad_request(format!("source.type: {kind:?} is not supported yet")))
        }
        (kind, _) => {
            Err(ApiError::bad_request(format!("source.type: {kind:?} is none of image, none, copy, migration")))
        }
    }
}

fn edit(put: api::InstancePut) -> Result<InstanceEdit> {
    if !put.restore.is_empty() {
        return Err(ApiError::bad_request("restore: snapshots are not supported yet"));
    }
    Ok(InstanceEdit {
        description: put.description,
        ephemeral: put.ephemeral,
        profiles: names(&put.profiles)?,
        config: put.config,
        devices: put.devices,
    })
}

async fn put(mut context: Context) -> Result {
    let body: api::InstancePut = context.json().await?;
    let instance = context.engine.instance(&context.project()?, &context.instance_name()?)?;
    context.check_etag(&etag(&editable(&instance))?)?;
    let edit = edit(body)?;
    let requestor = context.caller.requestor();
    // Refused now, with the request's own status, and not later by an operation that nobody may look at.
    let (engine, stored) = (Arc::clone(&context.engine), instance.clone());
    context.engine.lanes.fast(move || engine.update_instance(&stored, edit)).await?;
    let spec = stapes_engine::app::task("Updating instance", &instance.project, &instance.name, Some(requestor));
    Ok(Reply::Async(context.engine.operations.run(spec, |_| async { Ok(()) })))
}

async fn patch(mut context: Context) -> Result {
    let body: Value = context.json().await?;
    let instance = context.engine.instance(&context.project()?, &context.instance_name()?)?;
    context.check_etag(&etag(&editable(&instance))?)?;
    let shown = convert::instance(&instance, Expanded::default(), context.engine.status(&instance));
    let mut merged = to_value(&shown.writable())?;
    merge(&mut merged, &body);
    let put: api::InstancePut = serde_json::from_value(merged)
        .map_err(|error| ApiError::bad_request(format!("the request's body: {error}")))?;
    let edit = edit(put)?;
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.fast(move || engine.update_instance(&instance, edit)).await?;
    Ok(Reply::empty())
}

/// What a PATCH makes of an object: the body laid over what is `writable` now, if that is still what the caller has read.
pub(super) async fn patched<T: DeserializeOwned>(context: &mut Context, writable: &impl Serialize) -> Result<T> {
    let body: Value = context.json().await?;
    let mut merged = to_value(writable)?;
    context.check_etag(&etag(&merged)?)?;
    merge(&mut merged, &body);
    serde_json::from_value(merged).map_err(|error| ApiError::bad_request(format!("the request's body: {error}")))
}

/// Objects are merged one level deep (`config`, `devices`), everything else is replaced.
pub(super) fn merge(into: &mut Value, from: &Value) {
    let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) else { return };
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

async fn rename(mut context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let body: api::InstancePost = context.json().await?;
    if body.migration || !body.pool.is_empty() || !body.project.is_empty() {
        return Err(ApiError::bad_request("moving an instance to another pool, project or host is not supported yet"));
    }
    let operation =
        context.engine.rename_instance(&project, &name, body.name.parse()?, Some(context.caller.requestor()))?;
    Ok(Reply::Async(operation))
}

async fn delete(context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let operation = context.engine.delete_instance(&project, &name, Some(context.caller.requestor()))?;
    Ok(Reply::Async(operation))
}

/// What does not exist yet is an empty list, for an instance that does exist.
async fn snapshots(context: Context) -> Result {
    context.engine.instance(&context.project()?, &context.instance_name()?)?;
    Reply::sync(&Vec::<String>::new())
}
