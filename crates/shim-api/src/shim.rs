use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{FileAnswer, FileOp, IdRange, Launch, ResourceLimit, Start};

/// What the daemon asks a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// First on every connection.
    Hello {
        version: u32,
    },
    /// Starts the container; answers [`Reply::Status`] once init's first instruction runs, with the descriptors of
    /// [`Request::Duplicates`]. Descriptors: see [`crate::CgroupView`].
    Start(Box<Start>),
    /// Starts a program of the host's in the place of a container; answers as `Start` does. Such an instance runs no
    /// commands and serves no files here. Descriptors: see [`Launch`].
    Launch(Box<Launch>),
    /// Takes over a container whose shim died. Descriptors: pidfd of init, console master, then as for `Start`.
    Takeover(Box<Takeover>),
    Status,
    /// Two descriptors: the pidfd of init and the console's master, to be kept, not read.
    Duplicates,
    /// One descriptor: a terminal of the caller's own that mirrors the console, both ways.
    Console,
    /// Runs a command; answers [`Reply::Executed`] once it was executed. Descriptors: stdin, stdout and stderr when
    /// [`Exec::pty`] is `None`.
    Exec(Box<Exec>),
    ExecSignal {
        exec: u64,
        signal: i32,
    },
    ExecStatus {
        exec: u64,
    },
    /// Descriptors: the content, for [`FileOp::Replace`].
    File {
        op: FileOp,
    },
    /// From here on the connection carries events, first those that nobody has heard yet.
    Subscribe,
    /// The exit was heard and recorded: the shim removes its socket and leaves.
    AcknowledgeExit,
    /// The same, but the shim stays for another [`Request::Start`] on this connection, its embryo in the groups where it
    /// is. Refused, changing nothing, where something of the last instance is left.
    Reuse,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Hello {
        version: u32,
        pid: u32,
    },
    Done,
    Status(Status),
    Descriptors,
    /// With one descriptor, the pty's master, when a pty was asked for.
    Executed {
        exec: u64,
        pid: u32,
    },
    Exec(Option<ExitStatus>),
    File(FileAnswer),
    Failed(Failure),
}

/// A running (or just ended) container or program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub id: String,
    pub pid: u32,
    /// Seconds since 1970.
    pub started_at: i64,
    /// The signal that asks this init to power off.
    pub shutdown_signal: i32,
    #[serde(default)]
    pub exited: Option<(ExitReason, ExitStatus)>,
    /// What a replacement shim would need.
    #[serde(default)]
    pub remembered: Remembered,
}

/// The part of [`Start`] that exec goes on needing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    pub ids: Option<IdRange>,
    pub bounding: u64,
    pub seccomp: String,
    pub exec_join: Vec<String>,
    pub log_dir: String,
    pub run_dir: String,
    pub lsm: Option<(String, String)>,
    pub rlimits: Vec<ResourceLimit>,
    /// It is a program of the host's and no container.
    pub program: bool,
}

/// What a replacement shim is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    pub status: Status,
    /// Two descriptors of version 2 groups come last.
    pub v2_directories: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    pub cwd: Option<String>,
    /// Columns and rows of a new terminal; `None`: three descriptors come along.
    pub pty: Option<(u16, u16)>,
}

/// How an exec stands; kept for the newest 1,024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStatus {
    pub exec: u64,
    pub status: ExitStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Exited { reason: ExitReason, status: ExitStatus },
    ExecExited { exec: u64, status: ExitStatus },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    Halt,
    Reboot,
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    Unknown,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// What was being done, on what, and the kernel's word.
    pub message: String,
    /// The kernel's error number, 0 when there is none.
    #[serde(default)]
    pub errno: i32,
    /// For a command: what a shell would answer, 126 or 127.
    #[serde(default)]
    pub code: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// This shim does not know the request.
    Unsupported,
    /// The request is not possible in this state.
    State,
    Start,
    Command,
    File,
    /// It took too long and was given up.
    TimedOut,
    #[serde(other)]
    Other,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), errno: 0, code: 0 }
    }
}
