//! Stopping and restarting.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use stapes_model::{InstanceId, InstanceName, ProjectName, state::Request};

use crate::{Engine, Error, Result, events::Requestor, live::LiveInstance, operations::Operation, records};

use super::{create::lock_name, task};

/// How to make an instance end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ask init to power off; give up after `patience` (`None`: wait for ever) and leave it running.
    Graceful { patience: Option<Duration> },
    /// Kill everything inside.
    Forced,
}

impl Engine {
    pub fn stop_instance(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        mode: StopMode,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        let instance = self.instance(project, name)?;
        let held = self.locks.take("instance", &lock_name(project, name), "stop")?;
        self.check_state(&instance, Request::Stop)?;
        let spec = task("Stopping instance", project, name, requestor);
        let engine = Arc::clone(self);
        Ok(self.operations.run(spec, move |operation| async move {
            engine.stop_held(&operation, &instance.id, mode).await?;
            drop(held);
            if instance.ephemeral {
                engine.delete_ephemeral(&instance).await;
            }
            Ok(())
        }))
    }

    pub fn restart_instance(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        mode: StopMode,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        let instance = self.instance(project, name)?;
        let held = self.locks.take("instance", &lock_name(project, name), "restart")?;
        self.check_state(&instance, Request::Restart)?;
        let spec = task("Restarting instance", project, name, requestor.clone());
        let (engine, project, name) = (Arc::clone(self), project.clone(), name.clone());
        Ok(self.operations.run(spec, move |operation| async move {
            let _held = held;
            engine.stop_held(&operation, &instance.id, mode).await?;
            engine.start_held(&operation, &project, &name, requestor.as_ref()).await
        }))
    }

    /// Ends a running instance whose lock the caller holds; one that is gone already is success.
    pub(crate) async fn stop_held(
        self: &Arc<Self>,
        operation: &Operation,
        id: &InstanceId,
        mode: StopMode,
    ) -> Result<()> {
        let Some(live) = self.live.get(id) else { return Ok(()) };
        operation.intent("stop", &json!({ "id": id }), false)?;
        match mode {
            StopMode::Forced => self.kill(&live).await?,
            StopMode::Graceful { patience } => self.shut_down(&live, patience).await?,
        }
        operation.step("stopped", false)
    }

    async fn kill(&self, live: &Arc<LiveInstance>) -> Result<()> {
        let running = Arc::clone(&live.running);
        self.lanes.fast(move || Ok(running.kill()?)).await?;
        // The kill returned after init was reaped; the event is on its way.
        let told = tokio::time::timeout(Duration::from_secs(10), live.exited()).await;
        told.map(drop).map_err(|_| Error::Refused("the instance was killed but its end was not reported".to_owned()))
    }

    async fn shut_down(&self, live: &Arc<LiveInstance>, patience: Option<Duration>) -> Result<()> {
        let running = Arc::clone(&live.running);
        if live.status() == stapes_model::state::Status::Frozen {
            return Err(Error::Refused("The instance is frozen; resume it first, or stop it with --force".to_owned()));
        }
        self.lanes.fast(move || Ok(running.request_shutdown()?)).await?;
        let exited = live.exited();
        let Some(patience) = patience else {
            exited.await;
            return Ok(());
        };
        tokio::time::timeout(patience, exited).await.map(drop).map_err(|_| {
            Error::Refused(format!(
                "the instance did not shut down within {} s and still runs; stop it with --force, or look at its console",
                patience.as_secs()
            ))
        })
    }

    /// How long a shutdown of the host waits for this instance.
    pub(crate) fn host_shutdown_patience(&self, instance: &records::Instance) -> Duration {
        let expanded = self.expanded(instance);
        let seconds = expanded.config.get("boot.host_shutdown_timeout").and_then(|text| text.parse().ok());
        Duration::from_secs(seconds.unwrap_or(30))
    }
}
