//! The instances that run now: their handles, and who waits for their exits.

use std::{
    collections::HashMap,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use stapes_instance::{Event, ExitReason, ExitStatus, Running};
use stapes_model::{InstanceId, state::Status};
use stapes_sys::netlink::Netlink;
use tokio::{io::unix::AsyncFd, sync::watch};

/// How and why an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub reason: ExitReason,
    pub status: ExitStatus,
}

/// One running instance.
pub struct LiveInstance {
    pub running: Arc<dyn Running>,
    frozen: AtomicBool,
    exited: watch::Sender<Option<Exit>>,
    execs: Mutex<Execs>,
    /// The host's number of its network namespace, which stays as long as that does.
    netns_id: OnceLock<i32>,
}

/// Exits of commands, and who waits for them.
#[derive(Default)]
struct Execs {
    waited: HashMap<u64, watch::Sender<Option<ExitStatus>>>,
    /// No more exits will be told.
    over: bool,
}

impl LiveInstance {
    pub fn new(running: Arc<dyn Running>, frozen: bool) -> Arc<Self> {
        Arc::new(Self {
            running,
            frozen: AtomicBool::new(frozen),
            exited: watch::channel(None).0,
            execs: Mutex::default(),
            netns_id: OnceLock::new(),
        })
    }

    pub fn status(&self) -> Status {
        if self.frozen.load(Ordering::Relaxed) { Status::Frozen } else { Status::Running }
    }

    pub fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Waits until init is gone.
    pub async fn exited(&self) -> Exit {
        let mut exited = self.exited.subscribe();
        let unknown = Exit { reason: ExitReason::Killed, status: ExitStatus::Unknown };
        exited.wait_for(Option::is_some).await.map(|exit| exit.unwrap_or(unknown)).unwrap_or(unknown)
    }

    /// The host's number of its network namespace, asked for once. `None`: it has none, or the instance is gone.
    pub fn netns_id(&self, net: &mut Netlink) -> std::io::Result<Option<i32>> {
        if let Some(known) = self.netns_id.get() {
            return Ok(Some(*known));
        }
        let found = net.netns_id_of_pid(self.running.pid())?;
        Ok(found.map(|id| *self.netns_id.get_or_init(|| id)))
    }

    fn exec(&self, exec: u64) -> watch::Sender<Option<ExitStatus>> {
        let mut execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever comes first, the exit or its waiter, makes the entry; the waiter removes it.
        let none_comes = execs.over.then_some(ExitStatus::Unknown);
        execs.waited.entry(exec).or_insert_with(|| watch::channel(none_comes).0).clone()
    }

    /// Waits for the exit of an exec.
    pub async fn exec_exited(&self, exec: u64) -> ExitStatus {
        let mut ended = self.exec(exec).subscribe();
        let status = ended.wait_for(Option::is_some).await.map(|status| *status);
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).waited.remove(&exec);
        status.ok().flatten().unwrap_or(ExitStatus::Unknown)
    }

    /// Reads events until the instance is gone; returns its exit, or `None` when only its shim was lost.
    pub async fn watch(self: Arc<Self>) -> std::io::Result<Option<Exit>> {
        let source = EventSource(Arc::clone(&self.running));
        // `EventSource` keeps the descriptor open for as long as the registration lives, which is what the newer,
        // unsafe constructor asks its caller to promise.
        #[allow(deprecated)]
        let source = AsyncFd::with_interest(source, tokio::io::Interest::READABLE)?;
        loop {
            let mut ready = source.readable().await?;
            while let Some(event) = self.running.next_event() {
                match event {
                    Event::ExecExited { exec, status } => {
                        self.exec(exec).send_replace(Some(status));
                    }
                    Event::Exited { reason, status } => {
                        self.end_execs();
                        return Ok(Some(Exit { reason, status }));
                    }
                    Event::ShimLost => {
                        self.end_execs();
                        return Ok(None);
                    }
                }
            }
            ready.clear_ready();
        }
    }

    /// Tells everyone who waits for the instance that it is gone.
    pub fn announce(&self, exit: Exit) {
        self.exited.send_replace(Some(exit));
    }

    fn end_execs(&self) {
        let mut execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.over = true;
        for sender in execs.waited.values() {
            sender.send_if_modified(|status| {
                let open = status.is_none();
                status.get_or_insert(ExitStatus::Unknown);
                open
            });
        }
    }
}

struct EventSource(Arc<dyn Running>);

impl AsRawFd for EventSource {
    fn as_raw_fd(&self) -> RawFd {
        self.0.events_fd().as_raw_fd()
    }
}

/// All running instances by id.
#[derive(Default)]
pub struct Live {
    instances: RwLock<HashMap<InstanceId, Arc<LiveInstance>>>,
}

impl Live {
    pub fn get(&self, id: &InstanceId) -> Option<Arc<LiveInstance>> {
        self.instances.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub fn status(&self, id: &InstanceId) -> Status {
        self.get(id).map_or(Status::Stopped, |live| live.status())
    }

    pub fn insert(&self, id: InstanceId, live: Arc<LiveInstance>) {
        self.instances.write().unwrap_or_else(PoisonError::into_inner).insert(id, live);
    }

    pub fn remove(&self, id: &InstanceId) {
        self.instances.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub fn ids(&self) -> Vec<InstanceId> {
        self.instances.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub fn all(&self) -> Vec<(InstanceId, Arc<LiveInstance>)> {
        let instances = self.instances.read().unwrap_or_else(PoisonError::into_inner);
        instances.iter().map(|(id, live)| (*id, Arc::clone(live))).collect()
    }
}
