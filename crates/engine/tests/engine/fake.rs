//! A host without a kernel: a driver, services and networks that only remember.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Duration, Utc};
use rustix::event::{EventfdFlags, eventfd};
use stapes_engine::{HostNetwork, World};
use stapes_instance::{
    Asked, Driver, DriverError, Event, ExecHandle, ExecIo, ExecSpec, ExitReason, ExitStatus, FileReply, FileRequest,
    GuestReport, Inside, Limits, Plan, Running, SpawnService, Usage,
};
use stapes_model::{InstanceId, InstanceType};
use stapes_network::{Bridge, NetworkError};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a fake guest does when it is asked to power off.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    #[default]
    Obeys,
    Ignores,
    /// It hears nothing of the first requests, as an init that has not set itself up.
    WakesLate,
}

pub struct FakeRunning {
    pub plan: Plan,
    pub limits: Mutex<Vec<Limits>>,
    manners: Manners,
    asked: AtomicU64,
    alive: AtomicBool,
    frozen: AtomicBool,
    /// What its agent says, if it is a machine with one.
    pub report: Mutex<Option<GuestReport>>,
    acknowledged: AtomicBool,
    events: Mutex<VecDeque<Event>>,
    wakeup: OwnedFd,
}

impl FakeRunning {
    fn new(plan: &Plan, manners: Manners) -> Arc<Self> {
        Arc::new(Self {
            plan: plan.clone(),
            limits: Mutex::default(),
            manners,
            asked: AtomicU64::new(0),
            alive: AtomicBool::new(true),
            frozen: AtomicBool::new(false),
            report: Mutex::default(),
            acknowledged: AtomicBool::new(false),
            events: Mutex::default(),
            wakeup: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap(),
        })
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// The guest ends by itself.
    pub fn end(&self, reason: ExitReason, status: ExitStatus) {
        if self.alive.swap(false, Ordering::SeqCst) {
            let mut events = lock(&self.events);
            events.push_back(Event::Exited { reason, status });
            rustix::io::write(&self.wakeup, &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// It is gone, and nobody is told.
    pub fn lose_power(&self) {
        self.alive.store(false, Ordering::SeqCst);
    }

    /// Whether its shim was let go.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub fn halt(&self) {
        self.end(ExitReason::Halt, ExitStatus::Code(0));
    }

    pub fn reboot(&self) {
        self.end(ExitReason::Reboot, ExitStatus::Signal(1));
    }
}

impl Running for FakeRunning {
    fn id(&self) -> InstanceId {
        self.plan.id
    }

    fn pid(&self) -> u32 {
        1
    }

    fn started_at(&self) -> i64 {
        0
    }

    fn request_shutdown(&self) -> Result<Asked, DriverError> {
        match self.manners {
            Manners::Obeys => self.halt(),
            Manners::WakesLate if self.asked.fetch_add(1, Ordering::SeqCst) < 3 => return Ok(Asked::NotListening),
            Manners::WakesLate => self.halt(),
            Manners::Ignores => {}
        }
        Ok(Asked::Told)
    }

    fn kill(&self) -> Result<(), DriverError> {
        self.end(ExitReason::Killed, ExitStatus::Signal(9));
        Ok(())
    }

    fn freeze(&self) -> Result<(), DriverError> {
        self.frozen.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn thaw(&self) -> Result<(), DriverError> {
        self.frozen.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn is_frozen(&self) -> Result<bool, DriverError> {
        Ok(self.frozen.load(Ordering::SeqCst))
    }

    fn exec(&self, spec: &ExecSpec, _: ExecIo) -> Result<ExecHandle, DriverError> {
        let command = spec.command.first().cloned().unwrap_or_default();
        Err(DriverError::Command { command, reason: "nothing is inside".to_owned(), code: 127 })
    }

    fn exec_signal(&self, _: u64, _: i32) -> Result<(), DriverError> {
        Ok(())
    }

    fn exec_status(&self, _: u64) -> Result<Option<ExitStatus>, DriverError> {
        Ok(None)
    }

    fn console(&self) -> Result<OwnedFd, DriverError> {
        Err(unsupported("a console"))
    }

    fn file(&self, _: &FileRequest) -> Result<FileReply, DriverError> {
        Err(unsupported("files"))
    }

    fn update_limits(&self, limits: &Limits) -> Result<(), DriverError> {
        lock(&self.limits).push(limits.clone());
        Ok(())
    }

    fn usage(&self) -> Result<Usage, DriverError> {
        Ok(Usage::default())
    }

    fn inside(&self) -> Inside {
        match self.plan.machine {
            Some(_) => Inside::Guest(lock(&self.report).clone()),
            None => Inside::Namespaces,
        }
    }

    fn facts(&self) -> BTreeMap<String, String> {
        self.plan.machine.iter().map(|_| ("accelerator".to_owned(), "tcg".to_owned())).collect()
    }

    fn events_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    fn next_event(&self) -> Option<Event> {
        let mut events = lock(&self.events);
        if events.is_empty() {
            let _ = rustix::io::read(&self.wakeup, &mut [0u8; 8]);
        }
        events.pop_front()
    }

    fn acknowledge_exit(&self) {
        self.acknowledged.store(true, Ordering::SeqCst);
    }
}

fn unsupported(what: &str) -> DriverError {
    DriverError::Unsupported { what: what.to_owned(), reason: "this is a test".to_owned() }
}

/// Instances that only exist in here; they outlive an engine as real ones do.
pub struct FakeDriver {
    kind: InstanceType,
    running: Mutex<HashMap<InstanceId, Arc<FakeRunning>>>,
    /// Names in the order of their starts.
    pub starts: Mutex<Vec<String>>,
    /// Roots that it was told to expect, each with what it is like, and whether it was there then.
    pub expected: Mutex<Vec<(PathBuf, String, bool)>>,
    pub broken: AtomicBool,
    /// Of the guests that are started from now on.
    pub manners: Mutex<Manners>,
}

impl FakeDriver {
    pub fn new(kind: InstanceType) -> Self {
        Self {
            kind,
            running: Mutex::default(),
            starts: Mutex::default(),
            expected: Mutex::default(),
            broken: AtomicBool::new(false),
            manners: Mutex::default(),
        }
    }

    /// The instance as the driver has it now.
    pub fn guest(&self, name: &str) -> Arc<FakeRunning> {
        let running = lock(&self.running);
        let guest = running.values().find(|guest| guest.plan.name.as_str() == name && guest.is_alive());
        Arc::clone(guest.unwrap_or_else(|| panic!("{name} does not run")))
    }

    pub fn runs(&self, name: &str) -> bool {
        lock(&self.running).values().any(|guest| guest.plan.name.as_str() == name && guest.is_alive())
    }

    pub fn started(&self, name: &str) -> usize {
        lock(&self.starts).iter().filter(|started| *started == name).count()
    }
}

impl Driver for FakeDriver {
    fn kind(&self) -> InstanceType {
        self.kind
    }

    fn expect(&self, root: &Path, likeness: &str) {
        lock(&self.expected).push((root.to_owned(), likeness.to_owned(), root.exists()));
    }

    fn start(&self, plan: &Plan) -> Result<Arc<dyn Running>, DriverError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(DriverError::Start { id: plan.id, step: "mount /proc".to_owned(), source: None });
        }
        let mut running = lock(&self.running);
        assert!(!running.get(&plan.id).is_some_and(|guest| guest.is_alive()), "{} runs already", plan.name);
        let manners = *lock(&self.manners);
        let guest = FakeRunning::new(plan, manners);
        running.insert(plan.id, Arc::clone(&guest));
        lock(&self.starts).push(plan.name.to_string());
        // What tells the engine that an instance may be there to adopt.
        std::fs::write(plan.run_dir.join("shim.sock"), "").unwrap();
        Ok(guest)
    }

    fn adopt(&self, id: &InstanceId, _: &Path) -> Result<Option<Arc<dyn Running>>, DriverError> {
        let mut running = lock(&self.running);
        let Some(guest) = running.get_mut(id).filter(|guest| guest.is_alive()) else { return Ok(None) };
        // A handle of its own: an engine that a test "killed" still listens on the old one.
        *guest = FakeRunning::new(&guest.plan, guest.manners);
        Ok(Some(Arc::clone(guest) as Arc<dyn Running>))
    }

    fn sweep(&self, _: &HashSet<InstanceId>) -> Result<Vec<String>, DriverError> {
        Ok(Vec::new())
    }

    fn maps_owners(&self, _: &Path) -> Result<bool, DriverError> {
        Ok(true)
    }

    fn files_offline(&self, _: &Path, _: &FileRequest) -> Result<FileReply, DriverError> {
        Ok(FileReply::Done)
    }

    fn features(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

#[derive(Default)]
pub struct FakeServices {
    names: Mutex<HashSet<String>>,
}

impl SpawnService for FakeServices {
    fn ensure_service(&self, name: &str, _: &[String]) -> Result<u32, DriverError> {
        lock(&self.names).insert(name.to_owned());
        Ok(1)
    }

    fn stop_service(&self, name: &str) -> Result<(), DriverError> {
        lock(&self.names).remove(name);
        Ok(())
    }

    fn signal_service(&self, _: &str, _: i32) -> Result<(), DriverError> {
        Ok(())
    }

    fn services(&self) -> Result<Vec<String>, DriverError> {
        Ok(lock(&self.names).iter().cloned().collect())
    }
}

#[derive(Default)]
pub struct FakeNetwork {
    pub released: Mutex<Vec<Ipv4Addr>>,
}

impl HostNetwork for FakeNetwork {
    fn interface_exists(&self, _: &str) -> bool {
        false
    }

    fn bridge_exists(&self, _: &str) -> bool {
        false
    }

    fn taken_subnets(&self) -> Result<Vec<ipnet::IpNet>, NetworkError> {
        Ok(Vec::new())
    }

    fn is_up(&self, _: &Bridge) -> Result<bool, NetworkError> {
        Ok(true)
    }

    fn up(&self, _: &Bridge) -> Result<(), NetworkError> {
        Ok(())
    }

    fn down(&self, _: &Bridge) -> Result<(), NetworkError> {
        Ok(())
    }

    fn release(&self, _: &Bridge, _: [u8; 6], address: Ipv4Addr) -> Result<(), NetworkError> {
        lock(&self.released).push(address);
        Ok(())
    }
}

/// Time that goes on by a second a look, and randomness that a seed decides.
pub struct SeededWorld {
    seconds: AtomicU64,
    state: AtomicU64,
    /// Every so many draws in a row are the same: what must be unique has to be looked up, not hoped for.
    pub stutter: AtomicU64,
    draws: AtomicU64,
}

impl SeededWorld {
    pub fn new(seed: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self { seconds: zero(), state: AtomicU64::new(seed), stutter: AtomicU64::new(1), draws: zero() }
    }
}

impl World for SeededWorld {
    fn now(&self) -> DateTime<Utc> {
        let seconds = self.seconds.fetch_add(1, Ordering::SeqCst);
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + Duration::seconds(seconds as i64)
    }

    fn random(&self) -> u64 {
        let draw = self.draws.fetch_add(1, Ordering::SeqCst) / self.stutter.load(Ordering::SeqCst);
        // SplitMix64.
        let mut z = self.state.load(Ordering::SeqCst).wrapping_add((draw + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Polls until `condition` holds; an end from inside is noticed by a task of the engine's.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{what}: not within 5 s: {}", io::Error::from(io::ErrorKind::TimedOut));
}
