use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A command to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// The host's number for it, never used twice in the life of a virtual machine.
    pub exec: u32,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    pub cwd: Option<String>,
    /// Columns and rows of a new terminal, whose bytes are [`StreamKind::Input`] and [`StreamKind::Output`].
    pub pty: Option<(u16, u16)>,
}

/// Number of a stream of bytes: which of which command's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// From the host to the command.
    Input,
    Output,
    Error,
}

impl StreamId {
    pub fn new(exec: u32, kind: StreamKind) -> Self {
        let kind = match kind {
            StreamKind::Input => 0,
            StreamKind::Output => 1,
            StreamKind::Error => 2,
        };
        Self(exec.wrapping_mul(4) + kind)
    }

    pub fn exec(self) -> u32 {
        self.0 / 4
    }

    /// `None`: no stream has this number.
    pub fn kind(self) -> Option<StreamKind> {
        [StreamKind::Input, StreamKind::Output, StreamKind::Error].get((self.0 % 4) as usize).copied()
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// Nobody remembers.
    Unknown,
}
