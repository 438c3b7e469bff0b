//! The daemon dies at the first, second, … step of each verb, until the verb comes through.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stapes_testkit::{ImageBuilder, eventually};

use crate::{
    audit,
    world::{Client, Outcome, World, instance, report},
};

/// More steps than any workflow has.
const MOST_STEPS: u32 = 60;

/// One verb: what must be there before it, the request, and what must hold once it was acknowledged.
pub struct Verb {
    pub name: &'static str,
    pub before: fn(&World) -> Outcome,
    pub request: fn(&Client) -> Outcome,
    /// What must hold after an acknowledgement, in words, if it does not.
    pub after: fn(&World) -> Option<String>,
}

fn nothing(_: &World) -> Outcome {
    Outcome::Acknowledged
}

fn create(world: &World) -> Outcome {
    world.client.request("POST", "/1.0/instances", &instance("c1", false))
}

fn launch(world: &World) -> Outcome {
    world.client.request("POST", "/1.0/instances", &instance("c1", true))
}

fn is(world: &World, name: &str, wanted: &str) -> Option<String> {
    let found = world.instances().remove(name).unwrap_or_else(|| "gone".to_owned());
    (found != wanted).then(|| format!("{name} is {found}, acknowledged was {wanted}"))
}

fn there(world: &World, url: &str, wanted: bool) -> Option<String> {
    (world.exists(url) != wanted).then(|| format!("{url} is {}there", if wanted { "not " } else { "still " }))
}

/// An image of one file, unlike the one that instances are made of.
fn small_image() -> Vec<u8> {
    ImageBuilder::unified("for the crash tests").busybox().gzip()
}

fn import(client: &Client) -> Outcome {
    client.upload("/1.0/images", &[("Content-Type", "application/octet-stream")], &small_image())
}

const PUSHED: &[u8] = b"pushed and acknowledged\n";

fn push(client: &Client) -> Outcome {
    client.upload("/1.0/instances/c1/files?path=/root/pushed", &[("X-Incus-type", "file")], PUSHED)
}

fn pushed_is_whole(world: &World) -> Option<String> {
    let read = world.client.api.raw("GET", "/1.0/instances/c1/files?path=/root/pushed", &[], &[]);
    let whole = read.is_ok_and(|response| response.status == 200 && response.body == PUSHED);
    (!whole).then(|| "the pushed file is not whole".to_owned())
}

fn imported(world: &World) -> usize {
    let list = world.client.api.get("/1.0/images?recursion=1").unwrap_or_default();
    let ours = |image: &&Value| image["properties"]["description"] == "for the crash tests";
    list.as_array().into_iter().flatten().filter(ours).count()
}

fn imported_url(client: &Client) -> String {
    let list = client.api.get("/1.0/images?recursion=1").unwrap_or_default();
    let ours = |image: &&Value| image["properties"]["description"] == "for the crash tests";
    let found = list.as_array().into_iter().flatten().find(ours).map(|image| image["fingerprint"].clone());
    format!("/1.0/images/{}", found.unwrap_or_default().as_str().unwrap_or("none"))
}

pub const INSTANCE_VERBS: &[Verb] = &[
    Verb {
        name: "create",
        before: nothing,
        request: |c| c.request("POST", "/1.0/instances", &instance("c1", false)),
        after: |w| is(w, "c1", "Stopped"),
    },
    Verb {
        name: "launch",
        before: nothing,
        request: |c| c.request("POST", "/1.0/instances", &instance("c1", true)),
        after: |w| is(w, "c1", "Running"),
    },
    Verb {
        name: "start",
        before: create,
        request: |c| c.state("c1", "start", false),
        after: |w| is(w, "c1", "Running"),
    },
    Verb { name: "stop", before: launch, request: |c| c.state("c1", "stop", false), after: |w| is(w, "c1", "Stopped") },
    Verb {
        name: "stop --force",
        before: launch,
        request: |c| c.state("c1", "stop", true),
        after: |w| is(w, "c1", "Stopped"),
    },
    Verb {
        name: "restart --force",
        before: launch,
        request: |c| c.state("c1", "restart", true),
        after: |w| is(w, "c1", "Running"),
    },
    Verb {
        name: "delete",
        before: create,
        request: |c| c.request("DELETE", "/1.0/instances/c1", &Value::Null),
        after: |w| is(w, "c1", "gone"),
    },
    Verb {
        name: "rename",
        before: create,
        request: |c| c.request("POST", "/1.0/instances/c1", &json!({ "name": "c2" })),
        after: |w| is(w, "c2", "Stopped"),
    },
];

pub const FILE_VERBS: &[Verb] = &[
    Verb { name: "file push to a stopped one", before: create, request: push, after: pushed_is_whole },
    Verb { name: "file push to a running one", before: launch, request: push, after: pushed_is_whole },
];

pub const OTHER_VERBS: &[Verb] = &[
    Verb {
        name: "profile create",
        before: nothing,
        request: |c| c.request("POST", "/1.0/profiles", &json!({ "name": "p1", "config": { "limits.cpu": "1" } })),
        after: |w| there(w, "/1.0/profiles/p1", true),
    },
    Verb {
        name: "network create",
        before: nothing,
        request: |c| c.request("POST", "/1.0/networks", &json!({ "name": "net1", "type": "bridge" })),
        after: |w| there(w, "/1.0/networks/net1", true),
    },
    Verb {
        name: "network delete",
        before: |w| w.client.request("POST", "/1.0/networks", &json!({ "name": "net1", "type": "bridge" })),
        request: |c| c.request("DELETE", "/1.0/networks/net1", &Value::Null),
        after: |w| there(w, "/1.0/networks/net1", false),
    },
    Verb {
        name: "pool create (dir)",
        before: nothing,
        request: |c| c.request("POST", "/1.0/storage-pools", &json!({ "name": "pool1", "driver": "dir" })),
        after: |w| there(w, "/1.0/storage-pools/pool1", true),
    },
    Verb {
        name: "pool delete (dir)",
        before: |w| w.client.request("POST", "/1.0/storage-pools", &json!({ "name": "pool1", "driver": "dir" })),
        request: |c| c.request("DELETE", "/1.0/storage-pools/pool1", &Value::Null),
        after: |w| there(w, "/1.0/storage-pools/pool1", false),
    },
];

pub const LOOP_VERBS: &[Verb] = &[
    Verb {
        name: "pool create (btrfs)",
        before: nothing,
        request: create_loop_pool,
        after: |w| there(w, "/1.0/storage-pools/pool1", true),
    },
    Verb {
        name: "pool delete (btrfs)",
        before: |w| create_loop_pool(&w.client),
        request: |c| c.request("DELETE", "/1.0/storage-pools/pool1", &Value::Null),
        after: |w| there(w, "/1.0/storage-pools/pool1", false),
    },
];

pub const IMAGE_VERBS: &[Verb] = &[
    Verb {
        name: "image import",
        before: nothing,
        request: import,
        after: |w| (imported(w) != 1).then(|| "the imported image is lost".to_owned()),
    },
    Verb {
        name: "image delete",
        before: |w| import(&w.client),
        request: |c| c.request("DELETE", &imported_url(c), &Value::Null),
        after: |w| (imported(w) != 0).then(|| "the deleted image is there".to_owned()),
    },
];

fn create_loop_pool(client: &Client) -> Outcome {
    let body = json!({ "name": "pool1", "driver": "btrfs", "config": { "size": "256MiB" } });
    client.request("POST", "/1.0/storage-pools", &body)
}

/// A reboot from inside has no request that could be repeated: wherever the daemon is killed, the instance comes back.
pub fn kill_at_every_step_of_a_reboot() {
    let began = Instant::now();
    let mut world = World::start("dir");
    let quiet = json!({ "boot.autostart": "false" });
    let mut body = instance("c1", true);
    body["config"] = quiet;
    assert!(world.client.request("POST", "/1.0/instances", &body).is_acknowledged(), "{}", world.daemon.log());
    for step in 1.. {
        assert!(step <= MOST_STEPS, "a reboot has more than {MOST_STEPS} steps");
        let before = world.pid_of("c1");
        let reboot = json!({ "command": ["sh", "-c", "sleep 0.3; reboot -f"], "wait-for-websocket": false });
        world.daemon.api().envelope("POST", "/1.0/instances/c1/exec", &reboot).unwrap();
        world.arm(step);
        let is_back = |world: &World| {
            world.pid_of("c1").is_some_and(|pid| Some(pid) != before)
                && world.daemon.api().exec("c1", &["true"]).is_ok()
        };
        eventually("it is back, or the daemon is dead", Duration::from_secs(60), || {
            world.daemon.exit_code().is_some() || (world.exists("/1.0") && is_back(&world))
        });
        world.disarm();
        let died = world.daemon.exit_code().is_some();
        if died {
            world.kills += 1;
            world.daemon.await_end();
            world.daemon.launch_daemon();
            eventually(&format!("it is back after step {step}"), Duration::from_secs(60), || is_back(&world));
        }
        let wrong = audit::settled(&world.daemon);
        assert!(wrong.is_empty(), "killed at step {step}:\n  {}\n{}", wrong.join("\n  "), world.daemon.log());
        if !died {
            break;
        }
    }
    assert!(world.kills > 3, "{} kills: is the daemon built with the feature failpoints?", world.kills);
    ["c1", "steady"].into_iter().for_each(|name| world.remove(name));
    report("at every step of a reboot", world.kills, began);
}

/// Takes back what a verb or its preparation made.
fn tidy_up(world: &World) {
    ["c1", "c2"].into_iter().for_each(|name| world.remove(name));
    let client = &world.client;
    for url in ["/1.0/profiles/p1", "/1.0/networks/net1", "/1.0/storage-pools/pool1", &imported_url(client)] {
        if world.exists(url) {
            let gone = client.request("DELETE", url, &Value::Null);
            assert!(gone.is_acknowledged(), "{url} cannot be deleted: {gone:?}\n{}", world.daemon.log_tail());
        }
    }
}

/// Kills at every step of each verb; after each kill the next daemon must know every acknowledged thing and have left
/// nothing else.
pub fn kill_at_every_step(pool: &str, verbs: &[Verb]) {
    let began = Instant::now();
    let mut world = World::start(pool);
    let steady = world.daemon.init_of("steady");
    for verb in verbs {
        let mut step = 0;
        loop {
            step += 1;
            assert!(step <= MOST_STEPS, "{} has more than {MOST_STEPS} steps", verb.name);
            let at = format!("{} killed at step {step}", verb.name);
            let prepared = (verb.before)(&world);
            assert!(prepared.is_acknowledged(), "{at}: preparing: {prepared:?}\n{}", world.daemon.log_tail());
            world.arm(step);
            let outcome = (verb.request)(&world.client);
            let died = world.has_died(&outcome);
            world.disarm();
            if died {
                world.kills += 1;
                world.daemon.await_end();
                world.daemon.launch_daemon();
            }
            let mut wrong = audit::settled(&world.daemon);
            wrong.extend(world.lost_operations());
            match &outcome {
                Outcome::Acknowledged => wrong.extend((verb.after)(&world)),
                Outcome::Refused(why) => wrong.push(format!("refused: {why}")),
                Outcome::Lost => {}
            }
            if world.daemon.init_of("steady") != steady {
                wrong.push("the bystander was touched".to_owned());
            }
            assert!(wrong.is_empty(), "{at}:\n  {}\n{}", wrong.join("\n  "), world.daemon.log_tail());
            tidy_up(&world);
            if !died {
                break;
            }
        }
        assert!(step > 1, "{} has no step: is the daemon built with the feature failpoints?", verb.name);
        println!("{}: {} kills", verb.name, step - 1);
    }
    world.remove("steady");
    report("at every step", world.kills, began);
    std::thread::sleep(Duration::from_millis(50));
}
