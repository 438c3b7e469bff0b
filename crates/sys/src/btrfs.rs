//! btrfs ioctls: subvolumes, snapshots, quotas, tree search. Source: linux/btrfs.h, linux/btrfs_tree.h; btrfs(5).
//!
//! Every call takes a descriptor of a directory on the file system; most need CAP_SYS_ADMIN. Old tools (btrfs-progs
//! 6.2) know no simple quotas, and a fork costs more than a snapshot: hence the bare calls.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
};

const MAGIC: u32 = 0x94;
const NAME_MAX: usize = 255;
/// The inode number of every subvolume's root directory.
const FIRST_FREE_OBJECTID: u64 = 256;
const LAST_FREE_OBJECTID: u64 = -256_i64 as u64;
const SUBVOL_RDONLY: u64 = 1 << 1;
const SUBVOL_SPEC_BY_ID: u64 = 1 << 4;
const QGROUP_LIMIT_MAX_RFER: u64 = 1;
const QUOTA_CTL_ENABLE_SIMPLE: u64 = 4;
const QGROUP_STATUS_ON: u64 = 1;
const QGROUP_STATUS_SIMPLE: u64 = 1 << 3;

const ROOT_TREE: u64 = 1;
const QUOTA_TREE: u64 = 8;
const ROOT_ITEM_KEY: u32 = 132;
const ROOT_REF_KEY: u32 = 156;
const QGROUP_STATUS_KEY: u32 = 240;
const QGROUP_INFO_KEY: u32 = 242;
const QGROUP_LIMIT_KEY: u32 = 244;

const WRITE: u32 = 1;
const READ: u32 = 2;

/// `_IOC()` of asm-generic/ioctl.h, as x86, ARM and RISC-V have it.
const fn request(direction: u32, number: u32, size: usize) -> u32 {
    (direction << 30) | ((size as u32) << 16) | (MAGIC << 8) | number
}

#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

#[repr(C)]
struct InoLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

#[repr(C)]
struct QgroupLimit {
    qgroup: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SearchKey {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    items: u32,
    unused: u32,
    more_unused: [u64; 4],
}

const SEARCH_BUFFER: usize = 64 << 10;

#[repr(C)]
struct SearchArgs {
    key: SearchKey,
    buffer_size: u64,
    buffer: [u8; SEARCH_BUFFER],
}

/// The kernel's size of `btrfs_ioctl_search_args_v2`, whose buffer is a flexible array.
const SEARCH_ARGS_SIZE: usize = size_of::<SearchKey>() + 8;

const SUBVOL_CREATE_V2: u32 = request(WRITE, 24, size_of::<VolArgsV2>());
const SNAP_CREATE_V2: u32 = request(WRITE, 23, size_of::<VolArgsV2>());
const SNAP_DESTROY_V2: u32 = request(WRITE, 63, size_of::<VolArgsV2>());
const SUBVOL_GETFLAGS: u32 = request(READ, 25, 8);
const SUBVOL_SETFLAGS: u32 = request(WRITE, 26, 8);
const INO_LOOKUP: u32 = request(READ | WRITE, 18, size_of::<InoLookup>());
const TREE_SEARCH_V2: u32 = request(READ | WRITE, 17, SEARCH_ARGS_SIZE);
const QUOTA_CTL: u32 = request(READ | WRITE, 40, 16);
const QGROUP_ASSIGN: u32 = request(WRITE, 41, 24);
const QGROUP_CREATE: u32 = request(WRITE, 42, 16);
const QGROUP_LIMIT: u32 = request(READ, 43, size_of::<QgroupLimit>());

/// Issues `request` with `argument`, whose type must be the one that the request's size was computed from.
fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: `argument` is an exclusive reference that outlives the call, and each constant above carries the size
    // of the `repr(C)` type it is used with; the kernel reads and writes within that size. The one exception,
    // TREE_SEARCH_V2, also writes `buffer_size` bytes behind the key, which are `SearchArgs::buffer`.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(argument)) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn vol_args(name: &OsStr) -> io::Result<VolArgsV2> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_MAX || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut args = VolArgsV2 { fd: 0, transid: 0, flags: 0, unused: [0; 4], name: [0; 4040] };
    args.name[..bytes.len()].copy_from_slice(bytes);
    Ok(args)
}

/// Makes an empty subvolume `name` in `directory`; waits for a transaction commit. `EEXIST` where the name is taken.
pub fn create_subvolume(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    ioctl(directory.as_fd(), SUBVOL_CREATE_V2, &mut vol_args(name)?)
}

/// Makes `name` in `directory` a snapshot of the subvolume whose root is `source`; it appears whole or not at all.
///
/// Data that was written to the source but not flushed is flushed first. Nested subvolumes become empty directories.
pub fn snapshot(source: impl AsFd, directory: impl AsFd, name: &OsStr, read_only: bool) -> io::Result<()> {
    let mut args = vol_args(name)?;
    args.fd = i64::from(source.as_fd().as_raw_fd());
    args.flags = if read_only { SUBVOL_RDONLY } else { 0 };
    ioctl(directory.as_fd(), SNAP_CREATE_V2, &mut args)
}

/// Removes the subvolume with this id, wherever it is on the file system of `any`; its space is freed in the
/// background. `ENOTEMPTY` while other subvolumes are in it, `ENOENT` where there is none. Linux 5.7.
pub fn destroy_subvolume(any: impl AsFd, id: u64) -> io::Result<()> {
    let mut args = VolArgsV2 { fd: 0, transid: 0, flags: SUBVOL_SPEC_BY_ID, unused: [0; 4], name: [0; 4040] };
    args.name[..8].copy_from_slice(&id.to_ne_bytes());
    ioctl(any.as_fd(), SNAP_DESTROY_V2, &mut args)
}

/// Whether `directory` is the root of a btrfs subvolume.
pub fn is_subvolume(directory: impl AsFd) -> io::Result<bool> {
    const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;
    let directory = directory.as_fd();
    #[allow(clippy::unnecessary_cast, reason = "the field's width and sign depend on the architecture")]
    let magic = rustix::fs::fstatfs(directory)?.f_type as u64 & 0xffff_ffff;
    Ok(magic == BTRFS_SUPER_MAGIC && rustix::fs::fstat(directory)?.st_ino == FIRST_FREE_OBJECTID)
}

/// The id of the subvolume that holds `directory`.
pub fn subvolume_id(directory: impl AsFd) -> io::Result<u64> {
    let mut args = InoLookup { tree: 0, object: FIRST_FREE_OBJECTID, name: [0; 4080] };
    ioctl(directory.as_fd(), INO_LOOKUP, &mut args)?;
    Ok(args.tree)
}

/// Whether the subvolume with root `subvolume` is read-only.
pub fn is_read_only(subvolume: impl AsFd) -> io::Result<bool> {
    let mut flags = 0_u64;
    ioctl(subvolume.as_fd(), SUBVOL_GETFLAGS, &mut flags)?;
    Ok(flags & SUBVOL_RDONLY != 0)
}

/// Makes the subvolume read-only or writable; waits for a transaction commit. Repeating it is harmless.
pub fn set_read_only(subvolume: impl AsFd, read_only: bool) -> io::Result<()> {
    let subvolume = subvolume.as_fd();
    if is_read_only(subvolume)? == read_only {
        return Ok(());
    }
    ioctl(subvolume, SUBVOL_SETFLAGS, &mut if read_only { SUBVOL_RDONLY } else { 0 })
}

/// A subvolume directly inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    pub id: u64,
    /// Inode number, within the parent, of the directory that holds it.
    pub directory: u64,
    pub name: OsString,
}

/// The subvolumes directly inside the subvolume `parent`, in the order of their ids.
pub fn children(any: impl AsFd, parent: u64) -> io::Result<Vec<Child>> {
    let mut found = Vec::new();
    let range = Range { tree: ROOT_TREE, object: parent, first_type: ROOT_REF_KEY, last_type: ROOT_REF_KEY };
    search(any.as_fd(), range, |item| {
        // struct btrfs_root_ref: directory, sequence, length of the name; the name follows.
        if let (Some(directory), Some(name)) = (item.u64_at(0), item.data.get(18..)) {
            found.push(Child { id: item.offset, directory, name: OsString::from_vec(name.to_vec()) });
        }
    })?;
    Ok(found)
}

/// Whether the subvolume is there; one that was removed is until its space is freed.
pub fn subvolume_exists(any: impl AsFd, id: u64) -> io::Result<bool> {
    let mut exists = false;
    let range = Range { tree: ROOT_TREE, object: id, first_type: ROOT_ITEM_KEY, last_type: ROOT_ITEM_KEY };
    search(any.as_fd(), range, |_| exists = true)?;
    Ok(exists)
}

/// How a file system counts space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaMode {
    Off,
    /// Every extent belongs to the subvolume that wrote it: cheap. Linux 6.7.
    Simple,
    /// Shared and exclusive bytes: each snapshot is slower.
    Full,
}

/// How the file system of `any` counts space now.
pub fn quota_mode(any: impl AsFd) -> io::Result<QuotaMode> {
    let mut flags = 0;
    let range = Range { tree: QUOTA_TREE, object: 0, first_type: QGROUP_STATUS_KEY, last_type: QGROUP_STATUS_KEY };
    let searched = search(any.as_fd(), range, |item| flags = item.u64_at(16).unwrap_or(0));
    match searched {
        // No quota tree: never switched on.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(QuotaMode::Off),
        other => other?,
    }
    Ok(match (flags & QGROUP_STATUS_ON != 0, flags & QGROUP_STATUS_SIMPLE != 0) {
        (false, _) => QuotaMode::Off,
        (true, true) => QuotaMode::Simple,
        (true, false) => QuotaMode::Full,
    })
}

/// Switches simple quotas on, which kernels before 6.7 then can only mount read-only. `EINVAL` on such a kernel.
pub fn enable_simple_quota(any: impl AsFd) -> io::Result<()> {
    ioctl(any.as_fd(), QUOTA_CTL, &mut [QUOTA_CTL_ENABLE_SIMPLE, 0_u64])
}

/// The id of the quota group `level/number`; level 0 are subvolumes by their ids.
pub const fn qgroup_id(level: u16, number: u64) -> u64 {
    (level as u64) << 48 | number
}

/// Makes a quota group; `EEXIST` where it is already.
pub fn create_qgroup(any: impl AsFd, qgroup: u64) -> io::Result<()> {
    ioctl(any.as_fd(), QGROUP_CREATE, &mut [1_u64, qgroup])
}

/// Removes a quota group; `EBUSY` while it has members or its subvolume, `ENOENT` where there is none.
pub fn destroy_qgroup(any: impl AsFd, qgroup: u64) -> io::Result<()> {
    ioctl(any.as_fd(), QGROUP_CREATE, &mut [0_u64, qgroup])
}

/// Makes `child` count for `parent` too. `EEXIST` where it does.
pub fn assign_qgroup(any: impl AsFd, child: u64, parent: u64) -> io::Result<()> {
    ioctl(any.as_fd(), QGROUP_ASSIGN, &mut [1_u64, child, parent])
}

/// Undoes [`assign_qgroup`]; `ENOENT` where there is nothing to undo.
pub fn unassign_qgroup(any: impl AsFd, child: u64, parent: u64) -> io::Result<()> {
    ioctl(any.as_fd(), QGROUP_ASSIGN, &mut [0_u64, child, parent])
}

/// Caps the bytes that a quota group may refer to; `None` lifts the cap. `ENOTCONN` while quotas are off.
pub fn limit_qgroup(any: impl AsFd, qgroup: u64, bytes: Option<u64>) -> io::Result<()> {
    let mut args = QgroupLimit {
        qgroup,
        flags: QGROUP_LIMIT_MAX_RFER,
        // All ones clears the limit.
        max_referenced: bytes.unwrap_or(u64::MAX),
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    ioctl(any.as_fd(), QGROUP_LIMIT, &mut args)
}

/// What the quota tree holds about one group, as of the last transaction commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Qgroup {
    pub id: u64,
    pub referenced: u64,
    pub limit: Option<u64>,
}

/// All quota groups of the file system, by one search; empty while quotas are off.
pub fn qgroups(any: impl AsFd) -> io::Result<std::collections::BTreeMap<u64, Qgroup>> {
    let mut groups = std::collections::BTreeMap::<u64, Qgroup>::new();
    let range = Range { tree: QUOTA_TREE, object: 0, first_type: QGROUP_INFO_KEY, last_type: QGROUP_LIMIT_KEY };
    let searched = search(any.as_fd(), range, |item| {
        let group = groups.entry(item.offset).or_default();
        group.id = item.offset;
        match item.kind {
            // struct btrfs_qgroup_info_item: generation, referenced, …
            QGROUP_INFO_KEY => group.referenced = item.u64_at(8).unwrap_or(0),
            // struct btrfs_qgroup_limit_item: flags, max_rfer, …
            QGROUP_LIMIT_KEY if item.u64_at(0).unwrap_or(0) & QGROUP_LIMIT_MAX_RFER != 0 => {
                group.limit = item.u64_at(8).filter(|limit| *limit != 0 && *limit != u64::MAX);
            }
            _ => {}
        }
    });
    match searched {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(groups),
        Err(error) => Err(error),
        Ok(()) => Ok(groups),
    }
}

/// The items of one object, or of a range of types in it.
struct Range {
    tree: u64,
    object: u64,
    first_type: u32,
    last_type: u32,
}

struct Item<'a> {
    kind: u32,
    offset: u64,
    data: &'a [u8],
}

impl Item<'_> {
    /// A little-endian number of the item, as btrfs stores all of them.
    fn u64_at(&self, place: usize) -> Option<u64> {
        let bytes = self.data.get(place..place + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

const HEADER: usize = 32;

fn search(fd: BorrowedFd<'_>, range: Range, mut each: impl FnMut(Item<'_>)) -> io::Result<()> {
    let key = SearchKey {
        tree: range.tree,
        min_object: range.object,
        max_object: range.object,
        min_offset: 0,
        max_offset: u64::MAX,
        min_transid: 0,
        max_transid: u64::MAX,
        min_type: range.first_type,
        max_type: range.last_type,
        items: u32::MAX,
        unused: 0,
        more_unused: [0; 4],
    };
    let mut args = Box::new(SearchArgs { key, buffer_size: SEARCH_BUFFER as u64, buffer: [0; SEARCH_BUFFER] });
    loop {
        args.key.items = u32::MAX;
        ioctl(fd, TREE_SEARCH_V2, &mut *args)?;
        if args.key.items == 0 {
            return Ok(());
        }
        let mut place = 0;
        let mut last = (0_u32, 0_u64);
        for _ in 0..args.key.items {
            // struct btrfs_ioctl_search_header: transid, objectid, offset, type, length.
            let number = |at: usize| u64::from_ne_bytes(args.buffer[at..at + 8].try_into().unwrap_or_default());
            let short = |at: usize| u32::from_ne_bytes(args.buffer[at..at + 4].try_into().unwrap_or_default());
            let (offset, kind, length) = (number(place + 16), short(place + 24), short(place + 28) as usize);
            let data = args.buffer.get(place + HEADER..place + HEADER + length).unwrap_or_default();
            each(Item { kind, offset, data });
            last = (kind, offset);
            place += HEADER + length;
        }
        // Go on behind the last item: its offset plus one, or the next type.
        (args.key.min_type, args.key.min_offset) = match last {
            (kind, u64::MAX) => (kind + 1, 0),
            (kind, offset) => (kind, offset + 1),
        };
        if args.key.min_type > range.last_type {
            return Ok(());
        }
    }
}

/// Whether `id` is that of an ordinary subvolume (the top level, 5, is not).
pub fn is_ordinary_id(id: u64) -> bool {
    (FIRST_FREE_OBJECTID..=LAST_FREE_OBJECTID).contains(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_numbers_are_those_of_the_header() {
        assert_eq!(size_of::<VolArgsV2>(), 4096);
        assert_eq!(size_of::<InoLookup>(), 4096);
        assert_eq!(size_of::<SearchKey>(), 104);
        assert_eq!(SUBVOL_CREATE_V2, 0x5000_9418);
        assert_eq!(SNAP_DESTROY_V2, 0x5000_943f);
        assert_eq!(TREE_SEARCH_V2, 0xc070_9411);
        assert_eq!(QGROUP_LIMIT, 0x8030_942b);
    }

    #[test]
    fn a_path_is_no_subvolume_name() {
        for bad in ["", "a/b", "nul\0", &"x".repeat(256)] {
            assert!(vol_args(OsStr::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_directory_elsewhere_is_no_subvolume() {
        assert!(!is_subvolume(std::fs::File::open("/proc").unwrap()).unwrap());
    }
}
