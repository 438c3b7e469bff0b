//! Roots on file systems whose mounts cannot show other owners: there the files carry the host's ids themselves.
//!
//! They are given them once, by the first start, and a note beside the root says so: a later start changes nothing, one with
//! other ids or on a file system that can do better takes them back first, and a copy of the volume takes the note along.
//! The note names both sides while files are changed, so that whoever comes after a crash can finish.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags},
    io::Errno,
};
use stapes_model::IdRange;

const NOTE: &str = "owners";

/// Which of the host's ids the files beneath a root have; base 0 are ids as inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    base: u32,
    size: u32,
    /// The base that they are on the way to.
    next: Option<u32>,
}

impl Note {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (base, size) = (numbers.next()??, numbers.next()??);
        let next = match numbers.next() {
            None => None,
            Some(next) => Some(next?),
        };
        numbers.next().is_none().then_some(Self { base, size, next })
    }
}

/// Gives the files beneath `root` the ids of `wanted`, or takes theirs back with `None`. Costs one look when all is as it
/// should be; after a failure it is called again. Nobody else may change the tree meanwhile.
pub fn settle(root: &Path, wanted: Option<IdRange>) -> io::Result<()> {
    let note = read(root)?;
    let now = note.unwrap_or(Note { base: 0, size: 0, next: None });
    let target = wanted.map_or(0, |range| range.base);
    if now.next.is_none() && now.base == target {
        return Ok(());
    }
    let size = now.size.max(wanted.map_or(0, |range| range.size));
    // Always by way of the ids as inside: two ranges of the host's may overlap, and then a file that is met twice would be
    // changed twice.
    let steps = match now.next {
        Some(next) if next == target => vec![(now.base, target)],
        Some(next) => vec![(now.base, next), (next, 0), (0, target)],
        None => vec![(now.base, 0), (0, target)],
    };
    for (base, next) in steps {
        if base != next {
            write(root, Note { base, size, next: Some(next) })?;
            shift(root, Shift { from: base, to: next, size })?;
        }
    }
    write(root, Note { base: target, size, next: None })
}

/// The ids that the files beneath `root` carry; `None`: those that are seen inside.
pub fn carried(root: &Path) -> io::Result<Option<IdRange>> {
    let note = read(root)?.filter(|note| note.base != 0);
    Ok(note.map(|note| IdRange { base: note.base, size: note.size }))
}

fn note_path(root: &Path) -> PathBuf {
    root.with_file_name(NOTE)
}

fn read(root: &Path) -> io::Result<Option<Note>> {
    let path = note_path(root);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(text) => Note::parse(&text).map(Some).ok_or_else(|| {
            let doing = format!("{} is no note of owners", path.display());
            io::Error::new(io::ErrorKind::InvalidData, doing)
        }),
    }
}

/// On the disk before it returns: files are changed only by what a crash leaves readable.
fn write(root: &Path, note: Note) -> io::Result<()> {
    let (path, beside) = (note_path(root), root.with_file_name(".owners.new"));
    if note.base == 0 && note.next.is_none() {
        return fs::remove_file(path);
    }
    let next = note.next.map(|next| format!(" {next}")).unwrap_or_default();
    fs::write(&beside, format!("{} {}{next}\n", note.base, note.size))?;
    fs::File::open(&beside)?.sync_all()?;
    fs::rename(beside, path)
}

#[derive(Debug, Clone, Copy)]
struct Shift {
    from: u32,
    to: u32,
    size: u32,
}

impl Shift {
    /// An id that is not of the range stays: it was changed before, or was never the guest's.
    fn id(self, id: u32) -> u32 {
        match id.checked_sub(self.from) {
            Some(offset) if offset < self.size => self.to + offset,
            _ => id,
        }
    }

    fn file(self, parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
        let (uid, gid) = (self.id(stat.st_uid), self.id(stat.st_gid));
        let kind = FileType::from_raw_mode(stat.st_mode);
        let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
        let attributes = if kind == FileType::Symlink { Vec::new() } else { self.attributes(&path)? };
        if (uid, gid) != (stat.st_uid, stat.st_gid) {
            let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(parent, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            // chown(2) takes set-user-id bits and capabilities away.
            if kind == FileType::RegularFile && stat.st_mode & 0o6000 != 0 {
                rustix::fs::chmodat(parent, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
            }
        }
        for (attribute, value) in attributes {
            rustix::fs::lsetxattr(&*path, attribute, &value, XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Attributes that name ids, as they are to be afterwards.
    fn attributes(self, path: &[u8]) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
        let mut found = Vec::new();
        if let Some(value) = attribute(path, "security.capability")? {
            found.extend(capability(&value, self.to).map(|value| ("security.capability", value)));
        }
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            if let Some(value) = attribute(path, name)? {
                found.push((name, self.acl(value)));
            }
        }
        Ok(found)
    }

    /// A version, then entries of tag, permissions and id. Source: linux/posix_acl_xattr.h.
    fn acl(self, mut value: Vec<u8>) -> Vec<u8> {
        const USER: u16 = 0x02;
        const GROUP: u16 = 0x08;
        for entry in value.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
            if [USER, GROUP].contains(&u16::from_le_bytes([entry[0], entry[1]])) {
                let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
                entry[4..].copy_from_slice(&self.id(id).to_le_bytes());
            }
        }
        value
    }
}

fn attribute(path: &[u8], name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 4096];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(size) => {
            value.truncate(size);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Capabilities of a file count for the user namespace whose root is named in it; without a name, the host's. Revision 3
/// has that name at the end. Source: capabilities(7), linux/capability.h.
fn capability(value: &[u8], root: u32) -> Option<Vec<u8>> {
    const SIZE_2: usize = 20;
    const REVISION: u32 = 0xff00_0000;
    let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    let revision: u32 = if root == 0 { 0x0200_0000 } else { 0x0300_0000 };
    let mut changed = value.get(..SIZE_2)?.to_vec();
    changed[..4].copy_from_slice(&(magic & !REVISION | revision).to_le_bytes());
    if root != 0 {
        changed.extend_from_slice(&root.to_le_bytes());
    }
    Some(changed)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Changes every file beneath `root` and the root itself, on its own file system. Twice is once.
fn shift(root: &Path, shift: Shift) -> io::Result<()> {
    let top = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    let stat = rustix::fs::fstat(&top)?;
    shift.file(top.as_fd(), c".", &stat)?;
    let mut open = vec![Dir::new(top)?];
    while let Some(directory) = open.last_mut() {
        let Some(entry) = directory.next() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let parent = directory.fd()?;
        let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.st_dev != stat.st_dev {
            continue;
        }
        shift.file(parent, name, &found)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let child = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
            open.push(Dir::new(child)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

    use super::*;

    const RANGE: IdRange = IdRange { base: 1_000_000, size: 65_536 };

    /// A volume with a root of a few files; `None` where tests have no right to change owners.
    fn volume(name: &str) -> Option<PathBuf> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP owners: needs root");
            return None;
        }
        let root = std::env::temp_dir().join(format!("stapes-owners-{name}-{}", std::process::id())).join("rootfs");
        fs::create_dir_all(root.join("home/deep")).unwrap();
        fs::write(root.join("su"), "").unwrap();
        fs::set_permissions(root.join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(root.join("su"), root.join("home/su")).unwrap();
        symlink("/etc/passwd", root.join("home/deep/link")).unwrap();
        lchown(root.join("home/deep/link"), Some(5), Some(6)).unwrap();
        lchown(root.join("home"), Some(1000), Some(1000)).unwrap();
        Some(root)
    }

    fn owners(root: &Path) -> Vec<(u32, u32)> {
        [".", "su", "home", "home/deep/link"]
            .map(|path| fs::symlink_metadata(root.join(path)).map(|meta| (meta.uid(), meta.gid())).unwrap())
            .to_vec()
    }

    fn remove(root: &Path) {
        fs::remove_dir_all(root.parent().unwrap()).unwrap();
    }

    #[test]
    fn every_file_gets_the_ids_once_and_gives_them_back() {
        let Some(root) = volume("once") else { return };
        let before = owners(&root);
        settle(&root, None).unwrap();
        assert_eq!((owners(&root), carried(&root).unwrap()), (before.clone(), None));
        let moved = |base: u32| before.iter().map(|(uid, gid)| (base + uid, base + gid)).collect::<Vec<_>>();
        for _ in 0..2 {
            settle(&root, Some(RANGE)).unwrap();
            assert_eq!((owners(&root), carried(&root).unwrap()), (moved(RANGE.base), Some(RANGE)));
            assert_eq!(fs::metadata(root.join("su")).unwrap().mode() & 0o7777, 0o4755);
        }
        let overlapping = IdRange { base: RANGE.base + 1, size: 262_144 };
        settle(&root, Some(overlapping)).unwrap();
        assert_eq!(owners(&root), moved(overlapping.base));
        settle(&root, None).unwrap();
        assert_eq!((owners(&root), carried(&root).unwrap()), (before, None));
        assert!(!note_path(&root).exists());
        remove(&root);
    }

    #[test]
    fn what_a_crash_left_half_done_is_finished_before_anything_else() {
        let Some(root) = volume("crash") else { return };
        let before = owners(&root);
        write(&root, Note { base: 0, size: RANGE.size, next: Some(RANGE.base) }).unwrap();
        lchown(root.join("su"), Some(RANGE.base), Some(RANGE.base)).unwrap();
        let other = IdRange { base: 3_000_000, size: 65_536 };
        settle(&root, Some(other)).unwrap();
        let moved: Vec<_> = before.iter().map(|(uid, gid)| (other.base + uid, other.base + gid)).collect();
        assert_eq!(owners(&root), moved);
        remove(&root);
    }

    #[test]
    fn capabilities_and_lists_name_the_new_ids() {
        let mut revision_2 = vec![1, 0, 0, 2];
        revision_2.extend([7; 16]);
        let revision_3 = capability(&revision_2, 1_000_000).unwrap();
        assert_eq!(
            (revision_3.len(), &revision_3[..4], &revision_3[20..]),
            (24, &[1, 0, 0, 3][..], &[64, 66, 15, 0][..])
        );
        assert_eq!(capability(&revision_3, 0).unwrap(), revision_2);
        assert_eq!(capability(&[1, 2], 0), None);

        let shift = Shift { from: 0, to: 1_000_000, size: 65_536 };
        let list = [2, 0, 0, 0, 1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 7, 0, 5, 0, 0, 0];
        let mut wanted = list.to_vec();
        wanted[16..].copy_from_slice(&1_000_005_u32.to_le_bytes());
        assert_eq!(shift.acl(list.to_vec()), wanted);
        assert_eq!(shift.acl(vec![2]), [2]);
    }

    #[test]
    fn a_note_that_is_none_is_told() {
        assert_eq!(Note::parse("5 65536 7\n"), Some(Note { base: 5, size: 65_536, next: Some(7) }));
        for bad in ["", "5", "5 x", "5 6 x", "1 2 3 4"] {
            assert_eq!(Note::parse(bad), None, "{bad:?}");
        }
    }
}
