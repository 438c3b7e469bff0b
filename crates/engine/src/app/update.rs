//! Changing an instance's configuration, devices and profiles; live where the key allows it.

use std::sync::Arc;

use stapes_instance::require;
use stapes_model::state::Status;
use stapes_storage::VolumeRef;
use stapes_store::Check;

use crate::{
    Engine, Error, Result,
    index::Stored,
    records::{self, Config, Record},
    shape,
};

use super::{Expanded, InstanceEdit, create::lock_name, instance_url, instances::limit_host};

impl Engine {
    /// Replaces what a client may write. `volatile.*` keys that the client leaves out are kept: they are the daemon's.
    /// Blocking.
    pub fn update_instance(&self, stored: &Stored<records::Instance>, edit: InstanceEdit) -> Result<()> {
        let _held = self.locks.take("instance", &lock_name(&stored.project, &stored.name), "update")?;
        let mut changed = (*stored.value).clone();
        changed.description = edit.description;
        changed.ephemeral = edit.ephemeral;
        changed.profiles = edit.profiles;
        changed.devices = edit.devices;
        changed.config = edit.config;
        changed.config.retain(|_, value| !value.is_empty());
        refuse_volatile(&stored.config, &changed.config)?;
        keep_volatile(&stored.config, &mut changed.config);
        let profiles = self.profiles_of(&changed)?;
        let expanded = self.check_expanded(&changed, &profiles)?;
        let before = self.expanded(stored);
        if super::create::root_pool(&expanded)? != stored.pool {
            return Err(Error::invalid("devices", "the root disk's pool cannot be changed here; move the instance"));
        }
        let running = self.status(stored) != Status::Stopped;
        if running {
            check_live(&changed, &before, &expanded)?;
        }
        let nics = self.managed_nics(stored)?;
        let (claims, _reservation) = self.update_nics(&mut changed, &expanded)?;
        if running && !claims.writes.is_empty() {
            return Err(Error::invalid(
                "devices",
                "a NIC's MAC or address cannot change while the instance runs; stop it first",
            ));
        }
        // First, because a pool may refuse a size: then nothing has changed.
        self.change_quota(stored, &before, &expanded)?;
        let check = Check::Unchanged { key: changed.key(), revision: stored.revision };
        if let Err(error) = self.store.commit(claims.check(check).put(changed.key(), changed.to_bytes())) {
            self.restore_quota(stored, &expanded, &before);
            return Err(error.into());
        }
        self.replace_reservations(&changed, nics)?;
        self.apply_limits_live(&changed)?;
        let url = instance_url(&changed.project, &changed.name);
        self.events.lifecycle(changed.project.as_str(), "instance-updated", &url, None, serde_json::Value::Null);
        Ok(())
    }

    /// Gives a running instance the limits of its present configuration.
    pub(crate) fn apply_limits_live(&self, instance: &records::Instance) -> Result<()> {
        let Some(live) = self.live.get(&instance.id) else { return Ok(()) };
        let expanded = self.expanded(instance);
        let limits = shape::of(instance.kind).limits(&expanded.config, &limit_host())?;
        Ok(live.running.update_limits(&limits)?)
    }

    /// Gives the root volume of an instance the size that its disk device asks for `after` a change; none lifts it.
    pub(crate) fn change_quota(&self, instance: &records::Instance, before: &Expanded, after: &Expanded) -> Result<()> {
        if after.root_size()? == before.root_size()? {
            return Ok(());
        }
        self.set_root_size(instance, after)
    }

    /// Takes a [`Engine::change_quota`] back; what cannot shrink again stays as it is.
    pub(crate) fn restore_quota(&self, instance: &records::Instance, after: &Expanded, before: &Expanded) {
        if let Err(error) = self.change_quota(instance, after, before) {
            let error = crate::chain(&error);
            tracing::warn!(instance = %instance.id, error, "its root keeps the size of a change that failed");
        }
    }

    pub(crate) fn set_root_size(&self, instance: &records::Instance, expanded: &Expanded) -> Result<()> {
        let (pool, volume) = (self.pool(&instance.pool)?, VolumeRef::instance(&instance.id));
        shape::of(instance.kind).set_size(&*pool, &volume, expanded.root_size()?)
    }

    /// A stored instance with the revision that the caller's tag was checked against.
    pub fn stored_instance(self: &Arc<Self>, id: &stapes_model::InstanceId) -> Result<Stored<records::Instance>> {
        self.index.read().instances.get(id).cloned().ok_or_else(|| Error::missing("instance", id))
    }
}

/// Refuses what cannot change while the instance runs, naming the key.
pub(crate) fn check_live(instance: &records::Instance, before: &Expanded, after: &Expanded) -> Result<()> {
    for (key, _) in before.config.iter().chain(&after.config) {
        let same = before.config.get(key) == after.config.get(key);
        if same || key.starts_with("volatile.") {
            continue;
        }
        if !stapes_model::keys::may_change_running(key) {
            return Err(Error::invalid(key, "cannot be changed while the instance runs; stop it first"));
        }
        if shape::of(instance.kind).is_hardware(key) {
            require(instance.kind, "limits.live").map_err(|error| Error::invalid(key, error.to_string()))?;
        }
    }
    let name = before.devices.keys().chain(after.devices.keys()).find(|name| {
        let (old, new) = (before.devices.get(*name), after.devices.get(*name));
        old != new && !only_live_changes(old, new)
    });
    if let Some(name) = name {
        return Err(Error::invalid(
            format!("devices.{name}"),
            "devices cannot be added, changed or removed while the instance runs yet; stop it first",
        ));
    }
    if before.root_size()? != after.root_size()? {
        require(instance.kind, "disk.resize.live")?;
    }
    Ok(())
}

/// Device keys that a running instance takes over at once.
fn only_live_changes(
    old: Option<&std::collections::BTreeMap<String, String>>,
    new: Option<&std::collections::BTreeMap<String, String>>,
) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let root = old.get("path").is_some_and(|path| path == "/");
    let changed = old.iter().chain(new).filter(|(key, _)| old.get(*key) != new.get(*key));
    root && changed.into_iter().all(|(key, _)| key == "size")
}

/// A client writes back the `volatile.*` keys that it read; new or changed ones must be known to the table.
fn refuse_volatile(old: &Config, new: &Config) -> Result<()> {
    let changed = new.iter().filter(|(key, value)| key.starts_with("volatile.") && old.get(*key) != Some(value));
    let changed: Config = changed.map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(stapes_model::keys::validate_profile_config(&changed)?)
}

fn keep_volatile(old: &Config, new: &mut Config) {
    for (key, value) in old.iter().filter(|(key, _)| key.starts_with("volatile.")) {
        new.entry(key.clone()).or_insert_with(|| value.clone());
    }
}
