//! Pools that vanish with the test, and trees to put into them.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    ops::Deref,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use stapes_storage::{Pool, PoolConfig, PoolError, PoolPaths, VolumeKind, VolumeRef, create, destroy, open};
use tempfile::TempDir;

/// Whether we are root; prints the missing need otherwise, and fails where none may be missing.
pub fn need_root() -> bool {
    rustix::process::geteuid().is_root() || skip("root")
}

pub fn need_btrfs() -> bool {
    let has_tool = || Command::new("mkfs.btrfs").arg("--version").output().is_ok_and(|output| output.status.success());
    let has_kernel = || fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\tbtrfs\n"));
    need_root()
        && (has_tool() || skip("mkfs.btrfs (package btrfs-progs)"))
        && (has_kernel() || skip("btrfs in the kernel"))
        && (Path::new("/dev/loop-control").exists() || skip("loop devices"))
}

pub fn need_filesystem(name: &str) -> bool {
    let tool = format!("mkfs.{name}");
    let has_tool = || Command::new(&tool).arg("-V").output().is_ok_and(|output| output.status.success());
    let known = || fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains(&format!("\t{name}\n")));
    (has_tool() || skip(&tool)) && (known() || skip(&format!("{name} in the kernel")))
}

fn skip(need: &str) -> bool {
    assert!(std::env::var_os("STAPES_REQUIRE_ALL").is_none(), "needs {need}");
    eprintln!("skipped: needs {need}");
    false
}

pub fn instance(id: &str) -> VolumeRef {
    VolumeRef::new(VolumeKind::Instance, id).unwrap()
}

pub fn image(id: &str) -> VolumeRef {
    VolumeRef::new(VolumeKind::Image, id).unwrap()
}

/// A pool of its own; removed, with everything mounted or attached for it, when dropped.
pub struct TempPool {
    pub config: PoolConfig,
    pub paths: PoolPaths,
    pool: Option<Arc<dyn Pool>>,
    /// For a pool on a path: the one whose file system it is on.
    host: Option<Box<TempPool>>,
    /// Where a file system of our own is mounted beneath the pool.
    mounted: Option<PathBuf>,
    // The last field, so dropped last.
    dir: TempDir,
}

impl TempPool {
    pub fn new(driver: &str, config: &[(&str, &str)]) -> Self {
        Self::uncreated(driver, config).made()
    }

    pub fn uncreated(driver: &str, config: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("stapes-storage-").tempdir().unwrap();
        let name = name.parse().unwrap();
        let paths = PoolPaths::new(dir.path(), &name);
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self {
            config: PoolConfig { name, driver: driver.to_owned(), config },
            paths,
            pool: None,
            host: None,
            mounted: None,
            dir,
        }
    }

    /// A btrfs pool in a directory of another's file system.
    pub fn on_btrfs_path() -> Self {
        let host = Self::new("btrfs", &[("size", "512MiB")]);
        let path = host.paths.mount.join("custom/host/pool");
        let mut pool = Self::uncreated("btrfs", &[("source", path.to_str().unwrap())]);
        pool.host = Some(Box::new(host));
        pool.made()
    }

    /// A dir pool on a file system of its own.
    pub fn in_filesystem(kind: &str, mib: u64) -> Self {
        let mut pool = Self::uncreated("dir", &[]);
        let at = pool.dir.path().join("disk");
        fs::create_dir(&at).unwrap();
        let no_flags = rustix::mount::MountFlags::empty();
        if kind == "tmpfs" {
            let size = std::ffi::CString::new(format!("size={mib}m")).unwrap();
            rustix::mount::mount("tmpfs", &at, "tmpfs", no_flags, size.as_c_str()).unwrap();
        } else {
            let path = pool.dir.path().join("disk.img");
            let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
            file.set_len(mib << 20).unwrap();
            assert!(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&path).status().unwrap().success());
            let options = stapes_sys::loopdev::Options { autoclear: true, ..Default::default() };
            let device = stapes_sys::loopdev::attach(&file, options).unwrap();
            rustix::mount::mount(device.path(), &at, kind, no_flags, None).unwrap();
        }
        pool.config.config.insert("source".to_owned(), at.join("pool").display().to_string());
        pool.mounted = Some(at);
        pool.made()
    }

    fn made(mut self) -> Self {
        self.config.config = self.create().unwrap();
        self.pool = Some(self.open().unwrap());
        self
    }

    pub fn create(&self) -> Result<BTreeMap<String, String>, PoolError> {
        create(&self.config, &self.paths)
    }

    pub fn open(&self) -> Result<Arc<dyn Pool>, PoolError> {
        open(&self.config, &self.paths)
    }

    pub fn destroy(&mut self) -> Result<(), PoolError> {
        destroy(&self.config, &self.paths)
    }

    pub fn root(&self) -> PathBuf {
        self.config
            .config
            .get("source")
            .map(PathBuf::from)
            .filter(|path| path.is_dir())
            .unwrap_or(self.paths.mount.clone())
    }

    /// Takes the pool away as an unmounted or unplugged disk does; the answer brings it back.
    pub fn make_vanish(&self) -> Box<dyn FnOnce()> {
        let loop_file = self.paths.disks.join(format!("{}.img", self.config.name));
        let (here, away) = if loop_file.exists() {
            unmount(&self.paths.mount);
            (loop_file.clone(), loop_file.with_extension("away"))
        } else {
            (self.root(), self.root().with_extension("away"))
        };
        fs::rename(&here, &away).unwrap();
        let leave_empty = !loop_file.starts_with(&here) && away.is_dir();
        if leave_empty {
            fs::create_dir(&here).unwrap();
        }
        Box::new(move || {
            if leave_empty {
                fs::remove_dir_all(&here).unwrap();
            }
            fs::rename(&away, &here).unwrap();
        })
    }

    pub fn assert_nothing_left(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.paths.mount.to_str().unwrap()), "{mounts}");
        let loop_file = self.paths.disks.join(format!("{}.img", self.config.name));
        assert!(!loop_file.exists() && !loop_devices().contains(self.paths.disks.to_str().unwrap()));
        assert!(!self.paths.mount.exists());
    }
}

fn loop_devices() -> String {
    let mut text = String::new();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        text += &fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
    }
    text
}

fn unmount(path: &Path) {
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::empty()).unwrap();
}

impl Deref for TempPool {
    type Target = dyn Pool;

    fn deref(&self) -> &Self::Target {
        self.pool.as_deref().expect("a pool that was created")
    }
}

impl Drop for TempPool {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            for kind in VolumeKind::ALL {
                for id in pool.list(kind).unwrap_or_default() {
                    let _ = pool.delete_volume(&VolumeRef::new(kind, id).unwrap());
                }
            }
        }
        if destroy(&self.config, &self.paths).is_err() {
            // A failed test's pool: nothing but our own mount point is touched.
            let _ = rustix::mount::unmount(&self.paths.mount, rustix::mount::UnmountFlags::DETACH);
        }
        if let Some(at) = &self.mounted {
            let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
        }
        if self.host.is_some() {
            let _ = fs::remove_dir_all(self.root());
        }
    }
}

/// Writes and flushes so many MiB that do not compress.
pub fn write_mib(path: &Path, count: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut block = vec![0_u8; 1 << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..count {
        for byte in &mut block {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// A small root file system with one of everything.
pub fn fill(volume: &Path) {
    let root = volume.join("rootfs");
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(volume.join("metadata.yaml"), "architecture: x86_64\n").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("a/file"), vec![7; 300_000]).unwrap();
    write_mib(&root.join("a/large"), 3).unwrap();
    fs::hard_link(root.join("a/file"), root.join("a/b/also")).unwrap();
    symlink("/nowhere/at/all", root.join("a/dangling")).unwrap();
    rustix::fs::chownat(CWD, root.join("a/dangling"), Some(owner(7)), None, AtFlags::SYMLINK_NOFOLLOW).unwrap();

    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    rustix::io::pwrite(&sparse, &[b'x'; 5000], 3 << 20).unwrap();
    drop(sparse);

    let program = root.join("program");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    std::os::unix::fs::chown(&program, Some(1234), Some(4321)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    // cap_net_raw=ep as `setcap` writes it: revision 2, effective.
    let mut capability = [0_u8; 20];
    capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
    fs::write(root.join("ping"), "x").unwrap();
    rustix::fs::setxattr(root.join("ping"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("a"), "trusted.note", &[b'n'; 700], XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("a/b"), "system.posix_acl_default", &default_acl(), XattrFlags::empty()).unwrap();

    let mode = Mode::from_raw_mode(0o620);
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, mode, null).unwrap();
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    fs::set_permissions(root.join("a/b/c"), fs::Permissions::from_mode(0o1777)).unwrap();
    for path in ["a/file", "null", "a/dangling", "a/b", "a", ""] {
        let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn owner(id: u32) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(id)
}

/// user::rwx, user:1234:r-x, group::r-x, mask::r-x, other::--- as posix_acl_xattr stores it.
fn default_acl() -> Vec<u8> {
    let none = u32::MAX;
    let entries = [(1_u16, 7_u16, none), (2, 5, 1234), (4, 5, none), (16, 5, none), (32, 0, none)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// All that a tree holds, by path: mode, owner, device, links, modification time, attributes, contents.
pub fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let data = full.symlink_metadata().unwrap();
        let kind = data.file_type();
        let contents = if kind.is_symlink() {
            format!("{:?}", fs::read_link(&full).unwrap())
        } else if kind.is_file() {
            let bytes = fs::read(&full).unwrap();
            let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("{} bytes {sum:x}", bytes.len())
        } else {
            String::new()
        };
        if kind.is_dir() {
            pending.extend(fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            // In the order of names, for the first of several.
            pending.sort_by(|one, other| other.cmp(one));
        }
        let same_as = if kind.is_dir() || data.nlink() < 2 {
            None
        } else {
            Some(first_names.entry(data.ino()).or_insert(path.clone()).clone())
        };
        let text = format!(
            "{:o} {}:{} dev {} {}.{} {same_as:?} {:?} {contents}",
            data.mode(),
            data.uid(),
            data.gid(),
            data.rdev(),
            data.mtime(),
            data.mtime_nsec(),
            attributes(&full),
        );
        found.insert(path, text);
    }
    found
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0_u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut found: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0_u8; 4096];
            let length = rustix::fs::lgetxattr(path, &name, &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect();
    found.sort();
    found
}
