use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    /// A device node, socket or fifo: listed, never opened.
    Other,
}

/// Owner, mode, size and time of a path as seen from inside the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    pub kind: FileKind,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, without the type.
    pub mode: u32,
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    Overwrite,
    Append,
}

/// One request on an instance's file system. Paths are absolute inside the instance and resolved beneath its root
/// (`openat2`, `RESOLVE_IN_ROOT`, no magic links): a symlink inside cannot lead outside. Done in a short-lived forked
/// child, so that a FUSE mount inside cannot stall anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FileRequest {
    /// Metadata without following a last symlink.
    Stat {
        path: String,
    },
    /// Opens for reading: a regular file answers [`FileReply::Opened`], a directory [`FileReply::Listed`], a symlink
    /// [`FileReply::Link`]. A last symlink is not followed.
    Read {
        path: String,
    },
    /// Creates or opens for writing; owner and mode are applied when given, or on creation (0:0, 0644).
    Write {
        path: String,
        how: WriteMode,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u32>,
    },
    /// Makes a directory; one that exists already is success.
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
    /// Removes a file, symlink or empty directory; with `recursive` a whole tree, staying on one file system.
    Remove {
        path: String,
        recursive: bool,
    },
    /// The whole content of a small file, written beside it and renamed over it: a reader sees old or new.
    Replace {
        path: String,
        content: Vec<u8>,
        uid: u32,
        gid: u32,
        mode: u32,
    },
}

/// The answer to a [`FileRequest`]. The descriptor is the caller's; bytes move through it and not through the shim.
#[derive(Debug)]
pub enum FileReply {
    Done,
    Meta(FileMeta),
    Opened { fd: OwnedFd, meta: FileMeta },
    Listed { names: Vec<String>, meta: FileMeta },
    Link { target: String, meta: FileMeta },
}
