//! An instance from launch to delete.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde_json::json;
use stapes_testkit::{Daemon, Need, eventually, host_with, launch_body};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

#[test]
fn a_launched_container_runs_is_listed_and_is_deleted_without_a_trace() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");

    let list = daemon.api().get("/1.0/instances?recursion=1").unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list[0]["name"], "c1");
    assert_eq!(list[0]["status"], "Running");
    assert_eq!(list[0]["type"], "container");
    assert_eq!(daemon.api().get("/1.0/instances").unwrap(), json!(["/1.0/instances/c1"]));
    let full = daemon.api().get("/1.0/instances?recursion=2").unwrap();
    assert!(full[0]["state"]["pid"].as_i64().unwrap() > 1, "{full}");
    assert!(full[0]["state"]["memory"]["usage"].as_i64().unwrap() > 0, "{full}");

    let refusal = daemon.api().refusal("DELETE", "/1.0/instances/c1", &json!(null));
    assert!(refusal.message.contains("running") || refusal.message.contains("Running"), "{refusal}");
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "stop", "force": true })).unwrap();
    assert_eq!(daemon.status_of("c1"), "Stopped");
    daemon.api().operation("DELETE", "/1.0/instances/c1", &json!(null)).unwrap();
    assert_eq!(daemon.api().get("/1.0/instances").unwrap(), json!([]));
    assert_eq!(daemon.api().refusal("GET", "/1.0/instances/c1", &json!(null)).status, 404);
    daemon.finish();
}

#[test]
fn a_list_can_be_filtered() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    for name in ["web1", "web2", "db1"] {
        let mut body = launch_body(name);
        body["start"] = json!(false);
        body["config"] = json!({ "user.role": &name[..name.len() - 1] });
        daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    }
    let names = |filter: &str| -> Vec<String> {
        let list = daemon.api().get(&format!("/1.0/instances?recursion=1&filter={filter}")).unwrap();
        list.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("name%20eq%20db1"), ["db1"]);
    assert_eq!(names("config.user.role%20eq%20web").len(), 2);
    assert_eq!(names("status%20eq%20Running"), Vec::<String>::new());
}

#[test]
fn stop_lets_init_end_by_itself_and_restart_gives_a_new_init() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let first = daemon.init_of("c1");
    let body = json!({ "action": "restart", "timeout": 20, "force": false });
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &body).unwrap();
    daemon.await_boot("c1");
    assert_ne!(daemon.init_of("c1"), first);
    let began = Instant::now();
    let body = json!({ "action": "stop", "timeout": 20, "force": false });
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &body).unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "busybox halts within seconds: {:?}", began.elapsed());
    assert_eq!(daemon.status_of("c1"), "Stopped");
}

#[test]
fn a_shim_serves_one_run_after_the_other_and_nothing_of_the_last_is_left() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let mut body = launch_body("c1");
    body["config"] = json!({ "limits.processes": "20" });
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    daemon.await_boot("c1");
    let state = |action: &str| {
        let body = json!({ "action": action, "timeout": 20, "force": true });
        daemon.api().operation("PUT", "/1.0/instances/c1/state", &body).unwrap();
    };
    let shim = || {
        let status = daemon.on_host(&["cat", &format!("/proc/{}/status", daemon.init_of("c1").0)]).stdout;
        status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|pid| pid.trim().to_owned()).unwrap()
    };
    let mut shims = std::collections::BTreeSet::from([shim()]);
    // Eight spares are the most that are kept.
    for run in 1..=12 {
        state("stop");
        let patch = json!({ "config": { "limits.processes": if run % 2 == 0 { "20" } else { "" } } });
        daemon.api().operation("PATCH", "/1.0/instances/c1", &patch).unwrap();
        state("start");
        daemon.await_boot("c1");
        shims.insert(shim());
        let bomb = "n=0; while [ $n -lt 60 ]; do sleep 30 & n=$((n+1)); done; echo survived";
        let (_, out, err) = daemon.api().exec("c1", &["sh", "-c", bomb]).unwrap();
        assert_eq!(out.contains("survived") && !err.contains("fork"), run % 2 == 1, "run {run}: {out} {err}");
        let (code, out, err) = daemon.api().exec("c1", &["sh", "-c", "test -e /proc/$$ && echo mine"]).unwrap();
        assert_eq!((code, out.as_str()), (0, "mine\n"), "it is a process of this run's namespace: {err}");
    }
    let v1 = daemon.on_host(&["cat", "/proc/self/mountinfo"]).stdout.contains(" - cgroup cgroup ");
    assert!(!v1 || shims.len() <= 10, "13 runs by {} shims", shims.len());
    daemon.finish();
}

#[test]
fn an_init_that_ignores_the_signal_is_reported_and_can_be_forced() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let script = "#!/bin/sh\ntrap '' PWR TERM INT HUP USR1 USR2 QUIT WINCH\nwhile :; do sleep 1; done\n";
    let image = stapes_testkit::ImageBuilder::unified("deaf").busybox_with_init(script);
    daemon.import(&image.gzip(), "deaf").unwrap();
    let mut body = launch_body("c1");
    body["source"]["alias"] = json!("deaf");
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    let stop = json!({ "action": "stop", "timeout": 1, "force": false });
    let refusal = daemon.api().refusal("PUT", "/1.0/instances/c1/state", &stop);
    assert!(!refusal.message.is_empty());
    assert_eq!(daemon.status_of("c1"), "Running", "a stop that failed changes nothing");
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "stop", "force": true })).unwrap();
    assert_eq!(daemon.status_of("c1"), "Stopped");
}

#[test]
fn a_frozen_container_stands_still_and_goes_on() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let count = "i=0; while :; do i=$((i+1)); echo $i > /run/count; sleep 0.02; done";
    daemon.api().exec("c1", &["sh", "-c", &format!("({count}) >/dev/null 2>&1 </dev/null &")]).unwrap();
    let (pid, _) = daemon.init_of("c1");
    let read = || daemon.on_host(&["cat", &format!("/proc/{pid}/root/run/count")]).stdout;
    eventually("the counter counts", Duration::from_secs(5), || !read().is_empty());

    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "freeze" })).unwrap();
    assert_eq!(daemon.status_of("c1"), "Frozen");
    let frozen = read();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(read(), frozen);
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "unfreeze" })).unwrap();
    assert_eq!(daemon.status_of("c1"), "Running");
    eventually("the counter goes on", Duration::from_secs(5), || read() != frozen);
}

#[test]
fn a_stopped_instance_is_renamed_and_keeps_its_files() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("old");
    daemon.api().exec("old", &["sh", "-c", "echo kept > /root/file; sync"]).unwrap();
    let refusal = daemon.api().refusal("POST", "/1.0/instances/old", &json!({ "name": "new" }));
    assert!(refusal.status >= 400, "a running instance is not renamed");
    daemon.api().operation("PUT", "/1.0/instances/old/state", &json!({ "action": "stop", "force": true })).unwrap();
    daemon.api().operation("POST", "/1.0/instances/old", &json!({ "name": "new" })).unwrap();
    assert_eq!(daemon.api().get("/1.0/instances").unwrap(), json!(["/1.0/instances/new"]));
    daemon.api().operation("PUT", "/1.0/instances/new/state", &json!({ "action": "start" })).unwrap();
    daemon.await_boot("new");
    assert_eq!(daemon.api().exec("new", &["cat", "/root/file"]).unwrap().1, "kept\n");
    assert_eq!(daemon.api().exec("new", &["hostname"]).unwrap().1, "new\n");
}

#[test]
fn a_reboot_from_inside_starts_the_same_container_again() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let first = daemon.init_of("c1");
    daemon.api().exec("c1", &["reboot"]).unwrap();
    eventually("a new init runs", Duration::from_secs(20), || {
        daemon.status_of("c1") == "Running" && daemon.api().get("/1.0/instances/c1/state").unwrap()["pid"] != first.0
    });
    daemon.await_boot("c1");
}

#[test]
fn a_poweroff_from_inside_stops_the_container() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    daemon.api().exec("c1", &["poweroff"]).unwrap();
    eventually("the container has stopped", Duration::from_secs(20), || daemon.status_of("c1") == "Stopped");
}

#[test]
fn an_ephemeral_container_is_gone_once_it_stops() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let mut body = launch_body("c1");
    body["ephemeral"] = json!(true);
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "stop", "force": true })).unwrap();
    eventually("it is gone", Duration::from_secs(5), || daemon.api().get("/1.0/instances").unwrap() == json!([]));
    daemon.finish();
}

#[test]
fn the_console_log_keeps_what_init_printed_and_can_be_cleared() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let log = || daemon.api().raw("GET", "/1.0/instances/c1/console?type=log", &[], &[]).unwrap().text();
    eventually("init's words are in the log", Duration::from_secs(5), || log().contains("started"));
    let cleared = daemon.api().raw("DELETE", "/1.0/instances/c1/console", &[], &[]).unwrap();
    assert_eq!(cleared.status, 200, "{}", cleared.text());
    assert!(!log().contains("started"));
}

#[test]
fn the_logs_of_an_instance_say_why_it_did_not_start_and_how_it_ended() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let list = || daemon.api().get("/1.0/instances/c1/logs").unwrap();
    assert_eq!(list(), json!(["/1.0/instances/c1/logs/lxc.log", "/1.0/instances/c1/logs/console.log"]));
    let get = |file: &str| daemon.api().raw("GET", &format!("/1.0/instances/c1/logs/{file}"), &[], &[]).unwrap();
    assert_eq!((get("lxc.log").status, get("lxc.log").text().as_str()), (200, ""));
    eventually("init's greeting is in the console's log", Duration::from_secs(10), || {
        get("console.log").text().contains("started")
    });
    for file in ["unix.socket", "..", "..%2f..%2fdatabase", "exec-output.old"] {
        assert_eq!(get(file).status, 404, "{file}");
    }
    let stop = json!({ "action": "stop", "force": true });
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &stop).unwrap();
    assert!(get("lxc.log").text().contains("ended: killed, init ended by signal 9"), "{}", get("lxc.log").text());
    // An init that cannot be run.
    let delete = |file: &str| daemon.api().raw("DELETE", &format!("/1.0/instances/c1/{file}"), &[], &[]).unwrap();
    assert_eq!(delete("files?path=/sbin/init").status, 200);
    assert_ne!(daemon.stapes(&["start", "c1"]).code, 0);
    let shown = daemon.stapes(&["info", "c1", "--show-log"]).ok();
    assert!(shown.contains("failed to start: ") && shown.contains("init"), "{shown}");
    assert_eq!(delete("logs/console.log").status, 200);
    assert_eq!(delete("logs/lxc.log").status, 400);
    assert_eq!(list(), json!(["/1.0/instances/c1/logs/lxc.log"]));
}
