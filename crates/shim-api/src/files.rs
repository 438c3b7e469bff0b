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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    Overwrite,
    Append,
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
}

impl FileOp {
    pub fn path(&self) -> &str {
        match self {
            Self::Stat { path }
            | Self::Read { path }
            | Self::Write { path, .. }
            | Self::MakeDirectory { path, .. }
            | Self::MakeSymlink { path, .. }
            | Self::Remove { path, .. }
            | Self::Replace { path, .. } => path,
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
    /// The names, each ended by a zero byte, are the content of the one descriptor that comes with it.
    Listed(FileMeta),
    Link {
        target: String,
        meta: FileMeta,
    },
}
