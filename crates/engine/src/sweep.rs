//! What no record and no open intent accounts for is removed: one function a kind of thing, each by its name alone.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use stapes_model::{InstanceId, NetworkName};
use stapes_storage::{VolumeKind, VolumeRef};

use crate::{Engine, app::networks::service_names};

impl Engine {
    /// Removes what an earlier daemon left half-made or half-removed outside the drivers' own sweeps; says what.
    pub(crate) fn sweep_files(&self) -> Vec<String> {
        let mut swept = self.sweep_volumes();
        self.sweep_instance_directories(&mut swept);
        self.sweep_networks(&mut swept);
        let uploads = entries(&self.paths.images()).into_iter().filter(|(name, _)| name.starts_with(".upload-"));
        remove_files(uploads, &mut swept);
        let half_built = entries(&self.paths.state.join("cache/images"));
        remove_files(half_built.into_iter().filter(|(name, _)| name.starts_with(".tmp-")), &mut swept);
        self.sweep_builds();
        swept
    }

    /// Half-made and half-removed volumes have names of their own. Whole ones are never touched here: those belong to a
    /// record or to an intent.
    fn sweep_volumes(&self) -> Vec<String> {
        let mut swept = Vec::new();
        for name in self.pool_names() {
            let Ok(pool) = self.pool(&name) else { continue };
            for kind in VolumeKind::ALL {
                let unfinished = match pool.unfinished(kind) {
                    Ok(unfinished) => unfinished,
                    Err(error) => {
                        tracing::warn!(pool = name.as_str(), %error, "half-made volumes could not be looked for");
                        continue;
                    }
                };
                for id in unfinished {
                    let Ok(volume) = VolumeRef::new(kind, id) else { continue };
                    match pool.delete_volume(&volume) {
                        Ok(()) => swept.push(format!("half-made volume {name}/{volume}")),
                        Err(error) => {
                            tracing::warn!(pool = name.as_str(), %volume, %error, "a half-made volume is left");
                        }
                    }
                }
            }
        }
        swept
    }

    fn sweep_instance_directories(&self, swept: &mut Vec<String>) {
        let known: HashSet<InstanceId> = self.index.read().instances.keys().copied().collect();
        for place in [self.paths.run.join("instances"), self.paths.state.join("logs")] {
            for (name, path) in entries(&place) {
                if name.parse::<InstanceId>().is_ok_and(|id| !known.contains(&id)) {
                    remove_directory(&path, swept);
                }
            }
        }
    }

    /// Services and directories of networks that have no record.
    fn sweep_networks(&self, swept: &mut Vec<String>) {
        let known = self.network_names();
        let wanted: HashSet<String> = known.iter().flat_map(service_names).collect();
        // A nursery that cannot be asked has its error told by the networks that are brought up next.
        for service in self.services.services().unwrap_or_default() {
            if wanted.contains(&service) {
                continue;
            }
            match self.services.stop_service(&service) {
                Ok(()) => swept.push(format!("service {service}")),
                Err(error) => tracing::warn!(service, %error, "a service of a deleted network is left"),
            }
        }
        for (name, path) in entries(&self.paths.state.join("networks")) {
            if name.parse::<NetworkName>().is_ok_and(|name| !known.contains(&name)) {
                remove_directory(&path, swept);
            }
        }
    }

    /// Roots of images that were being put together: large, so removed beside everything else. The list is made now,
    /// so that no new build is touched.
    fn sweep_builds(&self) {
        let builds = entries(&self.paths.state.join("cache/build"));
        if builds.is_empty() {
            return;
        }
        std::thread::spawn(move || {
            let mut swept = Vec::new();
            for (_, path) in &builds {
                // The kernel may still be ending the processes that were writing there.
                for _ in 0..50 {
                    match std::fs::remove_dir_all(path) {
                        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                            std::thread::sleep(std::time::Duration::from_millis(100));
                        }
                        _ => break,
                    }
                }
                remove_directory(path, &mut swept);
            }
            tracing::info!(count = swept.len(), "removed unfinished image builds");
        });
    }
}

/// Names and paths in a directory; none where it is not there.
fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    found.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

fn remove_files(files: impl Iterator<Item = (String, PathBuf)>, swept: &mut Vec<String>) {
    for (_, path) in files {
        match std::fs::remove_file(&path) {
            Ok(()) => swept.push(path.display().to_string()),
            Err(error) => tracing::warn!(path = %path.display(), %error, "a leftover file stays"),
        }
    }
}

fn remove_directory(path: &Path, swept: &mut Vec<String>) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => swept.push(path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a leftover directory stays"),
    }
}
