use serde::{Deserialize, Serialize};
use stapes_file_api::{FileAnswer, FileOp};

use crate::{Exec, ExitStatus, Frame, GuestState, Nonce, Proof};

/// What the host says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostMessage {
    /// First on every connection, and the end of whatever session was before it.
    Hello {
        version: u32,
        nonce: Nonce,
    },
    /// The answer to the guest's own nonce; after it the session is open.
    Prove {
        proof: Proof,
    },
    Request {
        id: u64,
        request: Request,
    },
}

/// What the guest says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestMessage {
    /// The answer to [`HostMessage::Hello`], whose nonce it repeats: older ones lie in the channel's buffers still.
    Hello {
        version: u32,
        host: Nonce,
        nonce: Nonce,
        proof: Proof,
        /// Tells two builds of the agent apart.
        #[serde(default)]
        build: String,
        /// Of this boot of the guest; the kernel's `boot_id`.
        #[serde(default)]
        boot: String,
    },
    /// The host's proof was good: requests are answered from here on.
    Ready,
    Reply {
        id: u64,
        reply: Reply,
    },
    Event(Event),
}

/// What the host asks of an open session. Bytes beside the message where it says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Answered at once, to know that someone listens.
    Ping,
    /// Runs a command; answered by [`Reply::Executed`] once it was executed. Its streams are open from here on.
    Exec(Exec),
    ExecSignal {
        exec: u32,
        signal: i32,
    },
    ExecResize {
        exec: u32,
        columns: u16,
        rows: u16,
    },
    /// How a command ended; kept for the newest 1,024.
    ExecStatus {
        exec: u32,
    },
    /// Beside the message: the content, for [`FileOp::Replace`]. `handle` is the file of [`FileOp::PutInPlace`].
    File {
        op: FileOp,
        #[serde(default)]
        handle: Option<u64>,
    },
    /// Answered by [`Reply::Bytes`]; fewer than asked is the end of the file. No more than [`crate::MAX_BYTES`] may be asked.
    /// Requests on one handle are done in the order in which they came.
    FileRead {
        handle: u64,
        offset: u64,
        length: u32,
    },
    /// The bytes beside the message go to `offset`, or to the end of a file that was opened to append.
    FileWrite {
        handle: u64,
        offset: u64,
    },
    FileClose {
        handle: u64,
    },
    State,
    /// Mounts a file system that a device of the machine offers; again is success.
    Mount(Mount),
    Unmount {
        path: String,
    },
    Power {
        action: PowerAction,
    },
    /// Sets the guest's clock, in nanoseconds since 1970: it stood still while the machine was stopped.
    SetTime {
        nanoseconds: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: MountKind,
    /// Tag of the share.
    pub tag: String,
    /// Where to; missing directories are made.
    pub path: String,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    VirtioFs,
    Plan9,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    Off,
    Reboot,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    Executed {
        pid: u32,
    },
    Exec {
        status: Option<ExitStatus>,
    },
    /// An opened file has a handle, to be closed; the bytes beside the message are what a shim would put into a
    /// descriptor (names, entries). Where those are more than [`crate::MAX_BYTES`], they have a handle too, and are read
    /// from it.
    File {
        answer: FileAnswer,
        #[serde(default)]
        handle: Option<u64>,
    },
    /// The bytes are beside the message.
    Bytes,
    State(Box<GuestState>),
    Failed(Failure),
}

/// What happens in the guest unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    ExecExited { exec: u32, status: ExitStatus },
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
    /// This agent does not know the request.
    Unsupported,
    Command,
    File,
    #[serde(other)]
    Other,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), errno: 0, code: 0 }
    }
}

/// A message as a frame, with the bytes that belong to it.
pub fn encode<T: Serialize>(message: &T, bytes: Vec<u8>) -> Frame {
    // Fails only for maps with non-string keys, of which there are none.
    Frame::Message { json: serde_json::to_vec(message).unwrap_or_default(), bytes }
}

/// A message out of a frame's text; an error names what was not understood.
pub fn decode<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(json)
}
