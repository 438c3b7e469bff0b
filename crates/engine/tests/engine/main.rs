//! The engine's workflows, operations and recovery, over a driver that only remembers: no daemon, no kernel, no root.

mod fake;
mod images;
mod lifecycle;
mod machines;
mod nics;
mod operations;
mod recovery;
mod update;

use std::{collections::BTreeMap, sync::Arc};

use fake::{FakeDriver, FakeNetwork, FakeServices, SeededWorld};
use stapes_engine::{
    Engine, Parts, Paths,
    app::{CreateInstance, CreateSource, InstanceEdit, StopMode},
    id_ranges::IdSupply,
    index::Stored,
    operations::{Operation, Snapshot, Status},
    records::{self, Record},
};
use stapes_image::WorkerCommand;
use stapes_journal::Journal;
use stapes_model::{InstanceName, InstanceType, ProjectName, state};
use stapes_store::{MemoryStore, Store, Transaction};

/// Room for four instances.
const FOUR_RANGES: &str = "root:1000000:262144\n";

/// A host: what survives an engine, and the engine that is there now.
struct Host {
    engine: Arc<Engine>,
    driver: Arc<FakeDriver>,
    /// The driver of virtual machines.
    machines: Arc<FakeDriver>,
    network: Arc<FakeNetwork>,
    world: Arc<SeededWorld>,
    store: Arc<dyn Store>,
    /// One file handle for all engines: the operations that a killed one leaves behind in here keep it open.
    journal: Arc<Journal>,
    subids: &'static str,
    dir: Arc<tempfile::TempDir>,
}

fn project() -> ProjectName {
    ProjectName::default_project()
}

fn name(text: &str) -> InstanceName {
    text.parse().unwrap()
}

fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Host {
    /// A host with a `dir` pool, the network br0, and a default profile that uses both.
    async fn new() -> Self {
        Self::with_ids("").await
    }

    async fn with_ids(subids: &'static str) -> Self {
        // On a tmpfs the engine mounts none of its own for its sockets, which would need root and outlive the test.
        let dir = Arc::new(tempfile::tempdir_in("/dev/shm").unwrap());
        let world = Arc::new(SeededWorld::new(7));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let journal = Arc::new(Journal::open_at(dir.path().join("journal.db"), "boot", 1).unwrap());
        let [driver, machines] =
            [InstanceType::Container, InstanceType::VirtualMachine].map(|kind| Arc::new(FakeDriver::new(kind)));
        let network = Arc::default();
        let engine = open(&dir, &world, &store, &journal, [&driver, &machines], &network, subids);
        let host = Self { engine, driver, machines, network, world, store, journal, subids, dir };
        host.engine.reconcile().unwrap();
        let config = BTreeMap::new();
        let pool =
            records::Pool { name: "p".parse().unwrap(), driver: "dir".into(), description: String::new(), config };
        host.engine.create_pool(pool).await.unwrap();
        host.add_network("br0", &[("ipv4.address", "10.1.2.1/24"), ("ipv6.address", "none")]);
        let mut profile = host.profile();
        profile.devices.insert("root".into(), self::config(&[("type", "disk"), ("path", "/"), ("pool", "p")]));
        profile.devices.insert("eth0".into(), nic("br0"));
        host.engine.update_profile(&profile).unwrap();
        host
    }

    /// Recorded directly: making one asks the real host for its programs.
    fn add_network(&self, name: &str, pairs: &[(&str, &str)]) {
        let (kind, description) = ("bridge".to_owned(), String::new());
        let record = records::Network { name: name.parse().unwrap(), kind, description, config: config(pairs) };
        self.store.commit(Transaction::new().put(record.key(), record.to_bytes())).unwrap();
        let paths = stapes_network::DnsmasqPaths::beneath(self.engine.paths.network(&record.name));
        stapes_network::prepare_files(&self.engine.bridge(&record).unwrap(), &paths).unwrap();
    }

    /// The daemon was killed: a new engine over what survives it.
    fn restarted(&self) -> Self {
        let drivers = [&self.driver, &self.machines];
        let engine = open(&self.dir, &self.world, &self.store, &self.journal, drivers, &self.network, self.subids);
        Self {
            engine,
            driver: Arc::clone(&self.driver),
            machines: Arc::clone(&self.machines),
            network: Arc::clone(&self.network),
            world: Arc::clone(&self.world),
            store: Arc::clone(&self.store),
            journal: Arc::clone(&self.journal),
            subids: self.subids,
            dir: Arc::clone(&self.dir),
        }
    }

    fn profile(&self) -> records::Profile {
        (*self.engine.profile(&project(), &"default".parse().unwrap()).unwrap().value).clone()
    }

    fn request(&self, name: &str) -> CreateInstance {
        CreateInstance {
            project: project(),
            name: Some(self::name(name)),
            kind: InstanceType::Container,
            description: String::new(),
            ephemeral: false,
            profiles: None,
            config: BTreeMap::new(),
            devices: BTreeMap::new(),
            source: CreateSource::Empty,
            start: false,
            requestor: None,
        }
    }

    async fn create(&self, name: &str) {
        done(self.engine.create_instance(self.request(name))).await;
    }

    async fn create_with(&self, name: &str, pairs: &[(&str, &str)]) {
        done(self.engine.create_instance(CreateInstance { config: config(pairs), ..self.request(name) })).await;
    }

    async fn launch(&self, name: &str) {
        done(self.engine.create_instance(CreateInstance { start: true, ..self.request(name) })).await;
    }

    async fn launch_ephemeral(&self, name: &str) {
        let request = CreateInstance { start: true, ephemeral: true, ..self.request(name) };
        done(self.engine.create_instance(request)).await;
    }

    async fn start(&self, name: &str) {
        done(self.engine.start_instance(&project(), &self::name(name), None)).await;
    }

    async fn stop(&self, name: &str) {
        done(self.engine.stop_instance(&project(), &self::name(name), StopMode::Forced, None)).await;
    }

    async fn delete(&self, name: &str) {
        done(self.engine.delete_instance(&project(), &self::name(name), None)).await;
    }

    fn instance(&self, name: &str) -> Stored<records::Instance> {
        self.engine.instance(&project(), &self::name(name)).unwrap()
    }

    fn exists(&self, name: &str) -> bool {
        self.engine.instance(&project(), &self::name(name)).is_ok()
    }

    fn status(&self, name: &str) -> state::Status {
        self.engine.status(&self.instance(name))
    }

    /// A value of the instance's own configuration; empty where there is none.
    fn value(&self, name: &str, key: &str) -> String {
        self.instance(name).config.get(key).cloned().unwrap_or_default()
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut InstanceEdit)) -> stapes_engine::Result<()> {
        let stored = self.instance(name);
        let mut edit = edit_of(&stored);
        change(&mut edit);
        self.engine.update_instance(&stored, edit)
    }

    fn claims(&self) -> Vec<String> {
        self.store.scan("claim/").unwrap().into_iter().map(|entry| entry.key).collect()
    }

    fn volumes(&self) -> Vec<String> {
        let pool = self.engine.pool(&"p".parse().unwrap()).unwrap();
        pool.list(stapes_storage::VolumeKind::Instance).unwrap()
    }
}

fn edit_of(instance: &records::Instance) -> InstanceEdit {
    InstanceEdit {
        description: instance.description.clone(),
        ephemeral: instance.ephemeral,
        profiles: instance.profiles.clone(),
        config: instance.config.clone(),
        devices: instance.devices.clone(),
    }
}

fn nic(network: &str) -> BTreeMap<String, String> {
    config(&[("type", "nic"), ("network", network)])
}

fn open(
    dir: &tempfile::TempDir,
    world: &Arc<SeededWorld>,
    store: &Arc<dyn Store>,
    journal: &Arc<Journal>,
    drivers: [&Arc<FakeDriver>; 2],
    network: &Arc<FakeNetwork>,
    subids: &str,
) -> Arc<Engine> {
    let paths = Paths::new(dir.path());
    paths.ensure().unwrap();
    let parts = Parts {
        paths,
        world: Arc::clone(world) as _,
        store: Arc::clone(store),
        journal: Arc::clone(journal),
        drivers: drivers.map(|driver| Arc::clone(driver) as _).into(),
        services: Arc::new(FakeServices::default()),
        network: Arc::clone(network) as _,
        ids: IdSupply::parse(subids, subids, ""),
        worker: WorkerCommand { program: "/bin/false".into(), args: Vec::new() },
    };
    Engine::open(parts).unwrap()
}

/// The end of an operation that must succeed.
async fn done(operation: stapes_engine::Result<Operation>) -> Snapshot {
    let ended = operation.unwrap().finished().await;
    assert_eq!(ended.status, Status::Success, "{}", ended.err);
    ended
}

/// Why an operation that must fail did: refused at once, or later.
async fn refused(operation: stapes_engine::Result<Operation>) -> String {
    match operation {
        Err(error) => stapes_engine::chain(&error),
        Ok(operation) => {
            let ended = operation.finished().await;
            assert_eq!(ended.status, Status::Failure);
            ended.err
        }
    }
}
