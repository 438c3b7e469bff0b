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
