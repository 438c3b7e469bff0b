//! Where a btrfs pool's file system is (a loop file, a device, a path on one that is mounted already), and how it gets
//! to its mount point and away.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::mount::{MountFlags, UnmountFlags};
use stapes_model::ByteSize;
use stapes_sys::{btrfs, exec::Exec, loopdev};

use crate::{PoolConfig, PoolError, PoolPaths, config, host};

/// What mkfs.btrfs needs for its own trees, doubled metadata and a little data.
const SMALLEST: ByteSize = ByteSize::mib(256);

pub(super) enum Source {
    /// A file of ours (`owned`) or of the user's.
    Loop {
        file: PathBuf,
        owned: bool,
    },
    Device(PathBuf),
    /// A subvolume on the host's own btrfs; nothing is mounted.
    Path(PathBuf),
}

pub(super) fn of(pool: &PoolConfig, paths: &PoolPaths) -> Source {
    let own_file = paths.disks.join(format!("{}.img", pool.name));
    match config::get(pool, "source").map(PathBuf::from) {
        None => Source::Loop { file: own_file, owned: true },
        Some(path) if path == own_file => Source::Loop { file: own_file, owned: true },
        Some(path) if path.starts_with("/dev") => Source::Device(path),
        Some(path) if path.is_file() => Source::Loop { file: path, owned: false },
        Some(path) => Source::Path(path),
    }
}

impl Source {
    /// The pool's root directory.
    pub fn root(&self, paths: &PoolPaths) -> PathBuf {
        match self {
            Self::Loop { .. } | Self::Device(_) => paths.mount.clone(),
            Self::Path(path) => path.clone(),
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Self::Loop { file: path, .. } | Self::Device(path) | Self::Path(path) => path.display().to_string(),
        }
    }

    /// Makes the file system or subvolume where it is not there; whether it did.
    pub fn make(&self, pool: &PoolConfig) -> Result<bool, PoolError> {
        match self {
            Self::Loop { file, owned: true } => make_loop_file(pool, file),
            Self::Loop { file: path, owned: false } | Self::Device(path) => format(pool, path),
            Self::Path(path) => make_subvolume(pool, path),
        }
    }

    /// Undoes [`Source::make`] and what was mounted of it. Best effort: it follows an error that says more.
    pub fn undo(&self, pool: &PoolConfig, paths: &PoolPaths) {
        let undone = match self {
            Self::Loop { file, owned } => unmount(pool, paths).and_then(|()| match owned {
                true => remove_file(pool, file),
                false => Ok(()),
            }),
            Self::Device(_) => unmount(pool, paths),
            Self::Path(path) => remove_subvolume(pool, path),
        };
        if let Err(error) = undone {
            tracing::warn!(pool = %pool.name, %error, "failed to undo the creation of a storage pool");
        }
    }

    /// Mounts it where it is not mounted. Finds what an earlier process mounted or attached.
    pub fn mount(&self, pool: &PoolConfig, paths: &PoolPaths) -> Result<(), PoolError> {
        match self {
            Self::Loop { file, .. } => mount_loop(pool, paths, file),
            Self::Device(device) => {
                if !device.exists() {
                    let reason = format!("its device {} is not there; attach it again", device.display());
                    return Err(PoolError::Vanished { pool: pool.name.clone(), reason });
                }
                let same = |mounted: &Path| same_device(mounted, device);
                if !is_mounted(pool, paths, same)? {
                    mount(pool, paths, device, false)?;
                }
                Ok(())
            }
            Self::Path(_) => Ok(()),
        }
    }

    /// Whether this source's file system is the pool's alone, so that the pool may switch features on in it.
    pub fn is_exclusive(&self) -> bool {
        !matches!(self, Self::Path(_))
    }

    /// Unmounts and removes an empty pool.
    pub fn remove(&self, pool: &PoolConfig, paths: &PoolPaths) -> Result<(), PoolError> {
        match self {
            Self::Loop { file, owned } => {
                unmount(pool, paths)?;
                if *owned { remove_file(pool, file) } else { Ok(()) }
            }
            Self::Device(_) => unmount(pool, paths),
            Self::Path(path) => remove_subvolume(pool, path),
        }
    }
}

fn io_error(pool: &PoolConfig, action: &'static str, path: &Path, source: io::Error) -> PoolError {
    PoolError::io(&pool.name, action, path, source)
}

fn make_loop_file(pool: &PoolConfig, file: &Path) -> Result<bool, PoolError> {
    if file.exists() {
        return Ok(false);
    }
    let dir = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir).map_err(|source| io_error(pool, "create", dir, source))?;
    let size = loop_size(pool, dir)?;
    // Under another name until it is a file system: a crash leaves no half-made one that looks like a pool.
    let unfinished = file.with_extension("img.tmp");
    let made = write_loop_file(pool, &unfinished, size).and_then(|()| {
        std::fs::rename(&unfinished, file).map_err(|source| io_error(pool, "rename", &unfinished, source))
    });
    if made.is_err() {
        // The first error says more than one about the leftover.
        let _ = std::fs::remove_file(&unfinished);
    }
    made.map(|()| true)
}

fn write_loop_file(pool: &PoolConfig, path: &Path, size: ByteSize) -> Result<(), PoolError> {
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let image = options.map_err(|source| io_error(pool, "create", path, source))?;
    image.set_len(size.as_bytes()).map_err(|source| io_error(pool, "size", path, source))?;
    mkfs(pool, path, true)?;
    image.sync_all().map_err(|source| io_error(pool, "flush", path, source))
}

fn loop_size(pool: &PoolConfig, dir: &Path) -> Result<ByteSize, PoolError> {
    let Some(text) = config::get(pool, "size") else {
        let space = host::space(dir).map_err(|source| io_error(pool, "read", dir, source))?;
        // As Incus does: a fifth of the free space, in whole GiB, from 5 to 30.
        let fifth = (space.free / 5) >> 30;
        return Ok(ByteSize::gib(fifth.clamp(5, 30)));
    };
    let invalid = |reason: String| PoolError::InvalidValue {
        pool: pool.name.clone(),
        key: "size",
        value: text.to_owned(),
        reason,
    };
    let size: ByteSize = text.parse().map_err(|error: stapes_model::SizeError| invalid(error.to_string()))?;
    if size < SMALLEST {
        return Err(invalid(format!("a btrfs pool needs at least {SMALLEST}")));
    }
    // Whole sectors: a loop device cuts the rest off.
    Ok(ByteSize::bytes(size.as_bytes().next_multiple_of(4096)))
}

/// The size of the loop file, for the completed configuration.
pub(super) fn size_of_file(pool: &PoolConfig, file: &Path) -> Result<ByteSize, PoolError> {
    let metadata = std::fs::metadata(file).map_err(|source| io_error(pool, "read", file, source))?;
    Ok(ByteSize::bytes(metadata.len()))
}

fn label(pool: &PoolConfig) -> String {
    format!("stapes-{}", pool.name)
}

fn mkfs(pool: &PoolConfig, target: &Path, force: bool) -> Result<(), PoolError> {
    if !host::kernel_has_btrfs() {
        let reason = "this kernel has no btrfs; use a dir pool".to_owned();
        return Err(PoolError::Unsupported { pool: pool.name.clone(), what: "a btrfs pool", reason });
    }
    // The tools of Debian 12 (6.2) already make what matters: no holes, free-space tree, doubled metadata. Discarding
    // first is of no use in a new sparse file and slow on many a device.
    let mut command = Exec::new("mkfs.btrfs").args(["-q", "-K", "-L", &label(pool)]).patience(Duration::from_secs(300));
    if force {
        command = command.arg("-f");
    }
    let options = config::get(pool, "btrfs.create_options").unwrap_or_default();
    match command.args(options.split_whitespace()).arg(target).run() {
        Ok(_) => Ok(()),
        Err(error) if error.is_missing() => {
            let (program, package) = ("mkfs.btrfs", "btrfs-progs");
            Err(PoolError::MissingTool { pool: pool.name.clone(), program, package })
        }
        Err(source) => Err(PoolError::Tool { pool: pool.name.clone(), action: "make its btrfs file system", source }),
    }
}

/// Makes a file system on a device or a file of the user's, unless one of this pool's is there already.
fn format(pool: &PoolConfig, target: &Path) -> Result<bool, PoolError> {
    let metadata = std::fs::metadata(target).map_err(|source| io_error(pool, "read", target, source))?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Err(PoolError::InvalidValue {
            pool: pool.name.clone(),
            key: "source",
            value: target.display().to_string(),
            reason: "it is neither a block device nor a file".to_owned(),
        });
    }
    let wipe = config::get_bool(pool, "source.wipe");
    if !wipe {
        let found = label_of(target).map_err(|source| io_error(pool, "read", target, source))?;
        if found.is_some_and(|found| found == label(pool).as_bytes()) {
            // An interrupted creation of ours. That it is empty is checked once it is mounted.
            return Ok(false);
        }
    }
    match mkfs(pool, target, wipe) {
        Err(PoolError::Tool { source, .. }) if source.to_string().contains("existing filesystem") => {
            let reason = "there is a file system on it; source.wipe=true overwrites it".to_owned();
            Err(PoolError::Taken { pool: pool.name.clone(), path: target.to_owned(), reason })
        }
        other => other.map(|()| true),
    }
}

/// The label of the btrfs on `target`; `None` where there is none. Source: btrfs_super_block in linux/btrfs_tree.h.
fn label_of(target: &Path) -> io::Result<Option<Vec<u8>>> {
    const SUPER_BLOCK: u64 = 64 << 10;
    let mut file = File::open(target)?;
    file.seek(SeekFrom::Start(SUPER_BLOCK))?;
    let mut block = [0; 4096];
    match file.read_exact(&mut block) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if block[0x40..0x48] != *b"_BHRfS_M" {
        return Ok(None);
    }
    Ok(block[0x12b..0x22b].split(|byte| *byte == 0).next().map(<[u8]>::to_vec))
}

fn make_subvolume(pool: &PoolConfig, path: &Path) -> Result<bool, PoolError> {
    let magic = host::magic(path).map_err(|source| io_error(pool, "read", path, source))?;
    if magic != host::BTRFS {
        return Err(PoolError::InvalidValue {
            pool: pool.name.clone(),
            key: "source",
            value: path.display().to_string(),
            reason: "it is not on a btrfs file system; use a dir pool there, or no source for a loop file".to_owned(),
        });
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    std::fs::create_dir_all(parent).map_err(|source| io_error(pool, "create", parent, source))?;
    // An empty directory gives way; one with something in it is judged when the pool is laid out.
    let _ = std::fs::remove_dir(path);
    let made = File::open(parent).and_then(|parent| btrfs::create_subvolume(parent, name));
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true).map_err(|source| io_error(pool, "create subvolume", path, source)),
    }
}

fn remove_subvolume(pool: &PoolConfig, path: &Path) -> Result<(), PoolError> {
    let remove = || {
        let root = File::open(path)?;
        if btrfs::is_subvolume(&root)? {
            let id = btrfs::subvolume_id(&root)?;
            // The top level, or a subvolume that is mounted by itself, is not ours to remove.
            if btrfs::is_ordinary_id(id) && host::mounted_at(path)?.is_none() {
                btrfs::destroy_subvolume(&root, id)?;
            }
        }
        Ok(())
    };
    match remove() {
        Err(error) if error_is_missing(&error) => Ok(()),
        other => other.map_err(|source| io_error(pool, "remove", path, source)),
    }
}

fn remove_file(pool: &PoolConfig, file: &Path) -> Result<(), PoolError> {
    for path in [file.with_extension("img.tmp"), file.to_owned()] {
        match std::fs::remove_file(&path) {
            Err(error) if error_is_missing(&error) => {}
            other => other.map_err(|source| io_error(pool, "remove", &path, source))?,
        }
    }
    Ok(())
}

fn error_is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn mount_loop(pool: &PoolConfig, paths: &PoolPaths, path: &Path) -> Result<(), PoolError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error_is_missing(&error) => {
            let reason = format!("its loop file {} is gone; put it back, or delete the pool", path.display());
            return Err(PoolError::Vanished { pool: pool.name.clone(), reason });
        }
        other => other.map_err(|source| io_error(pool, "open", path, source))?,
    };
    let metadata = file.metadata().map_err(|source| io_error(pool, "read", path, source))?;
    let ours = loopdev::Backing { device: metadata.dev(), inode: metadata.ino() };
    let is_ours = |device: &Path| File::open(device).and_then(loopdev::backing).is_ok_and(|backing| backing == ours);
    if is_mounted(pool, paths, is_ours)? {
        return Ok(());
    }
    // Two callers at once must not both find no device. The lock has a descriptor of its own: the loop device keeps
    // `file`, and would keep the lock with it.
    let lock = File::open(path).map_err(|source| io_error(pool, "open", path, source))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|errno| io_error(pool, "lock", path, errno.into()))?;
    if is_mounted(pool, paths, is_ours)? {
        return Ok(());
    }
    // A second device for the same file would corrupt it: use the one that another process or namespace attached.
    let found = loopdev::find(&file).map_err(|source| io_error(pool, "look for the loop device of", path, source))?;
    let device = match found {
        Some(device) => device,
        None => {
            let options = loopdev::Options { direct_io: true, autoclear: true, block_size: 4096, read_only: false };
            loopdev::attach(&file, options).map_err(|source| io_error(pool, "attach a loop device to", path, source))?
        }
    };
    // The mount holds the device from here on; with autoclear it goes when the mount does.
    mount(pool, paths, device.path(), true)
}

/// Whether the loop file is read and written past the page cache; `None` where that cannot be told.
pub(super) fn is_direct(file: &Path) -> Option<bool> {
    loopdev::find(&File::open(file).ok()?).ok()??.direct_io().ok()
}

fn same_device(mounted: &Path, device: &Path) -> bool {
    let number = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.rdev());
    matches!((number(mounted), number(device)), (Ok(one), Ok(other)) if one == other)
}

/// Whether the pool is at its mount point; refuses one that something else is mounted on.
fn is_mounted(pool: &PoolConfig, paths: &PoolPaths, is_ours: impl Fn(&Path) -> bool) -> Result<bool, PoolError> {
    let at = &paths.mount;
    match host::mounted_at(at).map_err(|source| io_error(pool, "look for the mount of", at, source))? {
        None => Ok(false),
        Some(mount) if mount.fs_type == "btrfs" && is_ours(&mount.source) => Ok(true),
        Some(mount) => {
            let reason = format!("{} ({}) is mounted there", mount.source.display(), mount.fs_type);
            Err(PoolError::Taken { pool: pool.name.clone(), path: at.clone(), reason })
        }
    }
}

fn mount(pool: &PoolConfig, paths: &PoolPaths, device: &Path, sparse: bool) -> Result<(), PoolError> {
    let at = &paths.mount;
    std::fs::create_dir_all(at).map_err(|source| io_error(pool, "create", at, source))?;
    let (flags, mut data) = mount_options(config::get(pool, "btrfs.mount_options").unwrap_or("user_subvol_rm_allowed"));
    if sparse && !data.split(',').any(|option| option.contains("discard")) {
        // Hands deleted blocks back to the host; the default since Linux 6.2, where the device can.
        data.push_str(if data.is_empty() { "discard=async" } else { ",discard=async" });
    }
    let text = std::ffi::CString::new(data).unwrap_or_default();
    rustix::mount::mount(device, at, "btrfs", flags, text.as_c_str()).map_err(|errno| match errno {
        rustix::io::Errno::INVAL => PoolError::InvalidValue {
            pool: pool.name.clone(),
            key: "btrfs.mount_options",
            value: text.to_string_lossy().into_owned(),
            reason: format!(
                "the kernel refuses to mount {} with them, or its btrfs is damaged; see dmesg",
                device.display()
            ),
        },
        errno => io_error(pool, "mount", device, errno.into()),
    })
}

/// Splits options into the kernel's flags and what btrfs itself reads. Access times are never written.
fn mount_options(text: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::NOATIME;
    let mut data = Vec::new();
    for option in text.split(',').map(str::trim) {
        match option {
            "" | "defaults" | "rw" | "noatime" | "nodiratime" => {}
            "relatime" | "strictatime" => {
                flags.remove(MountFlags::NOATIME);
                flags |= if option == "relatime" { MountFlags::RELATIME } else { MountFlags::STRICTATIME };
            }
            "nodev" => flags |= MountFlags::NODEV,
            "nosuid" => flags |= MountFlags::NOSUID,
            "noexec" => flags |= MountFlags::NOEXEC,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// Unmounts what is ours at the mount point and removes that directory; not mounted is success.
fn unmount(pool: &PoolConfig, paths: &PoolPaths) -> Result<(), PoolError> {
    let at = &paths.mount;
    let mounted = host::mounted_at(at).map_err(|source| io_error(pool, "look for the mount of", at, source))?;
    if mounted.is_some_and(|mount| mount.fs_type == "btrfs") {
        rustix::mount::unmount(at, UnmountFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::BUSY => PoolError::InUse { pool: pool.name.clone(), source: errno.into() },
            errno => io_error(pool, "unmount", at, errno.into()),
        })?;
    }
    match std::fs::remove_dir(at) {
        Err(error) if error_is_missing(&error) => Ok(()),
        other => other.map_err(|source| io_error(pool, "remove", at, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_kernel_and_of_btrfs_are_told_apart() {
        let (flags, data) = mount_options("nodev, compress=zstd,user_subvol_rm_allowed");
        assert_eq!(flags, MountFlags::NOATIME | MountFlags::NODEV);
        assert_eq!(data, "compress=zstd,user_subvol_rm_allowed");
        assert_eq!(mount_options("relatime").0, MountFlags::RELATIME);
    }
}
