use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use crate::{
    Change, Check, CheckFailure, Entry, Revision, Sink, SqliteStore, Store, StoreError, Transaction, WatchGuard, Write,
    watch::{Watches, replay},
};

/// A store without a file, for tests of the layers above; keeps every promise but durability.
#[derive(Default)]
pub struct MemoryStore {
    /// Held through a commit and its notifications: gives them their order. Never taken while `state` is held.
    watches: Mutex<Watches>,
    /// Who holds `watches`, so that a sink that commits gets an error instead of a deadlock.
    committer: Mutex<Option<ThreadId>>,
    state: Mutex<State>,
}

struct State {
    objects: BTreeMap<String, (Vec<u8>, Revision)>,
    revision: u64,
    log: VecDeque<(u64, Vec<Change>)>,
    log_limit: usize,
    /// The newest revision that the log no longer holds.
    compacted: u64,
}

impl Default for State {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), revision: 0, log: VecDeque::new(), log_limit: 10_000, compacted: 0 }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clears the mark of who commits, also when a sink panics.
struct Committing<'a>(&'a MemoryStore);

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        *lock(&self.0.committer) = None;
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps only the newest `commits` in the change log, to test what a compacted watch does.
    pub fn with_log_limit(commits: usize) -> Self {
        Self { state: Mutex::new(State { log_limit: commits, ..State::default() }), ..Self::default() }
    }

    fn begin(&self) -> Result<(MutexGuard<'_, Watches>, Committing<'_>), StoreError> {
        if *lock(&self.committer) == Some(thread::current().id()) {
            return Err(StoreError::Reentrant);
        }
        let watches = lock(&self.watches);
        *lock(&self.committer) = Some(thread::current().id());
        Ok((watches, Committing(self)))
    }
}

impl State {
    fn check(&self, check: &Check) -> Result<(), StoreError> {
        let found = |key: &String| self.objects.get(key).map(|(_, revision)| *revision);
        verify(check, found)
    }

    fn apply(&mut self, writes: Vec<Write>) -> Vec<Change> {
        let revision = Revision(self.revision + 1);
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put { key, value } => {
                    self.objects.insert(key.clone(), (value.clone(), revision));
                    changes.push(Change::Put(Entry { key, value, revision }));
                }
                Write::Delete(key) => {
                    if self.objects.remove(&key).is_some() {
                        changes.push(Change::Deleted { key, revision });
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.revision = revision.0;
            self.log.push_back((revision.0, changes.clone()));
            while self.log.len() > self.log_limit {
                self.compacted = self.log.pop_front().map_or(self.compacted, |(revision, _)| revision);
            }
        }
        changes
    }
}

/// Judges one check, given the revision at which an object exists.
pub(crate) fn verify(check: &Check, found: impl FnOnce(&String) -> Option<Revision>) -> Result<(), StoreError> {
    let (key, why) = match check {
        Check::Absent(key) => (key, found(key).map(|_| CheckFailure::Exists)),
        Check::Exists(key) => (key, found(key).is_none().then_some(CheckFailure::Missing)),
        Check::Unchanged { key, revision } => match found(key) {
            None => (key, Some(CheckFailure::Missing)),
            Some(current) => (key, (current != *revision).then_some(CheckFailure::Changed { current })),
        },
    };
    match why {
        None => Ok(()),
        Some(why) => Err(StoreError::CheckFailed { key: key.clone(), why }),
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let entry = |(value, revision): &(Vec<u8>, Revision)| Entry {
            key: key.to_owned(),
            value: value.clone(),
            revision: *revision,
        };
        Ok(lock(&self.state).objects.get(key).map(entry))
    }

    fn scan_at(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        let state = lock(&self.state);
        let entries = state
            .objects
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (value, revision))| Entry { key: key.clone(), value: value.clone(), revision: *revision });
        Ok((entries.collect(), Revision(state.revision)))
    }

    fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let (mut watches, _committing) = self.begin()?;
        let (changes, revision) = {
            let mut state = lock(&self.state);
            transaction.checks.iter().try_for_each(|check| state.check(check))?;
            (state.apply(transaction.writes), Revision(state.revision))
        };
        watches.notify(&changes, revision);
        Ok(revision)
    }

    fn watch(&self, from: Revision, sink: Sink) -> Result<WatchGuard, StoreError> {
        let (mut watches, _committing) = self.begin()?;
        let past: Vec<Change> = {
            let state = lock(&self.state);
            if from.0 < state.compacted || from.0 > state.revision {
                return Err(StoreError::Compacted { oldest: Revision(state.compacted) });
            }
            state.log.iter().filter(|(revision, _)| *revision > from.0).flat_map(|(_, c)| c.clone()).collect()
        };
        replay(&past, &sink);
        Ok(watches.add(sink))
    }

    fn backup(&self, to: &Path) -> Result<(), StoreError> {
        if to.exists() {
            return Err(StoreError::io("write the backup", to, std::io::ErrorKind::AlreadyExists.into()));
        }
        let copy = SqliteStore::open(to)?;
        let entries = self.scan("")?;
        let transaction = entries.into_iter().fold(Transaction::new(), |t, entry| t.put(entry.key, entry.value));
        copy.commit(transaction).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        crate::contract::store_contract(|limit| super::MemoryStore::with_log_limit(limit as usize), directory.path());
    }
}
