//! What the journal costs on the file system of the current directory: `cargo run --release -p stapes-journal --example
//! journal_cost`. Prints medians.

use std::time::{Duration, Instant};

use serde_json::json;
use stapes_journal::{Intent, Journal, Outcome};

fn timed(name: &str, runs: u32, mut action: impl FnMut(u32)) {
    let time = |run| {
        let start = Instant::now();
        action(run);
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..runs).map(time).collect();
    times.sort_unstable();
    println!("{name}: p50 {:?}, p95 {:?}", times[times.len() / 2], times[times.len() * 95 / 100]);
}

fn main() {
    let directory = std::path::PathBuf::from(format!("journal-cost-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory for the file");
    let journal = Journal::open(directory.join("journal.db"), "boot").expect("the journal opens");
    let plan = json!({"id": "abcdefgh", "text": "x".repeat(1500)});
    let intent =
        |run, durable| Intent { operation: format!("{run:036}"), kind: "start".into(), plan: plan.clone(), durable };
    let outcome = Outcome { status: "Success".into(), error: None, result: json!({"return": 0}), at: 1 };
    timed("begin, not durable", 1000, |run| journal.begin(&intent(run, false)).expect("begin"));
    timed("step, not durable", 1000, |run| {
        journal.step(&format!("{run:036}"), "mounted", json!("/x"), false).expect("step")
    });
    timed("finish", 1000, |run| journal.finish(&format!("{run:036}"), &outcome).expect("finish"));
    timed("begin, durable", 500, |run| journal.begin(&intent(run + 5000, true)).expect("begin"));
    let event = json!({"type": "lifecycle", "metadata": "x".repeat(300)}).to_string();
    timed("event", 10_000, |_| {
        journal.append_event(&event);
    });
    drop(journal);
    timed("open", 10, |_| drop(Journal::open(directory.join("journal.db"), "boot")));
    std::fs::remove_dir_all(directory).expect("the directory goes away");
}
