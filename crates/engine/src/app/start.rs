//! Starting an instance, and following it until its end.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use stapes_image::metadata::Trigger;
use stapes_instance::{ExitReason, ExitStatus};
use stapes_model::{
    InstanceId, InstanceName, ProjectName,
    state::{Request, Verdict, decide},
};

use crate::{
    Engine, Error, Result,
    events::Requestor,
    live::{Exit, LiveInstance},
    operations::Operation,
    records, shape,
};

use super::{create::lock_name, instance_url, plan::root_of, task};

/// The journal's word for a start that an instance asked for from inside; `id` says which. Its shim is let go only after
/// this: one of the two tells the next daemon.
pub(crate) const REBOOT: &str = "reboot";

impl Engine {
    /// Starts a stopped instance.
    pub fn start_instance(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        self.begin_start(project, name, requestor, false)
    }

    fn begin_start(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        requestor: Option<Requestor>,
        rebooted: bool,
    ) -> Result<Operation> {
        let instance = self.instance(project, name)?;
        let held = self.locks.take("instance", &lock_name(project, name), "start")?;
        self.check_state(&instance, Request::Start)?;
        self.expect_start(&instance);
        let spec = task("Starting instance", project, name, requestor.clone());
        let (engine, project, name) = (Arc::clone(self), project.clone(), name.clone());
        Ok(self.operations.run(spec, move |operation| async move {
            let _held = held;
            if rebooted {
                operation.intent(REBOOT, &json!({ "id": instance.id }), false)?;
            }
            engine.start_held(&operation, &project, &name, requestor.as_ref()).await
        }))
    }

    /// Tells the driver what will be started in a moment. Does not block.
    pub(super) fn expect_start(&self, instance: &records::Instance) {
        if let (Ok(driver), Some(pool)) = (self.driver(instance.kind), self.open_pool(&instance.pool)) {
            let likeness = instance.config.get("volatile.base_image").map_or(instance.id.as_str(), String::as_str);
            driver.expect(&root_of(pool.as_ref(), instance), likeness);
        }
    }

    /// May this be asked of the instance as it is now?
    pub(crate) fn check_state(&self, instance: &records::Instance, request: Request) -> Result<()> {
        match decide(self.status(instance), request) {
            Verdict::Do => Ok(()),
            Verdict::Refuse(why) => Err(Error::Refused(why.to_owned())),
        }
    }

    /// Starts an instance whose lock the caller holds.
    pub(crate) async fn start_held(
        self: &Arc<Self>,
        operation: &Operation,
        project: &ProjectName,
        name: &InstanceName,
        requestor: Option<&Requestor>,
    ) -> Result<()> {
        let slow = shape::of(self.instance(project, name)?.kind).starts_slowly();
        let (engine, task, project, name) = (Arc::clone(self), operation.clone(), project.clone(), name.clone());
        let work = move || {
            let instance = engine.instance(&project, &name)?;
            engine.check_state(&instance, Request::Start)?;
            let id = instance.id;
            task.intent("start", &json!({ "id": id }), false)?;
            let started = engine.fit_ids(instance).and_then(|instance| Ok((engine.start_now(&instance)?, instance)));
            let (live, instance) = started.inspect_err(|error| {
                engine.note_log(&id, &format!("failed to start: {}", crate::chain(error)));
            })?;
            task.step("running", false)?;
            Ok((instance.id, live))
        };
        let (id, live) = if slow { self.lanes.heavy(work).await? } else { self.lanes.fast(work).await? };
        self.follow(id, live);
        self.told(&id, "instance-started", requestor);
        Ok(())
    }

    /// The effects of a start. Blocking, ≤ 50 ms unless the guest's file system is slow, or it is a machine.
    fn start_now(&self, instance: &records::Instance) -> Result<Arc<LiveInstance>> {
        let begun = std::time::Instant::now();
        let expanded = self.expanded(instance);
        if expanded.is_on("security.protection.start") {
            return Err(Error::Refused("Instance is protected from being started".to_owned()));
        }
        self.apply_templates(instance, Trigger::Start)?;
        let plan = self.plan(instance, &expanded)?;
        let driver = self.driver(instance.kind)?;
        self.paths.ensure_instance(&instance.id)?;
        let planned = begun.elapsed();
        // The record is written while the kernel works: both must be done before anyone is told.
        let (running, recorded) = std::thread::scope(|scope| {
            let record = scope.spawn(|| self.record_power(&instance.id, true));
            let running = driver.start(&plan);
            let started = begun.elapsed();
            let recorded = record.join();
            tracing::debug!(
                instance = %instance.id,
                plan = planned.as_micros(),
                driver = (started - planned).as_micros(),
                record = (begun.elapsed() - started).as_micros(),
                "microseconds of a start"
            );
            (running, recorded)
        });
        let running = match running {
            Ok(running) => running,
            Err(error) => {
                let _ = self.record_power(&instance.id, false);
                return Err(error.into());
            }
        };
        if let Ok(Err(error)) = recorded {
            // It runs, and that is what was asked for; only a reboot of the host would miss it.
            tracing::warn!(instance = %instance.id, error = crate::chain(&error), "the power state was not recorded");
        }
        let live = LiveInstance::new(running, false);
        self.live.insert(instance.id, Arc::clone(&live));
        Ok(live)
    }

    /// Remembers whether the instance runs, for the next start of the host.
    pub(crate) fn record_power(&self, id: &InstanceId, on: bool) -> Result<()> {
        let now = self.world.now();
        let read = || self.index.read().instances.get(id).cloned().ok_or_else(|| Error::missing("instance", id));
        let power = if on { "RUNNING" } else { "STOPPED" };
        self.change(read, |record: &mut records::Instance| {
            record.config.insert("volatile.last_state.power".to_owned(), power.to_owned());
            if on {
                record.last_used_at = Some(now);
            }
            Ok(())
        })
    }

    /// Follows a running instance: its end is recorded, announced, and answered by a restart or a deletion where that
    /// is what it asks for.
    pub(crate) fn follow(self: &Arc<Self>, id: InstanceId, live: Arc<LiveInstance>) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            match Arc::clone(&live).watch().await {
                Ok(Some(exit)) => engine.ended(id, &live, exit).await,
                Ok(None) => engine.shim_lost(id, &live).await,
                Err(error) => {
                    tracing::error!(instance = %id, %error, "an instance cannot be followed");
                    engine.shim_lost(id, &live).await;
                }
            }
        });
    }

    async fn ended(self: &Arc<Self>, id: InstanceId, live: &Arc<LiveInstance>, exit: Exit) {
        self.live.remove(&id);
        tracing::info!(instance = %id, ?exit, "instance ended");
        let Some(instance) = self.index.read().instances.get(&id).cloned() else {
            live.running.acknowledge_exit();
            live.announce(exit);
            return;
        };
        // Whoever stops or restarts it holds its lock and does the rest. Any other holder (a start that is just ending, a
        // change of configuration) knows nothing of an end from inside.
        let holder = self.locks.holder("instance", &lock_name(&instance.project, &instance.name));
        let stopped = matches!(holder, Some("stop" | "restart"));
        let reboot = exit.reason == ExitReason::Reboot && !stopped;
        if !reboot {
            self.settle_end(id, live, (holder != Some("restart")).then_some(exit)).await;
        }
        live.announce(exit);
        if reboot {
            self.told(&id, "instance-restarted", None);
            if !self.start_again(&instance).await {
                self.settle_end(id, live, Some(exit)).await;
            }
        } else {
            self.told(&id, if stopped { "instance-stopped" } else { "instance-shutdown" }, None);
            if instance.ephemeral && !stopped {
                self.delete_ephemeral(&instance).await;
            }
        }
    }

    /// Writes the end down, if it is one for the record, and lets the shim go that would tell the next daemon of it.
    async fn settle_end(self: &Arc<Self>, id: InstanceId, live: &Arc<LiveInstance>, record: Option<Exit>) {
        let (engine, running) = (Arc::clone(self), Arc::clone(&live.running));
        let settled = self.lanes.fast(move || {
            let recorded = record.map_or(Ok(()), |exit| {
                engine.note_log(&id, &format!("ended: {}", told_exit(exit)));
                engine.record_power(&id, false)
            });
            running.acknowledge_exit();
            recorded
        });
        if let Err(error) = settled.await {
            tracing::warn!(instance = %id, error = crate::chain(&error), "the power state was not recorded");
        }
    }

    /// Begins an operation as soon as nobody else holds its object; gives up after a minute.
    async fn when_free(&self, begin: impl Fn() -> Result<Operation>) -> Result<Operation> {
        const PAUSE: Duration = Duration::from_millis(20);
        for _ in 0..3000 {
            match begin() {
                Err(Error::Busy { .. }) => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
        begin()
    }

    /// Starts an instance that asked for it from inside; whether it runs.
    pub(crate) async fn start_again(self: &Arc<Self>, instance: &records::Instance) -> bool {
        let started = self.when_free(|| self.begin_start(&instance.project, &instance.name, None, true)).await;
        let outcome = match started {
            Ok(operation) => operation.finished().await.err,
            Err(error) => crate::chain(&error),
        };
        if !outcome.is_empty() {
            tracing::error!(instance = %instance.id, error = outcome, "it asked to be restarted and could not be started");
        }
        outcome.is_empty()
    }

    pub(crate) async fn delete_ephemeral(self: &Arc<Self>, instance: &records::Instance) {
        let deleted = self.when_free(|| self.delete_instance(&instance.project, &instance.name, None)).await;
        let outcome = match deleted {
            Ok(operation) => operation.finished().await.err,
            Err(error) => crate::chain(&error),
        };
        if !outcome.is_empty() {
            tracing::error!(instance = %instance.id, error = outcome, "an ephemeral instance could not be deleted");
        }
    }

    /// The shim is gone: take the instance over with a new one, or know that it ended.
    async fn shim_lost(self: &Arc<Self>, id: InstanceId, live: &Arc<LiveInstance>) {
        tracing::warn!(instance = %id, "the shim of a running instance was lost; replacing it");
        self.live.remove(&id);
        let engine = Arc::clone(self);
        let adopted = self.lanes.fast(move || engine.adopt_one(&id)).await;
        match adopted {
            Ok(Some(fresh)) => {
                self.follow(id, fresh);
                // Whoever waited for an exit on the old handle must ask again; the instance itself goes on.
                tracing::info!(instance = %id, "the instance has a new shim");
            }
            Ok(None) => {
                let exit = Exit { reason: ExitReason::Killed, status: stapes_instance::ExitStatus::Unknown };
                self.ended(id, live, exit).await;
            }
            Err(error) => {
                tracing::error!(instance = %id, error = crate::chain(&error), "an instance without shim was given up");
                let exit = Exit { reason: ExitReason::Killed, status: stapes_instance::ExitStatus::Unknown };
                self.ended(id, live, exit).await;
            }
        }
    }

    /// Takes over an instance that runs already; makes it live.
    pub(crate) fn adopt_one(&self, id: &InstanceId) -> Result<Option<Arc<LiveInstance>>> {
        let Some(instance) = self.index.read().instances.get(id).cloned() else { return Ok(None) };
        let driver = self.driver(instance.kind)?;
        let Some(running) = driver.adopt(id, &self.paths.instance_run(id))? else { return Ok(None) };
        let frozen = running.is_frozen().unwrap_or(false);
        let live = LiveInstance::new(running, frozen);
        self.live.insert(*id, Arc::clone(&live));
        Ok(Some(live))
    }

    /// Tells the listeners what happened to an instance.
    pub(crate) fn told(&self, id: &InstanceId, action: &str, requestor: Option<&Requestor>) {
        let Some(instance) = self.index.read().instances.get(id).cloned() else { return };
        let url = instance_url(&instance.project, &instance.name);
        self.events.lifecycle(instance.project.as_str(), action, &url, requestor, Value::Null);
    }
}

/// In words for the instance's log.
fn told_exit(exit: Exit) -> String {
    let reason = match exit.reason {
        ExitReason::Halt => "power-off from inside",
        ExitReason::Reboot => "reboot from inside",
        ExitReason::Killed => "killed",
    };
    match exit.status {
        ExitStatus::Code(code) => format!("{reason}, init's exit code was {code}"),
        ExitStatus::Signal(signal) => format!("{reason}, init ended by signal {signal}"),
        ExitStatus::Unknown => format!("{reason}, how init ended is not known"),
    }
}
