use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{Change, Revision};

/// Called with all changes of one commit and its revision.
pub type Sink = Box<dyn Fn(&[Change], Revision) + Send + Sync>;

/// Keeps a watch alive. After its drop no new call of the sink begins, though one may be under way on another thread.
#[must_use = "dropping the guard ends the watch"]
#[derive(Debug)]
pub struct WatchGuard {
    alive: Arc<AtomicBool>,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
    }
}

/// The watches of one store; lives with whoever applies commits.
#[derive(Default)]
pub(crate) struct Watches {
    watches: Vec<(Arc<AtomicBool>, Sink)>,
}

impl Watches {
    pub(crate) fn add(&mut self, sink: Sink) -> WatchGuard {
        let alive = Arc::new(AtomicBool::new(true));
        self.watches.push((Arc::clone(&alive), sink));
        WatchGuard { alive }
    }

    pub(crate) fn notify(&mut self, changes: &[Change], revision: Revision) {
        if changes.is_empty() {
            return;
        }
        self.watches.retain(|(alive, _)| alive.load(Ordering::Acquire));
        for (_, sink) in &self.watches {
            sink(changes, revision);
        }
    }
}

/// Hands `changes`, which are in order, to `sink` one commit at a time.
pub(crate) fn replay(changes: &[Change], sink: &Sink) {
    let revision = |change: &Change| match change {
        Change::Put(entry) => entry.revision,
        Change::Deleted { revision, .. } => *revision,
    };
    for commit in changes.chunk_by(|a, b| revision(a) == revision(b)) {
        sink(commit, revision(&commit[0]));
    }
}
