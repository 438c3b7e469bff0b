use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use stapes_model::{InstanceId, Limits};

use crate::{DeviceNode, DriverError, Mount, Running};

/// A program of the host's whose life is an instance's life, such as the one that is a virtual machine's hardware. It
/// runs in namespaces of its own, without a network and without a right, and sees of the host's files and devices only what is named here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramPlan {
    pub id: InstanceId,
    /// Of its log file, `<name>.log`: what it says on standard output and error, in `log_dir`.
    pub name: String,
    /// Absolute, in its own view.
    pub path: String,
    pub argv: Vec<String>,
    /// Complete.
    pub environment: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    /// Owners are the host's.
    pub view: Vec<Mount>,
    /// Made for it alone, with the owner given.
    pub nodes: Vec<DeviceNode>,
    /// Symbolic links of its root: (path, what it says).
    pub links: Vec<(String, String)>,
    /// As of [`crate::Plan`].
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    /// Of the program, which is not what the guest in it is promised.
    pub limits: Limits,
}

/// Who holds programs as instances, so that they outlive the daemon as containers do. The handles that it gives know how
/// to end, freeze, limit and count a process and to show its console; they refuse commands and files. What it holds is swept
/// with its own instances: whoever has it sweep names the ids of programs too.
pub trait Supervise: Send + Sync {
    /// Starts the program and returns once its first instruction runs, or says which step failed; then nothing is left
    /// behind. `fds` are its descriptors 3, 4, …; `console` is the master of a terminal whose slave is one of them.
    fn launch(
        &self,
        program: &ProgramPlan,
        console: OwnedFd,
        fds: Vec<OwnedFd>,
    ) -> Result<Arc<dyn Running>, DriverError>;

    /// As [`crate::Driver::adopt`].
    fn adopt(&self, id: &InstanceId, run_dir: &Path) -> Result<Option<Arc<dyn Running>>, DriverError>;
}
