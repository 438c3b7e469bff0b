//! A directory on any file system: copies share data where the file system has reflinks, else they are real.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, RenameFlags};
use stapes_model::{ByteSize, PoolName};

use crate::{
    Pool, PoolConfig, PoolError, PoolPaths, Space, VolumeKind, VolumeRef, config,
    copy::{CopyError, copy_tree},
    host,
    layout::Layout,
};

fn layout(pool: &PoolConfig, paths: &PoolPaths) -> Layout {
    Layout::new(&pool.name, config::get(pool, "source").map_or(paths.mount.clone(), PathBuf::from))
}

/// Lays the directory out; `source` is completed with it.
pub(crate) fn create(pool: &PoolConfig, paths: &PoolPaths) -> Result<Vec<(&'static str, String)>, PoolError> {
    let layout = layout(pool, paths);
    layout.lay_out()?;
    // Volumes of a pool that the store knows nothing of must not fall to the next sweep.
    layout.refuse_volumes()?;
    Ok(vec![("source", layout.root.display().to_string())])
}

pub(crate) fn open(pool: &PoolConfig, paths: &PoolPaths) -> Result<Arc<dyn Pool>, PoolError> {
    let layout = layout(pool, paths);
    layout.check()?;
    let reflink = host::can_reflink(&layout.kind_dir(VolumeKind::Instance));
    Ok(Arc::new(DirPool { layout, reflink }))
}

pub(crate) fn destroy(pool: &PoolConfig, paths: &PoolPaths) -> Result<(), PoolError> {
    let layout = layout(pool, paths);
    if layout.check().is_err() {
        // Never made, or gone; but our own place may hold what an interrupted creation or removal left, all of it empty.
        if layout.root == paths.mount {
            layout.clear_unmarked();
        }
        return Ok(());
    }
    layout.refuse_volumes()?;
    layout.clear()?;
    if layout.root == paths.mount {
        std::fs::remove_dir(&layout.root).map_err(|source| layout.error("remove", &layout.root, source))?;
    }
    Ok(())
}

struct DirPool {
    layout: Layout,
    reflink: bool,
}

impl DirPool {
    fn error(&self, action: &'static str, path: &Path, source: io::Error) -> PoolError {
        self.layout.error(action, path, source)
    }

    fn remove_tree(&self, path: &Path) -> Result<(), PoolError> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// Writes everything of the pool's file system to its disk: a name that survives a power cut must have its data.
    fn flush(&self) -> Result<(), PoolError> {
        let root = &self.layout.root;
        let flush = || Ok(rustix::fs::syncfs(File::open(root)?)?);
        flush().map_err(|source| self.error("flush", root, source))
    }

    fn publish(&self, unfinished: &Path, path: &Path, volume: &VolumeRef) -> Result<(), PoolError> {
        match rustix::fs::renameat_with(CWD, unfinished, CWD, path, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => self.volume_exists(volume),
            // A file system without the flag; one volume's calls come one after the other.
            Err(rustix::io::Errno::INVAL) => {
                std::fs::rename(unfinished, path).map_err(|source| self.error("rename", unfinished, source))
            }
            other => other.map_err(|errno| self.error("rename", unfinished, errno.into())),
        }
    }

    fn volume_exists(&self, volume: &VolumeRef) -> Result<(), PoolError> {
        Err(PoolError::VolumeExists { pool: self.layout.pool.clone(), volume: volume.clone() })
    }
}

impl Pool for DirPool {
    fn name(&self) -> &PoolName {
        &self.layout.pool
    }

    fn volume_path(&self, volume: &VolumeRef) -> PathBuf {
        self.layout.volume_path(volume)
    }

    fn ensure_volume(&self, volume: &VolumeRef) -> Result<PathBuf, PoolError> {
        if self.exists(volume)? {
            return Ok(self.volume_path(volume));
        }
        let path = match volume.kind() {
            VolumeKind::Image => self.layout.unfinished_path(volume),
            VolumeKind::Instance | VolumeKind::Custom => self.volume_path(volume),
        };
        match std::fs::create_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(self.error("create", &path, source)),
            _ => Ok(path),
        }
    }

    fn exists(&self, volume: &VolumeRef) -> Result<bool, PoolError> {
        let path = self.volume_path(volume);
        match path.try_exists() {
            Ok(false) => self.layout.check().map(|()| false),
            other => other.map_err(|source| self.error("read", &path, source)),
        }
    }

    fn delete_volume(&self, volume: &VolumeRef) -> Result<(), PoolError> {
        let (path, unfinished) = (self.volume_path(volume), self.layout.unfinished_path(volume));
        self.remove_tree(&unfinished)?;
        match std::fs::rename(&path, &unfinished) {
            Ok(()) => self.remove_tree(&unfinished),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.layout.check(),
            Err(error) => Err(self.error("rename", &path, error)),
        }
    }

    fn clone_volume(&self, from: &VolumeRef, to: &VolumeRef) -> Result<PathBuf, PoolError> {
        if !self.exists(from)? {
            return Err(PoolError::NoVolume { pool: self.layout.pool.clone(), volume: from.clone() });
        }
        if self.exists(to)? {
            self.volume_exists(to)?;
        }
        let (path, unfinished) = (self.volume_path(to), self.layout.unfinished_path(to));
        self.remove_tree(&unfinished)?;
        let source = self.volume_path(from);
        let made = copy_tree(&source, &unfinished, self.reflink)
            .map_err(|CopyError { action, path, source: cause }| self.error(action, &source.join(path), cause))
            .and_then(|()| self.flush())
            .and_then(|()| self.publish(&unfinished, &path, to));
        if let Err(error) = made {
            // What cannot be removed now, the next sweep finds by its name.
            let _ = self.remove_tree(&unfinished);
            return Err(error);
        }
        Ok(path)
    }

    fn seal(&self, volume: &VolumeRef) -> Result<PathBuf, PoolError> {
        let (path, unfinished) = (self.volume_path(volume), self.layout.unfinished_path(volume));
        if self.exists(volume)? {
            return Ok(path);
        }
        if !unfinished.exists() {
            return Err(PoolError::NoVolume { pool: self.layout.pool.clone(), volume: volume.clone() });
        }
        self.flush()?;
        self.publish(&unfinished, &path, volume)?;
        Ok(path)
    }

    fn set_quota(&self, _volume: &VolumeRef, size: Option<ByteSize>) -> Result<(), PoolError> {
        if size.is_none() {
            return Ok(());
        }
        Err(PoolError::Unsupported {
            pool: self.layout.pool.clone(),
            what: "a size limit",
            reason: "a directory has no quotas; use a btrfs pool".to_owned(),
        })
    }

    fn usage(&self, _volume: &VolumeRef) -> Result<Option<u64>, PoolError> {
        Ok(None)
    }

    fn usages(&self, _kind: VolumeKind) -> Result<HashMap<String, u64>, PoolError> {
        Ok(HashMap::new())
    }

    fn list(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError> {
        self.layout.ids(kind)
    }

    fn unfinished(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError> {
        self.layout.unfinished_ids(kind)
    }

    fn space(&self) -> Result<Space, PoolError> {
        self.layout.check()?;
        host::space(&self.layout.root).map_err(|source| self.error("read", &self.layout.root, source))
    }

    fn shortcomings(&self) -> Vec<String> {
        let mut missing = vec!["no snapshots and no size limits: a directory has none".to_owned()];
        if !self.reflink {
            missing.push("copies take time and space: the file system has no reflinks".to_owned());
        }
        missing
    }
}
