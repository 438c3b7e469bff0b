//! The one thread that writes, and that calls the watches.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, TryRecvError},
};

use rusqlite::{Connection, OptionalExtension};

use super::{entry, file};
use crate::{
    Change, Check, Entry, Revision, Sink, StoreError, Transaction, WatchGuard, Write,
    memory::verify,
    watch::{Watches, replay},
};

/// Changes kept for watches that start from an old revision.
pub(super) const LOG_LIMIT: u64 = 10_000;
/// Commits behind one flush at most, so that the first of them does not wait for an endless queue.
const GROUP: usize = 64;
/// Commits after which an idle writer moves the WAL into the file.
const CHECKPOINT_AFTER: u64 = 200;

type Reply<T> = SyncSender<Result<T, StoreError>>;

pub(super) enum Job {
    Commit { transaction: Transaction, reply: Reply<Revision> },
    Watch { from: Revision, sink: Sink, reply: Reply<WatchGuard> },
}

pub(super) struct Writer {
    path: PathBuf,
    db: Connection,
    watches: Watches,
    revision: u64,
    log_limit: u64,
    since_trim: u64,
    since_checkpoint: u64,
}

/// A commit that was applied within the group and now waits for the group's flush.
struct Applied {
    changes: Vec<Change>,
    revision: Revision,
    reply: Reply<Revision>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, db: Connection, log_limit: u64) -> Result<Self, StoreError> {
        let revision = file::revision(&db).map_err(|error| StoreError::sqlite("read the revision", &path, error))?.0;
        let watches = Watches::default();
        Ok(Self { path, db, watches, revision, log_limit, since_trim: 0, since_checkpoint: 0 })
    }

    /// Serves the queue until its senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        let mut waiting = None;
        loop {
            let job = match waiting.take() {
                Some(job) => job,
                None => match queue.try_recv() {
                    Ok(job) => job,
                    Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) => {
                        self.checkpoint_if_due();
                        let Ok(job) = queue.recv() else { return };
                        job
                    }
                },
            };
            match job {
                Job::Watch { from, sink, reply } => {
                    let _ = reply.send(self.watch(from, sink));
                }
                Job::Commit { transaction, reply } => {
                    let mut group = vec![(transaction, reply)];
                    while group.len() < GROUP {
                        match queue.try_recv() {
                            Ok(Job::Commit { transaction, reply }) => group.push((transaction, reply)),
                            Ok(other) => {
                                waiting = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit(group);
                }
            }
        }
    }

    /// Applies a group behind one flush; then tells the watches, then the callers. A caller that went away is no error.
    fn commit(&mut self, group: Vec<(Transaction, Reply<Revision>)>) {
        let before = self.revision;
        if let Err(error) = self.sql("BEGIN IMMEDIATE") {
            for (_, reply) in group {
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        let mut applied = Vec::with_capacity(group.len());
        for (transaction, reply) in group {
            match self.apply_one(transaction) {
                Ok(changes) => applied.push(Applied { changes, revision: Revision(self.revision), reply }),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        if let Err(error) = self.trim_if_due().and_then(|()| self.sql("COMMIT")) {
            // The statement may have rolled back by itself (a full disk does); a second rollback then has nothing to do.
            let _ = self.db.execute_batch("ROLLBACK");
            self.revision = before;
            for commit in applied {
                let _ = commit.reply.send(Err(error.clone()));
            }
            return;
        }
        self.since_checkpoint += applied.len() as u64;
        for commit in applied {
            self.watches.notify(&commit.changes, commit.revision);
            let _ = commit.reply.send(Ok(commit.revision));
        }
    }

    /// One transaction within the group: it fails alone.
    fn apply_one(&mut self, transaction: Transaction) -> Result<Vec<Change>, StoreError> {
        for check in &transaction.checks {
            self.check(check)?;
        }
        if transaction.writes.is_empty() {
            return Ok(Vec::new());
        }
        self.sql("SAVEPOINT one")?;
        match self.write(transaction.writes) {
            Ok(changes) => {
                self.sql("RELEASE one")?;
                if !changes.is_empty() {
                    self.revision += 1;
                    self.since_trim += changes.len() as u64;
                }
                Ok(changes)
            }
            Err(error) => {
                let _ = self.db.execute_batch("ROLLBACK TO one; RELEASE one");
                Err(StoreError::sqlite("write objects", &self.path, error))
            }
        }
    }

    fn check(&self, check: &Check) -> Result<(), StoreError> {
        let key = match check {
            Check::Absent(key) | Check::Exists(key) | Check::Unchanged { key, .. } => key,
        };
        let found = (|| {
            let mut select = self.db.prepare_cached("SELECT revision FROM object WHERE key = ?1")?;
            select.query_row([key], |row| row.get::<_, i64>(0)).optional()
        })()
        .map_err(|error| StoreError::sqlite("check an object", &self.path, error))?;
        verify(check, |_| found.map(|revision| Revision(revision as u64)))
    }

    fn write(&self, writes: Vec<Write>) -> rusqlite::Result<Vec<Change>> {
        let revision = Revision(self.revision + 1);
        let number = revision.0 as i64;
        let mut put =
            self.db.prepare_cached("INSERT OR REPLACE INTO object (key, value, revision) VALUES (?1, ?2, ?3)")?;
        let mut delete = self.db.prepare_cached("DELETE FROM object WHERE key = ?1")?;
        let mut log =
            self.db.prepare_cached("INSERT INTO change (revision, place, key, deleted) VALUES (?1, ?2, ?3, ?4)")?;
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            let place = changes.len() as i64;
            match write {
                Write::Put { key, value } => {
                    put.execute((&key, &value, number))?;
                    log.execute((number, place, &key, false))?;
                    changes.push(Change::Put(Entry { key, value, revision }));
                }
                Write::Delete(key) => {
                    if delete.execute([&key])? > 0 {
                        log.execute((number, place, &key, true))?;
                        changes.push(Change::Deleted { key, revision });
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Bounds the log: once a tenth more than the limit was written, cuts it back, always between two commits.
    fn trim_if_due(&mut self) -> Result<(), StoreError> {
        if self.since_trim * 10 < self.log_limit {
            return Ok(());
        }
        let cut = "DELETE FROM change WHERE revision <
            (SELECT revision FROM change ORDER BY revision DESC, place DESC LIMIT 1 OFFSET ?1)";
        self.db
            .execute(cut, [self.log_limit as i64])
            .map_err(|error| StoreError::sqlite("cut the change log", &self.path, error))?;
        self.since_trim = 0;
        Ok(())
    }

    fn watch(&mut self, from: Revision, sink: Sink) -> Result<WatchGuard, StoreError> {
        let past = self.past(from).map_err(|error| StoreError::sqlite("read the change log", &self.path, error))?;
        // What a revision beyond the newest would mean, only a restored backup knows: read everything anew.
        let past =
            past.ok_or_else(|| StoreError::Compacted { oldest: self.oldest().unwrap_or(Revision(self.revision)) })?;
        replay(&past, &sink);
        Ok(self.watches.add(sink))
    }

    /// The newest revision that the log does not explain any more.
    fn oldest(&self) -> Option<Revision> {
        let sql = "SELECT MIN(revision) FROM change";
        let first = self.db.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).ok()?;
        first.map(|first| Revision(first as u64 - 1))
    }

    /// The changes after `from`, or `None` if the log does not reach back so far.
    fn past(&self, from: Revision) -> rusqlite::Result<Option<Vec<Change>>> {
        if from.0 > self.revision || from < self.oldest().unwrap_or(Revision::START) {
            return Ok(None);
        }
        let mut changes = Vec::new();
        // A put whose object is gone or newer is left out: the later row of the log tells the rest.
        let sql = "SELECT c.key, o.value, c.revision, c.deleted FROM change c
            LEFT JOIN object o ON o.key = c.key AND o.revision = c.revision AND NOT c.deleted
            WHERE c.revision > ?1 AND (c.deleted OR o.key IS NOT NULL) ORDER BY c.revision, c.place";
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([from.0 as i64])?;
        while let Some(row) = rows.next()? {
            if row.get(3)? {
                changes.push(Change::Deleted { key: row.get(0)?, revision: Revision(row.get::<_, i64>(2)? as u64) });
            } else {
                changes.push(Change::Put(entry(row)?));
            }
        }
        Ok(Some(changes))
    }

    fn checkpoint_if_due(&mut self) {
        if self.since_checkpoint < CHECKPOINT_AFTER {
            return;
        }
        self.since_checkpoint = 0;
        let done = self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(path = %self.path.display(), %error, "failed to checkpoint the store; it is tried again later");
        }
    }

    fn sql(&self, statement: &'static str) -> Result<(), StoreError> {
        self.db
            .prepare_cached(statement)
            .and_then(|mut statement| statement.execute([]))
            .map(drop)
            .map_err(|error| StoreError::sqlite("commit", &self.path, error))
    }
}
