//! The engine: everything a workflow needs, and how it is opened.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use stapes_image::WorkerCommand;
use stapes_instance::{Driver, DriverError, SpawnService, require};
use stapes_journal::{Intent, Journal, Outcome};
use stapes_model::{InstanceName, InstanceType, NetworkName, PoolName, ProjectName, state::Status};
use stapes_storage::{Pool, PoolConfig};
use stapes_store::{Check, Revision, Store, Transaction, Write};

use crate::{
    Error, HostNetwork, Result, World,
    app::KnownMetadata,
    events::Events,
    id_ranges::IdSupply,
    index::{Index, Stored},
    lanes::Lanes,
    live::Live,
    locks::Locks,
    operations::Operations,
    paths::Paths,
    records::{self, Record},
    reserve::Reserved,
};

/// What the engine is made of; the daemon and the tests choose the parts.
pub struct Parts {
    pub paths: Paths,
    pub world: Arc<dyn World>,
    pub store: Arc<dyn Store>,
    pub journal: Arc<Journal>,
    /// One an instance type, in the order in which they are opened; they are closed in the other one.
    pub drivers: Vec<Arc<dyn Driver>>,
    pub services: Arc<dyn SpawnService>,
    pub network: Arc<dyn HostNetwork>,
    /// Ids of the host that instances may have.
    pub ids: IdSupply,
    /// How to run ourselves as the confined image worker.
    pub worker: WorkerCommand,
}

pub struct Engine {
    pub paths: Paths,
    pub world: Arc<dyn World>,
    pub store: Arc<dyn Store>,
    pub journal: Arc<Journal>,
    pub index: Arc<Index>,
    pub events: Arc<Events>,
    pub operations: Operations,
    pub lanes: Lanes,
    pub locks: Locks,
    pub live: Live,
    pub services: Arc<dyn SpawnService>,
    pub(crate) host: Arc<dyn HostNetwork>,
    pub worker: WorkerCommand,
    pub ids: IdSupply,
    pub(crate) reserved: Reserved,
    /// One unpacking at a time of one image into one pool: the second launch waits for the first.
    pub(crate) unpacking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) metadata: KnownMetadata,
    drivers: Vec<Arc<dyn Driver>>,
    pools: RwLock<HashMap<PoolName, Arc<dyn Pool>>>,
    /// Whether mounts of a pool can show other owners, once it was asked.
    pub(crate) mapping: Mutex<HashMap<PoolName, bool>>,
    _watch: stapes_store::WatchGuard,
}

impl Engine {
    /// Opens the engine on its parts. Touches nothing on the host yet: see [`Engine::reconcile`].
    #[cfg_attr(not(feature = "failpoints"), allow(unused_mut, reason = "only the crash tests replace the store"))]
    pub fn open(mut parts: Parts) -> Result<Arc<Self>> {
        #[cfg(feature = "failpoints")]
        {
            parts.store = Arc::new(crate::failpoint::DyingStore(parts.store));
        }
        let index = Arc::new(Index::default());
        let watch = feed(&parts.store, &index)?;
        let events = Arc::new(Events::new(Arc::clone(&parts.world), Arc::clone(&parts.journal)));
        let operations = Operations::new(Arc::clone(&parts.world), Arc::clone(&events), Arc::clone(&parts.journal));
        Ok(Arc::new(Self {
            paths: parts.paths,
            world: parts.world,
            store: parts.store,
            journal: parts.journal,
            index,
            events,
            operations,
            lanes: Lanes::default(),
            locks: Locks::default(),
            live: Live::default(),
            services: parts.services,
            host: parts.network,
            worker: parts.worker,
            ids: parts.ids,
            reserved: Reserved::default(),
            unpacking: Mutex::default(),
            metadata: KnownMetadata::default(),
            drivers: parts.drivers,
            pools: RwLock::default(),
            mapping: Mutex::default(),
            _watch: watch,
        }))
    }

    /// The driver of an instance type, or the reason why there is none.
    pub fn driver(&self, kind: InstanceType) -> Result<Arc<dyn Driver>> {
        require(kind, "start")?;
        let found = self.drivers.iter().find(|driver| driver.kind() == kind);
        Ok(found.cloned().ok_or_else(|| DriverError::Unsupported {
            what: format!("start of a {kind}"),
            reason: "this daemon has no driver for it".to_owned(),
        })?)
    }

    /// Every driver that there is.
    pub fn drivers(&self) -> &[Arc<dyn Driver>] {
        &self.drivers
    }

    /// A pool that is open already: this never blocks.
    pub(crate) fn open_pool(&self, name: &PoolName) -> Option<Arc<dyn Pool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    /// An open pool, opened now if it was not yet.
    pub fn pool(&self, name: &PoolName) -> Result<Arc<dyn Pool>> {
        if let Some(pool) = self.open_pool(name) {
            return Ok(pool);
        }
        let record = self.index.read().pool(name).cloned().ok_or_else(|| Error::missing("storage pool", name))?;
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(name) {
            return Ok(Arc::clone(pool));
        }
        let pool = stapes_storage::open(&pool_config(&record), &self.paths.pool(name))?;
        pools.insert(name.clone(), Arc::clone(&pool));
        Ok(pool)
    }

    /// Forgets an open pool, before it is destroyed or at shutdown.
    pub(crate) fn forget_pool(&self, name: &PoolName) {
        self.pools.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.mapping.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub fn instance(&self, project: &ProjectName, name: &InstanceName) -> Result<Stored<records::Instance>> {
        self.index.read().instance(project, name).cloned().ok_or_else(|| Error::missing("instance", name))
    }

    pub fn network(&self, name: &NetworkName) -> Result<Stored<records::Network>> {
        self.index.read().network(name).cloned().ok_or_else(|| Error::missing("network", name))
    }

    pub fn status(&self, instance: &records::Instance) -> Status {
        self.live.status(&instance.id)
    }

    /// Runs `work`, which no operation stands for, under an intent of its own: what a killed daemon leaves of it is
    /// settled by the next.
    pub(crate) fn journaled<T>(
        &self,
        kind: &str,
        plan: serde_json::Value,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let operation = self.world.uuid();
        let intent = Intent { operation: operation.clone(), kind: kind.to_owned(), plan, durable: true };
        self.journal.begin(&intent)?;
        crate::failpoint::reached(kind);
        let result = work();
        let (status, error) = match &result {
            Ok(_) => ("Success", None),
            Err(error) => ("Failure", Some(crate::chain(error))),
        };
        let at = self.world.now().timestamp();
        crate::failpoint::reached("before the outcome");
        let outcome = Outcome { status: status.to_owned(), error, result: serde_json::Value::Null, at };
        if let Err(error) = self.journal.finish(&operation, &outcome) {
            tracing::warn!(kind, %error, "the end of a workflow was not noted");
        }
        result
    }

    /// Writes one new or changed record under `check`.
    pub(crate) fn put<T: Record>(&self, record: &T, check: Check) -> Result<Revision> {
        let write = Write::Put { key: record.key(), value: record.to_bytes() };
        Ok(self.store.commit(Transaction { checks: vec![check], writes: vec![write] })?)
    }

    /// Changes a record as it is now; tries again when another writer came between.
    pub(crate) fn change<T: Record + Clone>(
        &self,
        read: impl Fn() -> Result<Stored<T>>,
        change: impl Fn(&mut T) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..16 {
            let stored = read()?;
            let mut record = (*stored.value).clone();
            change(&mut record)?;
            let check = Check::Unchanged { key: record.key(), revision: stored.revision };
            match self.put(&record, check) {
                Err(Error::Store(stapes_store::StoreError::CheckFailed { .. })) => {}
                other => return other.map(drop),
            }
        }
        Err(Error::Refused("the object is being changed by too many others; try again".to_owned()))
    }
}

pub(crate) fn pool_config(record: &records::Pool) -> PoolConfig {
    PoolConfig { name: record.name.clone(), driver: record.driver.clone(), config: record.config.clone() }
}

/// Fills the index from the store and keeps it current.
fn feed(store: &Arc<dyn Store>, index: &Arc<Index>) -> Result<stapes_store::WatchGuard> {
    loop {
        let (entries, revision) = store.scan_at("")?;
        let changes: Vec<_> = entries.into_iter().map(stapes_store::Change::Put).collect();
        index.apply(&changes);
        let sink = Arc::clone(index);
        match store.watch(revision, Box::new(move |changes, _| sink.apply(changes))) {
            Ok(guard) => return Ok(guard),
            Err(stapes_store::StoreError::Compacted { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
