//! Whoever is killed, the instances run on and the next daemon knows them.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::json;
use stapes_testkit::{Daemon, Need, eventually, host_with, launch_body, ws::Session};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

#[test]
fn a_container_outlives_a_killed_daemon_and_is_adopted() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    daemon.launch("c1");
    let before = daemon.init_of("c1");
    daemon.kill();
    assert_eq!(daemon.on_host(&["test", "-d", &format!("/proc/{}", before.0)]).code, 0, "init lives on");
    daemon.launch_daemon();
    assert_eq!(daemon.status_of("c1"), "Running");
    assert_eq!(daemon.init_of("c1"), before, "the same init, not a new one");
    assert_eq!(daemon.api().exec("c1", &["echo", "still here"]).unwrap().1, "still here\n");
    let address = daemon.address_of("c1");
    assert_eq!(daemon.on_host(&["busybox", "ping", "-c", "1", "-W", "3", &address]).code, 0);
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "stop", "force": true })).unwrap();
    daemon.api().operation("DELETE", "/1.0/instances/c1", &json!(null)).unwrap();
    daemon.finish();
}

#[test]
fn sigterm_leaves_the_instances_running_and_shutdown_stops_them() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    daemon.launch("c1");
    let before = daemon.init_of("c1");
    daemon.terminate();
    daemon.launch_daemon();
    assert_eq!(daemon.init_of("c1"), before);
    daemon.shut_down();
    // The kernel takes a NIC away some 40 ms after its namespace.
    eventually("nothing is left", Duration::from_secs(10), || daemon.remains().is_empty());
    daemon.launch_daemon();
    // What was running when the host went down starts again with it.
    eventually("c1 runs again", Duration::from_secs(20), || daemon.status_of("c1") == "Running");
}

#[test]
fn a_program_started_by_exec_outlives_the_daemon() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    daemon.launch("c1");
    let script = "sleep 2; echo done > /root/result";
    let request = json!({ "command": ["sh", "-c", script], "wait-for-websocket": false, "record-output": true });
    let answer = daemon.api().envelope("POST", "/1.0/instances/c1/exec", &request).unwrap();
    daemon.kill();
    daemon.launch_daemon();
    eventually("the program came to its end", Duration::from_secs(10), || {
        daemon.api().exec("c1", &["cat", "/root/result"]).is_ok_and(|(_, out, _)| out == "done\n")
    });
    let ended = daemon.api().wait(answer["operation"].as_str().unwrap()).unwrap();
    assert_eq!(ended["metadata"]["return"], 0, "its exit status can still be asked: {ended}");
}

#[test]
fn an_end_while_no_daemon_watched_is_noticed_by_the_next() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    daemon.launch("c1");
    daemon.launch("c2");
    let (pid, _) = daemon.init_of("c1");
    daemon.kill();
    daemon.kill_inside(pid);
    daemon.launch_daemon();
    eventually("c1 is known to have stopped", Duration::from_secs(5), || daemon.status_of("c1") == "Stopped");
    assert_eq!(daemon.status_of("c2"), "Running");
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "start" })).unwrap();
    daemon.await_boot("c1");
}

#[test]
fn a_reboot_asked_for_while_no_daemon_watched_is_done_by_the_next() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    // No start of its own: what is down for good stays down.
    for name in ["c1", "c2"] {
        let mut body = launch_body(name);
        body["config"] = json!({ "boot.autostart": "false" });
        daemon.api().operation("POST", "/1.0/instances", &body).unwrap();
        daemon.await_boot(name);
    }
    let before = daemon.init_of("c1");
    let script = "while [ -e /run/booted ]; do sleep 0.1; done; reboot -f";
    let command = json!({ "command": ["sh", "-c", script], "wait-for-websocket": false });
    daemon.api().envelope("POST", "/1.0/instances/c1/exec", &command).unwrap();
    let bystander = daemon.init_of("c2").0;
    daemon.kill();
    // Not made but removed: the host's root has no id in there that a new file could have.
    daemon.on_host(&["rm", &format!("/proc/{}/root/run/booted", before.0)]).ok();
    daemon.kill_inside(bystander);
    let is_gone = || daemon.on_host(&["test", "-d", &format!("/proc/{}", before.0)]).code != 0;
    eventually("init has ended", Duration::from_secs(30), is_gone);
    daemon.launch_daemon();
    eventually("c1 runs again", Duration::from_secs(30), || {
        daemon.status_of("c1") == "Running" && daemon.init_of("c1") != before
    });
    daemon.await_boot("c1");
    assert_eq!(daemon.status_of("c2"), "Stopped");
    daemon.finish();
}

/// The shim is found as the parent of init, in the daemon's own PID namespace.
#[test]
fn a_killed_shim_ends_no_container_and_hangs_no_request() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let before = daemon.init_of("c1");
    let stat = daemon.on_host(&["cat", &format!("/proc/{}/stat", before.0)]).ok();
    let parent: i64 = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert!(parent > 1, "init's parent is its shim: {stat}");
    let session = Session::exec(daemon.api(), "c1", &["sleep", "1000"], false).unwrap();
    daemon.kill_inside(parent);
    drop(session);
    eventually("an exec works again", Duration::from_secs(15), || {
        daemon.api().exec("c1", &["true"]).is_ok_and(|(code, ..)| code == 0)
    });
    assert_eq!(daemon.init_of("c1"), before, "the same init");
    daemon.api().operation("PUT", "/1.0/instances/c1/state", &json!({ "action": "stop", "force": true })).unwrap();
    assert_eq!(daemon.status_of("c1"), "Stopped");
}

#[test]
fn a_killed_nursery_is_replaced_with_its_services() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let before = daemon.init_of("c1");
    let pids = |name: &str| -> Vec<i64> {
        let script = format!("grep -lx {name} /proc/[0-9]*/comm | cut -d/ -f3");
        daemon.on_host(&["sh", "-c", &script]).stdout.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let (nurseries, servers) = (pids("stapes-nursery"), pids("dnsmasq"));
    assert_eq!((nurseries.len(), servers.len()), (1, 1));
    daemon.kill_inside(nurseries[0]);
    // Nobody asks it for anything: it is missed all the same.
    eventually("a new nursery runs a new DHCP server", Duration::from_secs(15), || {
        let now = (pids("stapes-nursery"), pids("dnsmasq"));
        now.0.len() == 1 && now.0 != nurseries && now.1.len() == 1 && now.1 != servers
    });
    assert_eq!(daemon.init_of("c1"), before, "running instances do not notice");
    assert_eq!(daemon.api().exec("c1", &["true"]).unwrap().0, 0);
    daemon.launch("c2");
    daemon.address_of("c2");
    daemon.kill_inside(pids("stapes-nursery")[0]);
    daemon.launch("c3");
    daemon.finish();
}

#[test]
fn a_nursery_whose_embryo_was_killed_forks_shims_all_the_same() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    daemon.launch("c1");
    let said = |script: &str| daemon.on_host(&["sh", "-c", script]).stdout.trim().to_owned();
    let nursery = said("grep -lx stapes-nursery /proc/[0-9]*/comm | cut -d/ -f3");
    let embryos = || {
        said(&format!(
            "grep -lx 'PPid:\t{nursery}' $(grep -lx 'Name:\tstapes-embryo' /proc/[0-9]*/status) | cut -d/ -f3"
        ))
    };
    let before: i64 = embryos().parse().unwrap();
    daemon.kill_inside(before);
    // More than the spares that were made before.
    for number in 2..8 {
        daemon.launch(&format!("c{number}"));
    }
    assert_ne!(embryos(), before.to_string());
    assert_eq!(said("grep -lx stapes-nursery /proc/[0-9]*/comm | cut -d/ -f3"), nursery, "the nursery is the same");
    daemon.finish();
}

/// Kills the daemon at arbitrary moments of a busy life, and looks for what was lost or left.
#[test]
fn a_daemon_killed_in_the_middle_of_work_leaves_a_consistent_host() {
    let Some(_host) = host_with(NEEDS) else { return };
    let mut daemon = Daemon::start();
    daemon.launch("steady");
    let steady = daemon.init_of("steady");
    for round in 0..12_u64 {
        let name = format!("k{round}");
        let api = daemon.api().clone();
        let body = launch_body(&name);
        let worker = {
            let name = name.clone();
            std::thread::spawn(move || {
                let created = api.operation("POST", "/1.0/instances", &body).is_ok();
                let stop = json!({ "action": "stop", "force": true });
                let stopped = created && api.operation("PUT", &format!("/1.0/instances/{name}/state"), &stop).is_ok();
                let gone = stopped && api.operation("DELETE", &format!("/1.0/instances/{name}"), &json!(null)).is_ok();
                (created, gone)
            })
        };
        std::thread::sleep(Duration::from_millis(3 + round * 7 % 80));
        daemon.kill();
        let (created, gone) = worker.join().unwrap();
        daemon.launch_daemon();
        assert_eq!(daemon.init_of("steady"), steady, "round {round}");
        let there = daemon.api().get(&format!("/1.0/instances/{name}")).is_ok();
        assert!(!gone || !there, "round {round}: an acknowledged delete was lost");
        assert!(!created || gone || there || !daemon.log().is_empty(), "round {round}");
        if there {
            let stop = json!({ "action": "stop", "force": true });
            let _ = daemon.api().operation("PUT", &format!("/1.0/instances/{name}/state"), &stop);
            daemon.api().operation("DELETE", &format!("/1.0/instances/{name}"), &json!(null)).unwrap();
        }
    }
    let stop = json!({ "action": "stop", "force": true });
    daemon.api().operation("PUT", "/1.0/instances/steady/state", &stop).unwrap();
    daemon.api().operation("DELETE", "/1.0/instances/steady", &json!(null)).unwrap();
    daemon.finish();
}
