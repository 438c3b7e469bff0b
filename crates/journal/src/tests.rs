use serde_json::{Value, json};
use stapes_model::ErrorKind;

use crate::{Intent, Journal, JournalError, Outcome};

fn intent(operation: &str, durable: bool) -> Intent {
    Intent { operation: operation.into(), kind: "start".into(), plan: json!({"id": "abc"}), durable }
}

fn outcome(at: i64) -> Outcome {
    Outcome { status: "Success".into(), error: None, result: json!({"pid": 7}), at }
}

/// Ends the journal as SIGKILL would: what the kernel has stays, nothing more is written.
fn kill(journal: Journal, path: &std::path::Path) -> std::path::PathBuf {
    let copy = path.with_extension("killed");
    for suffix in ["", "-wal"] {
        let name = |path: &std::path::Path| format!("{}{suffix}", path.display());
        if std::fs::exists(name(path)).unwrap() {
            std::fs::copy(name(path), name(&copy)).unwrap();
        }
    }
    drop(journal);
    copy
}

#[test]
fn an_intent_is_open_until_its_outcome_whoever_dies_between() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let journal = Journal::open_at(&path, "boot-1", 1).unwrap();
    journal.begin(&intent("one", true)).unwrap();
    journal.begin(&intent("two", false)).unwrap();
    journal.step("one", "mounted", json!("/x"), false).unwrap();
    journal.step("one", "started", Value::Null, true).unwrap();
    journal.finish("two", &outcome(5)).unwrap();
    let path = kill(journal, &path);

    let journal = Journal::open_at(&path, "boot-1", 2).unwrap();
    let open = journal.open_intents().unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].intent, intent("one", true));
    assert_eq!(open[0].steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["mounted", "started"]);
    assert!(open[0].same_boot);
    assert_eq!(journal.outcome("two").unwrap(), Some(outcome(5)));
    assert_eq!(journal.outcome("one").unwrap(), None);
    journal.finish("one", &outcome(6)).unwrap();
    drop(journal);

    let journal = Journal::open_at(&path, "boot-2", 3).unwrap();
    assert!(journal.open_intents().unwrap().is_empty());
    assert_eq!(journal.recent(9).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn an_intent_of_an_earlier_boot_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    Journal::open_at(&path, "boot-1", 1).unwrap().begin(&intent("one", false)).unwrap();
    let journal = Journal::open_at(&path, "boot-2", 2).unwrap();
    assert!(!journal.open_intents().unwrap()[0].same_boot);
}

#[test]
fn an_operation_begins_once_and_steps_only_while_open() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open_at(directory.path().join("journal.db"), "b", 1).unwrap();
    journal.begin(&intent("one", false)).unwrap();
    let twice = journal.begin(&intent("one", false)).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    assert!(matches!(journal.step("two", "x", Value::Null, false), Err(JournalError::NotOpen { .. })));
}

#[test]
fn outcomes_are_bounded_in_number_and_age() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open_at(directory.path().join("journal.db"), "b", 1).unwrap();
    let day = 24 * 3600 * 1000;
    journal.finish("old", &outcome(0)).unwrap();
    for number in 0..300 {
        journal.finish(&format!("young-{number}"), &outcome(2 * day)).unwrap();
    }
    assert_eq!(journal.outcome("old").unwrap(), None);
    for number in 0..11_000 {
        journal.finish(&format!("many-{number}"), &outcome(2 * day)).unwrap();
    }
    let kept = journal.recent(20_000).unwrap().len();
    assert!((10_000..10_300).contains(&kept), "{kept}");
}

#[test]
fn events_continue_over_a_graceful_stop() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let journal = Journal::open_at(&path, "b", 70).unwrap();
    for number in 1..=3 {
        assert_eq!(journal.append_event(&format!("{{\"n\":{number}}}")), (70, number));
    }
    drop(journal);
    let journal = Journal::open_at(&path, "b", 71).unwrap();
    assert_eq!(journal.append_event("{}"), (70, 4));
    let events = journal.events_since(70, 1, 2).unwrap();
    assert_eq!(
        events.iter().map(|event| (event.seq, &*event.json)).collect::<Vec<_>>(),
        [(2, "{\"n\":2}"), (3, "{\"n\":3}")]
    );
    assert!(journal.events_since(70, 4, 2).unwrap().is_empty());
}

#[test]
fn a_gap_in_the_events_is_announced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let journal = Journal::open_at(&path, "b", 70).unwrap();
    for _ in 0..3000 {
        journal.append_event("{}");
    }
    let gap = journal.events_since(70, 1, 10).unwrap_err();
    assert_eq!((gap.epoch, gap.oldest, gap.newest), (70, 953, 3000));
    assert_eq!(journal.events_since(70, 952, 9999).unwrap().len(), 2048);
    assert!(journal.events_since(70, 3001, 1).is_err(), "from the future");
    assert!(journal.events_since(70, u64::MAX, 1).is_err());
    let path = kill(journal, &path);
    let journal = Journal::open_at(&path, "b", 71).unwrap();
    assert_eq!(journal.events_since(70, 3000, 1).unwrap_err().epoch, 71);
    assert_eq!(journal.append_event("{}"), (71, 1));
}

#[test]
fn a_stop_that_was_not_the_end_is_no_clean_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let journal = Journal::open_at(&path, "b", 70).unwrap();
    journal.append_event("{}");
    journal.stop().unwrap();
    journal.append_event("{}");
    let path = kill(journal, &path);
    assert_eq!(Journal::open_at(&path, "b", 71).unwrap().newest_event(), (71, 0));
}

#[test]
fn a_stop_after_a_stop_keeps_what_came_between() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let journal = Journal::open_at(&path, "b", 70).unwrap();
    journal.append_event("1");
    journal.stop().unwrap();
    journal.append_event("2");
    journal.append_event("3");
    drop(journal);
    let journal = Journal::open_at(&path, "b", 71).unwrap();
    assert_eq!(journal.newest_event(), (70, 3));
    assert_eq!(&*journal.events_since(70, 1, 1).unwrap()[0].json, "2");
}

#[test]
fn events_of_before_a_crash_do_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let journal = Journal::open_at(&path, "b", 70).unwrap();
    journal.append_event("old");
    drop(journal);
    let path = kill(Journal::open_at(&path, "b", 71).unwrap(), &path);
    let journal = Journal::open_at(&path, "b", 72).unwrap();
    journal.append_event("new");
    drop(journal);
    let journal = Journal::open_at(&path, "b", 73).unwrap();
    let events = journal.events_since(72, 0, 10).unwrap();
    assert_eq!(events.iter().map(|event| (event.seq, &*event.json)).collect::<Vec<_>>(), [(1, "new")]);
}

#[test]
fn a_damaged_or_busy_journal_is_named_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let _first = Journal::open_at(&path, "b", 1).unwrap();
    let busy = Journal::open_at(&path, "b", 1).err().unwrap();
    assert!(matches!(busy, JournalError::Locked { .. }), "{busy}");
    let path = directory.path().join("damaged.db");
    std::fs::write(&path, [7; 9000]).unwrap();
    let damaged = Journal::open_at(&path, "b", 1).err().unwrap().to_string();
    assert!(damaged.contains("damaged.db is damaged") && damaged.contains("move the file away"), "{damaged}");
}
