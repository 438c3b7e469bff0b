//! What the store costs on the file system of the current directory: `cargo run --release -p stapes-store --example
//! commit_cost`. Prints medians.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stapes_store::{SqliteStore, Store, Transaction};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(runs: u32, mut action: impl FnMut(u32)) -> Duration {
    let time = |run| {
        let start = Instant::now();
        action(run);
        start.elapsed()
    };
    median((0..runs).map(time).collect())
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("0");
    line.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

fn main() {
    let directory = std::path::PathBuf::from(format!("commit-cost-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory for the file");
    let before = memory_kib();
    let store = Arc::new(SqliteStore::open(directory.join("state.db")).expect("the store opens"));
    store.commit(Transaction::new().put("first", "value")).expect("a commit");
    drop(store.get("first"));
    println!("RSS of an open store: {} KiB", memory_kib() - before);
    let value = vec![b'v'; 2048];
    let commit = |key: String| store.commit(Transaction::new().put(key, value.clone())).expect("a commit");
    let one = timed(1000, |run| {
        commit(format!("instance/{run:08}"));
    });
    println!("commit of 2 KiB, alone: {one:?}");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let commit = &commit;
            scope.spawn(move || {
                (0..250).for_each(|run| {
                    commit(format!("other/{thread}/{run}"));
                })
            });
        }
    });
    println!("commits from 8 threads: {:?} each", start.elapsed() / 2000);
    println!("get: {:?}", timed(1000, |run| drop(store.get(&format!("instance/{run:08}")))));
    println!("scan of 1,000 objects: {:?}", timed(50, |_| drop(store.scan("instance/"))));
    println!("RSS: {before} KiB before, {} KiB after", memory_kib());
    drop(store);
    let open = || SqliteStore::open(directory.join("state.db")).expect("the store opens again");
    let (mut opened, mut scanned) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let start = Instant::now();
        let store = open();
        opened.push(start.elapsed());
        let count = store.scan("").expect("a scan").len();
        scanned.push(start.elapsed());
        assert_eq!(count, 3001);
    }
    println!("open: {:?}, with a scan of all 3,001 objects: {:?}", median(opened), median(scanned));
    std::fs::remove_dir_all(directory).expect("the directory goes away");
}
