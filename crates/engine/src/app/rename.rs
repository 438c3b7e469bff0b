//! Renaming: one row. Nothing on the host is named by an instance's name, but its DNS entry.

use std::sync::Arc;

use serde_json::json;
use stapes_model::{InstanceName, ProjectName, state::Status};
use stapes_store::{StoreError, Transaction};

use crate::{
    Engine, Error, Result,
    events::Requestor,
    index::Stored,
    operations::Operation,
    records::{self, Record, instance_name_key},
};

use super::{create::lock_name, instance_url, task};

impl Engine {
    /// Renames a stopped instance.
    pub fn rename_instance(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        to: InstanceName,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        let instance = self.instance(project, name)?;
        if self.instance(project, &to).is_ok() {
            return Err(Error::exists("instance", &to));
        }
        let old = self.locks.take("instance", &lock_name(project, name), "rename")?;
        let new = self.locks.take("instance", &lock_name(project, &to), "rename")?;
        if self.status(&instance) != Status::Stopped {
            return Err(Error::Refused("Renaming of running instance not allowed".to_owned()));
        }
        let spec = task("Renaming instance", project, name, requestor);
        let engine = Arc::clone(self);
        Ok(self.operations.run(spec, move |operation| async move {
            let work = Arc::clone(&engine);
            let renamed = move || {
                let _locks = (old, new);
                work.rename_now(&operation, &instance, to)
            };
            engine.lanes.fast(renamed).await
        }))
    }

    fn rename_now(&self, operation: &Operation, instance: &Stored<records::Instance>, to: InstanceName) -> Result<()> {
        operation.intent("rename", &json!({ "id": instance.id, "from": instance.name, "to": to }), false)?;
        let mut renamed = (*instance.value).clone();
        renamed.name = to;
        let transaction = Transaction::new()
            .delete(instance_name_key(&instance.project, &instance.name))
            .create(instance_name_key(&renamed.project, &renamed.name), renamed.id.to_string())
            .replace(renamed.key(), instance.revision, renamed.to_bytes());
        match self.store.commit(transaction) {
            Err(StoreError::CheckFailed { key, .. }) if key.starts_with("instance-name/") => {
                return Err(Error::exists("instance", &renamed.name));
            }
            other => other?,
        };
        operation.step("record", false)?;
        self.write_reservations(&renamed)?;
        self.apply_templates(&renamed, stapes_image::metadata::Trigger::Rename)?;
        let url = instance_url(&renamed.project, &renamed.name);
        let context = json!({ "old_name": instance.name });
        let requestor = operation.spec().requestor.as_ref();
        self.events.lifecycle(renamed.project.as_str(), "instance-renamed", &url, requestor, context);
        Ok(())
    }
}
