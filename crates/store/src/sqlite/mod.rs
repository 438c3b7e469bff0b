//! The store on one machine: an SQLite file in WAL mode with `synchronous=FULL`, one writer thread, readers beside it.

mod file;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        mpsc::{Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle, ThreadId},
};

use rusqlite::{Connection, OptionalExtension, Row};

use crate::{Entry, Revision, Sink, Store, StoreError, Transaction, WatchGuard};
use writer::Job;

/// Idle read connections kept. Each costs some 60 KiB beside its page cache; more readers at once open their own.
const IDLE_READERS: usize = 2;

/// An SQLite file; see [`Store`].
///
/// Commits queue for one writer thread, which puts those that wait together into one SQLite transaction and so behind
/// one flush; each is still atomic by itself.
pub struct SqliteStore {
    path: PathBuf,
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    writer_id: ThreadId,
    readers: Mutex<Vec<Connection>>,
    /// Holds the lock that keeps a second process out.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store, or makes an empty one with mode 0600. Beside `path` it keeps `-wal`, `-shm` and `.lock` files.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with_log_limit(path.as_ref(), writer::LOG_LIMIT)
    }

    pub(crate) fn open_with_log_limit(path: &Path, log_limit: u64) -> Result<Self, StoreError> {
        let lock = file::lock(path)?;
        let connection = file::open(path)?;
        let (jobs, queue) = channel();
        let state = writer::Writer::new(path.to_owned(), connection, log_limit)?;
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || state.run(&queue))
            .map_err(|error| StoreError::io("start the writer of", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            jobs: Some(jobs),
            writer_id: writer.thread().id(),
            writer: Some(writer),
            readers: Mutex::new(Vec::new()),
            _lock: lock,
        })
    }

    fn ask<T>(&self, job: impl FnOnce(SyncSender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        if thread::current().id() == self.writer_id {
            return Err(StoreError::Reentrant);
        }
        let (reply, answer) = sync_channel(1);
        self.jobs.as_ref().ok_or(StoreError::Closed)?.send(job(reply)).map_err(|_| StoreError::Closed)?;
        answer.recv().map_err(|_| StoreError::Closed)?
    }

    fn read<T>(
        &self,
        doing: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => file::reader(&self.path)?,
        };
        // A connection that failed is not put back: its state is unknown.
        let result = query(&connection).map_err(|error| StoreError::sqlite(doing, &self.path, error))?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        Ok(result)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Closing the queue ends the writer, which checkpoints last.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.jobs = None;
        if let Some(writer) = self.writer.take()
            && thread::current().id() != self.writer_id
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the store's writer thread had panicked");
        }
    }
}

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { key: row.get(0)?, value: row.get(1)?, revision: Revision(row.get::<_, i64>(2)? as u64) })
}

impl Store for SqliteStore {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.read("read an object", |db| {
            db.prepare_cached("SELECT key, value, revision FROM object WHERE key = ?1")?
                .query_row([key], entry)
                .optional()
        })
    }

    fn scan_at(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
        self.read("scan objects", |db| {
            let snapshot = db.unchecked_transaction()?;
            let revision = file::revision(&snapshot)?;
            let mut entries = Vec::new();
            {
                // Ending the walk at the first foreign key needs no "end of prefix", which text does not always have.
                let sql = "SELECT key, value, revision FROM object WHERE key >= ?1 ORDER BY key";
                let mut statement = snapshot.prepare_cached(sql)?;
                let mut rows = statement.query([prefix])?;
                while let Some(row) = rows.next()? {
                    if !row.get_ref(0)?.as_str()?.starts_with(prefix) {
                        break;
                    }
                    entries.push(entry(row)?);
                }
            }
            snapshot.finish()?;
            Ok((entries, revision))
        })
    }

    fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        self.ask(|reply| Job::Commit { transaction, reply })
    }

    fn watch(&self, from: Revision, sink: Sink) -> Result<WatchGuard, StoreError> {
        self.ask(|reply| Job::Watch { from, sink, reply })
    }

    fn backup(&self, to: &Path) -> Result<(), StoreError> {
        if to.exists() {
            return Err(StoreError::io("write the backup", to, std::io::ErrorKind::AlreadyExists.into()));
        }
        let partial = file::beside(to, ".partial");
        file::remove_if_there(&partial)?;
        file::copy(&self.path, &partial)?;
        file::publish(&partial, to)
    }
}
