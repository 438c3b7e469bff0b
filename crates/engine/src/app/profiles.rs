//! Profiles: make, change, rename, delete; and what a change means for the instances that use them.

use stapes_instance::require;
use stapes_model::{ProfileName, ProjectName, state::Status};
use stapes_store::{Check, Transaction};

use crate::{
    Engine, Error, Result,
    index::Stored,
    records::{self, Config, Devices, Record},
    reserve::Reservation,
};

use super::{Expanded, nics::ManagedNic};

/// What a profile's new version changes in one instance.
struct Change {
    changed: records::Instance,
    claims: Transaction,
    /// Held until the claims are committed.
    _reservation: Reservation,
    before: Expanded,
    after: Expanded,
    /// What dnsmasq knows of it until then.
    nics: Vec<ManagedNic>,
}

impl Engine {
    pub fn profile(&self, project: &ProjectName, name: &ProfileName) -> Result<Stored<records::Profile>> {
        self.index.read().profile(project, name).cloned().ok_or_else(|| Error::missing("profile", name))
    }

    pub fn create_profile(&self, profile: records::Profile) -> Result<()> {
        check_profile(&profile.config, &profile.devices)?;
        if self.index.read().profile(&profile.project, &profile.name).is_some() {
            return Err(Error::exists("profile", &profile.name));
        }
        self.put(&profile, Check::Absent(profile.key()))?;
        self.profile_event("profile-created", &profile);
        Ok(())
    }

    /// Replaces a profile's content. Every instance that uses it must stay valid, else nothing changes; NICs that come
    /// or go with it are given what they need, or give it back, in the same transaction.
    pub fn update_profile(&self, profile: &records::Profile) -> Result<()> {
        check_profile(&profile.config, &profile.devices)?;
        let stored = self.profile(&profile.project, &profile.name)?;
        let users = self.instances_with_profile(&profile.project, &profile.name);
        let mut transaction = Transaction::new().replace(profile.key(), stored.revision, profile.to_bytes());
        let mut changes = Vec::new();
        for instance in &users {
            let change = self.change_by_profile(instance, profile).map_err(|error| {
                Error::invalid(
                    format!("profile {}", profile.name),
                    format!("instance {} uses it: {error}", instance.name),
                )
            })?;
            transaction.checks.extend(change.claims.checks.iter().cloned());
            transaction.writes.extend(change.claims.writes.iter().cloned());
            if change.changed != *instance.value {
                transaction = transaction.replace(instance.key(), instance.revision, change.changed.to_bytes());
            }
            changes.push(change);
        }
        let sized =
            changes.iter().try_for_each(|change| self.change_quota(&change.changed, &change.before, &change.after));
        if let Err(error) = sized.and_then(|()| Ok(self.store.commit(transaction)?)) {
            for change in &changes {
                self.restore_quota(&change.changed, &change.after, &change.before);
            }
            return Err(error);
        }
        for change in changes {
            self.replace_reservations(&change.changed, change.nics)?;
            self.apply_limits_live(&change.changed)?;
        }
        self.profile_event("profile-updated", profile);
        Ok(())
    }

    /// What a new version of a profile means for one instance that uses it.
    fn change_by_profile(&self, instance: &records::Instance, profile: &records::Profile) -> Result<Change> {
        let mut profiles = self.profiles_of(instance)?;
        for used in profiles.iter_mut().filter(|used| used.name == profile.name) {
            used.clone_from(profile);
        }
        let after = self.check_expanded(instance, &profiles)?;
        if super::create::root_pool(&after)? != instance.pool {
            return Err(Error::invalid("devices", "the root disk's pool cannot be changed here; move the instance"));
        }
        let mut changed = instance.clone();
        let (claims, reservation) = self.update_nics(&mut changed, &after)?;
        if !claims.writes.is_empty() && self.status(instance) != Status::Stopped {
            return Err(Error::Refused("it runs, and its NICs would change; stop it first".to_owned()));
        }
        let (before, nics) = (self.expanded(instance), self.managed_nics(instance)?);
        if before.root_size()? != after.root_size()? && self.status(instance) != Status::Stopped {
            require(instance.kind, "disk.resize.live")?;
        }
        Ok(Change { changed, claims, _reservation: reservation, before, after, nics })
    }

    pub fn rename_profile(&self, project: &ProjectName, name: &ProfileName, to: &ProfileName) -> Result<()> {
        refuse_default(name, "renamed")?;
        let stored = self.profile(project, name)?;
        if self.index.read().profile(project, to).is_some() {
            return Err(Error::exists("profile", to));
        }
        let mut renamed = (*stored.value).clone();
        renamed.name = to.clone();
        let mut transaction = Transaction::new()
            .unchanged(stored.key(), stored.revision)
            .delete(stored.key())
            .create(renamed.key(), renamed.to_bytes());
        for instance in self.instances_with_profile(project, name) {
            let mut changed = (*instance.value).clone();
            changed.profiles.iter_mut().filter(|used| *used == name).for_each(|used| *used = to.clone());
            transaction = transaction.replace(changed.key(), instance.revision, changed.to_bytes());
        }
        self.store.commit(transaction)?;
        self.profile_event("profile-renamed", &renamed);
        Ok(())
    }

    pub fn delete_profile(&self, project: &ProjectName, name: &ProfileName) -> Result<()> {
        refuse_default(name, "deleted")?;
        let stored = self.profile(project, name)?;
        let users: Vec<_> =
            self.instances_with_profile(project, name).iter().map(|instance| instance.name.to_string()).collect();
        if !users.is_empty() {
            return Err(Error::InUse { what: "profile", name: name.to_string(), users: users.join(", ") });
        }
        self.store.commit(Transaction::new().unchanged(stored.key(), stored.revision).delete(stored.key()))?;
        self.profile_event("profile-deleted", &stored);
        Ok(())
    }

    pub fn instances_with_profile(&self, project: &ProjectName, name: &ProfileName) -> Vec<Stored<records::Instance>> {
        let tables = self.index.read();
        tables.instances_of(Some(project)).filter(|instance| instance.profiles.contains(name)).cloned().collect()
    }

    fn profile_event(&self, action: &str, profile: &records::Profile) {
        let source = super::with_project(format!("/1.0/profiles/{}", profile.name), &profile.project);
        self.events.lifecycle(profile.project.as_str(), action, &source, None, serde_json::Value::Null);
    }
}

fn refuse_default(name: &ProfileName, done: &str) -> Result<()> {
    if name.as_str() == "default" {
        return Err(Error::Refused(format!("The \"default\" profile cannot be {done}")));
    }
    Ok(())
}

/// A profile serves both types, so a key is accepted when either type knows it.
fn check_profile(config: &Config, devices: &Devices) -> Result<()> {
    if let Some(key) = config.keys().find(|key| key.starts_with("volatile.") || key.starts_with("image.")) {
        return Err(Error::invalid(key, "belongs to one instance and cannot be part of a profile"));
    }
    stapes_model::keys::validate_profile_config(config)?;
    for (name, device) in devices {
        stapes_device::parse(name, device)?;
    }
    Ok(())
}
