//! Which run of which instance is the current one, and what must survive its shim.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stapes_model::InstanceId;
use stapes_shim_api::Status;

/// Duplicates of what the shim holds: with them a killed shim can be replaced.
#[derive(Debug)]
pub struct Held {
    pub status: Status,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Table {
    runs: HashMap<InstanceId, (u64, Arc<Held>)>,
    /// Ids whose groups are being removed by a thread of ours.
    cleaning: HashSet<InstanceId>,
    last: u64,
}

#[derive(Debug, Default)]
pub struct Registry {
    table: Mutex<Table>,
    cleaned: Condvar,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a run; handles of earlier runs of that id have nothing to say any more.
    pub fn enter(&self, id: InstanceId, held: Arc<Held>) -> u64 {
        let mut table = self.lock();
        table.last += 1;
        let run = table.last;
        table.runs.insert(id, (run, held));
        run
    }

    pub fn held(&self, id: &InstanceId) -> Option<Arc<Held>> {
        self.lock().runs.get(id).map(|(_, held)| Arc::clone(held))
    }

    /// Forgets a run and reserves its id for cleaning; false when it is not the current one (any more).
    pub fn begin_cleaning(&self, id: InstanceId, run: u64) -> bool {
        let mut table = self.lock();
        if table.runs.get(&id).is_none_or(|(current, _)| *current != run) {
            return false;
        }
        table.runs.remove(&id);
        table.cleaning.insert(id)
    }

    /// Forgets whatever run there is and reserves the id, waiting for another cleaning to end.
    pub fn retire(&self, id: InstanceId) {
        let mut table = self.lock();
        while table.cleaning.contains(&id) {
            table = self.cleaned.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        table.runs.remove(&id);
        table.cleaning.insert(id);
    }

    pub fn end_cleaning(&self, id: InstanceId) {
        self.lock().cleaning.remove(&id);
        self.cleaned.notify_all();
    }

    /// Waits until nothing is being cleaned, or `patience` ran out.
    pub fn wait_for_all(&self, patience: Duration) {
        let busy = |table: &mut Table| !table.cleaning.is_empty();
        drop(self.cleaned.wait_timeout_while(self.lock(), patience, busy));
    }

    pub fn wait_for_cleaning(&self, id: &InstanceId) {
        let mut table = self.lock();
        while table.cleaning.contains(id) {
            table = self.cleaned.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
