use std::{any::Any, fmt, fs::File, io, os::fd::OwnedFd, sync::Arc};

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
    /// The type bits of `st_mode`; 0 where the driver does not tell.
    #[serde(default)]
    pub format: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    Overwrite,
    Append,
}

/// An opened file of an instance. Clones share it; the last one closes it.
#[derive(Debug, Clone)]
pub enum GuestFile {
    /// A descriptor of this kernel's.
    Local(Arc<File>),
    Remote(Arc<dyn RemoteFile>),
}

impl From<OwnedFd> for GuestFile {
    fn from(fd: OwnedFd) -> Self {
        Self::Local(Arc::new(fd.into()))
    }
}

/// A file that another kernel has opened. Calls block, each for a bounded time; an error has the kernel's number where
/// that kernel refused. Dropping it closes the file and does not wait. The driver that opened it knows it again, in
/// [`FileRequest::PutInPlace`], by its type.
pub trait RemoteFile: Any + fmt::Debug + Send + Sync {
    /// No more than [`REMOTE_PIECE`] bytes; fewer than asked are the end of the file.
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>>;

    /// Writes all of no more than [`REMOTE_PIECE`] bytes. A file that was opened to append has them at its end.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
}

/// Most bytes that one call on a [`RemoteFile`] may move.
pub const REMOTE_PIECE: usize = 128 << 10;

impl dyn RemoteFile {
    /// Appends up to `length` bytes to `piece`; fewer are the end of the file.
    pub fn read_piece(&self, piece: &mut Vec<u8>, length: usize, mut offset: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let asked = left.min(REMOTE_PIECE);
            let mut read = self.read_at(asked, offset)?;
            // What is too much comes from a guest that does not keep to its words.
            read.truncate(asked);
            piece.extend_from_slice(&read);
            if read.len() < asked {
                break;
            }
            left -= asked;
            offset += asked as u64;
        }
        Ok(())
    }

    /// Writes all of `data`, in pieces.
    pub fn write_all_at(&self, data: &[u8], mut offset: u64) -> io::Result<()> {
        for piece in data.chunks(REMOTE_PIECE) {
            self.write_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }
}

/// How [`FileRequest::Open`] opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    Read,
    Write,
    Both,
}

/// Whether [`FileRequest::Open`] makes a file where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Create {
    Never,
    IfMissing,
    /// Fails with `EEXIST` where something is.
    Always,
}

/// One request on an instance's file system. Paths are absolute inside the instance and resolved beneath its root
/// (`openat2`, `RESOLVE_IN_ROOT`, no magic links): a symlink inside cannot lead outside. Done in a short-lived forked
/// child, so that a FUSE mount inside cannot stall anyone.
#[derive(Debug, Clone)]
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
    /// As an overwriting [`FileRequest::Write`], but answered by [`FileReply::Beside`]: nothing changes until the file is
    /// put in place, and one that is let go leaves nothing. What stands for more than a name keeps its identity and is
    /// answered by [`FileReply::Opened`], to be written in place: a symlink (its target is written), a file with other
    /// hard links, extended attributes or a mount of its own; so is everything on a file system without `O_TMPFILE`.
    WriteWhole {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u32>,
    },
    /// Gives a file of [`FileReply::Beside`] its name, in the place of what had it. `EXDEV` when the instance was started
    /// or stopped since.
    PutInPlace {
        path: String,
        file: GuestFile,
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
    /// Metadata of where a last symlink leads, as stat(2).
    Follow {
        path: String,
    },
    /// The entries of a directory with their metadata, in no order, answered by [`FileReply::Entries`]. Last symlinks of
    /// the path are followed, entries' are not.
    List {
        path: String,
    },
    /// Opens a regular file, or a directory to read, as open(2) does, following symlinks. A new file belongs to 0:0 and
    /// has `mode`, or 0644; one that was there keeps what it has.
    Open {
        path: String,
        access: Access,
        create: Create,
        append: bool,
        truncate: bool,
        mode: Option<u32>,
    },
    /// As mkdir(2): something that is there is `EEXIST`. The mode is 0755 unless given.
    CreateDirectory {
        path: String,
        mode: Option<u32>,
    },
    /// Changes what is given, following symlinks; in this order, without undo. Of a device, socket or fifo only the
    /// owner can be changed (`EOPNOTSUPP`).
    Change {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        mode: Option<u32>,
        /// Access and modification, in seconds since 1970.
        times: Option<(i64, i64)>,
    },
    /// As rename(2); without `replace` something at `to` is `EEXIST`.
    Rename {
        path: String,
        to: String,
        replace: bool,
    },
    /// A second name for a file; a symlink is not followed.
    HardLink {
        path: String,
        to: String,
    },
    /// As unlink(2), or with `directory` as rmdir(2).
    Unlink {
        path: String,
        directory: bool,
    },
}

/// The answer to a [`FileRequest`]. The file is the caller's; bytes move through it and not through the shim.
#[derive(Debug)]
pub enum FileReply {
    Done,
    Meta(FileMeta),
    Opened {
        file: GuestFile,
        meta: FileMeta,
    },
    /// Empty and without a name; see [`FileRequest::PutInPlace`].
    Beside {
        file: GuestFile,
        meta: FileMeta,
    },
    Listed {
        names: Vec<String>,
        meta: FileMeta,
    },
    /// Each name with its own metadata, and the directory's.
    Entries {
        entries: Vec<(String, FileMeta)>,
        meta: FileMeta,
    },
    Link {
        target: String,
        meta: FileMeta,
    },
}
