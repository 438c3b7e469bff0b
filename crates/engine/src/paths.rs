use std::path::{Path, PathBuf};

use stapes_model::{Fingerprint, InstanceId, NetworkName, PoolName};
use stapes_storage::PoolPaths;

/// Every path that the engine uses, derived from the state directory and from ids.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `STAPES_DIR`: survives a reboot.
    pub state: PathBuf,
    /// Sockets of the nursery and the shims; its content means nothing after a reboot.
    pub run: PathBuf,
}

impl Paths {
    pub fn new(state: impl Into<PathBuf>) -> Self {
        let state = state.into();
        let run = state.join("run");
        Self { state, run }
    }

    pub fn database(&self) -> PathBuf {
        self.state.join("database/store.db")
    }

    pub fn journal(&self) -> PathBuf {
        self.state.join("database/journal.db")
    }

    /// What can be made again.
    pub fn cache(&self) -> PathBuf {
        self.state.join("cache")
    }

    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    pub fn image_meta(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.images().join(fingerprint.as_str())
    }

    pub fn image_rootfs(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.images().join(format!("{fingerprint}.rootfs"))
    }

    pub fn pool(&self, pool: &PoolName) -> PoolPaths {
        PoolPaths { mount: self.state.join("storage-pools").join(pool.as_str()), disks: self.state.join("disks") }
    }

    pub fn network(&self, network: &NetworkName) -> PathBuf {
        self.state.join("networks").join(network.as_str())
    }

    pub fn instance_run(&self, id: &InstanceId) -> PathBuf {
        self.run.join("instances").join(id.as_str())
    }

    pub fn instance_log(&self, id: &InstanceId) -> PathBuf {
        self.state.join("logs").join(id.as_str())
    }

    /// Makes the directories that an instance's driver fills; repeating it changes nothing.
    pub fn ensure_instance(&self, id: &InstanceId) -> crate::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for directory in [self.instance_run(id), self.instance_log(id)] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|error| crate::Error::failed(format!("failed to make {}", directory.display()), error))?;
        }
        Ok(())
    }

    /// Directories that must exist before anything else, with the mode of each.
    pub fn skeleton(&self) -> Vec<(PathBuf, u32)> {
        let at = |name: &str| self.state.join(name);
        vec![
            (self.state.clone(), 0o711),
            (at("database"), 0o700),
            (at("images"), 0o700),
            (at("disks"), 0o700),
            (at("logs"), 0o700),
            (at("networks"), 0o711),
            (at("storage-pools"), 0o711),
            (self.cache(), 0o700),
            (self.run.clone(), 0o711),
            (self.run.join("instances"), 0o700),
        ]
    }

    /// Makes the skeleton; repeating it changes nothing. The directory for sockets gets a tmpfs of its own where it is on
    /// a disk: binding a socket there costs a journal write of some 2 ms, and a reboot erases it as it should be.
    pub fn ensure(&self) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for (path, mode) in self.skeleton() {
            std::fs::create_dir_all(&path)?;
            if path == self.run && !on_tmpfs(&path)? {
                let flags = rustix::mount::MountFlags::NOSUID
                    | rustix::mount::MountFlags::NODEV
                    | rustix::mount::MountFlags::NOEXEC;
                rustix::mount::mount("stapes-run", &path, "tmpfs", flags, c"mode=0711,size=64m")?;
            }
            set_mode(&path, mode, std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Unmounts what [`Paths::ensure`] mounted; nothing mounted is success.
    pub fn close_run(&self) -> std::io::Result<()> {
        match rustix::mount::unmount(&self.run, rustix::mount::UnmountFlags::DETACH) {
            Err(error) if error != rustix::io::Errno::INVAL => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn on_tmpfs(path: &Path) -> std::io::Result<bool> {
    /// From linux/magic.h.
    const TMPFS: i64 = 0x0102_1994;
    Ok(rustix::fs::statfs(path)?.f_type as i64 == TMPFS)
}

fn set_mode(path: &Path, mode: u32, wanted: std::fs::Permissions) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(path)?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    std::fs::set_permissions(path, wanted)
}
