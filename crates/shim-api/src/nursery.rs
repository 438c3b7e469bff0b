use serde::{Deserialize, Serialize};

use crate::{Failure, FileAnswer, FileOp, IdRange};

/// What the daemon asks the nursery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NurseryRequest {
    /// First on every connection.
    Hello {
        version: u32,
    },
    /// Forks a shim that serves the one descriptor sent along, and whose embryo writes itself into the `cgroup.procs`
    /// files of `join`. It leaves when that connection closes before an instance was started on it.
    Fork {
        #[serde(default)]
        join: Vec<String>,
    },
    /// Makes sure that a service runs with this command line; answers [`NurseryReply::Pid`].
    EnsureService {
        name: String,
        argv: Vec<String>,
    },
    StopService {
        name: String,
    },
    SignalService {
        name: String,
        signal: i32,
    },
    Services,
    /// A file request beneath a directory, for an instance that does not run. The first descriptor is the directory.
    File {
        op: FileOp,
        /// The owners beneath it are those of the host's ids, and it is asked for as from inside.
        #[serde(default)]
        ids: Option<IdRange>,
    },
    /// Answers [`NurseryReply::Answer`]: can a mount of the directory that comes along show it with other owners?
    MapsOwners,
    /// Leave once no service runs; shims live on.
    Quit,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NurseryReply {
    /// `build` tells two builds of the program apart.
    Hello {
        version: u32,
        build: String,
        pid: u32,
    },
    Done,
    Pid(u32),
    Names(Vec<String>),
    Answer(bool),
    File(FileAnswer),
    Failed(Failure),
}
