//! The host as the store says: what was interrupted is finished or undone, what runs is adopted, what should be there is
//! there. One code for start-up and for recovery after a crash.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::Value;
use stapes_journal::{OpenIntent, Outcome};
use stapes_model::{Fingerprint, InstanceId, InstanceName, PoolName};

use crate::{
    Engine, Error, Result,
    app::{Expanded, REBOOT, exec},
    index::Stored,
    live::LiveInstance,
    operations::{ACCEPTED, Snapshot, Status},
    records,
};

/// Shims that are asked at the same time.
const ADOPTERS: usize = 4;

/// What a start found and did, for the log.
#[derive(Debug, Default)]
pub struct Reconciled {
    pub adopted: usize,
    pub undone: usize,
    pub swept: Vec<String>,
}

/// Instances that run and want to be followed.
#[derive(Default)]
pub struct Adopted {
    pub instances: Vec<(InstanceId, Arc<LiveInstance>)>,
    /// Operations of commands that an earlier daemon started in them.
    commands: Vec<OpenIntent>,
    /// Starts that instances asked for from inside and that an earlier daemon had not come to.
    reboots: BTreeMap<InstanceId, Vec<OpenIntent>>,
}

impl Engine {
    /// Makes the host agree with the store. Blocking; called once before serving. The instances that it returns run and
    /// want to be followed.
    pub fn reconcile(self: &Arc<Self>) -> Result<(Reconciled, Adopted)> {
        self.ensure_default_project()?;
        self.open_pools();
        let mut report = Reconciled::default();
        let (mut commands, mut reboots) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for open in self.journal.open_intents()? {
            if open.steps.iter().any(|step| step.name == exec::NOTE) {
                commands.push(open);
                continue;
            }
            if let Some(id) = rebooting(&open) {
                reboots.entry(id).or_default().push(open);
                continue;
            }
            crate::failpoint::reached("before settling");
            let outcome = self.settle(&open);
            match &outcome {
                Ok(done) => tracing::info!(kind = open.intent.kind, done, "an interrupted operation was settled"),
                Err(error) => tracing::error!(
                    kind = open.intent.kind,
                    error = crate::chain(error),
                    "an interrupted operation could not be undone; it is tried again at the next start"
                ),
            }
            crate::failpoint::reached("after settling");
            if outcome.is_ok() {
                report.undone += 1;
                self.close_interrupted(&open)?;
            }
        }
        let adopted = self.adopt_all(&reboots);
        report.adopted = adopted.len();
        let keep: HashSet<_> = adopted.iter().map(|(id, _)| *id).collect();
        for driver in self.drivers() {
            report.swept.extend(driver.sweep(&keep)?);
        }
        report.swept.extend(self.sweep_files());
        self.networks_up();
        self.mark_up();
        Ok((report, Adopted { instances: adopted, commands, reboots }))
    }

    /// Follows adopted instances, and starts what ran when the host went down. Needs the runtime.
    pub fn resume(self: &Arc<Self>, adopted: Adopted) {
        // Chosen while every adopted instance still counts as live: the end of one that is told of in a moment is no
        // reason to start it again.
        let mut wanted = self.to_autostart();
        wanted.retain(|(instance, _)| !adopted.reboots.contains_key(&instance.id));
        for (id, opens) in adopted.reboots {
            tokio::spawn(Arc::clone(self).resume_reboot(id, opens));
        }
        for command in adopted.commands {
            self.resume_command(&command);
        }
        for (id, live) in adopted.instances {
            self.follow(id, live);
        }
        let engine = Arc::clone(self);
        tokio::task::spawn_blocking(move || engine.probe_pools());
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            engine.delete_ended_ephemerals().await;
            engine.autostart(wanted).await;
        });
    }

    /// A command goes on where its instance does; else its operation was interrupted like any other.
    fn resume_command(self: &Arc<Self>, open: &OpenIntent) {
        let note = open.steps.iter().find(|step| step.name == exec::NOTE).map(|step| step.detail.clone());
        let note = note.and_then(|detail| serde_json::from_value::<exec::ExecNote>(detail).ok());
        let accepted = serde_json::from_value::<Snapshot>(open.intent.plan.clone()).ok();
        let live = note.as_ref().and_then(|note| self.live.get(&note.id));
        match (accepted, note, live) {
            (Some(accepted), Some(note), Some(live)) => self.resume_exec(accepted, note, live),
            _ => {
                if let Err(error) = self.close_interrupted(open) {
                    tracing::error!(error = crate::chain(&error), "an interrupted operation stays open");
                }
            }
        }
    }

    /// Starts an instance that asked for it while its daemon was killed. Until it runs or cannot, what the journal says
    /// of it stays open: this daemon may be killed as well.
    async fn resume_reboot(self: Arc<Self>, id: InstanceId, opens: Vec<OpenIntent>) {
        let instance = self.index.read().instances.get(&id).cloned();
        if let Some(instance) = instance.filter(|_| self.live.get(&id).is_none())
            && !self.start_again(&instance).await
        {
            let engine = Arc::clone(&self);
            if let Err(error) = self.lanes.fast(move || engine.record_power(&id, false)).await {
                tracing::warn!(instance = %id, error = crate::chain(&error), "the power state was not recorded");
            }
        }
        for open in opens {
            if let Err(error) = self.close_interrupted(&open) {
                tracing::error!(error = crate::chain(&error), "an interrupted operation stays open");
            }
        }
    }

    fn adopt_all(&self, reboots: &BTreeMap<InstanceId, Vec<OpenIntent>>) -> Vec<(InstanceId, Arc<LiveInstance>)> {
        let ids: Vec<_> = self.index.read().instances.keys().copied().collect();
        let adopt = |id: &InstanceId| match self.adopt_one(id) {
            Ok(live) => Some((*id, live?)),
            Err(error) => {
                tracing::error!(instance = %id, error = crate::chain(&error), "a running instance could not be adopted");
                None
            }
        };
        // Each is a conversation with its shim: while one answers, another is asked.
        let share = ids.len().div_ceil(ADOPTERS).max(1);
        let adopted: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = ids
                .chunks(share)
                .map(|part| scope.spawn(move || part.iter().filter_map(adopt).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        let was_up = self.was_up();
        for id in &ids {
            let runs = self.live.get(id).is_some();
            let recorded = self.index.read().instances.get(id).is_some_and(|instance| instance.ran());
            // After a reboot of the host what ran is to be started again, and `autostart` reads it from the record.
            if runs == recorded || (recorded && (!was_up || reboots.contains_key(id))) {
                continue;
            }
            tracing::info!(instance = %id, runs, "it started or ended while no daemon watched");
            if let Err(error) = self.record_power(id, runs) {
                tracing::warn!(instance = %id, error = crate::chain(&error), "the power state was not recorded");
            }
        }
        adopted
    }

    /// Lies in the directory that a reboot erases, and is removed when the host is shut down: while it is there, an
    /// instance that does not run has ended, rather than gone down with the host.
    fn up_mark(&self) -> std::path::PathBuf {
        self.paths.run.join("up")
    }

    fn was_up(&self) -> bool {
        self.up_mark().exists()
    }

    fn mark_up(&self) {
        if let Err(error) = std::fs::write(self.up_mark(), "") {
            tracing::warn!(%error, "the next daemon cannot tell a crash of this one from a reboot");
        }
    }

    pub(crate) fn mark_down(&self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(self.up_mark());
    }

    /// Finishes or undoes everything that an open operation planned.
    fn settle(&self, open: &OpenIntent) -> Result<&'static str> {
        let mut done = self.settle_one(&open.intent.kind, &open.intent.plan)?;
        for step in open.steps.iter().filter(|step| !step.detail.is_null()) {
            done = self.settle_one(&step.name, &step.detail)?;
        }
        Ok(done)
    }

    /// Finishes or undoes what an intent began. The commit of the record is what counts: before it, undo; after it,
    /// finish.
    fn settle_one(&self, kind: &str, plan: &Value) -> Result<&'static str> {
        match kind {
            "create" => {
                let id: InstanceId = field(plan, "id")?;
                if self.index.read().instances.contains_key(&id) {
                    return Ok("its record was written: kept");
                }
                let pool: PoolName = field(plan, "pool")?;
                self.drop_instance_content(&id, &pool)?;
                Ok("undone")
            }
            "delete" => {
                let id: InstanceId = field(plan, "id")?;
                if self.index.read().instances.contains_key(&id) {
                    return Ok("nothing was deleted yet: kept");
                }
                let pool: PoolName = field(plan, "pool")?;
                self.drop_instance_content(&id, &pool)?;
                Ok("finished")
            }
            "delete-image" | "import-image" => {
                let fingerprint: Fingerprint = field(plan, "fingerprint")?;
                self.drop_image_content(&fingerprint)?;
                Ok("finished")
            }
            "rename" => {
                let (id, to): (InstanceId, InstanceName) = (field(plan, "id")?, field(plan, "to")?);
                let instance = self.index.read().instances.get(&id).filter(|instance| instance.name == to).cloned();
                let Some(instance) = instance else { return Ok("not renamed: kept") };
                self.apply_templates(&instance, stapes_image::metadata::Trigger::Rename)?;
                Ok("finished")
            }
            "create-pool" => {
                let pool: records::Pool = field(plan, "pool")?;
                if self.pool_record(&pool.name).is_ok() {
                    return Ok("its record was written: kept");
                }
                stapes_storage::destroy(&crate::engine::pool_config(&pool), &self.paths.pool(&pool.name))?;
                Ok("undone")
            }
            "delete-pool" => {
                let name: PoolName = field(plan, "name")?;
                match self.pool_record(&name) {
                    Ok(stored) if self.pool_users(&name).is_empty() => self.remove_pool(&stored).map(|()| "finished"),
                    Ok(_) => Ok("it is in use: kept"),
                    Err(_) => Ok("finished"),
                }
            }
            "create-network" | "delete-network" => {
                // Only what this daemon noted is taken down: another one on this host may have networks of its own.
                let network: records::Network = field(plan, "network")?;
                if self.network(&network.name).is_ok() {
                    return Ok("it has a record: kept");
                }
                self.network_down(&network)?;
                Ok("taken down")
            }
            // Their effects are what a reboot erases, or one transaction: the sweep and the store know better.
            _ => Ok("nothing to undo"),
        }
    }

    /// Lets the interrupted operation's result be asked for.
    fn close_interrupted(&self, open: &OpenIntent) -> Result<()> {
        let now = self.world.now();
        let accepted = (open.intent.kind == ACCEPTED).then(|| serde_json::from_value(open.intent.plan.clone()).ok());
        let known: Option<Snapshot> = accepted.flatten();
        let unknown = || Snapshot {
            id: open.intent.operation.clone(),
            class: crate::operations::Class::Task,
            description: format!("Interrupted: {}", open.intent.kind),
            created_at: now,
            updated_at: now,
            status: Status::Failure,
            status_code: Status::Failure.code(),
            resources: std::collections::BTreeMap::new(),
            metadata: None,
            may_cancel: false,
            err: String::new(),
            location: "none".to_owned(),
            requestor: None,
            project: "default".to_owned(),
        };
        let snapshot = Snapshot {
            updated_at: now,
            status: Status::Failure,
            status_code: Status::Failure.code(),
            may_cancel: false,
            err: "the daemon was stopped while this was under way; what it had begun was undone or finished".to_owned(),
            ..known.unwrap_or_else(unknown)
        };
        let outcome = Outcome {
            status: "Failure".to_owned(),
            error: Some(snapshot.err.clone()),
            result: serde_json::to_value(&snapshot).unwrap_or_default(),
            at: now.timestamp(),
        };
        Ok(self.journal.finish(&open.intent.operation, &outcome)?)
    }

    /// An ephemeral instance goes with its end, also if no daemon was there to see it.
    async fn delete_ended_ephemerals(self: &Arc<Self>) {
        let has_ended = |instance: &records::Instance| {
            instance.ephemeral
                && instance.last_used_at.is_some()
                && !instance.ran()
                && self.live.get(&instance.id).is_none()
        };
        for (instance, _) in self.instances(None).into_iter().filter(|(instance, _)| has_ended(instance)) {
            self.delete_ephemeral(&instance).await;
        }
    }

    /// What `boot.autostart` asks for, or what ran when the host went down; highest priority first.
    fn to_autostart(&self) -> Vec<(Stored<records::Instance>, Expanded)> {
        let mut wanted: Vec<_> = self
            .instances(None)
            .into_iter()
            .filter(|(instance, _)| self.live.get(&instance.id).is_none())
            .filter(|(instance, expanded)| {
                // Unset and `last-state` mean: as it was.
                expanded.flag("boot.autostart").unwrap_or(instance.ran())
            })
            .collect();
        wanted.sort_by_key(|(_, expanded)| {
            std::cmp::Reverse(number(&expanded.config, "boot.autostart.priority").unwrap_or(0))
        });
        wanted
    }

    async fn autostart(self: Arc<Self>, wanted: Vec<(Stored<records::Instance>, Expanded)>) {
        for (instance, expanded) in wanted {
            let outcome = match self.start_instance(&instance.project, &instance.name, None) {
                Ok(operation) => operation.finished().await.err,
                Err(error) => crate::chain(&error),
            };
            if !outcome.is_empty() {
                tracing::error!(instance = instance.name.as_str(), error = outcome, "it could not be started at boot");
            }
            if let Some(delay) =
                number(&expanded.config, "boot.autostart.delay").and_then(|delay| u64::try_from(delay).ok())
            {
                tokio::time::sleep(std::time::Duration::from_secs(delay)).await;
            }
        }
    }
}

/// The instance that an open operation starts because it was asked to from inside.
fn rebooting(open: &OpenIntent) -> Option<InstanceId> {
    let noted = open.steps.iter().find(|step| step.name == REBOOT).map(|step| &step.detail);
    let plan = noted.or_else(|| (open.intent.kind == REBOOT).then_some(&open.intent.plan))?;
    field(plan, "id").ok()
}

fn number(config: &records::Config, key: &str) -> Option<i64> {
    config.get(key).and_then(|text| text.parse().ok())
}

fn field<T: serde::de::DeserializeOwned>(plan: &Value, name: &str) -> Result<T> {
    serde_json::from_value(plan.get(name).cloned().unwrap_or_default())
        .map_err(|error| Error::failed(format!("failed to read {name:?} of an interrupted operation"), error))
}
