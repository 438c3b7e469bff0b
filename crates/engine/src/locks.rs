//! One workflow at a time on one object. A second one is told at once who holds it instead of waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Error, Result};

type Holders = Mutex<HashMap<String, &'static str>>;

#[derive(Debug, Default, Clone)]
pub struct Locks {
    holders: Arc<Holders>,
}

/// Holds the object until dropped.
#[derive(Debug)]
pub struct Held {
    holders: Arc<Holders>,
    key: String,
}

impl Locks {
    /// Takes the object for `verb`, or fails with [`Error::Busy`] naming the verb that has it.
    pub fn take(&self, what: &'static str, name: &str, verb: &'static str) -> Result<Held> {
        let key = format!("{what}/{name}");
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = holders.get(&key) {
            return Err(Error::Busy { what, name: name.to_owned(), holder: (*holder).to_owned() });
        }
        holders.insert(key.clone(), verb);
        Ok(Held { holders: Arc::clone(&self.holders), key })
    }

    /// The verb that holds the object now.
    pub fn holder(&self, what: &'static str, name: &str) -> Option<&'static str> {
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.get(&format!("{what}/{name}")).copied()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_holds_it() {
        let locks = Locks::default();
        let held = locks.take("instance", "c1", "start").unwrap();
        let error = locks.take("instance", "c1", "delete").unwrap_err();
        assert_eq!(error.to_string(), "instance \"c1\" is busy: start is under way");
        assert!(locks.take("instance", "c2", "start").is_ok());
        drop(held);
        assert!(locks.take("instance", "c1", "delete").is_ok());
    }
}
