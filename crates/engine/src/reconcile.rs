//! The host as the store says: what was interrupted is finished or undone, what runs is adopted, what should be there is
//! there. One code for start-up and for recovery after a crash.

use std::{collections::HashSet, sync::Arc};

use serde_json::Value;
use stapes_journal::{OpenIntent, Outcome};
use stapes_model::{Fingerprint, InstanceId, PoolName};
use stapes_storage::VolumeRef;

use crate::{
    Engine, Error, Result,
    live::LiveInstance,
    operations::{Snapshot, Status},
};

/// What a start found and did, for the log.
#[derive(Debug, Default)]
pub struct Reconciled {
    pub adopted: usize,
    pub undone: usize,
    pub swept: Vec<String>,
}

impl Engine {
    /// Makes the host agree with the store. Blocking; called once before serving. The instances that it returns run and
    /// want to be followed.
    pub fn reconcile(self: &Arc<Self>) -> Result<(Reconciled, Vec<(InstanceId, Arc<LiveInstance>)>)> {
        self.ensure_default_project()?;
        self.open_pools();
        let mut report = Reconciled::default();
        for open in self.journal.open_intents()? {
            let outcome = self.settle(&open);
            match &outcome {
                Ok(done) => tracing::info!(kind = open.intent.kind, done, "an interrupted operation was settled"),
                Err(error) => tracing::error!(
                    kind = open.intent.kind,
                    error = crate::chain(error),
                    "an interrupted operation could not be undone; it is tried again at the next start"
                ),
            }
            if outcome.is_ok() {
                report.undone += 1;
                self.close_interrupted(&open)?;
            }
        }
        let adopted = self.adopt_all();
        report.adopted = adopted.len();
        let keep: HashSet<_> = adopted.iter().map(|(id, _)| *id).collect();
        report.swept = self.driver(stapes_model::InstanceType::Container)?.sweep(&keep)?;
        report.swept.extend(stapes_network::sweep(&self.network_names(), &stapes_network::Tools::default())?);
        self.sweep_uploads();
        self.networks_up();
        Ok((report, adopted))
    }

    /// Follows adopted instances, and starts what ran when the host went down. Needs the runtime.
    pub fn resume(self: &Arc<Self>, adopted: Vec<(InstanceId, Arc<LiveInstance>)>) {
        for (id, live) in adopted {
            self.follow(id, live);
        }
        let engine = Arc::clone(self);
        tokio::spawn(async move { engine.autostart().await });
    }

    fn adopt_all(&self) -> Vec<(InstanceId, Arc<LiveInstance>)> {
        let ids: Vec<_> = self.index.read().instances.keys().copied().collect();
        let adopt = |id: &InstanceId| match self.adopt_one(id) {
            Ok(live) => Some((*id, live?)),
            Err(error) => {
                tracing::error!(instance = %id, error = crate::chain(&error), "a running instance could not be adopted");
                None
            }
        };
        // One without a directory of its own has no shim either; what it may have left is the sweep's.
        let may_run = |id: &&InstanceId| self.paths.instance_run(id).exists();
        let adopted: Vec<_> = ids.iter().filter(may_run).filter_map(adopt).collect();
        for id in ids.iter().filter(|id| self.live.get(id).is_none()) {
            let recorded = self.index.read().instances.get(id).cloned();
            let ran = recorded.is_some_and(|instance| {
                instance.config.get("volatile.last_state.power").is_some_and(|power| power == "RUNNING")
            });
            if ran {
                tracing::info!(instance = %id, "it ran when the daemon last knew of it, and is gone now");
            }
        }
        adopted
    }

    /// Finishes or undoes what an intent began. The commit of the record is what counts: before it, undo; after it,
    /// finish.
    fn settle(&self, open: &OpenIntent) -> Result<&'static str> {
        let plan = &open.intent.plan;
        match open.intent.kind.as_str() {
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
            "unpack" => {
                let (pool, fingerprint): (PoolName, Fingerprint) = (field(plan, "pool")?, field(plan, "fingerprint")?);
                let volume = VolumeRef::image(&fingerprint);
                let pool = self.pool(&pool)?;
                if !pool.exists(&volume)? {
                    pool.delete_volume(&volume)?;
                }
                Ok("undone")
            }
            // Their effects are what a reboot erases, or one transaction: the sweep and the store know better.
            _ => Ok("nothing to undo"),
        }
    }

    /// Lets the interrupted operation's result be asked for.
    fn close_interrupted(&self, open: &OpenIntent) -> Result<()> {
        let now = self.world.now();
        let snapshot = Snapshot {
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
            err: "the daemon was stopped while this was under way; what it had begun was undone or finished".to_owned(),
            location: "none".to_owned(),
            requestor: None,
            project: "default".to_owned(),
        };
        let outcome = Outcome {
            status: "Failure".to_owned(),
            error: Some(snapshot.err.clone()),
            result: serde_json::to_value(&snapshot).unwrap_or_default(),
            at: now.timestamp(),
        };
        Ok(self.journal.finish(&open.intent.operation, &outcome)?)
    }

    /// Removes image uploads that no request belongs to any more.
    fn sweep_uploads(&self) {
        let Ok(entries) = std::fs::read_dir(self.paths.images()) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".upload-") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Starts what `boot.autostart` asks for, or what ran when the host went down; highest priority first.
    async fn autostart(self: Arc<Self>) {
        let mut wanted: Vec<_> = self
            .instances(None)
            .into_iter()
            .filter(|(instance, _)| self.live.get(&instance.id).is_none())
            .filter(|(instance, expanded)| {
                let ran = instance.config.get("volatile.last_state.power").is_some_and(|power| power == "RUNNING");
                expanded.config.get("boot.autostart").map_or(ran, |value| value == "true")
            })
            .collect();
        let number =
            |config: &crate::records::Config, key: &str| config.get(key).and_then(|text| text.parse::<i64>().ok());
        wanted.sort_by_key(|(_, expanded)| {
            std::cmp::Reverse(number(&expanded.config, "boot.autostart.priority").unwrap_or(0))
        });
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

fn field<T: serde::de::DeserializeOwned>(plan: &Value, name: &str) -> Result<T> {
    serde_json::from_value(plan.get(name).cloned().unwrap_or_default())
        .map_err(|error| Error::failed(format!("failed to read {name:?} of an interrupted operation"), error))
}
