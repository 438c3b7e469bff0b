//! btrfs: every volume is a subvolume; clones, snapshots and deletions take constant time.

mod quota;
mod source;

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, RenameFlags};
use stapes_model::{ByteSize, PoolName};
use stapes_sys::{btrfs, exec::Exec};

use self::{quota::Quotas, source::Source};
use crate::{
    Pool, PoolConfig, PoolError, PoolPaths, Snapshots, Space, VolumeKind, VolumeRef, host,
    layout::{Layout, names_in},
    volume::check_id,
};

/// The version of btrfs-progs, such as `6.2`.
pub(crate) fn version() -> Option<String> {
    let output = Exec::new("mkfs.btrfs").arg("--version").run().ok()?;
    let text = String::from_utf8_lossy(&output).into_owned();
    // "mkfs.btrfs, part of btrfs-progs v6.2"
    text.split_whitespace().last()?.strip_prefix('v').map(str::to_owned)
}

pub(crate) fn create(pool: &PoolConfig, paths: &PoolPaths) -> Result<Vec<(&'static str, String)>, PoolError> {
    let source = source::of(pool, paths);
    let made = source.make(pool)?;
    let layout = Layout::new(&pool.name, source.root(paths));
    let fill = || {
        source.mount(pool, paths)?;
        layout.lay_out()?;
        // Volumes of a pool that the store knows nothing of must not fall to the next sweep.
        layout.refuse_volumes()?;
        attach_quotas(&layout, &source).map(drop)
    };
    if let Err(error) = fill() {
        if made {
            source.undo(pool, paths);
        }
        return Err(error);
    }
    let mut completed = vec![("source", source.describe())];
    if let Source::Loop { file, .. } = &source {
        completed.push(("size", source::size_of_file(pool, file)?.to_string()));
    }
    Ok(completed)
}

fn attach_quotas(layout: &Layout, source: &Source) -> Result<(Quotas, Option<String>), PoolError> {
    File::open(&layout.root)
        .and_then(|root| Quotas::prepare(&root, source.is_exclusive()))
        .map_err(|source| layout.error("prepare quotas of", &layout.root, source))
}

pub(crate) fn open(pool: &PoolConfig, paths: &PoolPaths) -> Result<Arc<dyn Pool>, PoolError> {
    let source = source::of(pool, paths);
    source.mount(pool, paths)?;
    let layout = Layout::new(&pool.name, source.root(paths));
    layout.check()?;
    let (quotas, missing) = attach_quotas(&layout, &source)?;
    let mut shortcomings = Vec::from_iter(missing);
    let backing = match source {
        Source::Loop { file, .. } => Some(file),
        Source::Device(_) | Source::Path(_) => None,
    };
    if backing.as_deref().and_then(source::is_direct) == Some(false) {
        shortcomings.push("its loop file is cached twice: the host's file system has no direct I/O".to_owned());
    }
    let pool = BtrfsPool { layout, quotas, backing, shortcomings };
    pool.quotas.sweep(&pool.root()?);
    Ok(Arc::new(pool))
}

pub(crate) fn destroy(pool: &PoolConfig, paths: &PoolPaths) -> Result<(), PoolError> {
    let source = source::of(pool, paths);
    let layout = Layout::new(&pool.name, source.root(paths));
    match source.mount(pool, paths) {
        Ok(()) => {}
        // Its file or device is gone: what is left is a mount of nothing.
        Err(PoolError::Vanished { .. }) => return source.remove(pool, paths),
        Err(error) => return Err(error),
    }
    if layout.check().is_ok() {
        layout.refuse_volumes()?;
        layout.clear()?;
    } else if !source.is_exclusive() {
        // A path without our mark is somebody else's.
        return Ok(());
    }
    source.remove(pool, paths)
}

struct BtrfsPool {
    layout: Layout,
    quotas: Quotas,
    /// The loop file.
    backing: Option<PathBuf>,
    shortcomings: Vec<String>,
}

impl BtrfsPool {
    fn error(&self, action: &'static str, path: &Path, source: io::Error) -> PoolError {
        self.layout.error(action, path, source)
    }

    /// Descriptors are opened for each call, not kept: one kept would make the pool's unmount fail.
    fn open(&self, path: &Path) -> Result<Option<File>, PoolError> {
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            // Not there: is it the volume, or the whole pool?
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.layout.check().map(|()| None),
            Err(source) => Err(self.error("open", path, source)),
        }
    }

    fn root(&self) -> Result<File, PoolError> {
        let root = &self.layout.root;
        File::open(root).map_err(|source| self.error("open", root, source))
    }

    /// The directory of a kind's volumes.
    fn dir(&self, kind: VolumeKind) -> Result<File, PoolError> {
        let path = self.layout.kind_dir(kind);
        let missing = || self.error("open", &path, io::ErrorKind::NotFound.into());
        self.open(&path)?.ok_or_else(missing)
    }

    fn volume(&self, volume: &VolumeRef) -> Result<File, PoolError> {
        let missing = || PoolError::NoVolume { pool: self.layout.pool.clone(), volume: volume.clone() };
        self.open(&self.layout.volume_path(volume))?.ok_or_else(missing)
    }

    fn volume_and_id(&self, volume: &VolumeRef) -> Result<(File, u64), PoolError> {
        let file = self.volume(volume)?;
        let id = btrfs::subvolume_id(&file)
            .map_err(|source| self.error("find the subvolume of", &self.layout.volume_path(volume), source))?;
        Ok((file, id))
    }

    fn snapshot_into(&self, from: &File, to: &VolumeRef) -> Result<PathBuf, PoolError> {
        let path = self.layout.volume_path(to);
        match btrfs::snapshot(from, self.dir(to.kind())?, to.id().as_ref(), false) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(PoolError::VolumeExists { pool: self.layout.pool.clone(), volume: to.clone() })
            }
            Err(source) => Err(self.error("clone to", &path, source)),
        }
    }

    /// Removes the subvolume at `path` with those inside it; whether there was one. A volume with others inside takes
    /// several steps, so it first gets the name `hidden`.
    fn remove(&self, path: &Path, hidden: &Path) -> Result<bool, PoolError> {
        let Some(root) = self.open(path)? else { return Ok(false) };
        let fail = |source| self.error("remove", path, source);
        if !btrfs::is_subvolume(&root).map_err(fail)? {
            return std::fs::remove_dir_all(path).map(|()| true).map_err(fail);
        }
        let id = btrfs::subvolume_id(&root).map_err(fail)?;
        let anchor = self.root()?;
        match btrfs::destroy_subvolume(&anchor, id) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                if path != hidden {
                    std::fs::rename(path, hidden).map_err(fail)?;
                }
                self.remove_nested(&anchor, id).map_err(fail)?;
            }
            other => other.map_err(fail)?,
        }
        self.quotas.forget(&anchor, id);
        Ok(true)
    }

    /// Removes subvolumes depth first. A guest's process that is still dying may add one meanwhile: look again.
    fn remove_nested(&self, anchor: &File, top: u64) -> io::Result<()> {
        let mut pending = vec![top];
        let mut patience = 10_000;
        while let Some(&id) = pending.last() {
            let children = btrfs::children(anchor, id)?;
            patience -= 1;
            if children.is_empty() || patience == 0 {
                btrfs::destroy_subvolume(anchor, id)?;
                pending.pop();
                if id != top {
                    self.quotas.forget(anchor, id);
                }
            } else {
                pending.extend(children.into_iter().map(|child| child.id));
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), PoolError> {
        let root = self.root()?;
        rustix::fs::syncfs(root).map_err(|errno| self.error("flush", &self.layout.root, errno.into()))
    }

    fn snapshot_name(&self, volume: &VolumeRef, snapshot: &str) -> Result<PathBuf, PoolError> {
        check_id(snapshot)?;
        Ok(self.layout.snapshots_dir(volume).join(snapshot))
    }

    fn snapshot(&self, volume: &VolumeRef, snapshot: &str) -> Result<File, PoolError> {
        let missing = || PoolError::NoSnapshot {
            pool: self.layout.pool.clone(),
            volume: volume.clone(),
            snapshot: snapshot.to_owned(),
        };
        self.open(&self.snapshot_name(volume, snapshot)?)?.ok_or_else(missing)
    }
}

impl Pool for BtrfsPool {
    fn name(&self) -> &PoolName {
        &self.layout.pool
    }

    fn volume_path(&self, volume: &VolumeRef) -> PathBuf {
        self.layout.volume_path(volume)
    }

    fn ensure_volume(&self, volume: &VolumeRef) -> Result<PathBuf, PoolError> {
        let path = self.layout.volume_path(volume);
        if path.exists() {
            return Ok(path);
        }
        let path = match volume.kind() {
            VolumeKind::Image => self.layout.unfinished_path(volume),
            VolumeKind::Instance | VolumeKind::Custom => path,
        };
        match btrfs::create_subvolume(self.dir(volume.kind())?, path.file_name().unwrap_or_default()) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(self.error("create", &path, source)),
            _ => Ok(path),
        }
    }

    fn exists(&self, volume: &VolumeRef) -> Result<bool, PoolError> {
        Ok(self.open(&self.layout.volume_path(volume))?.is_some())
    }

    fn delete_volume(&self, volume: &VolumeRef) -> Result<(), PoolError> {
        let hidden = self.layout.unfinished_path(volume);
        self.remove(&hidden, &hidden)?;
        self.remove(&self.layout.volume_path(volume), &hidden)?;
        let snapshots = self.layout.snapshots_dir(volume);
        if !snapshots.exists() {
            return Ok(());
        }
        for snapshot in self.list_snapshots(volume)? {
            self.delete_snapshot(volume, &snapshot)?;
        }
        match std::fs::remove_dir(&snapshots) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.error("remove", &snapshots, source)),
            _ => Ok(()),
        }
    }

    fn clone_volume(&self, from: &VolumeRef, to: &VolumeRef) -> Result<PathBuf, PoolError> {
        self.snapshot_into(&self.volume(from)?, to)
    }

    fn seal(&self, volume: &VolumeRef) -> Result<PathBuf, PoolError> {
        let (path, hidden) = (self.layout.volume_path(volume), self.layout.unfinished_path(volume));
        let (at, file) = match self.open(&path)? {
            Some(file) => (&path, file),
            None => match self.open(&hidden)? {
                Some(file) => (&hidden, file),
                None => {
                    return Err(PoolError::NoVolume { pool: self.layout.pool.clone(), volume: volume.clone() });
                }
            },
        };
        let fail = |source| self.error("seal", at, source);
        if !btrfs::is_read_only(&file).map_err(fail)? {
            // A name that survives a power cut must have its data: a commit alone does not write delayed data.
            self.flush()?;
            btrfs::set_read_only(&file, true).map_err(fail)?;
        }
        if at != &path {
            std::fs::rename(at, &path).map_err(fail)?;
        }
        Ok(path)
    }

    fn set_quota(&self, volume: &VolumeRef, size: Option<ByteSize>) -> Result<(), PoolError> {
        let (_, id) = self.volume_and_id(volume)?;
        if self.quotas.are_on() {
            return self
                .quotas
                .limit(&self.root()?, id, size.map(ByteSize::as_bytes))
                .map_err(|source| self.error("limit", &self.layout.volume_path(volume), source));
        }
        match size {
            None => Ok(()),
            Some(_) => Err(PoolError::Unsupported {
                pool: self.layout.pool.clone(),
                what: "a size limit",
                reason: self.shortcomings.first().cloned().unwrap_or_default(),
            }),
        }
    }

    fn usage(&self, volume: &VolumeRef) -> Result<Option<u64>, PoolError> {
        let (file, id) = self.volume_and_id(volume)?;
        let fail = |source| self.error("read the usage of", &self.layout.volume_path(volume), source);
        if self.quotas.are_on() { Ok(self.quotas.usage(&file).map_err(fail)?(id)) } else { Ok(None) }
    }

    fn usages(&self, kind: VolumeKind) -> Result<HashMap<String, u64>, PoolError> {
        if !self.quotas.are_on() {
            return Ok(HashMap::new());
        }
        let dir = self.dir(kind)?;
        let read = || {
            let directory = rustix::fs::fstat(&dir)?.st_ino;
            let usage = self.quotas.usage(&dir)?;
            let subvolumes = btrfs::children(&dir, btrfs::subvolume_id(&dir)?)?;
            let named = subvolumes.into_iter().filter(|child| child.directory == directory).filter_map(|child| {
                let name = child.name.into_string().ok()?;
                check_id(&name).ok()?;
                Some((name, usage(child.id)?))
            });
            Ok(named.collect())
        };
        read().map_err(|source| self.error("read the usages in", &self.layout.kind_dir(kind), source))
    }

    fn list(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError> {
        self.layout.ids(kind)
    }

    fn unfinished(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError> {
        self.layout.unfinished_ids(kind)
    }

    fn space(&self) -> Result<Space, PoolError> {
        self.layout.check()?;
        let root = &self.layout.root;
        let mut space = host::space(root).map_err(|source| self.error("read", root, source))?;
        if let Some(file) = &self.backing {
            space.backing_free = Some(host::space(file).map_err(|source| self.error("read", file, source))?.free);
        }
        Ok(space)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn shortcomings(&self) -> Vec<String> {
        self.shortcomings.clone()
    }
}

impl Snapshots for BtrfsPool {
    fn snapshot_path(&self, volume: &VolumeRef, snapshot: &str) -> Result<PathBuf, PoolError> {
        self.snapshot_name(volume, snapshot)
    }

    fn create_snapshot(&self, volume: &VolumeRef, snapshot: &str) -> Result<PathBuf, PoolError> {
        let path = self.snapshot_name(volume, snapshot)?;
        let source = self.volume(volume)?;
        let dir = self.layout.snapshots_dir(volume);
        let made = std::fs::create_dir_all(&dir)
            .and_then(|()| File::open(&dir))
            .and_then(|dir| btrfs::snapshot(&source, dir, snapshot.as_ref(), true));
        match made {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(PoolError::SnapshotExists {
                pool: self.layout.pool.clone(),
                volume: volume.clone(),
                snapshot: snapshot.to_owned(),
            }),
            Err(source) => Err(self.error("snapshot to", &path, source)),
        }
    }

    fn delete_snapshot(&self, volume: &VolumeRef, snapshot: &str) -> Result<(), PoolError> {
        let path = self.snapshot_name(volume, snapshot)?;
        self.remove(&path, &path).map(drop)
    }

    fn list_snapshots(&self, volume: &VolumeRef) -> Result<Vec<String>, PoolError> {
        let dir = self.layout.snapshots_dir(volume);
        match names_in(&dir) {
            Ok(names) => Ok(names.into_iter().filter_map(|(name, whole)| whole.then_some(name)).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.layout.check().map(|()| Vec::new()),
            Err(source) => Err(self.error("list", &dir, source)),
        }
    }

    fn restore_snapshot(&self, volume: &VolumeRef, snapshot: &str) -> Result<(), PoolError> {
        let source = self.snapshot(volume, snapshot)?;
        let (_, id) = self.volume_and_id(volume)?;
        let anchor = self.root()?;
        let (path, hidden) = (self.layout.volume_path(volume), self.layout.unfinished_path(volume));
        self.remove(&hidden, &hidden)?;
        let prepare = || {
            let name = hidden.file_name().unwrap_or_default();
            btrfs::snapshot(&source, File::open(self.layout.kind_dir(volume.kind()))?, name, false)?;
            if self.quotas.are_on()
                && let Some(limit) = self.quotas.limit_of(&anchor, id)?
            {
                let new = btrfs::subvolume_id(File::open(&hidden)?)?;
                self.quotas.limit(&anchor, new, Some(limit))?;
            }
            Ok(rustix::fs::renameat_with(CWD, &hidden, CWD, &path, RenameFlags::EXCHANGE)?)
        };
        let restored = prepare().map_err(|source| self.error("restore", &path, source));
        // What has the hidden name now is the old state, or on failure the new one.
        let removed = self.remove(&hidden, &hidden);
        restored.and_then(|()| removed.map(drop))
    }

    fn clone_snapshot(&self, from: &VolumeRef, snapshot: &str, to: &VolumeRef) -> Result<PathBuf, PoolError> {
        self.snapshot_into(&self.snapshot(from, snapshot)?, to)
    }
}
