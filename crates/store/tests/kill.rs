//! What was acknowledged survives SIGKILL of the process at any moment.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use stapes_store::{SqliteStore, Store, Transaction};

const CHILD: &str = "STAPES_STORE_KILL_TEST";

/// Not a test by itself: the process that gets killed. Each commit writes two objects, then says so.
#[test]
fn child_commits_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = SqliteStore::open(path).unwrap();
    let from = store.scan("a/").unwrap().len();
    for number in from.. {
        let (a, b) = (format!("a/{number:09}"), format!("b/{number:09}"));
        store.commit(Transaction::new().create(a, vec![1; 700]).create(b, vec![2; 700])).unwrap();
        println!("\ndone {number}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    for round in 1..=12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_commits_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut numbers = lines.filter_map(|line| line.strip_prefix("done ")?.parse::<usize>().ok());
        let mut last = numbers.by_ref().nth(round * 7);
        child.kill().unwrap();
        child.wait().unwrap();
        last = numbers.last().or(last);
        let store = SqliteStore::open(&path).unwrap();
        let (a, b) = (store.scan("a/").unwrap(), store.scan("b/").unwrap());
        assert!(a.len() > last.unwrap(), "round {round}: {} objects, {last:?} was acknowledged", a.len());
        assert!(a.iter().zip(&b).all(|(a, b)| a.revision == b.revision) && a.len() == b.len());
    }
}
