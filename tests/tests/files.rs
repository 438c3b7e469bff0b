//! The file API: content, owners, and paths that want to leave.
#![forbid(unsafe_code)]

use serde_json::json;
use stapes_testkit::{Daemon, Need, Response, host_with};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

fn get(daemon: &Daemon, path: &str) -> Response {
    daemon.api().raw("GET", &format!("/1.0/instances/c1/files?path={path}"), &[], &[]).unwrap()
}

fn put(daemon: &Daemon, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    daemon.api().raw("POST", &format!("/1.0/instances/c1/files?path={path}"), headers, body).unwrap()
}

#[test]
fn a_pushed_file_has_its_content_owner_and_mode() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let headers = [("X-Incus-uid", "1000"), ("X-Incus-gid", "50"), ("X-Incus-mode", "0640"), ("X-Incus-type", "file")];
    let answer = put(&daemon, "/root/f", &headers, b"hello");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = daemon.api().exec("c1", &["stat", "-c", "%u %g %a %s", "/root/f"]).unwrap().1;
    assert_eq!(seen, "1000 50 640 5\n");

    let answer = get(&daemon, "/root/f");
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
    assert_eq!(answer.header("x-incus-uid"), Some("1000"));
    assert_eq!(answer.header("x-incus-gid"), Some("50"));
    assert_eq!(answer.header("x-incus-type"), Some("file"));
    assert!(answer.header("x-incus-mode").is_some_and(|m| m.ends_with("640")));
    let lxd_headers = answer.header("x-lxd-uid");
    assert!(lxd_headers.is_none() || lxd_headers == Some("1000"));
}

#[test]
fn append_directory_listing_and_delete_work() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    assert_eq!(put(&daemon, "/srv", &[("X-Incus-type", "directory")], b"").status, 200);
    assert_eq!(put(&daemon, "/srv/log", &[], b"one\n").status, 200);
    assert_eq!(put(&daemon, "/srv/log", &[("X-Incus-write", "append")], b"two\n").status, 200);
    assert_eq!(get(&daemon, "/srv/log").body, b"one\ntwo\n");
    let listing = get(&daemon, "/srv");
    assert_eq!(listing.header("x-incus-type"), Some("directory"));
    assert_eq!(listing.json().unwrap()["metadata"], json!(["log"]));
    let gone = daemon.api().raw("DELETE", "/1.0/instances/c1/files?path=/srv/log", &[], &[]).unwrap();
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(get(&daemon, "/srv/log").status, 404);
    assert_eq!(get(&daemon, "/no/such").status, 404);
}

#[test]
fn files_of_a_stopped_instance_can_be_changed() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let mut body = stapes_testkit::launch_body("c1");
    body["start"] = json!(false);
    daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
    assert_eq!(put(&daemon, "/root/early", &[], b"before the first start\n").status, 200);
    assert_eq!(get(&daemon, "/root/early").body, b"before the first start\n");
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "start" })).unwrap();
    daemon.await_boot("c1");
    let seen = daemon.api().exec("c1", &["cat", "/root/early"]).unwrap().1;
    assert_eq!(seen, "before the first start\n");
}

#[test]
fn a_symbolic_link_does_not_lead_to_the_host() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let secret = daemon.scratch().join("host-secret");
    std::fs::write(&secret, "the host's own").unwrap();
    let secret = secret.to_str().unwrap();
    let links = format!(
        "ln -s {secret} /root/absolute; ln -s ../../../../../../../../../..{secret} /root/relative; \
         ln -s / /root/rootdir; ln -s /proc/1/root/{secret} /root/magic"
    );
    daemon.api().exec("c1", &["sh", "-c", &links]).unwrap();
    for path in ["/root/absolute", "/root/relative", &format!("/root/rootdir{secret}"), "/root/magic", secret] {
        let answer = get(&daemon, path);
        assert!(!answer.text().contains("the host's own"), "{path} leads to the host");
        put(&daemon, path, &[], b"overwritten");
        assert_eq!(std::fs::read_to_string(secret).unwrap(), "the host's own", "written through {path}");
        daemon.api().raw("DELETE", &format!("/1.0/instances/c1/files?path={path}"), &[], &[]).unwrap();
        assert!(std::path::Path::new(secret).exists(), "deleted through {path}");
    }
    for path in [format!("/../../../../../../..{secret}"), format!("../../../..{secret}")] {
        let answer = get(&daemon, &path);
        assert!(answer.status >= 400, "{path}: {}", answer.text());
    }
}

#[test]
fn the_command_line_pushes_and_pulls() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let (from, to) = (daemon.scratch().join("from"), daemon.scratch().join("to"));
    let content: Vec<u8> = (0..2_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    std::fs::write(&from, &content).unwrap();
    daemon.stapes(&["file", "push", from.to_str().unwrap(), "c1/root/data"]).ok();
    daemon.stapes(&["file", "pull", "c1/root/data", to.to_str().unwrap()]).ok();
    assert!(std::fs::read(&to).unwrap() == content, "what was pushed comes back");
}
