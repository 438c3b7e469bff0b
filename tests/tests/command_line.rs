//! `stapes` itself: what it prints where, and how it says no.
#![forbid(unsafe_code)]

use serde_json::Value;
use stapes_testkit::{Daemon, Need, host_with};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

#[test]
fn a_whole_life_on_the_command_line() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.stapes(&["launch", "busybox", "c1", "-c", "limits.processes=100"]).ok();
    daemon.await_boot("c1");
    assert_eq!(daemon.stapes(&["list", "-f", "csv", "-c", "ns"]).ok(), "c1,RUNNING\n");
    let json: Value = serde_json::from_str(&daemon.stapes(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(json[0]["config"]["limits.processes"], "100");
    assert_eq!(daemon.stapes(&["exec", "c1", "--", "echo", "hi"]).ok(), "hi\n");
    assert_eq!(daemon.stapes(&["exec", "c1", "--", "sh", "-c", "exit 5"]).code, 5);
    assert!(daemon.stapes(&["info", "c1"]).ok().contains("RUNNING"));
    daemon.stapes(&["config", "set", "c1", "user.x", "1"]).ok();
    assert_eq!(daemon.stapes(&["config", "get", "c1", "user.x"]).ok(), "1\n");
    daemon.stapes(&["stop", "c1", "--force"]).ok();
    daemon.stapes(&["rename", "c1", "c2"]).ok();
    daemon.stapes(&["start", "c2"]).ok();
    daemon.stapes(&["delete", "c2", "--force"]).ok();
    assert_eq!(daemon.stapes(&["list", "-f", "csv"]).ok(), "");
    daemon.finish();
}

#[test]
fn an_error_goes_to_standard_error_and_names_its_subject() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    for (args, subject) in [
        (&["start", "nobody"][..], "nobody"),
        (&["image", "show", "no-image"], "no-image"),
        (&["config", "set", "nobody", "user.x=1"], "nobody"),
        (&["create", "busybox", "c1", "-c", "limits.memroy=1", "--quiet"], "limits.memroy"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let output = daemon.stapes(args);
        assert_ne!(output.code, 0, "{args:?}");
        assert_eq!(output.stdout, "", "{args:?}");
        assert!(output.stderr.contains(subject), "{args:?}: {}", output.stderr);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    }
}

#[test]
fn initialising_twice_changes_nothing() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let networks = daemon.api().get("/1.0/networks/stapesbr0").unwrap();
    daemon.stapes(&["admin", "init", "--auto"]);
    assert_eq!(daemon.api().get("/1.0/networks/stapesbr0").unwrap(), networks);
    daemon.stapes(&["admin", "waitready"]).ok();
}

#[test]
fn no_daemon_is_said_with_what_to_do() {
    let Some(_host) = host_with(&[Need::Programs]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(stapes_testkit::binaries_dir().join("stapes"))
        .args(["list"])
        .env("STAPES_DIR", dir.path())
        .env("STAPES_SOCKET", dir.path().join("unix.socket"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("unix.socket") && error.contains("stapesd"), "{error}");
}

#[test]
fn a_newcomers_mistakes_are_answered_with_what_to_type() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::empty();
    let refused = |args: &[&str]| {
        let output = daemon.stapes(args);
        assert_eq!(output.code, 1, "{args:?}: {}{}", output.stdout, output.stderr);
        output.stderr
    };
    // Before anything is set up.
    assert!(refused(&["launch", "debian:busybox", "c1"]).contains("stapes admin init --auto"));
    daemon.stapes(&["admin", "init", "--auto"]).ok();
    assert!(refused(&["launch", "busybox", "c1"]).contains("hint: `stapes image list`"));
    assert!(refused(&["launch", "ubunut:22.04", "c1"]).contains("hint: see `stapes remote list`"));
    assert!(refused(&["config", "set", "c1"]).contains("no key and value were given for c1"));
}
