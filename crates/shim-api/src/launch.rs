use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BindMount, CgroupView, DeviceNode, ResourceLimit};

/// A program of the host's whose life is an instance's life. It is born in the instance's control groups, sees nothing of
/// the host but [`Program::view`], and has no capability.
///
/// Descriptors: the console's master, then those that the program is born with as 3, 4, …, then as [`CgroupView`] says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    pub id: String,
    /// Where the shim's socket goes.
    pub run_dir: String,
    /// Where the console's log and the program's own go.
    pub log_dir: String,
    pub program: Program,
    pub cgroup: CgroupView,
    pub oom_score_adj: Option<i32>,
    pub rlimits: Vec<ResourceLimit>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Of its log file, `<name>.log`: what it says on standard output and error.
    pub name: String,
    /// Absolute, in its own view.
    pub path: String,
    pub argv: Vec<String>,
    /// Complete.
    pub environment: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    /// Everything that it sees of the host's files, each at its `target`. Owners are the host's.
    pub view: Vec<BindMount>,
    /// Device nodes that it has of its own, made for it with the owner and mode given; `source` is not looked at.
    pub nodes: Vec<DeviceNode>,
    /// Symbolic links of its root: (path, what it says).
    pub links: Vec<(String, String)>,
}
