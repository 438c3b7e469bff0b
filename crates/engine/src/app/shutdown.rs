//! The host goes down: stop the instances in order, then take everything of ours away.

use std::sync::Arc;

use stapes_storage::PoolPaths;

use crate::{Engine, Result, index::Stored, records};

use super::StopMode;

impl Engine {
    /// Stops all instances (highest `boot.stop.priority` first), networks and services, and closes the pools. What
    /// cannot be stopped gracefully in its time is killed. `force` kills at once.
    pub async fn shut_down_host(self: &Arc<Self>, force: bool) -> Result<()> {
        let mut running: Vec<_> =
            self.live.ids().iter().filter_map(|id| self.index.read().instances.get(id).cloned()).collect();
        running.sort_by_key(|instance| std::cmp::Reverse(self.stop_priority(instance)));
        let mut groups: Vec<Vec<Stored<records::Instance>>> = Vec::new();
        for instance in running {
            match groups.last_mut() {
                Some(group) if self.stop_priority(&group[0]) == self.stop_priority(&instance) => group.push(instance),
                _ => groups.push(vec![instance]),
            }
        }
        for group in groups {
            let stops = group.into_iter().map(|instance| {
                let engine = Arc::clone(self);
                tokio::spawn(async move { engine.stop_for_shutdown(&instance, force).await })
            });
            for stop in stops.collect::<Vec<_>>() {
                let _ = stop.await;
            }
        }
        let engine = Arc::clone(self);
        self.lanes
            .slow(move || {
                engine.close_host();
                Ok(())
            })
            .await
    }

    fn stop_priority(&self, instance: &records::Instance) -> i64 {
        let expanded = self.expanded(instance);
        expanded.config.get("boot.stop.priority").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    async fn stop_for_shutdown(self: &Arc<Self>, instance: &records::Instance, force: bool) {
        let expanded = self.expanded(instance);
        let action = expanded.config.get("boot.host_shutdown_action").map(String::as_str);
        let patience = Some(self.host_shutdown_patience(instance));
        let first =
            if force || action == Some("force-stop") { StopMode::Forced } else { StopMode::Graceful { patience } };
        for mode in [first, StopMode::Forced] {
            let stopped = match self.stop_instance(&instance.project, &instance.name, mode, None) {
                Ok(operation) => operation.finished().await.err,
                Err(error) => crate::chain(&error),
            };
            if stopped.is_empty() {
                // It ran when the host went down, so it is to run when the host is up again.
                if let Err(error) = self.record_power(&instance.id, true) {
                    tracing::debug!(error = crate::chain(&error), "an ephemeral instance is gone");
                }
                return;
            }
            tracing::warn!(instance = instance.name.as_str(), error = stopped, "could not be stopped");
        }
    }

    /// Takes networks, services and pools off the host.
    fn close_host(&self) {
        self.mark_down();
        let networks: Vec<_> = self.index.read().networks.values().cloned().collect();
        for network in networks {
            if let Err(error) = self.network_down(&network) {
                tracing::warn!(network = network.name.as_str(), error = crate::chain(&error), "a network is left");
            }
        }
        for service in self.services.services().unwrap_or_default() {
            if let Err(error) = self.services.stop_service(&service) {
                tracing::warn!(service, %error, "a service is left");
            }
        }
        self.drivers().iter().rev().for_each(|driver| driver.close());
        for name in self.pool_names() {
            let paths: PoolPaths = self.paths.pool(&name);
            self.forget_pool(&name);
            // A pool that is no mount of its own (a directory, a path on the host's btrfs) answers EINVAL or ENOENT.
            match rustix::mount::unmount(&paths.mount, rustix::mount::UnmountFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                Err(error) => tracing::warn!(pool = name.as_str(), %error, "a pool stays mounted"),
            }
        }
        if let Err(error) = self.paths.close_run() {
            tracing::warn!(%error, "the directory for sockets stays mounted");
        }
    }
}
