//! Durable state: objects with a revision, compare-and-set over several of them, prefix scan, watch.
//!
//! The trait asks only for what a consensus engine can do too (small values, opaque revisions, a watch that may answer
//! "compacted"), so that a cluster can put one underneath. On one machine [`SqliteStore`] is the engine; [`MemoryStore`]
//! keeps the same contract for tests of the layers above.
//!
//! Invariant: no clock, no ids and no randomness in here; revisions count commits. One process at a time owns a store.
#![forbid(unsafe_code)]

#[cfg(test)]
mod contract;
mod error;
mod memory;
mod sqlite;
mod transaction;
mod typed;
mod watch;

use std::path::Path;

pub use error::{CheckFailure, StoreError};
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;
pub use transaction::{Check, Transaction, Write};
pub use typed::{Object, Typed};
pub use watch::{Sink, WatchGuard};

/// Which commit last wrote an object, or up to which commit a reader has seen. Opaque: only equality and order mean
/// something, and [`Revision::START`] comes before every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Revision(pub(crate) u64);

impl Revision {
    pub const START: Revision = Revision(0);
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    pub revision: Revision,
}

/// What a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Entry),
    Deleted { key: String, revision: Revision },
}

impl Change {
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key, .. } => key,
        }
    }
}

/// Durable state shared by all threads of the daemon. Every call blocks: reads for microseconds, a commit for one flush.
pub trait Store: Send + Sync {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All objects whose key starts with `prefix`, in key order, as of one moment.
    fn scan(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.scan_at(prefix).map(|(entries, _)| entries)
    }

    /// Like [`Store::scan`], with the revision that a [`Store::watch`] continues from without gap or repetition.
    fn scan_at(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError>;

    /// Applies all writes if all checks hold, else none, and answers [`StoreError::CheckFailed`]. What it acknowledged is
    /// on disk, visible to every reader, and known to every watch. Must not be called from a watch's sink
    /// ([`StoreError::Reentrant`]). Without writes it only evaluates the checks.
    fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError>;

    /// Calls `sink` with the changes of each commit after `from`: first, before this returns, what has happened already
    /// (a value that a later commit replaced may be left out), then each commit as it happens, in order and **before**
    /// that `commit` returns to its caller. An index fed by it thus always shows a caller its own writes.
    ///
    /// Fails with [`StoreError::Compacted`] when the log no longer reaches back to `from`; scan anew then. The sink may
    /// read the store, must not commit, and delays every commit by what it takes. Ends with the guard.
    fn watch(&self, from: Revision, sink: Sink) -> Result<WatchGuard, StoreError>;

    /// Writes a consistent copy to `to`, which must not exist; commits go on meanwhile. The copy opens as a store.
    fn backup(&self, to: &Path) -> Result<(), StoreError>;
}
