//! What a creation in progress has chosen but not yet committed: ids, id ranges, addresses, MACs.
//!
//! The store's claims are the truth and refuse a double use; this keeps two creations on this host from choosing the
//! same and one of them failing for it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug, Default, Clone)]
pub struct Reserved {
    keys: Arc<Mutex<HashSet<String>>>,
}

/// Gives its keys back when dropped.
#[derive(Debug)]
pub struct Reservation {
    keys: Arc<Mutex<HashSet<String>>>,
    ours: Vec<String>,
}

impl Reserved {
    /// Chooses with everything reserved in view; nobody else chooses meanwhile. `choose` returns its result and the
    /// claim keys to hold.
    pub fn choose<T, E>(
        &self,
        choose: impl FnOnce(&HashSet<String>) -> Result<(T, Vec<String>), E>,
    ) -> Result<(T, Reservation), E> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let (choice, ours) = choose(&keys)?;
        keys.extend(ours.iter().cloned());
        Ok((choice, Reservation { keys: Arc::clone(&self.keys), ours }))
    }
}

impl Reservation {
    /// What is held: claim keys, to be written with the record that uses them, and the record's own.
    pub fn keys(&self) -> &[String] {
        &self.ours
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.ours {
            keys.remove(key);
        }
    }
}
