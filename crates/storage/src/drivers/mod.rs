//! The drivers by name, and what is the same for all of them.

mod btrfs;
mod dir;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::{Pool, PoolConfig, PoolError, PoolPaths, config, host};

/// A driver that this build has.
pub struct DriverInfo {
    pub name: &'static str,
    /// Whether its pools are on another machine.
    pub remote: bool,
    probe: fn() -> Option<String>,
    create: CreateFn,
    open: OpenFn,
    destroy: fn(&PoolConfig, &PoolPaths) -> Result<(), PoolError>,
}

/// Returns the keys that it completed.
type CreateFn = fn(&PoolConfig, &PoolPaths) -> Result<Vec<(&'static str, String)>, PoolError>;

type OpenFn = fn(&PoolConfig, &PoolPaths) -> Result<Arc<dyn Pool>, PoolError>;

impl DriverInfo {
    /// The version of the tools behind it; `None` where this host cannot make such pools. May run a program.
    pub fn version(&self) -> Option<String> {
        (self.probe)()
    }
}

const DRIVERS: &[DriverInfo] = &[
    DriverInfo {
        name: "btrfs",
        remote: false,
        probe: btrfs::version,
        create: btrfs::create,
        open: btrfs::open,
        destroy: btrfs::destroy,
    },
    DriverInfo {
        name: "dir",
        remote: false,
        probe: || Some("1".to_owned()),
        create: dir::create,
        open: dir::open,
        destroy: dir::destroy,
    },
];

/// The drivers of this build.
pub fn drivers() -> &'static [DriverInfo] {
    DRIVERS
}

fn driver(pool: &PoolConfig) -> Result<&'static DriverInfo, PoolError> {
    let unknown = || PoolError::UnknownDriver { driver: pool.driver.chars().take(80).collect() };
    DRIVERS.iter().find(|driver| driver.name == pool.driver).ok_or_else(unknown)
}

/// The best pool that this machine offers: a path where the state directory's file system can share data between
/// copies, else a btrfs loop file where kernel and tools have btrfs, else plain copies.
pub fn default_config(state_dir: &Path) -> PoolConfig {
    let magic = host::magic(state_dir).unwrap_or(0);
    #[allow(clippy::unwrap_used, reason = "a constant that is a valid name")]
    let name: stapes_model::PoolName = "default".parse().unwrap();
    let mount = PoolPaths::new(state_dir, &name).mount.display().to_string();
    let (driver, config) = if magic == host::BTRFS {
        ("btrfs", BTreeMap::from([("source".to_owned(), mount)]))
    } else if magic == host::XFS && host::can_reflink(host::existing(state_dir)) {
        ("dir", BTreeMap::new())
    } else if host::has_program("mkfs.btrfs") && Path::new("/dev/loop-control").exists() && host::kernel_has_btrfs() {
        ("btrfs", BTreeMap::new())
    } else {
        ("dir", BTreeMap::new())
    };
    PoolConfig { name, driver: driver.to_owned(), config }
}

/// Refuses an unknown driver, an unknown key or an ill-typed value, by name. No I/O.
pub fn validate(pool: &PoolConfig) -> Result<(), PoolError> {
    config::check(pool, driver(pool)?.name)
}

/// Makes the pool, mounts it where it is mounted, and returns its configuration as completed (`source`, `size`).
///
/// What was made is undone on failure. Again is success, so that an interrupted creation is simply repeated.
pub fn create(pool: &PoolConfig, paths: &PoolPaths) -> Result<BTreeMap<String, String>, PoolError> {
    validate(pool)?;
    let completed = (driver(pool)?.create)(pool, paths)?;
    let mut config = pool.config.clone();
    config.extend(completed.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(config)
}

/// Attaches and mounts the pool where it is not, and checks that it is there. `config` is as [`create`] completed it.
///
/// Mount and loop device outlive the process; the next call finds them. `Vanished` where the pool is not there.
pub fn open(pool: &PoolConfig, paths: &PoolPaths) -> Result<Arc<dyn Pool>, PoolError> {
    (driver(pool)?.open)(pool, paths)
}

/// Unmounts, detaches and deletes the pool; `NotEmpty` while volumes remain. No such pool is success.
pub fn destroy(pool: &PoolConfig, paths: &PoolPaths) -> Result<(), PoolError> {
    (driver(pool)?.destroy)(pool, paths)
}
