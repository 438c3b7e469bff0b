//! The console: a terminal that one client has at a time.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::json;
use stapes_testkit::{Daemon, Need, eventually, host_with, launch_body, ws::Session};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];
const PATIENCE: Duration = Duration::from_secs(20);

/// A container `c1` whose init keeps a shell on the console.
fn with_shell(daemon: &Daemon) {
    let mut body = launch_body("c1");
    body["start"] = json!(false);
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    let inittab = b"::sysinit:/etc/init.d/rcS\n::respawn:-/bin/sh\n::shutdown:/bin/true\n";
    let put = daemon.api().raw("POST", "/1.0/instances/c1/files?path=/etc/inittab", &[], inittab).unwrap();
    assert_eq!(put.status, 200, "{}", put.text());
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "start" })).unwrap();
    daemon.await_boot("c1");
}

/// Types a command until its answer is seen: a shell that is only just starting empties its terminal.
fn type_until(session: &mut Session, command: &str, wanted: &str) -> String {
    let mut seen = String::new();
    eventually(&format!("{wanted} after {command}"), PATIENCE, || {
        session.streams[0].send(format!("{command}\n").as_bytes()).unwrap();
        seen = session.streams[0].read_until(wanted, Duration::from_secs(2)).unwrap();
        seen.contains(wanted)
    });
    seen
}

#[test]
fn what_is_typed_reaches_the_shell_on_the_console_and_its_answer_the_client_and_the_log() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    with_shell(&daemon);
    let mut session = Session::console(daemon.api(), "c1", false).unwrap();
    type_until(&mut session, "echo typed-$((40+2))", "typed-42");
    type_until(&mut session, "stty size", "25 80");
    session.control(&json!({ "command": "window-resize", "args": { "width": "132", "height": "50" } })).unwrap();
    type_until(&mut session, "stty size", "50 132");
    let log = || daemon.api().raw("GET", "/1.0/instances/c1/console?type=log", &[], &[]).unwrap().text();
    assert!(log().contains("typed-42"), "{}", log());
    // The client leaves: the shell and the console stay for the next one.
    drop(session);
    let mut next = None;
    eventually("the console is free again", PATIENCE, || {
        next = Session::console(daemon.api(), "c1", false).ok();
        next.is_some()
    });
    type_until(&mut next.unwrap(), "echo again-$((40+2))", "again-42");
}

#[test]
fn a_second_client_is_refused_unless_it_takes_the_console_over() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    with_shell(&daemon);
    let mut first = Session::console(daemon.api(), "c1", false).unwrap();
    type_until(&mut first, "echo first-$((40+2))", "first-42");
    let body = json!({ "type": "console", "width": 80, "height": 25 });
    let refusal = daemon.api().refusal("POST", "/1.0/instances/c1/console", &body);
    assert!(refusal.message.contains("already connected"), "{refusal}");
    let mut second = Session::console(daemon.api(), "c1", true).unwrap();
    let last = first.streams[0].read_to_end().unwrap();
    assert!(last.contains("taken over"), "{last:?}");
    type_until(&mut second, "echo second-$((40+2))", "second-42");
    // Its end must not free what is no longer its own.
    drop(first);
    assert!(daemon.api().refusal("POST", "/1.0/instances/c1/console", &body).message.contains("already connected"));
}

#[test]
fn a_console_ends_with_its_instance() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    with_shell(&daemon);
    let mut session = Session::console(daemon.api(), "c1", false).unwrap();
    type_until(&mut session, "echo first-$((40+2))", "first-42");
    let stop = json!({ "action": "stop", "force": true });
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &stop).unwrap();
    session.streams[0].read_to_end().unwrap();
    let ended = daemon.api().wait(&session.operation).unwrap();
    assert_eq!(ended["status"], "Success", "{ended}");
    let body = json!({ "type": "console", "width": 80, "height": 25 });
    let refusal = daemon.api().refusal("POST", "/1.0/instances/c1/console", &body);
    assert!(refusal.message.to_lowercase().contains("not running"), "{refusal}");
}
