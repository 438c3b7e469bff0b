//! A request on files beneath a root, and its answer: what shims and guest agents both understand.
//!
//! Invariant: no I/O. Messages live as long as the protocols that carry them: see `stapes_shim_api` and
//! `stapes_agent_api`.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Other,
}

/// Owner and mode as seen inside; `modified` in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    pub kind: FileKind,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub size: u64,
    pub modified: i64,
    /// The type bits of `st_mode`; 0 from a shim that does not tell.
    #[serde(default)]
    pub format: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    Overwrite,
    Append,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Read,
    Write,
    Both,
}

/// Whether a file is made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Create {
    Never,
    IfMissing,
    Always,
}

/// A request on files beneath a root; see `FileRequest` of the driver contract, whose shape it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOp {
    Stat {
        path: String,
    },
    Read {
        path: String,
    },
    Write {
        path: String,
        how: WriteMode,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u32>,
    },
    /// Answered by [`FileAnswer::Beside`], or by `Opened` where it can only be written in place.
    WriteWhole {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u32>,
    },
    /// The file of a `WriteWhole` is the last descriptor of the message.
    PutInPlace {
        path: String,
    },
    MakeDirectory {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u32>,
    },
    MakeSymlink {
        path: String,
        target: String,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Remove {
        path: String,
        recursive: bool,
    },
    /// The content is the last descriptor of the message, read from its start.
    Replace {
        path: String,
        uid: u32,
        gid: u32,
        mode: u32,
    },
    Follow {
        path: String,
    },
    List {
        path: String,
    },
    Open {
        path: String,
        access: Access,
        create: Create,
        append: bool,
        truncate: bool,
        mode: Option<u32>,
    },
    CreateDirectory {
        path: String,
        mode: Option<u32>,
    },
    Change {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u32>,
        size: Option<u64>,
        /// Access and modification, in seconds since 1970.
        times: Option<(i64, i64)>,
    },
    Rename {
        path: String,
        to: String,
        replace: bool,
    },
    HardLink {
        path: String,
        to: String,
    },
    Unlink {
        path: String,
        directory: bool,
    },
}

impl FileOp {
    pub fn path(&self) -> &str {
        match self {
            Self::Stat { path }
            | Self::Read { path }
            | Self::Write { path, .. }
            | Self::WriteWhole { path, .. }
            | Self::PutInPlace { path }
            | Self::MakeDirectory { path, .. }
            | Self::MakeSymlink { path, .. }
            | Self::Remove { path, .. }
            | Self::Replace { path, .. }
            | Self::Follow { path }
            | Self::List { path }
            | Self::Open { path, .. }
            | Self::CreateDirectory { path, .. }
            | Self::Change { path, .. }
            | Self::Rename { path, .. }
            | Self::HardLink { path, .. }
            | Self::Unlink { path, .. } => path,
        }
    }
}

/// The answer to a [`FileOp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAnswer {
    Done,
    Meta(FileMeta),
    /// One descriptor comes with it.
    Opened(FileMeta),
    /// One descriptor comes with it, of a file that has no name yet.
    Beside(FileMeta),
    /// The names, each ended by a zero byte, are the content of the one descriptor that comes with it.
    Listed(FileMeta),
    /// The entries are the content of the one descriptor that comes with it: each `st_mode uid gid size mtime name`,
    /// in decimal, ended by a zero byte.
    Entries(FileMeta),
    Link {
        target: String,
        meta: FileMeta,
    },
}
