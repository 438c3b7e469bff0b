//! Files of an instance: through its shim while it runs, through a child on its root while it does not.

use std::sync::Arc;

use stapes_instance::{DriverError, FileReply, FileRequest, WriteMode, require};
use stapes_model::{InstanceName, ProjectName};

use super::plan::root_of;
use crate::{Engine, Error, Result};

impl Engine {
    /// Serves one file request on an instance in any state.
    pub async fn file(
        self: &Arc<Self>,
        project: &ProjectName,
        name: &InstanceName,
        request: FileRequest,
    ) -> Result<FileReply> {
        let instance = self.instance(project, name)?;
        require(instance.kind, "files")?;
        let engine = Arc::clone(self);
        let serve = move |request: &FileRequest| {
            if let Some(live) = engine.live.get(&instance.id) {
                return Ok(live.running.file(request)?);
            }
            require(instance.kind, "files.stopped")?;
            let root = root_of(engine.pool(&instance.pool)?.as_ref(), &instance);
            Ok(engine.driver(instance.kind)?.files_offline(&root, request)?)
        };
        let work = move || {
            crate::failpoint::reached("before a file request");
            match (serve(&request), request) {
                // A shim that was started by an older daemon knows only the write in place.
                (
                    Err(Error::Driver(DriverError::Unsupported { .. })),
                    FileRequest::WriteWhole { path, uid, gid, mode },
                ) => serve(&FileRequest::Write { path, how: WriteMode::Overwrite, uid, gid, mode }),
                (reply, _) => reply,
            }
        };
        let reply = self.lanes.fast(work).await;
        crate::failpoint::reached("after a file request");
        reply
    }
}
