//! The in-memory view of all objects, fed only by the store's watch.
//!
//! Reads never touch the database. Because the store calls the watch before a commit returns, a caller always sees its
//! own writes. Nothing here is written from the writer's side, so that a store shared by several hosts works the same.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, RwLock, RwLockReadGuard},
};

use stapes_model::{AliasName, Fingerprint, InstanceId, InstanceName, NetworkName, PoolName, ProfileName, ProjectName};
use stapes_store::{Change, Entry, Revision};

use crate::records::{self, Record};

/// An object with the revision under which it was stored.
#[derive(Debug)]
pub struct Stored<T> {
    pub value: Arc<T>,
    pub revision: Revision,
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), revision: self.revision }
    }
}

impl<T> std::ops::Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// All objects of one kind, in the order of their store keys.
type Table<T> = BTreeMap<String, Stored<T>>;

#[derive(Debug, Default)]
pub struct Tables {
    pub instances: HashMap<InstanceId, Stored<records::Instance>>,
    /// `instance-name/<project>/<name>` → id.
    pub names: BTreeMap<String, InstanceId>,
    pub profiles: Table<records::Profile>,
    pub pools: Table<records::Pool>,
    pub networks: Table<records::Network>,
    pub images: Table<records::Image>,
    pub aliases: Table<records::ImageAlias>,
    pub projects: Table<records::Project>,
    pub server: Option<Stored<records::Server>>,
    /// `claim/…` rows, and who holds each.
    pub claims: HashMap<String, String>,
}

#[derive(Debug, Default)]
pub struct Index {
    tables: RwLock<Tables>,
}

impl Index {
    /// The tables, for as long as the guard lives; keep that short, a commit waits for it.
    pub fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes changes in; called by the store's watch, in order.
    pub fn apply(&self, changes: &[Change]) {
        let mut tables = self.tables.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Put(entry) => tables.put(entry),
                Change::Deleted { key, .. } => tables.delete(key),
            }
        }
    }
}

impl Tables {
    fn put(&mut self, entry: &Entry) {
        let key = entry.key.as_str();
        if key.starts_with(records::Instance::PREFIX) {
            if let Some(stored) = decode::<records::Instance>(entry) {
                self.instances.insert(stored.id, stored);
            }
        } else if key.starts_with("instance-name/") {
            if let Some(id) = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()) {
                self.names.insert(key.to_owned(), id);
            }
        } else if key.starts_with("claim/") {
            self.claims.insert(key.to_owned(), String::from_utf8_lossy(&entry.value).into_owned());
        } else if key.starts_with(records::Server::PREFIX) {
            self.server = decode(entry);
        } else {
            self.put_table(entry);
        }
    }

    fn put_table(&mut self, entry: &Entry) {
        fn insert<T: Record>(table: &mut Table<T>, entry: &Entry) -> bool {
            let ours = entry.key.starts_with(T::PREFIX);
            if ours && let Some(stored) = decode(entry) {
                table.insert(entry.key.clone(), stored);
            }
            ours
        }
        let known = insert(&mut self.profiles, entry)
            || insert(&mut self.pools, entry)
            || insert(&mut self.networks, entry)
            || insert(&mut self.images, entry)
            || insert(&mut self.aliases, entry)
            || insert(&mut self.projects, entry);
        if !known {
            tracing::warn!(key = entry.key, "the store holds an object of a kind this version does not know");
        }
    }

    fn delete(&mut self, key: &str) {
        if let Some(id) = key.strip_prefix(records::Instance::PREFIX) {
            if let Ok(id) = id.parse() {
                self.instances.remove(&id);
            }
        } else if key.starts_with("claim/") {
            self.claims.remove(key);
        } else if key.starts_with(records::Server::PREFIX) {
            self.server = None;
        } else {
            self.names.remove(key);
            self.profiles.remove(key);
            self.pools.remove(key);
            self.networks.remove(key);
            self.images.remove(key);
            self.aliases.remove(key);
            self.projects.remove(key);
        }
    }

    pub fn instance(&self, project: &ProjectName, name: &InstanceName) -> Option<&Stored<records::Instance>> {
        self.instances.get(self.names.get(&records::instance_name_key(project, name))?)
    }

    /// The instances of a project in the order of their names; `None` means of all projects.
    pub fn instances_of<'a>(
        &'a self,
        project: Option<&'a ProjectName>,
    ) -> impl Iterator<Item = &'a Stored<records::Instance>> {
        self.names
            .values()
            .filter_map(|id| self.instances.get(id))
            .filter(move |instance| project.is_none_or(|project| *project == instance.project))
    }

    pub fn profile(&self, project: &ProjectName, name: &ProfileName) -> Option<&Stored<records::Profile>> {
        self.profiles.get(&records::profile_key(project, name))
    }

    pub fn pool(&self, name: &PoolName) -> Option<&Stored<records::Pool>> {
        self.pools.get(&format!("pool/{name}"))
    }

    pub fn network(&self, name: &NetworkName) -> Option<&Stored<records::Network>> {
        self.networks.get(&format!("network/{name}"))
    }

    pub fn image(&self, project: &ProjectName, fingerprint: &Fingerprint) -> Option<&Stored<records::Image>> {
        self.images.get(&records::image_key(project, fingerprint))
    }

    pub fn alias(&self, project: &ProjectName, name: &AliasName) -> Option<&Stored<records::ImageAlias>> {
        self.aliases.get(&records::alias_key(project, name))
    }

    /// Images of a project whose fingerprint starts with `prefix`.
    pub fn images_starting<'a>(
        &'a self,
        project: &'a ProjectName,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Stored<records::Image>> {
        let start = format!("image/{project}/{prefix}");
        self.images.range(start.clone()..).take_while(move |(key, _)| key.starts_with(&start)).map(|(_, image)| image)
    }

    /// First host ids of the ranges that instances hold.
    pub fn claimed_id_ranges(&self) -> HashSet<u32> {
        self.claims.keys().filter_map(|key| key.strip_prefix("claim/id-range/")?.parse().ok()).collect()
    }
}

/// An unreadable row is kept in the store and left out of the view, with a line in the log: losing sight of one object
/// is better than refusing to serve all others.
fn decode<T: Record>(entry: &Entry) -> Option<Stored<T>> {
    match serde_json::from_slice::<T>(&entry.value) {
        Ok(value) => Some(Stored { value: Arc::new(value), revision: entry.revision }),
        Err(error) => {
            tracing::error!(key = entry.key, %error, "an object in the store cannot be read and is left out");
            None
        }
    }
}
