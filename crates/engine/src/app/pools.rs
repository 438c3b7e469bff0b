//! Storage pools: make, open at start, change, destroy.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use serde_json::json;
use stapes_model::{InstanceId, InstanceType, PoolName};
use stapes_storage::{VolumeKind, VolumeRef};
use stapes_store::{Check, Transaction};

use crate::{
    Engine, Error, Result,
    engine::pool_config,
    index::Stored,
    records::{self, Record},
};

const NOT_MAPPED: &str =
    "its file system cannot be idmapped: the files of an instance change owners at its first start, which takes time";

/// Keys that describe where the pool is; they stay as they were made.
const FIXED: [&str; 3] = ["source", "size", "volatile.initial_source"];

impl Engine {
    pub fn pool_record(&self, name: &PoolName) -> Result<Stored<records::Pool>> {
        self.index.read().pool(name).cloned().ok_or_else(|| Error::missing("storage pool", name))
    }

    /// Makes a pool on the host and records it with its completed configuration.
    pub async fn create_pool(self: &Arc<Self>, mut pool: records::Pool) -> Result<()> {
        let config = pool_config(&pool);
        stapes_storage::validate(&config)?;
        if self.index.read().pool(&pool.name).is_some() {
            return Err(Error::exists("storage pool", &pool.name));
        }
        let held = self.locks.take("storage pool", pool.name.as_str(), "create")?;
        let engine = Arc::clone(self);
        let work = move || {
            let _held = held;
            let paths = engine.paths.pool(&pool.name);
            let plan = json!({ "pool": &pool });
            engine.journaled("create-pool", plan, || {
                pool.config = stapes_storage::create(&config, &paths)?;
                let stored = engine.put(&pool, Check::Absent(pool.key())).and_then(|_| engine.pool(&pool.name));
                stored.map(drop).inspect_err(|_| {
                    // The pool is empty and ours: made a moment ago.
                    let _ = stapes_storage::destroy(&pool_config(&pool), &paths);
                })
            })?;
            engine.probe_pool(&pool.name);
            engine.pool_event("storage-pool-created", &pool);
            Ok(())
        };
        self.lanes.slow(work).await
    }

    /// Changes what may change: the description, and keys that the driver can change on a living pool.
    pub fn update_pool(&self, name: &PoolName, description: String, config: records::Config) -> Result<()> {
        let stored = self.pool_record(name)?;
        let mut changed = (*stored.value).clone();
        for key in FIXED {
            if config.get(key).is_some_and(|value| Some(value) != stored.config.get(key)) {
                return Err(Error::invalid(key, "cannot be changed on an existing pool"));
            }
        }
        changed.description = description;
        let kept = stored.config.iter().filter(|(key, _)| FIXED.contains(&key.as_str()));
        changed.config = config;
        changed.config.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
        stapes_storage::validate(&pool_config(&changed))?;
        self.put(&changed, Check::Unchanged { key: changed.key(), revision: stored.revision })?;
        self.pool_event("storage-pool-updated", &changed);
        Ok(())
    }

    /// Removes an unused pool from the host and from the store.
    pub async fn delete_pool(self: &Arc<Self>, name: &PoolName) -> Result<()> {
        let stored = self.pool_record(name)?;
        let users = self.pool_users(name);
        if !users.is_empty() {
            return Err(Error::InUse { what: "storage pool", name: name.to_string(), users: users.join(", ") });
        }
        let held = self.locks.take("storage pool", name.as_str(), "delete")?;
        let engine = Arc::clone(self);
        let work = move || {
            let _held = held;
            let plan = json!({ "name": &stored.name });
            engine.journaled("delete-pool", plan, || engine.remove_pool(&stored))?;
            engine.pool_event("storage-pool-deleted", &stored);
            Ok(())
        };
        self.lanes.slow(work).await
    }

    /// Takes a pool without instances off the host, then its record out of the store. May run twice.
    pub(crate) fn remove_pool(&self, stored: &Stored<records::Pool>) -> Result<()> {
        // One that cannot be opened or listed may be half removed already; what is left is the driver's to judge.
        if let Ok(pool) = self.pool(&stored.name) {
            for image in pool.list(VolumeKind::Image).unwrap_or_default() {
                pool.delete_volume(&VolumeRef::new(VolumeKind::Image, image)?)?;
            }
        }
        self.forget_pool(&stored.name);
        stapes_storage::destroy(&pool_config(stored), &self.paths.pool(&stored.name))?;
        self.store.commit(Transaction::new().delete(stored.key()))?;
        Ok(())
    }

    /// URLs of the instances and profiles that name the pool.
    pub fn pool_users(&self, name: &PoolName) -> Vec<String> {
        let tables = self.index.read();
        let instances = tables.instances_of(None).filter(|instance| instance.pool == *name);
        let mut users: Vec<_> =
            instances.map(|instance| super::instance_url(&instance.project, &instance.name)).collect();
        let uses = |profile: &records::Profile| {
            profile.devices.values().any(|device| device.get("pool").is_some_and(|pool| pool == name.as_str()))
        };
        let profiles = tables.profiles.values().filter(|profile| uses(profile));
        users.extend(
            profiles.map(|profile| super::with_project(format!("/1.0/profiles/{}", profile.name), &profile.project)),
        );
        users
    }

    /// Opens every pool; one that cannot be opened is reported and does not keep the others from serving.
    pub(crate) fn open_pools(&self) {
        for name in self.pool_names() {
            if let Err(error) = self.pool(&name) {
                tracing::error!(pool = name.as_str(), error = crate::chain(&error), "a storage pool is unavailable");
            }
        }
    }

    /// Asks what the mounts of every pool can do. Blocking.
    pub(crate) fn probe_pools(&self) {
        for name in self.pool_names() {
            self.probe_pool(&name);
        }
    }

    /// Asks whether the mounts of a pool can show other owners, and says so once where they cannot.
    fn probe_pool(&self, name: &PoolName) {
        let asked = self.pool(name).and_then(|pool| {
            let volume = pool.volume_path(&VolumeRef::new(VolumeKind::Instance, "probe")?);
            let directory = volume.parent().unwrap_or(&volume);
            Ok(self.driver(InstanceType::Container)?.maps_owners(directory)?)
        });
        match asked {
            Ok(can) => {
                let known = self.mapping.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), can);
                if !can && known.is_none() {
                    tracing::warn!(pool = name.as_str(), "{NOT_MAPPED}");
                }
            }
            Err(error) => {
                tracing::warn!(pool = name.as_str(), error = crate::chain(&error), "its mounts could not be tried");
            }
        }
    }

    /// What a pool does without on this host, and why.
    pub fn pool_shortcomings(&self, name: &PoolName) -> Vec<String> {
        let mut all = self.pool(name).map(|pool| pool.shortcomings()).unwrap_or_default();
        if self.mapping.lock().unwrap_or_else(PoisonError::into_inner).get(name) == Some(&false) {
            all.push(NOT_MAPPED.to_owned());
        }
        all
    }

    /// One line for `info`: how the roots of instances get owners of their own.
    pub fn describe_mapping(&self) -> String {
        let mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut without: Vec<_> = mapping.iter().filter(|(_, can)| !**can).map(|(name, _)| name.as_str()).collect();
        without.sort_unstable();
        if without.is_empty() {
            return "used".to_owned();
        }
        format!("used, but not on {}: files change owners at an instance's first start", without.join(", "))
    }

    pub(crate) fn pool_names(&self) -> Vec<PoolName> {
        self.index.read().pools.values().map(|pool| pool.name.clone()).collect()
    }

    /// Bytes that each instance's root uses, for the pools that can tell.
    pub fn root_usages(&self) -> HashMap<InstanceId, u64> {
        let mut usages = HashMap::new();
        for name in self.pool_names() {
            let Ok(found) = self.pool(&name).and_then(|pool| Ok(pool.usages(VolumeKind::Instance)?)) else { continue };
            usages.extend(found.into_iter().filter_map(|(id, bytes)| Some((id.parse().ok()?, bytes))));
        }
        usages
    }

    fn pool_event(&self, action: &str, pool: &records::Pool) {
        let source = format!("/1.0/storage-pools/{}", pool.name);
        self.events.lifecycle("default", action, &source, None, serde_json::Value::Null);
    }
}
