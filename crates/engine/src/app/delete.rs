//! Deleting an instance: its record first, in one transaction with its claims; then what is on disk.

use std::sync::Arc;

use serde_json::{Value, json};
use stapes_model::{
    InstanceId, InstanceName, PoolName, ProjectName,
    state::{Request, Status},
};
use stapes_storage::VolumeRef;
use stapes_store::Transaction;

use crate::{
    Engine, Error, Result,
    events::Requestor,
    index::Stored,
    operations::Operation,
    records::{self, Record},
};

use super::{create::lock_name, instance_url, task};

impl Engine {
    /// Deletes a stopped instance.
    pub fn delete_instance(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        let instance = self.instance(project, name)?;
        let expanded = self.expanded(&instance);
        if expanded.is_on("security.protection.delete") {
            return Err(Error::Refused(
                "Instance is protected from being deleted; unset security.protection.delete first".to_owned(),
            ));
        }
        let held = self.locks.take("instance", &lock_name(project, name), "delete")?;
        if self.status(&instance) != Status::Stopped {
            self.check_state(&instance, Request::Delete)?;
        }
        let spec = task("Deleting instance", project, name, requestor);
        let engine = Arc::clone(self);
        Ok(self.operations.run(spec, move |operation| async move {
            let work = engine.clone();
            let lanes = engine.lanes.clone();
            lanes
                .fast(move || {
                    let _held = held;
                    work.delete_now(&operation, &instance)
                })
                .await
        }))
    }

    fn delete_now(&self, operation: &Operation, instance: &Stored<records::Instance>) -> Result<()> {
        let (id, pool) = (instance.id, instance.pool.clone());
        operation.intent("delete", &json!({ "id": id, "pool": pool }), true)?;
        // A stop may have changed the record since it was read.
        let current =
            self.index.read().instances.get(&id).cloned().ok_or_else(|| Error::missing("instance", &instance.name))?;
        let mut transaction = Transaction::new()
            .delete(current.key())
            .delete(records::instance_name_key(&current.project, &current.name));
        for claim in self.claims_of(&id) {
            transaction = transaction.delete(claim);
        }
        let nics = self.managed_nics(&current).unwrap_or_default();
        self.store.commit(transaction)?;
        operation.step("record-deleted", false)?;
        self.remove_reservations(&id, nics);
        self.drop_instance_content(&id, &pool)?;
        operation.step("volume-deleted", false)?;
        let url = instance_url(&current.project, &current.name);
        let requestor = operation.spec().requestor.as_ref();
        self.events.lifecycle(current.project.as_str(), "instance-deleted", &url, requestor, Value::Null);
        Ok(())
    }

    /// Removes what an instance without record has on disk. May run twice.
    pub(crate) fn drop_instance_content(&self, id: &InstanceId, pool: &PoolName) -> Result<()> {
        if self.index.read().instances.contains_key(id) {
            return Err(Error::Refused(format!("instance {id} has a record; its content is kept")));
        }
        self.pool(pool)?.delete_volume(&VolumeRef::instance(id))?;
        for directory in [self.paths.instance_log(id), self.paths.instance_run(id)] {
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %directory.display(), %error, "a directory of a deleted instance is left");
                }
                _ => {}
            }
        }
        Ok(())
    }
}
