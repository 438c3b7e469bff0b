//! The daemon dies at every journaled step of each workflow; the next one finds a consistent host.
#![forbid(unsafe_code)]

use serde_json::{Value, json};
use stapes_testkit::{Daemon, Need, host_with, launch_body};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

/// More steps than any workflow has; a workflow that gets through unharmed ends its round earlier.
const MOST_STEPS: u32 = 40;

type Work = fn(&Daemon) -> bool;

/// Kills the daemon at its first, second, … step of `work`, each time from the state that `prepare` makes. After each
/// kill the next daemon must know every acknowledged thing, and a delete must leave nothing.
fn kill_at_every_step(prepare: Work, work: Work, name_after: &str) {
    let mut daemon = Daemon::start();
    // Made once and kept: what is left beside it is a leak.
    daemon.launch("steady");
    let steady = daemon.init_of("steady");
    let baseline = leftovers(&daemon);
    for step in 1..=MOST_STEPS {
        assert!(prepare(&daemon), "step {step}: preparing failed\n{}", daemon.log());
        daemon.terminate();
        daemon.launch_daemon_with(&[("STAPES_KILL_AT_STEP", &step.to_string())]);
        let acknowledged = work(&daemon);
        let was_killed = daemon.exit_code().is_some() || !acknowledged;
        if was_killed {
            daemon.await_end();
        } else {
            daemon.terminate();
        }
        daemon.launch_daemon();
        assert_eq!(daemon.init_of("steady"), steady, "step {step}: the bystander was touched");
        let there = |name: &str| daemon.api().get(&format!("/1.0/instances/{name}")).is_ok();
        if acknowledged && !name_after.is_empty() {
            assert!(there(name_after), "step {step}: {name_after} was acknowledged and is lost");
        }
        for name in ["c1", "c2"] {
            if there(name) {
                let _ = stop(&daemon, name);
                let gone = daemon.api().operation("DELETE", &format!("/1.0/instances/{name}"), &Value::Null);
                gone.unwrap_or_else(|e| panic!("step {step}: {name} cannot be deleted: {e:#}\n{}", daemon.log()));
            }
        }
        let left = settled_leftovers(&daemon, &baseline);
        assert!(left.is_empty(), "step {step}: left behind:\n  {}\n{}", left.join("\n  "), daemon.log());
        if !was_killed {
            assert!(step > 1, "a workflow without a journaled step: are failpoints built in?");
            return;
        }
    }
    panic!("the workflow has more than {MOST_STEPS} steps");
}

fn leftovers(daemon: &Daemon) -> Vec<String> {
    let interesting = ["mount ", "link ", "cgroup ", "loop "];
    let mut found: Vec<_> = daemon.remains();
    found.retain(|line| interesting.iter().any(|kind| line.starts_with(kind)));
    for place in ["instances", "containers", "run"] {
        let entries = std::fs::read_dir(daemon.state_dir().join(place)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| format!("entry {}", entry.path().display())));
    }
    found
}

/// What is there now and was not at the beginning. Shims forked ahead come and go, so counts are compared by kind.
fn settled_leftovers(daemon: &Daemon, baseline: &[String]) -> Vec<String> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let now = leftovers(daemon);
        let new: Vec<_> = now.into_iter().filter(|line| !baseline.contains(line)).collect();
        let grown: Vec<_> = new.into_iter().filter(|line| !line.starts_with("cgroup ") || has_task(line)).collect();
        if grown.is_empty() || std::time::Instant::now() > end {
            return grown;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// An empty group may belong to a shim that was forked ahead; a group with tasks belongs to an instance.
fn has_task(line: &str) -> bool {
    let path = line.trim_start_matches("cgroup ");
    std::fs::read_to_string(format!("{path}/cgroup.procs")).is_ok_and(|text| text.lines().count() > 1)
}

fn create(daemon: &Daemon) -> bool {
    let mut body = launch_body("c1");
    body["start"] = json!(false);
    daemon.api().operation("POST", "/1.0/instances", &body).is_ok()
}

fn launch(daemon: &Daemon) -> bool {
    daemon.api().operation("POST", "/1.0/instances", &launch_body("c1")).is_ok()
}

fn start(daemon: &Daemon) -> bool {
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "start" })).is_ok()
}

fn stop(daemon: &Daemon, name: &str) -> bool {
    let body = json!({ "action": "stop", "force": true });
    daemon.api().operation("PUT", &format!("/1.0/instances/{name}/state"), &body).is_ok()
}

fn nothing(_: &Daemon) -> bool {
    true
}

#[test]
fn killed_while_launching() {
    let Some(_host) = host_with(NEEDS) else { return };
    kill_at_every_step(nothing, launch, "c1");
}

#[test]
fn killed_while_starting() {
    let Some(_host) = host_with(NEEDS) else { return };
    kill_at_every_step(create, start, "c1");
}

#[test]
fn killed_while_stopping() {
    let Some(_host) = host_with(NEEDS) else { return };
    kill_at_every_step(launch, |daemon| stop(daemon, "c1"), "c1");
}

#[test]
fn killed_while_deleting() {
    let Some(_host) = host_with(NEEDS) else { return };
    let delete: Work = |daemon| daemon.api().operation("DELETE", "/1.0/instances/c1", &Value::Null).is_ok();
    kill_at_every_step(create, delete, "");
}

#[test]
fn killed_while_renaming() {
    let Some(_host) = host_with(NEEDS) else { return };
    let rename: Work = |daemon| daemon.api().operation("POST", "/1.0/instances/c1", &json!({ "name": "c2" })).is_ok();
    kill_at_every_step(create, rename, "c2");
}
