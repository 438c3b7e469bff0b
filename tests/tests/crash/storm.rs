//! A busy life with SIGKILL at random moments.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    audit,
    world::{Client, Dice, Outcome, World, instance, report, setting},
};

/// What is known of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Absent,
    Stopped,
    /// With the pid of its init; `None`: any.
    Running(Option<i64>),
}

/// One worker's instance: its name, and the phases it may be in, of which one is certain while nothing is under way.
#[derive(Debug, Clone)]
struct Slot {
    number: usize,
    possible: Vec<(String, Phase)>,
    /// Files that were pushed and acknowledged, with their content.
    files: BTreeMap<String, Vec<u8>>,
    last: String,
    tally: Tally,
}

/// How often each verb was acknowledged, and was cut short.
type Tally = BTreeMap<String, (u32, u32)>;

/// What the daemon under test can do: routes come in one by one.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    pub files: bool,
}

impl Slot {
    fn new(number: usize) -> Self {
        let possible = vec![(format!("w{number}"), Phase::Absent)];
        Self { number, possible, files: BTreeMap::new(), last: String::new(), tally: Tally::new() }
    }

    fn certain(&self) -> (String, Phase) {
        self.possible[0].clone()
    }

    /// Does one verb that fits the present phase; false when the daemon is gone.
    fn act(&mut self, client: &Client, dice: &mut Dice, abilities: Abilities) -> Result<bool, String> {
        let (name, phase) = self.certain();
        let choice = dice.below(100);
        match phase {
            Phase::Absent => {
                let start = choice < 65;
                let to = if start { Phase::Running(None) } else { Phase::Stopped };
                // A launch may come as far as the creation.
                let between = vec![(name.clone(), Phase::Stopped)];
                let done = (name.clone(), to);
                self.files.clear();
                self.change("create", between, done, || {
                    client.request("POST", "/1.0/instances", &instance(&name, start))
                })
            }
            Phase::Stopped if choice < 45 => {
                let done = (name.clone(), Phase::Running(None));
                self.change("start", Vec::new(), done, || client.state(&name, "start", false))
            }
            Phase::Stopped if choice < 70 => {
                let url = format!("/1.0/instances/{name}");
                let done = (format!("w{}", self.number), Phase::Absent);
                let gone = (name, Phase::Absent);
                let result =
                    self.change("delete", vec![gone], done, || client.request("DELETE", &url, &Value::Null))?;
                Ok(result)
            }
            Phase::Stopped if choice < 85 => {
                let to = if name.starts_with('w') { format!("x{}", self.number) } else { format!("w{}", self.number) };
                let (url, body) = (format!("/1.0/instances/{name}"), json!({ "name": to }));
                self.change("rename", Vec::new(), (to, Phase::Stopped), || client.request("POST", &url, &body))
            }
            Phase::Running(_) if choice < 45 => {
                let done = (name.clone(), Phase::Stopped);
                self.change("stop --force", Vec::new(), done, || client.state(&name, "stop", true))
            }
            Phase::Running(_) if choice < 60 => {
                let between = vec![(name.clone(), Phase::Stopped)];
                let done = (name.clone(), Phase::Running(None));
                self.change("restart --force", between, done, || client.state(&name, "restart", true))
            }
            Phase::Running(_) if choice < 70 => {
                let done = (name.clone(), Phase::Stopped);
                self.change("stop", Vec::new(), done, || client.state(&name, "stop", false))
            }
            Phase::Stopped | Phase::Running(_) if abilities.files => self.push(client, dice, &name),
            Phase::Stopped | Phase::Running(_) => Ok(client.api.get("/1.0/instances?recursion=2").is_ok()),
        }
    }

    fn change(
        &mut self,
        what: &str,
        between: Vec<(String, Phase)>,
        done: (String, Phase),
        request: impl FnOnce() -> Outcome,
    ) -> Result<bool, String> {
        self.last = what.to_owned();
        let counts = self.tally.entry(what.to_owned()).or_default();
        match request() {
            Outcome::Acknowledged => {
                counts.0 += 1;
                self.possible = vec![done];
                self.last = format!("{what}, acknowledged");
                Ok(true)
            }
            Outcome::Lost => {
                counts.1 += 1;
                self.possible.extend(between);
                self.possible.push(done);
                Ok(false)
            }
            Outcome::Refused(why) => Err(format!("{what} of {:?} was refused: {why}", self.possible)),
        }
    }

    fn push(&mut self, client: &Client, dice: &mut Dice, name: &str) -> Result<bool, String> {
        let path = format!("/root/f{}", dice.below(1 << 32));
        let content = vec![b'a' + (dice.below(26) as u8); 1 + dice.below(200_000) as usize];
        self.last = format!("push of {path}");
        let url = format!("/1.0/instances/{name}/files?path={path}");
        let counts = self.tally.entry("push".to_owned()).or_default();
        match client.upload(&url, &[("X-Incus-type", "file")], &content) {
            Outcome::Acknowledged => {
                counts.0 += 1;
                self.files.insert(path, content);
                Ok(true)
            }
            Outcome::Lost => {
                counts.1 += 1;
                Ok(false)
            }
            Outcome::Refused(why) => Err(format!("push of {path} to {name} was refused: {why}")),
        }
    }

    /// Compares with what the next daemon says, and is certain again.
    fn check(&mut self, world: &World, wrong: &mut Vec<String>) {
        let listed = world.instances();
        let names = [format!("w{}", self.number), format!("x{}", self.number)];
        let mut found: Vec<_> =
            names.iter().filter_map(|name| Some((name.clone(), listed.get(name)?.clone()))).collect();
        if found.len() > 1 {
            wrong.push(format!("both {names:?} are there"));
        }
        let actual = match found.pop() {
            None => (names[0].clone(), Phase::Absent),
            Some((name, status)) if status == "Stopped" => (name, Phase::Stopped),
            Some((name, _)) => {
                let pid = world.pid_of(&name);
                (name, Phase::Running(pid))
            }
        };
        let fits = |(name, phase): &(String, Phase)| match (phase, &actual.1) {
            (Phase::Absent, Phase::Absent) => true,
            (Phase::Running(None), Phase::Running(_)) => *name == actual.0,
            (wanted, is) => *name == actual.0 && wanted == is,
        };
        if !self.possible.iter().any(fits) {
            wrong.push(format!("after {:?}: it is {actual:?}, possible were {:?}", self.last, self.possible));
        }
        if actual.1 == Phase::Absent {
            self.files.clear();
        }
        // It may have been asked to shut down, and would do so at some moment of the next rounds.
        if self.last == "stop" && matches!(actual.1, Phase::Running(_)) {
            let _ = world.client.state(&actual.0, "stop", true);
            self.possible = vec![(actual.0, Phase::Stopped)];
            return;
        }
        self.check_files(world, &actual.0, wrong);
        self.possible = vec![actual];
    }

    /// The newest few: each costs a request.
    fn check_files(&self, world: &World, name: &str, wrong: &mut Vec<String>) {
        for (path, content) in self.files.iter().rev().take(3) {
            let read = world.client.api.raw("GET", &format!("/1.0/instances/{name}/files?path={path}"), &[], &[]);
            if !read.is_ok_and(|response| response.status == 200 && response.body == *content) {
                wrong.push(format!("{name}: the acknowledged file {path} is lost or not whole"));
            }
        }
    }

    /// Remembers the pid of a running one, which only a stop may change.
    fn learn_pid(&mut self, world: &World) {
        for (name, phase) in &mut self.possible {
            if *phase == Phase::Running(None) {
                *phase = Phase::Running(world.pid_of(name));
            }
        }
    }
}

/// Makes and deletes what no instance uses, beside the workers: one kind a round.
fn disturb(client: &Client, round: u64) {
    let (url, body) = match round % 4 {
        0 => ("/1.0/profiles", json!({ "name": "px", "config": {} })),
        1 => ("/1.0/networks", json!({ "name": "netx", "type": "bridge" })),
        2 => ("/1.0/storage-pools", json!({ "name": "poolx", "driver": "dir" })),
        _ => return,
    };
    let name = body["name"].as_str().unwrap_or_default();
    let one = format!("{url}/{name}");
    loop {
        let made = client.request("POST", url, &body);
        let gone = client.request("DELETE", &one, &Value::Null);
        if matches!(made, Outcome::Lost) || matches!(gone, Outcome::Lost) {
            return;
        }
    }
}

pub fn storm(pool: &str, rounds: u64, abilities: Abilities) {
    let seed = setting("STAPES_CRASH_SEED", std::process::id().into());
    println!("STAPES_CRASH_SEED={seed} STAPES_CRASH_KILLS={rounds}");
    let began = Instant::now();
    let mut dice = Dice(seed);
    let mut world = World::start(pool);
    let steady = world.daemon.init_of("steady");
    let mut slots: Vec<Slot> = (0..3).map(Slot::new).collect();
    for round in 0..rounds {
        slots.iter_mut().for_each(|slot| slot.learn_pid(&world));
        let busy: Vec<_> = slots
            .drain(..)
            .map(|mut slot| {
                let (client, mut dice) = (world.client.clone(), Dice(dice.next()));
                thread::spawn(move || {
                    let mut refused = None;
                    loop {
                        match slot.act(&client, &mut dice, abilities) {
                            Ok(true) => {}
                            Ok(false) => break,
                            Err(why) => {
                                refused = Some(why);
                                break;
                            }
                        }
                    }
                    (slot, refused)
                })
            })
            .collect();
        let client = world.client.clone();
        let disturber = thread::spawn(move || disturb(&client, round));
        // Most kills come early in a verb, some after many.
        let most = [30_000, 200_000, 800_000][dice.below(3) as usize];
        thread::sleep(Duration::from_micros(dice.below(most)));
        world.kill();
        let mut wrong = Vec::new();
        for worker in busy {
            let (slot, refused) = worker.join().expect("a worker");
            slots.push(slot);
            wrong.extend(refused);
        }
        disturber.join().expect("the disturber");
        // One in four is killed again while it recovers.
        for _ in 0..2 {
            if dice.below(4) == 0 {
                world.daemon.spawn_daemon();
                thread::sleep(Duration::from_micros(dice.below(60_000)));
                world.kill();
            }
        }
        world.daemon.launch_daemon();
        wrong.extend(audit::settled(&world.daemon));
        wrong.extend(world.lost_operations());
        slots.iter_mut().for_each(|slot| slot.check(&world, &mut wrong));
        if world.daemon.init_of("steady") != steady {
            wrong.push("the bystander was touched".to_owned());
        }
        let last: Vec<_> = slots.iter().map(|slot| slot.last.as_str()).collect();
        assert!(
            wrong.is_empty(),
            "seed {seed}, round {round}, last verbs {last:?}:\n  {}\n{}",
            wrong.join("\n  "),
            world.daemon.log_tail()
        );
        for url in ["/1.0/profiles/px", "/1.0/networks/netx", "/1.0/storage-pools/poolx"] {
            if world.exists(url) {
                let gone = world.client.request("DELETE", url, &Value::Null);
                assert!(gone.is_acknowledged(), "{url}: {gone:?}");
            }
        }
    }
    let mut tally = Tally::new();
    for (verb, counts) in slots.iter().flat_map(|slot| &slot.tally) {
        let sum = tally.entry(verb.clone()).or_default();
        *sum = (sum.0 + counts.0, sum.1 + counts.1);
    }
    for (verb, (done, cut)) in tally {
        println!("{verb}: {done} acknowledged, {cut} cut short");
    }
    for slot in &slots {
        world.remove(&slot.certain().0);
    }
    world.remove("steady");
    report("at random moments", world.kills, began);
}
