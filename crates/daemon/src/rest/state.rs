//! `/1.0/instances/{name}/state`: what it uses, and start, stop, restart, freeze, unfreeze.

use std::{sync::Arc, time::Duration};

use stapes_api as api;
use stapes_engine::{app::StopMode, operations::Operation};
use stapes_model::{InstanceName, ProjectName, state::Status};

use crate::{
    convert,
    reply::{ApiError, Reply, Result},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/instances/{name}/state" ViewInstances "Get an instance's live state",
            answer api::InstanceState => get),
        route!(PUT "/1.0/instances/{name}/state" UpdateInstanceState "Change an instance's state",
            body api::InstanceStatePut, answer api::Operation => put),
    ]
}

async fn get(context: Context) -> Result {
    let instance = context.engine.instance(&context.project()?, &context.instance_name()?)?;
    let expanded = context.engine.expanded(&instance);
    let engine = Arc::clone(&context.engine);
    let states = context.engine.lanes.fast(move || engine.states(&[(&*instance.value, &expanded)])).await?;
    Reply::sync(&states.first().map(convert::state).unwrap_or_default())
}

async fn put(mut context: Context) -> Result {
    let (project, name) = (context.project()?, context.instance_name()?);
    let body: api::InstanceStatePut = context.json().await?;
    Ok(Reply::Async(change(&context, &project, &name, &body)?))
}

fn change(
    context: &Context,
    project: &ProjectName,
    name: &InstanceName,
    body: &api::InstanceStatePut,
) -> Result<Operation> {
    if body.stateful {
        let instance = context.engine.instance(project, name)?;
        stapes_instance::require(instance.kind, "stateful")
            .map_err(|error| ApiError::bad_request(format!("stateful: {error}")))?;
    }
    let (engine, requestor) = (&context.engine, Some(context.caller.requestor()));
    let operation = match body.action.as_str() {
        "start" => engine.start_instance(project, name, requestor)?,
        "stop" => engine.stop_instance(project, name, mode(body), requestor)?,
        "restart" => engine.restart_instance(project, name, mode(body), requestor)?,
        "freeze" => engine.freeze_instance(project, name, requestor)?,
        "unfreeze" => engine.thaw_instance(project, name, requestor)?,
        other => {
            return Err(ApiError::bad_request(format!(
                "action: {other:?} is none of start, stop, restart, freeze, unfreeze"
            )));
        }
    };
    Ok(operation)
}

/// A timeout below zero waits for ever; zero, what clients send when nobody chose, is Incus's 30 s… as a request to stop
/// gracefully without giving up soon: 600 s there, and here.
fn mode(body: &api::InstanceStatePut) -> StopMode {
    if body.force {
        return StopMode::Forced;
    }
    let patience = match u64::try_from(body.timeout) {
        Err(_) => None,
        Ok(0) => Some(Duration::from_secs(600)),
        Ok(seconds) => Some(Duration::from_secs(seconds)),
    };
    StopMode::Graceful { patience }
}

/// One action for all instances of a project that it applies to.
pub(super) async fn put_all(mut context: Context) -> Result {
    let project = context.project()?;
    let body: api::InstancesPut = context.json().await?;
    let state = body.state.ok_or_else(|| ApiError::bad_request("state: missing"))?;
    let engine = &context.engine;
    let applies = |status: Status| match state.action.as_str() {
        "start" => status == Status::Stopped,
        "unfreeze" => status == Status::Frozen,
        _ => status == Status::Running,
    };
    let instances = engine.instances(Some(&project));
    let wanted: Vec<_> = instances.into_iter().filter(|(instance, _)| applies(engine.status(instance))).collect();
    let mut operations = Vec::with_capacity(wanted.len());
    for (instance, _) in &wanted {
        operations.push((instance.name.clone(), change(&context, &project, &instance.name, &state)?));
    }
    let spec = stapes_engine::app::bulk_task("Updating instances", &project, Some(context.caller.requestor()));
    let all = engine.operations.run(spec, |_| async move {
        let mut failed = Vec::new();
        for (name, operation) in operations {
            let ended = operation.finished().await;
            if !ended.err.is_empty() {
                failed.push(format!("{name}: {}", ended.err));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(stapes_engine::Error::Refused(failed.join("; "))) }
    });
    Ok(Reply::Async(all))
}
