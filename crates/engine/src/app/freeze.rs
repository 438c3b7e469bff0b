//! Pausing and resuming.

use std::sync::Arc;

use stapes_instance::require;
use stapes_model::{InstanceName, ProjectName, state::Request};

use crate::{Engine, Error, Result, events::Requestor, operations::Operation};

use super::{create::lock_name, task};

impl Engine {
    pub fn freeze_instance(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        self.set_frozen(project, name, true, requestor)
    }

    pub fn thaw_instance(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        self.set_frozen(project, name, false, requestor)
    }

    fn set_frozen(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        frozen: bool,
        requestor: Option<Requestor>,
    ) -> Result<Operation> {
        let instance = self.instance(project, name)?;
        require(instance.kind, "freeze")?;
        let (verb, request) = if frozen { ("freeze", Request::Freeze) } else { ("unfreeze", Request::Thaw) };
        let held = self.locks.take("instance", &lock_name(project, name), verb)?;
        self.check_state(&instance, request)?;
        let description = if frozen { "Freezing instance" } else { "Unfreezing instance" };
        let spec = task(description, project, name, requestor.clone());
        let engine = Arc::clone(self);
        Ok(self.operations.run(spec, move |_| async move {
            let _held = held;
            let live =
                engine.live.get(&instance.id).ok_or_else(|| Error::Refused("The instance isn't running".to_owned()))?;
            let running = Arc::clone(&live.running);
            let work = move || Ok(if frozen { running.freeze() } else { running.thaw() }?);
            engine.lanes.fast(work).await?;
            live.set_frozen(frozen);
            engine.told(&instance.id, if frozen { "instance-paused" } else { "instance-resumed" }, requestor.as_ref());
            Ok(())
        }))
    }
}
