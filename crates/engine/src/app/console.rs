//! The console: its pty, and what it printed.

use std::{io::Read, os::fd::OwnedFd, sync::Arc};

use stapes_instance::require;
use stapes_model::{InstanceName, ProjectName};

use crate::{Engine, Error, Result};

impl Engine {
    /// A duplicate of the running instance's console.
    pub async fn console(self: &Arc<Self>, project: &ProjectName, name: &InstanceName) -> Result<OwnedFd> {
        let instance = self.instance(project, name)?;
        require(instance.kind, "console")?;
        let live =
            self.live.get(&instance.id).ok_or_else(|| Error::Refused("The instance isn't running".to_owned()))?;
        self.lanes.fast(move || Ok(live.running.console()?)).await
    }

    /// What the console printed, oldest first; empty when it never ran.
    pub fn console_log(&self, project: &ProjectName, name: &InstanceName) -> Result<Vec<u8>> {
        let directory = self.paths.instance_log(&self.instance(project, name)?.id);
        let mut text = Vec::new();
        for file in ["console.log.old", "console.log"] {
            match std::fs::File::open(directory.join(file)) {
                Ok(mut file) => {
                    file.read_to_end(&mut text)
                        .map_err(|error| Error::failed("failed to read the console log", error))?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::failed("failed to open the console log", error)),
            }
        }
        Ok(text)
    }

    /// Empties the console log.
    pub fn clear_console_log(&self, project: &ProjectName, name: &InstanceName) -> Result<()> {
        let directory = self.paths.instance_log(&self.instance(project, name)?.id);
        for file in ["console.log.old", "console.log"] {
            match std::fs::OpenOptions::new().write(true).truncate(true).open(directory.join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::failed("failed to empty the console log", error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
