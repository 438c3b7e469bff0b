//! What any store must do. Each engine's test calls [`store_contract`].

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use crate::{Change, CheckFailure, Entry, Revision, Sink, Store, StoreError, Transaction, Typed};

/// `fresh(log_limit)` makes an empty store whose log holds about that many changes.
pub(crate) fn store_contract<S: Store + 'static>(fresh: impl Fn(u64) -> S, directory: &Path) {
    an_object_reads_back_as_written(&fresh(100));
    a_failed_check_writes_nothing(&fresh(100));
    racing_writers_lose_no_update(Arc::new(fresh(10_000)));
    a_scan_finds_a_prefix_and_nothing_else(&fresh(100));
    a_watch_shows_a_caller_its_own_writes(&fresh(100));
    a_late_watch_continues_a_scan_without_gap(&fresh(100));
    a_watch_from_before_the_log_is_told_so(&fresh(10));
    a_dropped_guard_ends_the_watch(&fresh(100));
    a_sink_may_read_but_not_commit(Arc::new(fresh(100)));
    a_backup_opens_with_the_same_objects(&fresh(100), directory);
    typed_objects_are_json_under_a_prefix(&fresh(100));
}

fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.commit(Transaction::new().put(key, value)).unwrap()
}

/// A sink that writes what it hears as `key=value` or `-key`.
fn recorder() -> (Arc<Mutex<Vec<String>>>, Sink) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&heard);
    let sink: Sink = Box::new(move |changes, revision| {
        for change in changes {
            list.lock().unwrap().push(match change {
                Change::Put(entry) => {
                    assert_eq!(entry.revision, revision);
                    format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value))
                }
                Change::Deleted { key, .. } => format!("-{key}"),
            });
        }
    });
    (heard, sink)
}

fn an_object_reads_back_as_written(store: &dyn Store) {
    assert_eq!(store.get("a").unwrap(), None);
    let first = put(store, "a", "1");
    let second = store.commit(Transaction::new().put("b", vec![0, 255]).delete("gone").delete("a")).unwrap();
    assert!(Revision::START < first && first < second);
    assert_eq!(store.get("a").unwrap(), None);
    assert_eq!(store.get("b").unwrap(), Some(Entry { key: "b".into(), value: vec![0, 255], revision: second }));
    assert_eq!(store.commit(Transaction::new().delete("gone")).unwrap(), second, "nothing changed");
}

fn a_failed_check_writes_nothing(store: &dyn Store) {
    let first = put(store, "a", "1");
    let failure = |transaction: Transaction| match store.commit(transaction.put("x", "x").delete("a")) {
        Err(StoreError::CheckFailed { key, why }) => (key, why),
        other => panic!("{other:?}"),
    };
    assert_eq!(failure(Transaction::new().absent("a")), ("a".into(), CheckFailure::Exists));
    assert_eq!(failure(Transaction::new().exists("a").exists("b")), ("b".into(), CheckFailure::Missing));
    assert_eq!(failure(Transaction::new().unchanged("b", first)), ("b".into(), CheckFailure::Missing));
    let current = put(store, "a", "2");
    assert_eq!(failure(Transaction::new().unchanged("a", first)), ("a".into(), CheckFailure::Changed { current }));
    assert_eq!(store.get("x").unwrap(), None);
    assert!(store.get("a").unwrap().is_some());
    store.commit(Transaction::new().replace("a", current, "3").create("x", "y")).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap().value, b"3");
}

fn racing_writers_lose_no_update<S: Store + 'static>(store: Arc<S>) {
    put(&*store, "count", "0");
    let add_25 = |store: Arc<S>| {
        let mut done = 0;
        while done < 25 {
            let now = store.get("count").unwrap().unwrap();
            let next = (String::from_utf8(now.value).unwrap().parse::<u32>().unwrap() + 1).to_string();
            match store.commit(Transaction::new().replace("count", now.revision, next)) {
                Ok(_) => done += 1,
                Err(StoreError::CheckFailed { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    let threads: Vec<_> = (0..8).map(|_| Arc::clone(&store)).map(|s| std::thread::spawn(move || add_25(s))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(store.get("count").unwrap().unwrap().value, b"200");
}

fn a_scan_finds_a_prefix_and_nothing_else(store: &dyn Store) {
    for key in ["i", "i/", "i/b", "i/a", "i/ä", "i0", "j/a", "%", "i/\u{10ffff}"] {
        put(store, key, key);
    }
    let keys = |prefix| store.scan(prefix).unwrap().into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    assert_eq!(keys("i/"), ["i/", "i/a", "i/b", "i/ä", "i/\u{10ffff}"]);
    assert_eq!(keys("i/\u{10ffff}"), ["i/\u{10ffff}"]);
    assert_eq!(keys("x"), [""; 0]);
    assert_eq!(keys("").len(), 9);
}

fn a_watch_shows_a_caller_its_own_writes(store: &dyn Store) {
    let (heard, sink) = recorder();
    let _guard = store.watch(Revision::START, sink).unwrap();
    for round in 0..20 {
        put(store, "a", &round.to_string());
        assert_eq!(heard.lock().unwrap().last().unwrap(), &format!("a={round}"));
    }
    store.commit(Transaction::new().delete("a").put("b", "1")).unwrap();
    assert!(heard.lock().unwrap().ends_with(&["-a".into(), "b=1".into()]));
}

fn a_late_watch_continues_a_scan_without_gap(store: &dyn Store) {
    put(store, "a", "1");
    let (_, from) = store.scan_at("").unwrap();
    put(store, "b", "1");
    put(store, "c", "1");
    store.commit(Transaction::new().delete("b")).unwrap();
    let (heard, sink) = recorder();
    let _guard = store.watch(from, sink).unwrap();
    // `b=1` may be left out, since `b` is gone by now.
    heard.lock().unwrap().retain(|change| change != "b=1");
    put(store, "d", "1");
    assert_eq!(*heard.lock().unwrap(), ["c=1", "-b", "d=1"]);
}

fn a_watch_from_before_the_log_is_told_so(store: &dyn Store) {
    let early = put(store, "a", "0");
    for round in 1..=40 {
        put(store, "a", &round.to_string());
    }
    let (heard, sink) = recorder();
    let Err(StoreError::Compacted { oldest }) = store.watch(early, sink) else { panic!("the log has no end") };
    assert!(oldest > early && heard.lock().unwrap().is_empty());
    let (heard, sink) = recorder();
    let _guard = store.watch(oldest, sink).unwrap();
    assert_eq!(heard.lock().unwrap().last().unwrap(), "a=40");
    let beyond = Revision(store.scan_at("").unwrap().1.0 + 1);
    assert!(matches!(store.watch(beyond, recorder().1), Err(StoreError::Compacted { .. })));
}

fn a_dropped_guard_ends_the_watch(store: &dyn Store) {
    let (heard, sink) = recorder();
    drop(store.watch(Revision::START, sink).unwrap());
    put(store, "a", "1");
    assert!(heard.lock().unwrap().is_empty());
}

fn a_sink_may_read_but_not_commit<S: Store + 'static>(store: Arc<S>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (inner, list) = (Arc::clone(&store), Arc::clone(&seen));
    let sink: Sink = Box::new(move |changes, _| {
        let read = inner.get(changes[0].key()).unwrap().unwrap().value;
        let refused = inner.commit(Transaction::new().put("z", "z"));
        list.lock().unwrap().push((read, matches!(refused, Err(StoreError::Reentrant))));
    });
    let guard = store.watch(Revision::START, sink).unwrap();
    put(&*store, "a", "1");
    drop(guard);
    put(&*store, "b", "1"); // the engine lets go of the sink, and with it of the store
    assert_eq!(*seen.lock().unwrap(), [(b"1".to_vec(), true)]);
}

fn a_backup_opens_with_the_same_objects(store: &dyn Store, directory: &Path) {
    put(store, "a", "1");
    let to = directory.join("backup.db");
    store.backup(&to).unwrap();
    put(store, "a", "2");
    assert!(store.backup(&to).is_err(), "an existing file is never overwritten");
    let copy = crate::SqliteStore::open(&to).unwrap();
    assert_eq!(copy.get("a").unwrap().unwrap().value, b"1");
}

fn typed_objects_are_json_under_a_prefix(store: &dyn Store) {
    const NUMBERS: Typed<Vec<u8>> = Typed::new("number/");
    store.commit(Transaction::new().write(NUMBERS.put("one", &vec![1, 2]).unwrap())).unwrap();
    assert_eq!(NUMBERS.get(store, "one").unwrap().unwrap().value, [1, 2]);
    assert_eq!(NUMBERS.scan(store).unwrap()[0].id, "one");
    put(store, "number/two", "not json");
    assert!(NUMBERS.scan(store).unwrap_err().to_string().contains("number/two"));
    store.commit(Transaction::new().write(NUMBERS.delete("one"))).unwrap();
    assert_eq!(NUMBERS.get(store, "one").unwrap(), None);
}
