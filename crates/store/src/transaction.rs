use crate::Revision;

/// A condition on the state before a [`Transaction`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    Absent(String),
    /// The object exists and nobody wrote it since it was read at `revision`.
    Unchanged {
        key: String,
        revision: Revision,
    },
    Exists(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put {
        key: String,
        value: Vec<u8>,
    },
    /// No such object is success, and no change.
    Delete(String),
}

/// All checks and all writes, or nothing. Writes apply in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub checks: Vec<Check>,
    pub writes: Vec<Write>,
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    pub fn write(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    pub fn absent(self, key: impl Into<String>) -> Self {
        self.check(Check::Absent(key.into()))
    }

    pub fn exists(self, key: impl Into<String>) -> Self {
        self.check(Check::Exists(key.into()))
    }

    pub fn unchanged(self, key: impl Into<String>, revision: Revision) -> Self {
        self.check(Check::Unchanged { key: key.into(), revision })
    }

    pub fn put(self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.write(Write::Put { key: key.into(), value: value.into() })
    }

    pub fn delete(self, key: impl Into<String>) -> Self {
        self.write(Write::Delete(key.into()))
    }

    /// `put` that fails when the object exists already.
    pub fn create(self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let key = key.into();
        self.absent(key.clone()).put(key, value)
    }

    /// `put` that fails when the object changed since `revision`.
    pub fn replace(self, key: impl Into<String>, revision: Revision, value: impl Into<Vec<u8>>) -> Self {
        let key = key.into();
        self.unchanged(key.clone(), revision).put(key, value)
    }
}
