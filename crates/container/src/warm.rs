//! Spare shims, whose embryos are in their groups ahead of time: joining costs an idle kernel 7 to 10 ms.
//!
//! Some are made in advance; most come back from instances that ended, with their groups, so that in a steady state
//! nothing joins.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use stapes_cgroup::{Cgroups, DEFAULT_DEVICES, Group};
use stapes_instance::DriverError;
use stapes_shim_api::{Reply, Request, VERSION};

use crate::{nursery::Nursery, wire::Connection};

/// Prefix of a spare group's name; no instance id has a hyphen.
pub const PREFIX: &str = "warm-";

const PATIENCE: Duration = Duration::from_secs(10);

/// How often an idle daemon looks whether its nursery still lives.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// How long nothing is to be started before spares are made: a join holds the kernel's lock on every fork for those
/// 10 ms, and the start that took the last spare is forking just then.
const QUIET: Duration = Duration::from_millis(100);

/// The files that a process writes itself into in order to join.
pub fn join_files(group: &Group) -> Vec<String> {
    group.join_paths().iter().map(|path| path.display().to_string()).collect()
}

/// A shim that waits for its instance.
#[derive(Debug)]
pub struct Warm {
    pub group: String,
    pub control: Connection,
}

#[derive(Debug)]
pub struct Maker {
    pub cgroups: Cgroups,
    pub nursery: Arc<Nursery>,
    /// Devices are version 1's.
    pub v1_devices: bool,
    next: AtomicU64,
}

impl Maker {
    pub fn new(cgroups: Cgroups, nursery: Arc<Nursery>) -> Self {
        let v1_devices = cgroups.describe().get("cgroup_devices").is_some_and(|version| version == "v1");
        Self { cgroups, nursery, v1_devices, next: AtomicU64::new(0) }
    }

    fn name(&self) -> String {
        format!("{PREFIX}{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes one on the spot.
    pub fn make(&self) -> Result<Warm, DriverError> {
        let name = self.name();
        let doing = || format!("failed to make spare control group {name}");
        let group = self.cgroups.create_spare(&name).map_err(|error| DriverError::other(doing(), error))?;
        let made = (|| {
            if self.v1_devices {
                // The list is renamed with the group. Version 2 gets it at the start.
                group.allow_devices(&DEFAULT_DEVICES).map_err(|error| DriverError::other(doing(), error))?;
            }
            let control = self.nursery.fork_shim(join_files(&group))?;
            match control.ask(&Request::Hello { version: VERSION }, &[], PATIENCE) {
                Ok((Reply::Hello { .. }, _)) => Ok(control),
                Ok((Reply::Failed(failure), _)) => Err(DriverError::Other { doing: failure.message, source: None }),
                Ok(_) => Err(DriverError::Other { doing: "the new shim did not greet".to_owned(), source: None }),
                Err(error) => Err(DriverError::other("failed to greet the new shim", error)),
            }
        })();
        match made {
            Ok(control) => Ok(Warm { group: name, control }),
            Err(error) => {
                let _ = group.kill().and_then(|()| group.remove());
                Err(error)
            }
        }
    }
}

#[derive(Debug, Default)]
struct Shelf {
    ready: Mutex<VecDeque<Warm>>,
    taken: Condvar,
    /// Instances that ended and are on their way to becoming spares.
    returning: AtomicUsize,
    stop: AtomicBool,
    last: Mutex<Option<Instant>>,
}

/// Keeps a number of spare shims ready on a thread of its own.
#[derive(Debug)]
pub struct Pool {
    shelf: Arc<Shelf>,
    maker: Arc<Maker>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Most that are kept: as many more as are made come back from instances that ended.
    most: usize,
}

/// A place for a spare that is still to be made out of an ended instance.
#[derive(Debug)]
pub struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _ready = self.0.shelf.ready.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.shelf.returning.fetch_sub(1, Ordering::Relaxed);
        self.0.shelf.taken.notify_all();
    }
}

impl Place<'_> {
    /// A name for its group.
    pub fn name(&self) -> String {
        self.0.maker.name()
    }

    /// Puts the spare there. It comes back when the pool was closed meanwhile.
    pub fn put(self, warm: Warm) -> Result<(), Warm> {
        let mut ready = self.0.shelf.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.shelf.stop.load(Ordering::Relaxed) {
            return Err(warm);
        }
        ready.push_back(warm);
        Ok(())
    }
}

impl Pool {
    pub fn new(maker: Arc<Maker>, wanted: usize) -> Self {
        // A daemon that starts is as busy as a start is: no joins until it is quiet.
        let shelf = Arc::new(Shelf { last: Mutex::new(Some(Instant::now())), ..Shelf::default() });
        let thread = (wanted > 0).then(|| {
            let (shelf, maker) = (Arc::clone(&shelf), Arc::clone(&maker));
            std::thread::spawn(move || keep_filled(&shelf, &maker, wanted))
        });
        let most = if maker.cgroups.can_retire() { 2 * wanted } else { 0 };
        Self { shelf, maker, thread: Mutex::new(thread), most }
    }

    /// A place for one that comes back, unless there are enough.
    pub fn place(&self) -> Option<Place<'_>> {
        let ready = self.shelf.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = self.shelf.returning.load(Ordering::Relaxed);
        if ready.len() + coming >= self.most || self.shelf.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.shelf.returning.fetch_add(1, Ordering::Relaxed);
        Some(Place(self))
    }

    /// A spare one, or one made now.
    pub fn take(&self) -> Result<Warm, DriverError> {
        let warm = self.shelf.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        *self.shelf.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.shelf.taken.notify_one();
        warm.map_or_else(|| self.maker.make(), Ok)
    }

    /// Whether a spare group carries its device list already.
    pub fn v1_devices(&self) -> bool {
        self.maker.v1_devices
    }

    pub fn ready(&self) -> usize {
        self.shelf.ready.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn keep_filled(shelf: &Shelf, maker: &Maker, wanted: usize) {
    let mut pause = Duration::from_millis(50);
    while !shelf.stop.load(Ordering::Relaxed) {
        let ready = shelf.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= wanted && !shelf.stop.load(Ordering::Relaxed) {
            let slept = shelf.taken.wait_timeout(ready, LOOK_AFTER).unwrap_or_else(PoisonError::into_inner);
            let timed_out = slept.1.timed_out();
            drop(slept);
            if timed_out {
                maker.nursery.revive();
            }
            continue;
        }
        let last = *shelf.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Making one holds the kernel's fork lock for some 10 ms, twice: with enough left, wait until nobody is at work.
        let quiet = if ready.len() * 2 >= wanted { 10 * QUIET } else { QUIET };
        let wait = last.map_or(Duration::ZERO, |last| quiet.saturating_sub(last.elapsed()));
        if !wait.is_zero() && !shelf.stop.load(Ordering::Relaxed) {
            drop(shelf.taken.wait_timeout(ready, wait));
            continue;
        }
        drop(ready);
        match maker.make() {
            Ok(warm) => {
                shelf.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(warm);
                pause = Duration::from_millis(50);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no spare shim could be made");
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Pool {
    /// Makes no more, takes none back, and ends those that are ready. May run twice.
    pub fn close(&self) {
        {
            // Under the lock, so that the thread is either before its look at `stop` or already asleep.
            let _ready = self.shelf.ready.lock().unwrap_or_else(PoisonError::into_inner);
            self.shelf.stop.store(true, Ordering::Relaxed);
            self.shelf.taken.notify_all();
        }
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        let ready = self.shelf.ready.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are on their way back are refused, and are gone once their place is.
        let coming = |_: &mut VecDeque<Warm>| self.shelf.returning.load(Ordering::Relaxed) > 0;
        let waited = self.shelf.taken.wait_timeout_while(ready, PATIENCE, coming);
        for warm in waited.unwrap_or_else(PoisonError::into_inner).0.drain(..) {
            // The shim leaves when nobody can reach it any more, and its embryo with it.
            drop(warm.control);
            let group = self.maker.cgroups.group(&warm.group);
            let _ = group.kill().and_then(|()| group.remove());
        }
    }
}
