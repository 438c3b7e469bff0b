//! Dying on purpose, at a chosen step, to prove that the next start finds a consistent host.
//!
//! Only with the feature `failpoints`; without it nothing of this is compiled in. A step is what the journal notes, and
//! the moments before and after each commit of the store. Two ways to choose one, both by SIGKILL:
//! - `STAPES_KILL_AT_STEP=n`: the n-th step since the daemon's start, which reaches into recovery itself;
//! - `STAPES_KILL_FILE=path`: while that file is there and holds `<word> <n>`, the n-th step since it holds that word.

/// Marks a step.
#[cfg(not(feature = "failpoints"))]
pub fn reached(_step: &str) {}

#[cfg(feature = "failpoints")]
pub use armed::{DyingStore, reached};

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        path::Path,
        sync::{
            Arc, LazyLock, Mutex, PoisonError,
            atomic::{AtomicU64, Ordering},
        },
    };

    use stapes_store::{Entry, Revision, Sink, Store, StoreError, Transaction, WatchGuard};

    pub fn reached(step: &str) {
        static LEFT: LazyLock<Option<AtomicU64>> = LazyLock::new(|| {
            std::env::var("STAPES_KILL_AT_STEP").ok().and_then(|text| text.parse().ok()).map(AtomicU64::new)
        });
        let counted = LEFT.as_ref().is_some_and(|left| left.fetch_sub(1, Ordering::SeqCst) == 1);
        if counted || filed() {
            eprintln!("failpoint: dying at step {step}");
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }

    /// Whether the file asks for this step.
    fn filed() -> bool {
        static FILE: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("STAPES_KILL_FILE").ok());
        static SEEN: Mutex<(String, u64)> = Mutex::new((String::new(), 0));
        let Some(text) = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) else { return false };
        let Some((word, number)) = text.trim().split_once(' ') else { return false };
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != word {
            *seen = (word.to_owned(), 0);
        }
        seen.1 += 1;
        number.parse() == Ok(seen.1)
    }

    /// A store whose every commit has a step before and after it.
    pub struct DyingStore(pub Arc<dyn Store>);

    impl Store for DyingStore {
        fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
            self.0.get(key)
        }

        fn scan_at(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
            self.0.scan_at(prefix)
        }

        fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
            reached("before a commit");
            let committed = self.0.commit(transaction);
            reached("after a commit");
            committed
        }

        fn watch(&self, from: Revision, sink: Sink) -> Result<WatchGuard, StoreError> {
            self.0.watch(from, sink)
        }

        fn backup(&self, to: &Path) -> Result<(), StoreError> {
            self.0.backup(to)
        }
    }
}
