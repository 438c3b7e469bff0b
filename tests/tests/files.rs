//! The file API: content, owners, and paths that want to leave.
#![forbid(unsafe_code)]

use std::{io::Write, os::unix::net::UnixStream, time::Duration};

use serde_json::json;
use stapes_testkit::{Daemon, Need, Response, eventually, host_with};

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

/// Begins to push `path` and leaves in the middle, when the daemon has opened what it writes to.
fn push_half(daemon: &Daemon, path: &str) {
    let begun = daemon.log().matches("an upload ended before all was written").count();
    let mut stream = UnixStream::connect(&daemon.api().socket).unwrap();
    let head =
        format!("POST /1.0/instances/c1/files?path={path} HTTP/1.1\r\nHost: stapes\r\nContent-Length: 4000000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'h'; 2_000_000]).unwrap();
    drop(stream);
    eventually("the daemon noticed", Duration::from_secs(20), || {
        daemon.log().matches("an upload ended before all was written").count() > begun
    });
}

fn names_in(daemon: &Daemon, path: &str) -> Vec<String> {
    let listed = get(daemon, path).json().unwrap();
    listed["metadata"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_push_cut_short_leaves_what_was_there_and_nothing_else() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    for state in ["running", "stopped"] {
        assert_eq!(put(&daemon, "/srv", &[("X-Incus-type", "directory")], b"").status, 200);
        assert_eq!(put(&daemon, "/srv/old", &[], b"as it was").status, 200, "{state}");
        push_half(&daemon, "/srv/old");
        push_half(&daemon, "/srv/new");
        assert_eq!(get(&daemon, "/srv/old").text(), "as it was", "{state}");
        assert_eq!(names_in(&daemon, "/srv"), ["old"], "{state}");
        assert_eq!(put(&daemon, "/srv/old", &[], b"whole").status, 200);
        assert_eq!(get(&daemon, "/srv/old").text(), "whole", "{state}");
        assert_eq!(names_in(&daemon, "/srv"), ["old"], "{state}");
        let stop = json!({ "action": "stop", "force": true });
        if state == "running" {
            daemon.api().operation("PUT", "/1.0/instances/c1/state", &stop).unwrap();
        }
    }
}

#[test]
fn an_overwritten_file_keeps_its_owner_mode_and_other_names() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let run = |script: &str| daemon.api().exec("c1", &["sh", "-c", script]).unwrap();
    let owner = [("X-Incus-uid", "1000"), ("X-Incus-gid", "33"), ("X-Incus-mode", "0640")];
    assert_eq!(put(&daemon, "/root/owned", &owner, b"first").status, 200);
    assert_eq!(run("cd /root; echo target > target; ln -s target link; echo x > one; ln one two").0, 0);
    for name in ["owned", "link", "one"] {
        assert_eq!(put(&daemon, &format!("/root/{name}"), &[], b"second").status, 200, "{name}");
    }
    assert_eq!(run("cd /root; stat -c '%u:%g %a' owned; cat owned").1, "1000:33 640\nsecond");
    assert_eq!(run("cd /root; readlink link; cat target").1, "target\nsecond");
    assert_eq!(run("cat /root/two").1, "second", "both names are one file still");
    assert_eq!(put(&daemon, "/root/owned", &[("X-Incus-mode", "0600")], b"third").status, 200);
    assert_eq!(run("stat -c '%u:%g %a' /root/owned").1, "1000:33 600\n");
    assert_eq!(put(&daemon, "/root", &[], b"no").status, 400, "a directory is no file");
}
