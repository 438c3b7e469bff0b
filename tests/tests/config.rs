//! Configuration and profiles: edits, merging, and edits that come too late.
#![forbid(unsafe_code)]

use serde_json::json;
use stapes_testkit::{Daemon, Need, host_with, launch_body};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

fn create_stopped(daemon: &Daemon, name: &str) {
    let mut body = launch_body(name);
    body["start"] = json!(false);
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
}

#[test]
fn put_replaces_patch_merges_and_an_empty_value_unsets() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    create_stopped(&daemon, "c1");
    let config = || daemon.api().get("/1.0/instances/c1").unwrap()["config"].clone();
    let patch = |config| {
        daemon.api().operation("PATCH", "/1.0/instances/c1", &json!({ "config": config })).unwrap();
    };
    patch(json!({ "user.a": "1", "user.b": "2" }));
    assert_eq!((config()["user.a"].as_str(), config()["user.b"].as_str()), (Some("1"), Some("2")));
    patch(json!({ "user.a": "" }));
    assert!(config()["user.a"].is_null(), "{}", config());
    assert_eq!(config()["user.b"], "2");

    let mut whole = daemon.api().get("/1.0/instances/c1").unwrap();
    whole["config"].as_object_mut().unwrap().remove("user.b");
    whole["description"] = json!("edited");
    daemon.api().operation("PUT", "/1.0/instances/c1", &whole).unwrap();
    let after = daemon.api().get("/1.0/instances/c1").unwrap();
    assert!(after["config"]["user.b"].is_null());
    assert_eq!(after["description"], "edited");
}

#[test]
fn an_edit_of_something_that_has_changed_meanwhile_is_refused() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    create_stopped(&daemon, "c1");
    for (path, first, second) in [
        ("/1.0/instances/c1", json!({ "config": { "user.x": "1" } }), json!({ "config": { "user.x": "2" } })),
        ("/1.0/profiles/default", json!({ "description": "one" }), json!({ "description": "two" })),
        ("/1.0/networks/stapesbr0", json!({ "description": "one" }), json!({ "description": "two" })),
        ("/1.0/storage-pools/default", json!({ "description": "one" }), json!({ "description": "two" })),
    ] {
        let got = daemon.api().raw("GET", path, &[], &[]).unwrap();
        let etag = got.header("etag").unwrap_or_else(|| panic!("{path} has no ETag")).to_owned();
        daemon.api().operation("PATCH", path, &first).unwrap();
        let late = daemon.api().raw("PATCH", path, &[("If-Match", &etag)], &serde_json::to_vec(&second).unwrap());
        let late = late.unwrap();
        assert_eq!(late.status, 412, "{path}: {}", late.text());
        let fresh = daemon.api().raw("GET", path, &[], &[]).unwrap();
        let etag = fresh.header("etag").unwrap().to_owned();
        let in_time = daemon.api().raw("PATCH", path, &[("If-Match", &etag)], &serde_json::to_vec(&second).unwrap());
        assert!(in_time.unwrap().status < 300, "{path}");
    }
}

#[test]
fn a_profile_reaches_its_instances_and_cannot_go_while_used() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let profile = json!({ "name": "small", "description": "", "config": { "limits.processes": "77" }, "devices": {} });
    daemon.api().sync("POST", "/1.0/profiles", &profile).unwrap();
    let mut body = launch_body("c1");
    body["profiles"] = json!(["default", "small"]);
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    let instance = daemon.api().get("/1.0/instances/c1").unwrap();
    assert_eq!(instance["expanded_config"]["limits.processes"], "77");
    assert!(instance["config"]["limits.processes"].is_null());
    assert_eq!(instance["expanded_devices"]["root"]["path"], "/");
    let used = daemon.api().get("/1.0/profiles/small").unwrap();
    assert_eq!(used["used_by"], json!(["/1.0/instances/c1"]));
    let refusal = daemon.api().refusal("DELETE", "/1.0/profiles/small", &json!(null));
    assert!(refusal.message.contains("use"), "{refusal}");
    daemon.api().operation("DELETE", "/1.0/instances/c1?force=true", &json!(null)).ok();
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "stop", "force": true })).ok();
    daemon.api().operation("DELETE", "/1.0/instances/c1", &json!(null)).ok();
    daemon.api().sync("DELETE", "/1.0/profiles/small", &json!(null)).unwrap();
    let refusal = daemon.api().refusal("DELETE", "/1.0/profiles/default", &json!(null));
    assert!(refusal.status >= 400);
}

#[test]
fn a_limit_is_changed_while_the_container_runs() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let before = daemon.init_of("c1");
    let patch = json!({ "config": { "limits.processes": "20" } });
    daemon.api().operation("PATCH", "/1.0/instances/c1", &patch).unwrap();
    let bomb = "n=0; while [ $n -lt 60 ]; do sleep 30 & n=$((n+1)); done; echo survived";
    let (_, _, err) = daemon.api().exec("c1", &["sh", "-c", bomb]).unwrap();
    assert!(err.contains("fork"), "a limit of 20 processes is felt: {err}");
    assert_eq!(daemon.init_of("c1"), before);
}

#[test]
fn an_instance_gets_its_own_address_and_id_range() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    daemon.launch("c2");
    let map = |name: &str| daemon.api().exec(name, &["cat", "/proc/self/uid_map"]).unwrap().1;
    let (one, two) = (map("c1"), map("c2"));
    assert_ne!(one.split_whitespace().nth(1), two.split_whitespace().nth(1), "own ids: {one} and {two}");
    assert_ne!(one.split_whitespace().nth(1), Some("0"), "unprivileged by default: {one}");
    let mac = |name: &str| {
        let instance = daemon.api().get(&format!("/1.0/instances/{name}")).unwrap();
        instance["config"]["volatile.eth0.hwaddr"].as_str().map(str::to_owned)
    };
    assert!(mac("c1").is_some());
    assert_ne!(mac("c1"), mac("c2"));
}

#[test]
fn the_server_describes_itself_and_its_keys() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let server = daemon.api().get("/1.0").unwrap();
    assert_eq!(server["api_version"], "1.0");
    assert_eq!(server["auth"], "trusted");
    assert!(server["api_extensions"].as_array().unwrap().len() > 5);
    assert!(server["environment"]["kernel_version"].is_string());
    let keys = daemon.api().get("/1.0/metadata/configuration").unwrap().to_string();
    assert!(keys.contains("limits.memory") && keys.contains("security.nesting"));
}

#[test]
fn the_oom_priority_of_a_running_container_changes_at_once() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let pid = daemon.init_of("c1").0;
    let score = || daemon.on_host(&["cat", &format!("/proc/{pid}/oom_score_adj")]).ok();
    daemon.stapes(&["config", "set", "c1", "limits.memory.oom_priority=321"]).ok();
    assert_eq!(score(), "321\n");
    daemon.stapes(&["config", "unset", "c1", "limits.memory.oom_priority"]).ok();
    assert_eq!(score(), "0\n");
    let refused = daemon.stapes(&["config", "set", "c1", "limits.kernel.nofile=2000"]);
    assert!(refused.code != 0 && refused.stderr.contains("limits.kernel.nofile"), "{}", refused.stderr);
}

#[test]
fn nesting_brings_more_ids_at_the_next_start_and_the_files_keep_their_owners() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let ids = || daemon.api().exec("c1", &["cat", "/proc/self/uid_map"]).unwrap().1;
    let size = || ids().split_whitespace().nth(2).unwrap().to_owned();
    assert_eq!(size(), "65536");
    assert_eq!(daemon.api().exec("c1", &["sh", "-c", "echo x > /root/mine; chown 1000:33 /root/mine"]).unwrap().0, 0);
    daemon.stapes(&["stop", "--force", "c1"]).ok();
    daemon.stapes(&["config", "set", "c1", "security.nesting=true"]).ok();
    daemon.stapes(&["start", "c1"]).ok();
    daemon.await_boot("c1");
    assert_eq!(size(), "262144");
    let base = ids().split_whitespace().nth(1).unwrap().to_owned();
    let shown = daemon.api().get("/1.0/instances/c1").unwrap();
    assert_eq!(shown["config"]["volatile.idmap.base"], base.as_str());
    assert_eq!(daemon.api().exec("c1", &["stat", "-c", "%u:%g", "/root/mine"]).unwrap().1, "1000:33\n");
}
