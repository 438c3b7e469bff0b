use std::{
    collections::HashMap,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::Value;

use crate::{Event, Gap, Intent, JournalError, OpenIntent, Outcome, Step, events::Ring};

const APPLICATION_ID: i64 = 0x5374_6a6f;
const SCHEMA: i64 = 1;
/// Outcomes kept: so many, and none that is older than a day when the newest comes.
const OUTCOMES: i64 = 10_000;
const OUTCOME_AGE_MS: i64 = 24 * 3600 * 1000;
const TRIM_EVERY: u32 = 256;

/// `record` is in the order of writing, so that each write dirties the one page at its end; which rows belong to an open
/// operation is known in memory.
const TABLES: &str = "
    CREATE TABLE record (place INTEGER PRIMARY KEY, operation TEXT NOT NULL, boot TEXT NOT NULL, durable INTEGER NOT NULL,
                         step INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL);
    CREATE TABLE outcome (place INTEGER PRIMARY KEY, operation TEXT NOT NULL UNIQUE, status TEXT NOT NULL, error TEXT,
                          result TEXT NOT NULL, at INTEGER NOT NULL);
    CREATE TABLE event (seq INTEGER PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE ring (epoch INTEGER NOT NULL, newest INTEGER NOT NULL, clean INTEGER NOT NULL);
    INSERT INTO ring VALUES (0, 0, 0);
";

/// The journal of this host; see the crate's text for what it promises. All calls may come from any thread and block
/// for microseconds, or one flush where `durable`.
pub struct Journal {
    path: PathBuf,
    boot_id: String,
    /// Taken before `ring`, never after.
    file: Mutex<JournalFile>,
    ring: Mutex<Ring>,
    /// The file says that it holds all events: the next one must take that back.
    stopped: AtomicBool,
}

struct JournalFile {
    db: Connection,
    /// Places of the rows of each open operation.
    open: HashMap<String, Vec<i64>>,
    next_place: i64,
    finished_since_trim: u32,
    /// The newest event when the file was last said to hold all of them.
    persisted: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal, or makes an empty one with mode 0600. `boot_id` is `/proc/sys/kernel/random/boot_id`.
    pub fn open(path: impl AsRef<Path>, boot_id: &str) -> Result<Self, JournalError> {
        let micros = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |age| age.as_micros() as u64);
        Self::open_at(path, boot_id, micros)
    }

    /// [`Journal::open`] with the clock's part given: `fresh_epoch`, never used before, names the events' new epoch if the
    /// last one cannot be continued.
    pub fn open_at(path: impl AsRef<Path>, boot_id: &str, fresh_epoch: u64) -> Result<Self, JournalError> {
        let path = path.as_ref().to_owned();
        let db = open_file(&path)?;
        let fail = |error| JournalError::sqlite("read what is open", &path, error);
        let ring = load_ring(&db, fresh_epoch).map_err(fail)?;
        let open = load_open(&db).map_err(fail)?;
        let next_place: i64 =
            db.query_row("SELECT IFNULL(MAX(place), 0) + 1 FROM record", [], |row| row.get(0)).map_err(fail)?;
        let persisted = ring.newest();
        let file = JournalFile { db, open, next_place, finished_since_trim: 0, persisted };
        Ok(Self {
            path,
            boot_id: boot_id.to_owned(),
            file: Mutex::new(file),
            ring: Mutex::new(ring),
            stopped: AtomicBool::new(false),
        })
    }

    /// Notes what an operation is about to do; call before its first effect. Fails if the operation is open already.
    pub fn begin(&self, intent: &Intent) -> Result<(), JournalError> {
        let mut file = lock(&self.file);
        if file.open.contains_key(&intent.operation) {
            return Err(JournalError::Begun { operation: intent.operation.clone() });
        }
        let body = intent.plan.to_string();
        let place = self.append(&mut file, &intent.operation, false, &intent.kind, &body, intent.durable)?;
        file.open.insert(intent.operation.clone(), vec![place]);
        Ok(())
    }

    /// Notes progress within an open operation.
    pub fn step(&self, operation: &str, name: &str, detail: Value, durable: bool) -> Result<(), JournalError> {
        let mut file = lock(&self.file);
        if !file.open.contains_key(operation) {
            return Err(JournalError::NotOpen { operation: operation.to_owned() });
        }
        let place = self.append(&mut file, operation, true, name, &detail.to_string(), durable)?;
        file.open.entry(operation.to_owned()).or_default().push(place);
        Ok(())
    }

    /// Closes an operation and keeps what came of it: the newest 10,000 outcomes, none older than a day. An operation
    /// that was never begun (it had no effects to note) may be finished too. A second outcome replaces the first.
    pub fn finish(&self, operation: &str, outcome: &Outcome) -> Result<(), JournalError> {
        let mut file = lock(&self.file);
        let places = file.open.get(operation).cloned().unwrap_or_default();
        let trim = file.finished_since_trim >= TRIM_EVERY;
        self.write(&mut file, "finish an operation", false, |db| {
            let mut delete = db.prepare_cached("DELETE FROM record WHERE place = ?1")?;
            for place in &places {
                delete.execute([place])?;
            }
            db.prepare_cached(
                "INSERT OR REPLACE INTO outcome (operation, status, error, result, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute((
                operation,
                &outcome.status,
                &outcome.error,
                outcome.result.to_string(),
                outcome.at,
            ))?;
            if trim {
                trim_outcomes(db, outcome.at)?;
            }
            Ok(())
        })?;
        file.finished_since_trim = if trim { 0 } else { file.finished_since_trim + 1 };
        file.open.remove(operation);
        Ok(())
    }

    /// Operations without an outcome, in the order in which they began.
    pub fn open_intents(&self) -> Result<Vec<OpenIntent>, JournalError> {
        let file = lock(&self.file);
        let read = || -> rusqlite::Result<Vec<OpenIntent>> {
            let sql = "SELECT operation, boot, durable, step, name, body FROM record ORDER BY place";
            let mut statement = file.db.prepare(sql)?;
            let mut rows = statement.query([])?;
            let mut intents: Vec<OpenIntent> = Vec::new();
            while let Some(row) = rows.next()? {
                let (operation, name, body) = (row.get::<_, String>(0)?, row.get(4)?, json(row, 5)?);
                if !row.get::<_, bool>(3)? {
                    let intent = Intent { operation, kind: name, plan: body, durable: row.get(2)? };
                    let same_boot = row.get_ref(1)?.as_str()? == self.boot_id;
                    intents.push(OpenIntent { intent, steps: Vec::new(), same_boot });
                } else if let Some(open) = intents.iter_mut().rfind(|open| open.intent.operation == operation) {
                    open.steps.push(Step { name, detail: body });
                }
            }
            Ok(intents)
        };
        read().map_err(|error| JournalError::sqlite("read what is open", &self.path, error))
    }

    pub fn outcome(&self, operation: &str) -> Result<Option<Outcome>, JournalError> {
        let file = lock(&self.file);
        let read = || {
            let mut one = file
                .db
                .prepare_cached("SELECT operation, status, error, result, at FROM outcome WHERE operation = ?1")?;
            one.query_row([operation], outcome_row).optional()
        };
        let found = read().map_err(|error| JournalError::sqlite("read an outcome", &self.path, error))?;
        Ok(found.map(|(_, outcome)| outcome))
    }

    /// The newest outcomes with their operations, newest first.
    pub fn recent(&self, limit: usize) -> Result<Vec<(String, Outcome)>, JournalError> {
        let file = lock(&self.file);
        let read = || -> rusqlite::Result<Vec<(String, Outcome)>> {
            let sql = "SELECT operation, status, error, result, at FROM outcome ORDER BY place DESC LIMIT ?1";
            let mut statement = file.db.prepare_cached(sql)?;
            statement.query_map([limit as i64], outcome_row)?.collect()
        };
        read().map_err(|error| JournalError::sqlite("read outcomes", &self.path, error))
    }

    /// Puts an event (one JSON document) into the ring and answers its `(epoch, seq)`. Only a stop writes it to the file,
    /// because nobody reads there what a killed daemon left: see the crate's text.
    pub fn append_event(&self, json: &str) -> (u64, u64) {
        let number = lock(&self.ring).push(json.into());
        if self.stopped.load(Ordering::Acquire)
            && let Err(error) = self.take_stop_back()
        {
            tracing::warn!(%error, "the journal says that it holds all events, and one is missing");
        }
        number
    }

    /// Flushed: if a power cut brought the mark "clean" back, a lost event would go unnoticed.
    fn take_stop_back(&self) -> Result<(), JournalError> {
        let mut file = lock(&self.file);
        if lock(&self.ring).newest() == file.persisted || !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        self.write(&mut file, "note an event after the stop", true, |db| {
            db.execute("UPDATE ring SET clean = 0", []).map(drop)
        })?;
        self.stopped.store(false, Ordering::Release);
        Ok(())
    }

    /// The events of `epoch` after `seq`, oldest first, at most `limit`.
    pub fn events_since(&self, epoch: u64, seq: u64, limit: usize) -> Result<Vec<Event>, Gap> {
        lock(&self.ring).since(epoch, seq, limit)
    }

    /// Where a client that starts now stands.
    pub fn newest_event(&self) -> (u64, u64) {
        let ring = lock(&self.ring);
        (ring.epoch(), ring.newest())
    }

    /// Writes the events and flushes, so that the next [`Journal::open`] continues their epoch. Dropping the journal does
    /// the same. What happens after it makes the next open begin a new epoch.
    pub fn stop(&self) -> Result<(), JournalError> {
        let mut file = lock(&self.file);
        // Before the ring is read: an event that comes in between sees it, waits for the file, and takes it back.
        let was_stopped = self.stopped.swap(true, Ordering::AcqRel);
        let (epoch, newest, events) = {
            let ring = lock(&self.ring);
            let events: Vec<_> = ring.after(0).map(|(seq, json)| (seq, Arc::clone(json))).collect();
            (ring.epoch(), ring.newest(), events)
        };
        if was_stopped && file.persisted == newest {
            return Ok(());
        }
        self.write(&mut file, "stop", true, |db| {
            db.execute("DELETE FROM event", [])?;
            let mut insert = db.prepare("INSERT INTO event (seq, json) VALUES (?1, ?2)")?;
            for (seq, json) in &events {
                insert.execute((*seq as i64, &**json))?;
            }
            db.execute("UPDATE ring SET epoch = ?1, newest = ?2, clean = 1", [epoch as i64, newest as i64]).map(drop)
        })?;
        file.persisted = newest;
        Ok(())
    }

    fn append(
        &self,
        file: &mut JournalFile,
        operation: &str,
        step: bool,
        name: &str,
        body: &str,
        durable: bool,
    ) -> Result<i64, JournalError> {
        let place = file.next_place;
        self.write(file, "note an operation", durable, |db| {
            db.prepare_cached(
                "INSERT INTO record (place, operation, boot, durable, step, name, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((place, operation, &self.boot_id, durable, step, name, body))
            .map(drop)
        })?;
        file.next_place += 1;
        Ok(place)
    }

    /// One transaction.
    fn write(
        &self,
        file: &mut JournalFile,
        doing: &'static str,
        durable: bool,
        action: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), JournalError> {
        let run = || -> rusqlite::Result<()> {
            if durable {
                // Read when a transaction begins; not allowed within one.
                file.db.execute_batch("PRAGMA synchronous = FULL")?;
            }
            file.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            action(&file.db)?;
            file.db.prepare_cached("COMMIT")?.execute([])?;
            Ok(())
        };
        let result = run();
        if result.is_err() && !file.db.is_autocommit() {
            let _ = file.db.execute_batch("ROLLBACK");
        }
        if durable {
            let _ = file.db.execute_batch("PRAGMA synchronous = NORMAL");
        }
        result.map_err(|error| JournalError::sqlite(doing, &self.path, error))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the journal was not closed in order; the next start begins a new epoch of events");
        }
    }
}

fn open_file(path: &Path) -> Result<Connection, JournalError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| JournalError::Open { path: path.to_owned(), source })?;
    let fail = |error| JournalError::sqlite("open the tables", path, error);
    let mut db = Connection::open(path).map_err(fail)?;
    db.busy_timeout(Duration::from_millis(200)).map_err(fail)?;
    db.pragma_update(None, "cache_size", -256).map_err(fail)?;
    // One connection, one process: no shared memory and no lock calls on each transaction, and a second daemon is refused.
    db.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(())).map_err(fail)?;
    let header = |db: &Connection, name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(fail);
    let fresh = header(&db, "page_count")? == 0;
    if !fresh {
        if header(&db, "application_id")? != APPLICATION_ID {
            return Err(JournalError::Damaged { path: path.to_owned(), source: None });
        }
        let found = header(&db, "user_version")?;
        if found > SCHEMA {
            return Err(JournalError::NewerSchema { path: path.to_owned(), found, known: SCHEMA });
        }
    }
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(fail)?;
    // FULL for what is durable; with NORMAL a checkpoint still flushes in the order that keeps the file whole.
    db.pragma_update(None, "synchronous", "NORMAL").map_err(fail)?;
    db.pragma_update(None, "journal_size_limit", 4 << 20).map_err(fail)?;
    db.set_prepared_statement_cache_capacity(32);
    if fresh {
        let setup = db.transaction().map_err(fail)?;
        setup.execute_batch(TABLES).map_err(fail)?;
        setup.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
        setup.pragma_update(None, "user_version", SCHEMA).map_err(fail)?;
        setup.commit().map_err(fail)?;
    }
    Ok(db)
}

/// Loads the ring of a journal that was stopped in order, else begins `fresh_epoch`; the file then says that it does not
/// hold all events, until the next stop.
fn load_ring(db: &Connection, fresh_epoch: u64) -> rusqlite::Result<Ring> {
    let (epoch, newest, clean): (i64, i64, bool) =
        db.query_row("SELECT epoch, newest, clean FROM ring", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if !clean {
        // Nothing to write, and nothing to wait for: that mark was flushed when it was set.
        return Ok(Ring::new(fresh_epoch, 0));
    }
    let events: Vec<String> = db
        .prepare("SELECT json FROM event ORDER BY seq")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut ring = Ring::new(epoch as u64, newest as u64 - events.len() as u64);
    for json in events {
        ring.push(json.into());
    }
    // Flushed: if a power cut brought the mark "clean" back, lost events would go unnoticed.
    db.execute_batch("PRAGMA synchronous = FULL")?;
    db.execute("UPDATE ring SET clean = 0", [])?;
    db.execute_batch("PRAGMA synchronous = NORMAL")?;
    Ok(ring)
}

fn load_open(db: &Connection) -> rusqlite::Result<HashMap<String, Vec<i64>>> {
    let mut open: HashMap<String, Vec<i64>> = HashMap::new();
    let mut statement = db.prepare("SELECT operation, place FROM record ORDER BY place")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        open.entry(row.get(0)?).or_default().push(row.get(1)?);
    }
    Ok(open)
}

fn trim_outcomes(db: &Connection, now: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM outcome WHERE place <= (SELECT MAX(place) FROM outcome) - ?1")?
        .execute([OUTCOMES])?;
    // In the order of writing, so this stops at the first that is young enough, whatever a jumping clock did later.
    let young = "SELECT MIN(place) FROM outcome WHERE at >= ?1";
    let first: Option<i64> = db.prepare_cached(young)?.query_row([now - OUTCOME_AGE_MS], |row| row.get(0))?;
    if let Some(first) = first {
        db.prepare_cached("DELETE FROM outcome WHERE place < ?1")?.execute([first])?;
    }
    Ok(())
}

fn json(row: &Row<'_>, column: usize) -> rusqlite::Result<Value> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn outcome_row(row: &Row<'_>) -> rusqlite::Result<(String, Outcome)> {
    let outcome = Outcome { status: row.get(1)?, error: row.get(2)?, result: json(row, 3)?, at: row.get(4)? };
    Ok((row.get(0)?, outcome))
}
