//! Opening, locking and copying the file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use crate::{Revision, StoreError};

/// "Stap" in the file's header: what tells our file from another program's.
const APPLICATION_ID: i64 = 0x5374_6170;
/// Raised with every change of the tables; an older program refuses a newer file.
const SCHEMA: i64 = 1;

/// The log keeps keys only: a watch that starts late reads the value as it is now, or skips what was replaced since.
const TABLES: &str = "
    CREATE TABLE object (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE change (revision INTEGER NOT NULL, place INTEGER NOT NULL, key TEXT NOT NULL, deleted INTEGER NOT NULL,
                         PRIMARY KEY (revision, place)) WITHOUT ROWID;
";

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes the lock that says "this process owns the store". A file of its own, because closing any descriptor of the
/// database file would drop SQLite's POSIX locks on it.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = beside(path, ".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| StoreError::io("open", &lock_path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &lock_path, error)),
    }
}

/// The writer's connection to an existing or new file.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite would create it readable by all; its -wal and -shm take this file's mode.
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::io("open", path, error))?;
    let fail = |error| StoreError::sqlite("open the tables", path, error);
    let mut db = connect(path, 512)?;
    let header = |db: &Connection, name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(fail);
    let fresh = header(&db, "page_count")? == 0;
    if !fresh {
        if header(&db, "application_id")? != APPLICATION_ID {
            return Err(StoreError::Foreign { path: path.to_owned() });
        }
        let found = header(&db, "user_version")?;
        if found > SCHEMA {
            return Err(StoreError::NewerSchema { path: path.to_owned(), found, known: SCHEMA });
        }
    }
    // WAL answers with the mode that the file now has; only a file system without shared memory keeps another.
    db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)).map_err(fail)?;
    db.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    // The writer checkpoints when it is idle; this is the backstop under unbroken load (16 MiB of WAL).
    db.pragma_update(None, "wal_autocheckpoint", 4000).map_err(fail)?;
    db.pragma_update(None, "journal_size_limit", 4 << 20).map_err(fail)?;
    if fresh {
        let setup = db.transaction().map_err(fail)?;
        setup.execute_batch(TABLES).map_err(fail)?;
        setup.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
        setup.pragma_update(None, "user_version", SCHEMA).map_err(fail)?;
        setup.commit().map_err(fail)?;
        sync_directory(path)?;
    }
    Ok(db)
}

pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let db = connect(path, 256)?;
    db.pragma_update(None, "query_only", true).map_err(|error| StoreError::sqlite("open", path, error))?;
    Ok(db)
}

fn connect(path: &Path, cache_kib: i64) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let fail = |error| StoreError::sqlite("open", path, error);
    let db = Connection::open_with_flags(path, flags).map_err(fail)?;
    // Readers and the writer never block each other in WAL; this covers recovery after a crash.
    db.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
    // Negative means KiB. The daemon's whole budget is 15 MiB, and the index above holds everything decoded anyway.
    db.pragma_update(None, "cache_size", -cache_kib).map_err(fail)?;
    Ok(db)
}

/// The newest revision; the log always keeps its newest rows.
pub(super) fn revision(db: &Connection) -> rusqlite::Result<Revision> {
    let newest = "SELECT IFNULL(MAX(revision), 0) FROM change";
    db.prepare_cached(newest)?.query_row([], |row| row.get::<_, i64>(0)).map(|n| Revision(n as u64))
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Writes what is committed now, without free pages, to a new file. On a connection of its own: it counts as a write to
/// SQLite, which the readers' connections refuse, and its cache should not stay.
pub(super) fn copy(path: &Path, to: &Path) -> Result<(), StoreError> {
    let target = to.to_string_lossy();
    let fail = |error| StoreError::sqlite("copy the state", path, error);
    connect(path, 256)?.execute("VACUUM INTO ?1", [&target]).map(drop).map_err(fail)
}

/// Flushes a finished copy and gives it its name, so that under that name there is never half a copy.
pub(super) fn publish(partial: &Path, to: &Path) -> Result<(), StoreError> {
    let flush = || {
        let file = File::open(partial)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.sync_all()?;
        fs::rename(partial, to)
    };
    flush().map_err(|error| StoreError::io("write the backup", to, error))?;
    sync_directory(to)
}

/// Makes a name durable: flushing a file does not flush the directory that names it, fsync(2).
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StoreError::io("flush the directory", directory, error))
}
