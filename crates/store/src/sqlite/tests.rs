use std::{
    cell::Cell,
    fs,
    io::{Seek, Write as _},
    os::unix::fs::PermissionsExt,
    sync::Arc,
};

use stapes_model::ErrorKind;

use crate::{SqliteStore, Store, StoreError, Transaction, contract::store_contract};

#[test]
fn keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    let fresh = |limit| {
        count.set(count.get() + 1);
        SqliteStore::open_with_log_limit(&directory.path().join(format!("{}.db", count.get())), limit).unwrap()
    };
    store_contract(fresh, directory.path());
}

#[test]
fn objects_and_revisions_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = SqliteStore::open(&path).unwrap();
    let before = store.commit(Transaction::new().put("a", "1")).unwrap();
    drop(store);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap().revision, before);
    assert!(store.commit(Transaction::new().delete("a")).unwrap() > before);
    let after_delete = store.scan_at("").unwrap().1;
    drop(store);
    assert_eq!(SqliteStore::open(&path).unwrap().scan_at("").unwrap().1, after_delete);
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let _store = SqliteStore::open(&path).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("state.db is in use by another process"), "{error}");
}

#[test]
fn a_newer_schema_is_refused_by_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    drop(SqliteStore::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 1, .. }), "{error}");
}

#[test]
fn a_damaged_file_is_named_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    fs::write(&path, "this is no database, although it is long enough to look like one".repeat(100)).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("state.db is damaged") && error.to_string().contains("restore a backup"));

    let path = directory.path().join("middle.db");
    let store = SqliteStore::open(&path).unwrap();
    for key in 0..200 {
        store.commit(Transaction::new().put(format!("k{key}"), vec![7; 400])).unwrap();
    }
    drop(store);
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(std::io::SeekFrom::Start(8192)).unwrap();
    file.write_all(&[0xff; 40_000]).unwrap();
    let error = SqliteStore::open(&path).and_then(|store| store.scan("")).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    let path = directory.path().join("foreign.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Foreign { .. })));
}

#[test]
fn a_group_commits_together_and_fails_apart() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(directory.path().join("state.db")).unwrap());
    let create = |store: Arc<SqliteStore>| store.commit(Transaction::new().create("one", "x")).is_ok();
    let threads: Vec<_> =
        (0..32).map(|_| Arc::clone(&store)).map(|store| std::thread::spawn(move || create(store))).collect();
    assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).filter(|won| *won).count(), 1);
}
