use std::{marker::PhantomData, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Entry, Revision, Store, StoreError, Write};

/// A decoded object; `id` is its key without the view's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<T> {
    pub id: String,
    pub value: T,
    pub revision: Revision,
}

/// The objects of one kind, stored as JSON under one key prefix (`"instance/"`).
pub struct Typed<T> {
    prefix: &'static str,
    kind: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Typed<T> {
    pub const fn new(prefix: &'static str) -> Self {
        Self { prefix, kind: PhantomData }
    }

    pub fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    pub fn get(&self, store: &dyn Store, id: &str) -> Result<Option<Object<T>>, StoreError> {
        store.get(&self.key(id))?.map(|entry| self.decode(&entry)).transpose()
    }

    pub fn scan(&self, store: &dyn Store) -> Result<Vec<Object<T>>, StoreError> {
        store.scan(self.prefix)?.iter().map(|entry| self.decode(entry)).collect()
    }

    /// Decodes an entry of this prefix, for instance one that a watch reported.
    pub fn decode(&self, entry: &Entry) -> Result<Object<T>, StoreError> {
        let value = serde_json::from_slice(&entry.value)
            .map_err(|error| StoreError::Decode { key: entry.key.clone(), source: Arc::new(error) })?;
        let id = entry.key.strip_prefix(self.prefix).unwrap_or(&entry.key).to_owned();
        Ok(Object { id, value, revision: entry.revision })
    }

    /// The write that stores `value`; fails only for what JSON cannot hold (a map whose keys are not text).
    pub fn put(&self, id: &str, value: &T) -> Result<Write, StoreError> {
        let key = self.key(id);
        match serde_json::to_vec(value) {
            Ok(value) => Ok(Write::Put { key, value }),
            Err(error) => Err(StoreError::Decode { key, source: Arc::new(error) }),
        }
    }

    pub fn delete(&self, id: &str) -> Write {
        Write::Delete(self.key(id))
    }
}
