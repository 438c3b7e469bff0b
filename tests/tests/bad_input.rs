//! Bad input: refused at once, naming the subject, with nothing changed and nothing left behind.
#![forbid(unsafe_code)]

use serde_json::{Value, json};
use stapes_testkit::{Daemon, Need, host_with, launch_body};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

fn with(field: &str, value: Value) -> Value {
    let mut body = launch_body("bad");
    body[field] = value;
    body
}

#[test]
fn a_request_that_cannot_be_met_names_its_subject_and_leaves_nothing() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    // A first container warms up what is made once (the id range table, the shim pool), so that leftovers stand out.
    daemon.launch("good");
    // Spare shims and their groups come when nothing else goes on.
    let is_spare = |line: &String| line.contains("warm-") || line.contains("stapes-shim");
    let remains = || daemon.remains().into_iter().filter(|line| !is_spare(line)).collect::<Vec<_>>();
    let before = (daemon.api().get("/1.0/instances").unwrap(), remains());
    let root = |extra: Value| {
        let mut root = json!({ "type": "disk", "path": "/", "pool": "default" });
        root.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({ "root": root })
    };
    let cases: Vec<(&str, Value, u16, &[&str])> = vec![
        ("an unknown key", with("config", json!({ "limits.memroy": "1GiB" })), 400, &["limits.memroy"]),
        ("an ill-typed size", with("config", json!({ "limits.memory": "lots" })), 400, &["limits.memory"]),
        ("an ill-typed boolean", with("config", json!({ "security.nesting": "maybe" })), 400, &["security.nesting"]),
        ("an ill-typed number", with("config", json!({ "limits.processes": "-3x" })), 400, &["limits.processes"]),
        ("a name with a slash", with("name", json!("a/b")), 400, &["a/b"]),
        ("a name of digits", with("name", json!("123")), 400, &["123"]),
        ("a name with a hyphen last", with("name", json!("web-")), 400, &["web-"]),
        ("a name too long", with("name", json!("x".repeat(64))), 400, &["xxxx"]),
        ("a name with a line feed", with("name", json!("a\nb")), 400, &["name"]),
        ("a name in use", with("name", json!("good")), 409, &["good"]),
        ("no such image", with("source", json!({ "type": "image", "alias": "nope" })), 404, &["nope"]),
        ("no such fingerprint", with("source", json!({ "type": "image", "fingerprint": "feed" })), 404, &["feed"]),
        ("no such profile", with("profiles", json!(["nope"])), 404, &["nope"]),
        ("no such type", with("type", json!("submarine")), 400, &["submarine"]),
        ("no such source", with("source", json!({ "type": "wish" })), 400, &["wish"]),
        ("no such device type", with("devices", json!({ "d": { "type": "wish" } })), 400, &["wish"]),
        ("an unknown device key", with("devices", root(json!({ "colour": "red" }))), 400, &["colour"]),
        ("no such pool", with("devices", root(json!({ "pool": "nope" }))), 404, &["nope"]),
        ("no such network", with("devices", json!({ "eth0": { "type": "nic", "network": "nope" } })), 404, &["nope"]),
        (
            "a disk that does not exist",
            with("devices", json!({ "d": { "type": "disk", "path": "/mnt", "source": "/no/such/dir" } })),
            400,
            &["/no/such/dir"],
        ),
    ];
    let mut wrong = Vec::new();
    for (what, body, status, words) in cases {
        let refusal = daemon.api().refusal("POST", "/1.0/instances", &body);
        // What only the operation finds out has no status of its own: 400 is how an operation fails.
        let fits = refusal.status == status || refusal.status == 400;
        if !fits || words.iter().any(|word| !refusal.message.contains(word)) {
            wrong.push(format!("{what}: wanted {status} naming {words:?}, got {refusal}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((daemon.api().get("/1.0/instances").unwrap(), remains()), before);
}

#[test]
fn a_request_that_is_no_request_is_answered_all_the_same() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let send = |method, path, body: &[u8]| daemon.api().raw(method, path, &[], body).unwrap();
    let cases = [
        (send("POST", "/1.0/instances", b"{\"name\": "), 400),
        (send("POST", "/1.0/instances", b"[]"), 400),
        (send("POST", "/1.0/instances", b""), 400),
        (send("GET", "/1.0/no-such-thing", b""), 404),
        (send("GET", "/2.0", b""), 404),
        (send("GET", "/1.0/instances/..%2f..%2fetc", b""), 404),
        (send("GET", "/1.0/instances/nobody", b""), 404),
        (send("GET", "/1.0/operations/no-uuid", b""), 404),
        (send("PUT", "/1.0/instances/nobody/state", b"{\"action\": \"start\"}"), 404),
        (send("GET", "/1.0/instances?filter=name%20zz%20x", b""), 400),
        (send("GET", "/1.0/instances?project=nope", b""), 404),
    ];
    for (index, (answer, status)) in cases.iter().enumerate() {
        let envelope = answer.json().unwrap_or_else(|e| panic!("case {index}: {e:#}"));
        let fits = answer.status == *status || (*status == 404 && answer.status == 400);
        assert!(fits, "case {index}: wanted {status}, got {}: {envelope}", answer.status);
        assert_eq!(envelope["type"], "error", "case {index}");
        assert_eq!(envelope["error_code"], answer.status, "case {index}");
        assert!(!envelope["error"].as_str().unwrap().is_empty(), "case {index}");
    }
    assert_eq!(daemon.api().get("/1.0").unwrap()["api_version"], "1.0", "the daemon lives on");
}

#[test]
fn an_init_that_does_not_exist_is_named_and_leaves_nothing_running() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let image = stapes_testkit::ImageBuilder::unified("no init").busybox_without_init();
    daemon.import(&image.gzip(), "headless").unwrap();
    let mut body = launch_body("c1");
    body["source"]["alias"] = json!("headless");
    let refusal = daemon.api().refusal("POST", "/1.0/instances", &body);
    assert!(refusal.message.contains("init"), "{refusal}");
    if daemon.api().get("/1.0/instances").unwrap() != json!([]) {
        assert_eq!(daemon.status_of("c1"), "Stopped");
        daemon.api().operation("DELETE", "/1.0/instances/c1", &json!(null)).unwrap();
    }
    daemon.finish();
}

#[test]
fn an_init_that_dies_at_once_leaves_a_stopped_container() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let image = stapes_testkit::ImageBuilder::unified("short").busybox_with_init("#!/bin/sh\nexit 3\n");
    daemon.import(&image.gzip(), "short").unwrap();
    let mut body = launch_body("c1");
    body["source"]["alias"] = json!("short");
    // Whether the start saw it is a race; that the end is seen is not.
    let _ = daemon.api().operation("POST", "/1.0/instances", &body);
    stapes_testkit::eventually("it has stopped", std::time::Duration::from_secs(10), || {
        daemon.status_of("c1") == "Stopped"
    });
    daemon.api().operation("DELETE", "/1.0/instances/c1", &json!(null)).unwrap();
    daemon.finish();
}

#[test]
fn a_fork_bomb_stays_inside_its_limit() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let mut body = launch_body("c1");
    body["config"] = json!({ "limits.processes": "50" });
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    daemon.await_boot("c1");
    let request = json!({ "command": ["sh", "-c", "b() { b | b & }; b; sleep 2"], "wait-for-websocket": false });
    daemon.api().envelope("POST", "/1.0/instances/c1/exec", &request).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let processes = daemon.api().get("/1.0/instances/c1/state").unwrap()["processes"].as_i64().unwrap();
    assert!(processes <= 50, "{processes} processes");
    let began = std::time::Instant::now();
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "stop", "force": true })).unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn two_clients_at_once_do_not_both_start_an_instance() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    for round in 0..5 {
        let name = format!("race{round}");
        let mut body = launch_body(&name);
        body["start"] = json!(false);
        let create = |api: stapes_testkit::Api| {
            let body = body.clone();
            std::thread::spawn(move || api.operation("POST", "/1.0/instances", &body).is_ok())
        };
        let racers = [create(daemon.api().clone()), create(daemon.api().clone()), create(daemon.api().clone())];
        let won = racers.into_iter().map(|r| r.join().unwrap()).filter(|won| *won).count();
        assert_eq!(won, 1, "exactly one creates {name}");
        let start = |api: stapes_testkit::Api| {
            let path = format!("/1.0/instances/{name}/state");
            std::thread::spawn(move || api.operation("PUT", &path, &json!({ "action": "start" })).is_ok())
        };
        let racers = [start(daemon.api().clone()), start(daemon.api().clone())];
        let won = racers.into_iter().map(|r| r.join().unwrap()).filter(|won| *won).count();
        assert!(won >= 1, "{name} is started");
        assert_eq!(daemon.status_of(&name), "Running");
    }
}
