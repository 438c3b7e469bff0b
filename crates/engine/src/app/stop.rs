//! Stopping and restarting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use stapes_instance::{Asked, DriverError};
use stapes_model::{InstanceId, InstanceName, ProjectName, state::Request};

use crate::{Engine, Error, Result, events::Requestor, live::LiveInstance, operations::Operation, records};

use super::{create::lock_name, task};

/// Pauses between two requests to a guest that is too young to hear them.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

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
        if live.status() == stapes_model::state::Status::Frozen {
            return Err(Error::Refused("The instance is frozen; resume it first, or stop it with --force".to_owned()));
        }
        let told = AtomicBool::new(false);
        let exited = async {
            tokio::select! {
                biased;
                () = async { live.exited().await; } => Ok(()),
                error = self.ask_until_told(live, &told) => Err(error),
            }
        };
        let Some(patience) = patience else { return exited.await };
        tokio::time::timeout(patience, exited).await.unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            let why = if told.load(Ordering::Relaxed) {
                format!("the instance did not shut down within {seconds} s and still runs")
            } else {
                format!("the instance still runs: its init did not listen for a shutdown request within {seconds} s")
            };
            Err(Error::Refused(format!("{why}; stop it with --force, or look at its console")))
        })
    }

    /// Asks the guest to power off, again and again while it is too young to hear it. Returns only with an error.
    async fn ask_until_told(&self, live: &Arc<LiveInstance>, told: &AtomicBool) -> Error {
        let mut pause = FIRST_PAUSE;
        loop {
            let running = Arc::clone(&live.running);
            match self.lanes.fast(move || Ok(running.request_shutdown()?)).await {
                Ok(Asked::Told) => {
                    told.store(true, Ordering::Relaxed);
                    std::future::pending::<()>().await;
                }
                Ok(Asked::NotListening) => tokio::time::sleep(pause).await,
                // It ended in the meantime, and its exit is on the way.
                Err(Error::Driver(DriverError::NotRunning { .. })) => std::future::pending().await,
                Err(error) => return error,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// How long a shutdown of the host waits for this instance.
    pub(crate) fn host_shutdown_patience(&self, instance: &records::Instance) -> Duration {
        let expanded = self.expanded(instance);
        let seconds = expanded.config.get("boot.host_shutdown_timeout").and_then(|text| text.parse().ok());
        Duration::from_secs(seconds.unwrap_or(30))
    }
}
