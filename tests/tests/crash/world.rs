//! A daemon under test with its failpoint, and requests whose daemon may die under them.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use stapes_testkit::{Api, ApiError, Daemon, eventually};

/// How a request came out.
#[derive(Debug)]
pub enum Outcome {
    /// Done, and said so.
    Acknowledged,
    /// The daemon refused it, or it failed; nothing is to be left of it.
    Refused(String),
    /// The daemon died before it answered: it may have been done or not.
    Lost,
}

impl Outcome {
    fn of(result: anyhow::Result<Value>) -> Self {
        match result {
            Ok(_) => Self::Acknowledged,
            Err(error) if error.chain().any(|cause| cause.is::<ApiError>()) => Self::Refused(format!("{error:#}")),
            Err(_) => Self::Lost,
        }
    }

    pub fn is_acknowledged(&self) -> bool {
        matches!(self, Self::Acknowledged)
    }
}

/// The API as a client sees it that remembers every operation it was told of.
#[derive(Clone)]
pub struct Client {
    pub api: Api,
    operations: Arc<Mutex<Vec<String>>>,
}

impl Client {
    fn new(api: Api) -> Self {
        Self { api, operations: Arc::default() }
    }

    pub fn request(&self, method: &str, path: &str, body: &Value) -> Outcome {
        let answer = match self.api.envelope(method, path, body) {
            Ok(answer) if answer["type"] == "async" => answer,
            other => return Outcome::of(other),
        };
        let url = answer["operation"].as_str().unwrap_or_default().to_owned();
        self.operations.lock().unwrap().push(url.clone());
        Outcome::of(self.api.wait(&url))
    }

    pub fn upload(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Outcome {
        match self.api.raw("POST", path, headers, body) {
            Ok(response) if response.status < 400 => match response.json() {
                Ok(answer) if answer["type"] == "async" => {
                    let url = answer["operation"].as_str().unwrap_or_default().to_owned();
                    self.operations.lock().unwrap().push(url.clone());
                    Outcome::of(self.api.wait(&url))
                }
                _ => Outcome::Acknowledged,
            },
            Ok(response) => Outcome::Refused(response.text()),
            Err(_) => Outcome::Lost,
        }
    }

    pub fn state(&self, name: &str, action: &str, force: bool) -> Outcome {
        let body = json!({ "action": action, "force": force, "timeout": 10 });
        self.request("PUT", &format!("/1.0/instances/{name}/state"), &body)
    }
}

/// The body that makes an instance of the image that the daemon builds itself.
pub fn instance(name: &str, start: bool) -> Value {
    let source = json!({ "type": "image", "protocol": "debian", "alias": "busybox" });
    json!({ "name": name, "type": "container", "start": start, "source": source })
}

pub struct World {
    pub daemon: Daemon,
    pub client: Client,
    armed: PathBuf,
    _place: tempfile::TempDir,
    arms: u32,
    pub kills: u32,
}

impl World {
    /// A daemon with a pool, a network, the image, and the instance `steady` that runs on through everything.
    pub fn start(pool: &str) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("kill");
        let daemon = Daemon::empty_with(&[("STAPES_KILL_FILE", &file.to_string_lossy())]);
        let client = Client::new(daemon.api().clone());
        let world = Self { daemon, client, armed: file, _place: place, arms: 0, kills: 0 };
        let plan = json!({ "driver": pool, "network": "stapesbr0" });
        let plan = if pool == "btrfs" { json!({ "size": "1GiB", "driver": pool }) } else { plan };
        let made = world.client.request("POST", "/internal/init", &plan);
        assert!(made.is_acknowledged(), "{made:?}\n{}", world.daemon.log_tail());
        let launched = world.client.request("POST", "/1.0/instances", &instance("steady", true));
        assert!(launched.is_acknowledged(), "{launched:?}\n{}", world.daemon.log_tail());
        world
    }

    /// Lets the daemon die at its `step`-th step from now on.
    pub fn arm(&mut self, step: u32) {
        self.arms += 1;
        let beside = self.armed.with_extension("new");
        fs::write(&beside, format!("{} {step}", self.arms)).unwrap();
        fs::rename(&beside, &self.armed).unwrap();
    }

    pub fn disarm(&self) {
        let _ = fs::remove_file(&self.armed);
    }

    /// Whether the daemon died of the request that came out like this.
    pub fn has_died(&self, outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Lost) || self.daemon.exit_code().is_some()
    }

    pub fn kill(&mut self) {
        self.kills += 1;
        self.daemon.kill();
    }

    /// Every operation that a client was told of can still be asked for, and has ended.
    pub fn lost_operations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for url in std::mem::take(&mut *self.client.operations.lock().unwrap()) {
            match self.client.api.get(&url) {
                Ok(operation) if operation["status_code"].as_u64().is_some_and(|code| code >= 200) => {}
                Ok(operation) => wrong.push(format!("not ended: {operation}")),
                Err(error) => wrong.push(format!("lost: {url}: {error:#}")),
            }
        }
        wrong
    }

    /// Names of the instances with whether each runs.
    pub fn instances(&self) -> HashMap<String, String> {
        let list = self.client.api.get("/1.0/instances?recursion=1").unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        list.as_array().into_iter().flatten().map(|one| (text(&one["name"]), text(&one["status"]))).collect()
    }

    pub fn pid_of(&self, name: &str) -> Option<i64> {
        let state = self.client.api.get(&format!("/1.0/instances/{name}/state")).ok()?;
        state["pid"].as_i64().filter(|pid| *pid > 0)
    }

    /// The object behind a URL, if there is one.
    pub fn exists(&self, url: &str) -> bool {
        self.client.api.get(url).is_ok()
    }

    /// Stops and deletes an instance, if it is there.
    pub fn remove(&self, name: &str) {
        let url = format!("/1.0/instances/{name}");
        if !self.exists(&url) {
            return;
        }
        eventually("an instance is deleted", Duration::from_secs(20), || {
            let _ = self.client.state(name, "stop", true);
            self.client.request("DELETE", &url, &Value::Null).is_acknowledged()
        });
    }
}

/// SplitMix64: a seed gives the same choices everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A number from the environment, for longer or repeated runs.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Kills and seconds, for the log.
pub fn report(what: &str, kills: u32, began: Instant) {
    println!("{what}: {kills} kills in {:.1} s", began.elapsed().as_secs_f64());
}
