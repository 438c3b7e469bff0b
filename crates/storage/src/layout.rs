//! The directories of a pool, which are the same for every driver.

use std::{
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use stapes_model::PoolName;

use crate::{
    PoolError, VolumeKind, VolumeRef,
    volume::{parse_name, unfinished_name},
};

/// Tells a pool from an empty directory whose disk is not mounted: without it an absent disk would look like a pool
/// whose volumes are all gone.
const MARKER: &str = ".stapes-pool";
const SNAPSHOTS: &str = "snapshots";

#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub pool: PoolName,
    pub root: PathBuf,
}

impl Layout {
    pub fn new(pool: &PoolName, root: impl Into<PathBuf>) -> Self {
        Self { pool: pool.clone(), root: root.into() }
    }

    pub fn error(&self, action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> PoolError {
        PoolError::io(&self.pool, action, path, source)
    }

    pub fn kind_dir(&self, kind: VolumeKind) -> PathBuf {
        self.root.join(kind.directory())
    }

    pub fn volume_path(&self, volume: &VolumeRef) -> PathBuf {
        self.kind_dir(volume.kind()).join(volume.id())
    }

    pub fn unfinished_path(&self, volume: &VolumeRef) -> PathBuf {
        self.kind_dir(volume.kind()).join(unfinished_name(volume.id()))
    }

    pub fn snapshots_dir(&self, volume: &VolumeRef) -> PathBuf {
        self.root.join(SNAPSHOTS).join(volume.kind().directory()).join(volume.id())
    }

    /// Makes the directories and, last, the marker. Again is success; a directory with other things in it is refused.
    pub fn lay_out(&self) -> Result<(), PoolError> {
        self.refuse_strangers()?;
        let make = |path: &Path, mode| {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(mode).create(path).map_err(|source| self.error("create", path, source))
        };
        make(&self.root, 0o711)?;
        for kind in VolumeKind::ALL {
            // 0700: set-user-id programs of guests, owned by root on the disk, must not be within any user's reach.
            make(&self.kind_dir(kind), 0o700)?;
        }
        make(&self.root.join(SNAPSHOTS), 0o700)?;
        let marker = self.root.join(MARKER);
        std::fs::write(&marker, format!("storage pool {} of Stapes\n", self.pool))
            .map_err(|source| self.error("write", marker, source))
    }

    fn refuse_strangers(&self) -> Result<(), PoolError> {
        if self.root.join(MARKER).exists() {
            return Ok(());
        }
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.error("read", &self.root, source)),
            Ok(entries) => entries,
        };
        for entry in entries {
            let name = entry.map_err(|source| self.error("read", &self.root, source))?.file_name();
            // What an interrupted creation leaves, or mkfs of ext4 makes, is no stranger.
            let ours = VolumeKind::ALL.iter().any(|kind| name == kind.directory());
            if !ours && name != SNAPSHOTS && name != "lost+found" {
                let reason = format!("it holds {name:?} already; a pool needs an empty directory");
                return Err(PoolError::Taken { pool: self.pool.clone(), path: self.root.clone(), reason });
            }
        }
        Ok(())
    }

    /// Refuses a root that is not, or no longer, this pool's.
    pub fn check(&self) -> Result<(), PoolError> {
        match self.root.join(MARKER).try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => Err(PoolError::Vanished {
                pool: self.pool.clone(),
                reason: format!("{} does not hold it; mount its disk again, or delete the pool", self.root.display()),
            }),
            Err(source) => Err(self.error("read", &self.root, source)),
        }
    }

    /// The volumes of a kind with whether each is whole. An id may be there twice, once as a leftover.
    pub fn names(&self, kind: VolumeKind) -> Result<Vec<(String, bool)>, PoolError> {
        self.check()?;
        names_in(&self.kind_dir(kind)).map_err(|source| self.error("list", self.kind_dir(kind), source))
    }

    pub fn ids(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError> {
        let mut ids: Vec<String> = self.names(kind)?.into_iter().map(|(id, _)| id).collect();
        ids.dedup();
        Ok(ids)
    }

    pub fn unfinished_ids(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError> {
        let names = self.names(kind)?;
        let is_whole = |id: &str| names.iter().any(|(other, whole)| *whole && other == id);
        Ok(names.iter().filter(|(id, whole)| !whole && !is_whole(id)).map(|(id, _)| id.clone()).collect())
    }

    /// Refuses to go on while there are volumes, whole or not.
    pub fn refuse_volumes(&self) -> Result<(), PoolError> {
        let mut found = Vec::new();
        for kind in VolumeKind::ALL {
            let dir = self.kind_dir(kind);
            match names_in(&dir) {
                Ok(names) => found.extend(names.into_iter().map(|(id, _)| format!("{}/{id}", kind.directory()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(self.error("list", dir, source)),
            }
        }
        match found.first() {
            None => Ok(()),
            Some(first) => {
                Err(PoolError::NotEmpty { pool: self.pool.clone(), count: found.len(), first: first.clone() })
            }
        }
    }

    /// The directories of [`Layout::lay_out`], deepest first.
    fn directories(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = VolumeKind::ALL.map(|kind| self.kind_dir(kind)).into();
        paths.extend(VolumeKind::ALL.map(|kind| self.root.join(SNAPSHOTS).join(kind.directory())));
        paths.push(self.root.join(SNAPSHOTS));
        paths
    }

    /// Removes the empty directories of a pool without its mark, and the root if nothing else is in it.
    pub fn clear_unmarked(&self) {
        for path in self.directories().into_iter().chain([self.root.clone()]) {
            // What is not empty is not ours to judge.
            let _ = std::fs::remove_dir(path);
        }
    }

    /// Undoes [`Layout::lay_out`] in an empty pool; the root stays.
    pub fn clear(&self) -> Result<(), PoolError> {
        let paths = self.directories();
        let mut removed: Vec<_> = paths.into_iter().map(|path| (std::fs::remove_dir(&path), path)).collect();
        // The marker last: until then a repeated destruction still knows the pool.
        let marker = self.root.join(MARKER);
        removed.push((std::fs::remove_file(&marker), marker));
        for (result, path) in removed {
            match result {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(self.error("remove", path, source));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Ids found in a directory with whether each is whole, sorted; names that no volume can have are not ours.
pub(crate) fn names_in(dir: &Path) -> io::Result<Vec<(String, bool)>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some((id, whole)) = entry?.file_name().to_str().and_then(parse_name) {
            names.push((id.to_owned(), whole));
        }
    }
    names.sort_unstable();
    Ok(names)
}
