use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use stapes_model::{ByteSize, PoolName};

use crate::{PoolError, VolumeKind, VolumeRef};

/// A pool as the store keeps it: name, driver and Incus's configuration keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    pub name: PoolName,
    pub driver: String,
    pub config: BTreeMap<String, String>,
}

/// Where a pool may live on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPaths {
    /// Where it is mounted, or is itself: `<state>/storage-pools/<pool>`.
    pub mount: PathBuf,
    /// Where loop files are: `<state>/disks`.
    pub disks: PathBuf,
}

impl PoolPaths {
    /// The usual places beneath the daemon's state directory.
    pub fn new(state_dir: &Path, pool: &PoolName) -> Self {
        Self { mount: state_dir.join("storage-pools").join(pool.as_str()), disks: state_dir.join("disks") }
    }
}

/// Room in a pool, in bytes and inodes. Zero inodes in total: the file system has no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    pub total: u64,
    pub used: u64,
    pub free: u64,
    pub inodes_total: u64,
    pub inodes_used: u64,
    /// Free bytes on the host file system that holds the pool's loop file: where this is less than `free`, the
    /// host will be full before the pool is, and the pool may become read-only. `None`: no loop file.
    pub backing_free: Option<u64>,
}

/// An open storage pool. All calls block; none holds a lock while it does, so one volume's calls must come one after
/// the other (the engine's lanes see to that) and different volumes' may run beside each other.
///
/// A volume is a directory, readable only by root from above; the caller puts `rootfs/`, `metadata.yaml` and
/// `templates/` into it. A volume that is being made or removed has a hidden name derived from its id, so that a
/// crash leaves nothing, the whole, or something that [`Pool::unfinished`] tells and [`Pool::delete_volume`] removes.
pub trait Pool: Send + Sync {
    fn name(&self) -> &PoolName;

    /// Where the finished volume is, or would be. No I/O.
    fn volume_path(&self, volume: &VolumeRef) -> PathBuf;

    /// Makes an empty volume and returns where to fill it; again is success. An image is filled under its hidden
    /// name until [`Pool::seal`]: use the path returned, not [`Pool::volume_path`].
    fn ensure_volume(&self, volume: &VolumeRef) -> Result<PathBuf, PoolError>;

    /// Whether the finished volume is there.
    fn exists(&self, volume: &VolumeRef) -> Result<bool, PoolError>;

    /// Removes the volume with its snapshots and everything in it, finished or not; no such volume is success.
    fn delete_volume(&self, volume: &VolumeRef) -> Result<(), PoolError>;

    /// Makes `to` a writable copy of `from`; appears whole or not at all. `VolumeExists` where `to` is there.
    fn clone_volume(&self, from: &VolumeRef, to: &VolumeRef) -> Result<PathBuf, PoolError>;

    /// Flushes an image that is filled, makes it read-only where the driver can, and gives it its final name; again
    /// is success. Returns where it is now.
    fn seal(&self, volume: &VolumeRef) -> Result<PathBuf, PoolError>;

    /// Caps what may be written to the volume, beyond what it shares with the image it was cloned from; `None` lifts
    /// the cap. `Unsupported`, with the reason, where this pool cannot.
    fn set_quota(&self, volume: &VolumeRef, size: Option<ByteSize>) -> Result<(), PoolError>;

    /// Bytes that the volume itself wrote, as of the last commit (≤ 30 s); `None` where the pool does not count.
    fn usage(&self, volume: &VolumeRef) -> Result<Option<u64>, PoolError>;

    /// [`Pool::usage`] of all volumes of a kind by their ids; empty where the pool does not count.
    fn usages(&self, kind: VolumeKind) -> Result<HashMap<String, u64>, PoolError>;

    /// The ids of all volumes found, finished or not, each once, sorted: what a sweep compares with the store.
    fn list(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError>;

    /// The ids of which only a half-made or half-removed volume is there.
    fn unfinished(&self, kind: VolumeKind) -> Result<Vec<String>, PoolError>;

    fn space(&self) -> Result<Space, PoolError>;

    /// Cheap snapshots; `None`: this pool has none, and the caller copies instead.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// What this pool does without on this host and why, for `info` and the log.
    fn shortcomings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Read-only states of a volume, kept beside it and made in constant time. A snapshot's id obeys the same rule as a
/// volume's.
pub trait Snapshots: Send + Sync {
    /// Where the snapshot is, or would be. No I/O.
    fn snapshot_path(&self, volume: &VolumeRef, snapshot: &str) -> Result<PathBuf, PoolError>;

    /// Keeps the present state of the volume, which may be in use.
    fn create_snapshot(&self, volume: &VolumeRef, snapshot: &str) -> Result<PathBuf, PoolError>;

    /// Removes it; no such snapshot is success.
    fn delete_snapshot(&self, volume: &VolumeRef, snapshot: &str) -> Result<(), PoolError>;

    /// The ids of the volume's snapshots, sorted.
    fn list_snapshots(&self, volume: &VolumeRef) -> Result<Vec<String>, PoolError>;

    /// Takes the volume back to the snapshot, in one step; its quota stays. The volume must not be in use.
    fn restore_snapshot(&self, volume: &VolumeRef, snapshot: &str) -> Result<(), PoolError>;

    /// Makes `to` a writable copy of the snapshot, as [`Pool::clone_volume`] does of a volume.
    fn clone_snapshot(&self, from: &VolumeRef, snapshot: &str, to: &VolumeRef) -> Result<PathBuf, PoolError>;
}
