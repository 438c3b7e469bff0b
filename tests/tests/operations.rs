//! Operations and events.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde_json::json;
use stapes_testkit::{Daemon, Need, eventually, host_with, launch_body, ws::Socket};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

#[test]
fn an_operation_can_be_looked_at_waited_for_and_names_what_it_touches() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let answer = daemon.api().envelope("POST", "/1.0/instances", &launch_body("c1")).unwrap();
    assert_eq!(answer["type"], "async");
    assert_eq!(answer["metadata"]["class"], "task");
    assert_eq!(answer["metadata"]["resources"]["instances"], json!(["/1.0/instances/c1"]));
    let url = answer["operation"].as_str().unwrap();
    let ended = daemon.api().wait(url).unwrap();
    assert_eq!(ended["status"], "Success");
    assert_eq!(ended["status_code"], 200);
    assert!(url.ends_with(ended["id"].as_str().unwrap()));
}

#[test]
fn a_wait_with_a_timeout_returns_while_the_work_goes_on_and_a_cancel_ends_it() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let request = json!({ "command": ["sleep", "600"], "wait-for-websocket": true, "interactive": false });
    let answer = daemon.api().envelope("POST", "/1.0/instances/c1/exec", &request).unwrap();
    let url = answer["operation"].as_str().unwrap();
    let began = Instant::now();
    // Incus answers a wait that ran out with an error, LXD with the operation as it is; clients take both.
    let _ = daemon.api().raw("GET", &format!("{url}/wait?timeout=1"), &[], &[]).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(900) && began.elapsed() < Duration::from_secs(4));
    let running = daemon.api().get(url).unwrap();
    assert_eq!(running["status_code"], 103, "{running}");
    let list = daemon.api().get("/1.0/operations?recursion=1").unwrap();
    assert!(list["running"].as_array().is_some_and(|running| !running.is_empty()), "{list}");
    // Nobody ever connects, so the exec gives up by itself or is cancelled, whichever the daemon offers.
    if running["may_cancel"] == true {
        daemon.api().sync("DELETE", url, &json!(null)).unwrap();
    }
    let _ = daemon.api().wait(url);
    let ended = daemon.api().get(url).unwrap();
    assert!([400, 401].contains(&ended["status_code"].as_i64().unwrap()), "{ended}");
}

#[test]
fn the_result_of_an_operation_survives_a_restart() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    let answer = daemon.api().envelope("POST", "/1.0/instances", &launch_body("c1")).unwrap();
    let url = answer["operation"].as_str().unwrap().to_owned();
    daemon.api().wait(&url).unwrap();
    daemon.kill();
    daemon.launch_daemon();
    let ended = daemon.api().wait(&url).unwrap();
    assert_eq!(ended["status"], "Success");
}

#[test]
fn events_tell_of_operations_and_of_what_happened() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let mut events = Socket::open(daemon.api(), "/1.0/events?type=operation,lifecycle").unwrap();
    daemon.launch("c1");
    let mut actions = Vec::new();
    let mut operations = 0;
    eventually("the start is told", Duration::from_secs(10), || {
        while let Some(event) = events.next_json(Duration::from_millis(200)).unwrap() {
            match event["type"].as_str() {
                Some("lifecycle") => actions.push(event["metadata"]["action"].as_str().unwrap().to_owned()),
                Some("operation") => operations += 1,
                other => panic!("an event of type {other:?} was not asked for"),
            }
            assert!(event["timestamp"].is_string() && event["project"] == "default", "{event}");
        }
        actions.iter().any(|a| a == "instance-started")
    });
    assert!(actions.iter().any(|a| a == "instance-created"), "{actions:?}");
    assert!(operations >= 2, "an operation is told at least at its start and end");
}

/// Reads events up to the first lifecycle event `action`; the position after it, and whether a gap was announced.
fn follow(events: &mut Socket, action: &str) -> (String, bool) {
    let (mut position, mut gap, mut found) = (String::new(), false, false);
    eventually(action, Duration::from_secs(30), || {
        while !found && let Some(event) = events.next_json(Duration::from_millis(200)).unwrap() {
            position = event["position"].as_str().expect("a position").to_owned();
            gap |= event["type"] == "gap";
            found = event["metadata"]["action"] == action;
        }
        found
    });
    (position, gap)
}

#[test]
fn events_go_on_where_a_listener_stood_and_a_gap_is_announced() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    let listen = |daemon: &Daemon, since: &str| {
        Socket::open(daemon.api(), &format!("/1.0/events?type=lifecycle&since={since}")).unwrap()
    };
    let profile = |daemon: &Daemon, name: &str| {
        daemon.api().sync("POST", "/1.0/profiles", &json!({ "name": name })).unwrap();
    };
    // A listener that knows no position asks for an impossible one, and is told to read the state anew.
    let mut events = listen(&daemon, "0.0");
    profile(&daemon, "p1");
    let (position, gap) = follow(&mut events, "profile-created");
    assert!(gap);
    drop(events);
    // While nobody listened, and then live, on one connection.
    daemon.api().sync("POST", "/1.0/profiles/p1", &json!({ "name": "p2" })).unwrap();
    let mut events = listen(&daemon, &position);
    assert!(!follow(&mut events, "profile-renamed").1);
    daemon.api().sync("DELETE", "/1.0/profiles/p2", &json!(null)).unwrap();
    let (position, gap) = follow(&mut events, "profile-deleted");
    assert!(!gap);
    // A daemon that was asked to end has kept everything.
    profile(&daemon, "p3");
    daemon.terminate();
    daemon.launch_daemon();
    let mut events = listen(&daemon, &position);
    let (position, gap) = follow(&mut events, "profile-created");
    assert!(!gap);
    // One that was killed may have lost the newest: whoever asks for them is told so, and hears what comes.
    profile(&daemon, "p4");
    daemon.kill();
    daemon.launch_daemon();
    let mut events = listen(&daemon, &position);
    daemon.api().sync("DELETE", "/1.0/profiles/p4", &json!(null)).unwrap();
    let (next, gap) = follow(&mut events, "profile-deleted");
    assert!(gap);
    let epoch = |position: &str| position.split('.').next().map(str::to_owned);
    assert_ne!(epoch(&next), epoch(&position));
}
