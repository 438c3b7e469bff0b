//! Programs run inside: exit codes, terminals, signals, streams.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::json;
use stapes_testkit::{Daemon, Need, eventually, host_with, ws::Session};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

#[test]
fn exit_codes_come_back_as_a_shell_would_give_them() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let code = |command: &[&str]| daemon.api().exec("c1", command).unwrap().0;
    assert_eq!(code(&["true"]), 0);
    assert_eq!(code(&["sh", "-c", "exit 42"]), 42);
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), 137);
    assert_eq!(code(&["no-such-program"]), 127);
    assert_eq!(code(&["/etc"]), 126);
}

#[test]
fn recorded_output_keeps_both_streams_apart() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let (code, out, err) = daemon.api().exec("c1", &["sh", "-c", "echo out; echo err >&2; exit 3"]).unwrap();
    assert_eq!((code, out.as_str(), err.as_str()), (3, "out\n", "err\n"));
}

#[test]
fn environment_user_and_working_directory_are_the_requests() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let body = json!({ "command": ["sh", "-c", "echo $COLOR $(id -u):$(id -g) $(pwd) > /tmp/seen"],
        "environment": { "COLOR": "green" }, "user": 1234, "group": 56, "cwd": "/tmp", "wait-for-websocket": false });
    let ended = daemon.api().operation("POST", "/1.0/instances/c1/exec", &body).unwrap();
    assert_eq!(ended["metadata"]["return"], 0, "{ended}");
    assert_eq!(daemon.api().exec("c1", &["cat", "/tmp/seen"]).unwrap().1, "green 1234:56 /tmp\n");
}

#[test]
fn input_is_passed_on_until_its_end() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let mut session = Session::exec(daemon.api(), "c1", &["wc", "-c"], false).unwrap();
    let block = vec![b'x'; 64 * 1024];
    for _ in 0..16 {
        session.streams[0].send(&block).unwrap();
    }
    session.streams[0].send_end().unwrap();
    assert_eq!(session.streams[1].read_to_end().unwrap().trim(), "1048576");
    assert_eq!(session.exit_code(daemon.api()).unwrap(), 0);
}

#[test]
fn much_output_arrives_whole() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let mut session = Session::exec(daemon.api(), "c1", &["head", "-c", "3000000", "/dev/zero"], false).unwrap();
    assert_eq!(session.streams[1].read_to_end().unwrap().len(), 3_000_000);
    assert_eq!(session.exit_code(daemon.api()).unwrap(), 0);
}

#[test]
fn a_terminal_has_the_size_asked_for_and_follows_a_resize() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let mut session = Session::exec(daemon.api(), "c1", &["sh"], true).unwrap();
    let patience = Duration::from_secs(10);
    session.streams[0].send(b"tty; stty size; echo first-$((40+2))\n").unwrap();
    let seen = session.streams[0].read_until("first-42", patience).unwrap();
    assert!(seen.contains("/dev/pts/"), "{seen}");
    assert!(seen.contains("25 80"), "{seen}");
    session.control(&json!({ "command": "window-resize", "args": { "width": "132", "height": "50" } })).unwrap();
    let mut last = String::new();
    eventually("the new size is seen", patience, || {
        session.streams[0].send(b"stty size; echo again-$((40+2))\n").unwrap();
        last = session.streams[0].read_until("again-42", patience).unwrap();
        last.contains("50 132")
    });
    session.streams[0].send(b"exit 7\n").unwrap();
    assert_eq!(session.exit_code(daemon.api()).unwrap(), 7);
}

#[test]
fn job_control_works_on_the_terminal() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let mut session = Session::exec(daemon.api(), "c1", &["sh"], true).unwrap();
    let patience = Duration::from_secs(10);
    session.streams[0].send(b"echo ready-$((1+1))\n").unwrap();
    let seen = session.streams[0].read_until("ready-2", patience).unwrap();
    assert!(!seen.contains("can't access tty"), "{seen}");
    session.streams[0].send(b"sleep 600; echo code-$?\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    session.streams[0].send(b"\x03").unwrap();
    session.streams[0].send(b"echo after-$((1+1))\n").unwrap();
    let seen = session.streams[0].read_until("after-2", patience).unwrap();
    assert!(seen.contains("after-2"), "Ctrl-C ends the sleep: {seen}");
}

#[test]
fn a_signal_sent_over_the_control_socket_reaches_the_program() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let script = "trap 'exit 33' USR1; echo armed; while :; do sleep 0.05; done";
    let mut session = Session::exec(daemon.api(), "c1", &["sh", "-c", script], false).unwrap();
    session.streams[1].read_until("armed", Duration::from_secs(10)).unwrap();
    session.control(&json!({ "command": "signal", "signal": 10 })).unwrap();
    assert_eq!(session.exit_code(daemon.api()).unwrap(), 33);
}

#[test]
fn a_client_gone_in_the_middle_ends_its_program() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let session = Session::exec(daemon.api(), "c1", &["sleep", "4242"], true).unwrap();
    let running = || daemon.api().exec("c1", &["sh", "-c", "ps | grep -c '[s]leep 4242'"]).unwrap().1.trim() != "0";
    eventually("the program runs", Duration::from_secs(5), running);
    drop(session);
    eventually("the program has ended", Duration::from_secs(10), || !running());
    assert_eq!(daemon.status_of("c1"), "Running");
}

#[test]
fn a_command_is_told_killed_when_its_instance_is_stopped_by_force() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let mut terminal = Session::exec(daemon.api(), "c1", &["sleep", "1000"], true).unwrap();
    let mut streams = Session::exec(daemon.api(), "c1", &["sleep", "1000"], false).unwrap();
    let recorded = json!({ "command": ["sleep", "1000"], "wait-for-websocket": false, "record-output": true });
    let recorded = daemon.api().envelope("POST", "/1.0/instances/c1/exec", &recorded).unwrap();
    eventually("all run", Duration::from_secs(20), || {
        daemon.api().exec("c1", &["sh", "-c", "ps | grep -c '[s]leep 1000'"]).is_ok_and(|(_, out, _)| out.trim() == "3")
    });
    let began = std::time::Instant::now();
    let stop = json!({ "action": "stop", "force": true });
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &stop).unwrap();
    assert_eq!(terminal.exit_code(daemon.api()).unwrap(), 137);
    assert_eq!(streams.exit_code(daemon.api()).unwrap(), 137);
    let ended = daemon.api().wait(recorded["operation"].as_str().unwrap()).unwrap();
    assert_eq!(ended["metadata"]["return"], 137, "{ended}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn an_exec_in_a_stopped_instance_is_refused_by_name() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let mut body = stapes_testkit::launch_body("c1");
    body["start"] = json!(false);
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    let request = json!({ "command": ["true"], "wait-for-websocket": false });
    let refusal = daemon.api().refusal("POST", "/1.0/instances/c1/exec", &request);
    assert_eq!(refusal.status, 400, "{refusal}");
    assert!(refusal.message.to_lowercase().contains("not running"), "{refusal}");
}
