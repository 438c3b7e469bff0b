//! A daemon under measurement: ours or Incus's, both behind the same API.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stapes_testkit::{Api, ImageBuilder};
use tempfile::TempDir;

use crate::{
    quickstart::{mounts_beneath, remove_empty_groups},
    shell::{output, run},
};

const PARENT: &str = "stapes-bench";
/// More than any run makes.
const NETWORKS: usize = 16;

/// What differs between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stapes,
    Incus,
}

#[derive(Debug)]
pub struct Subject {
    pub kind: Kind,
    pub api: Api,
    pub cli: PathBuf,
    pub environment: Vec<(&'static str, PathBuf)>,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Short, since paths of Unix sockets are.
    pub dir: TempDir,
    /// `None` while it is down.
    pub child: Option<Child>,
    pub ended: bool,
    /// Name of the first network; further ones count on from it.
    pub bridge: &'static str,
    /// First half of the networks' addresses.
    pub subnet: &'static str,
}

impl Subject {
    pub fn stapes(bin: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("stapes-bench-").tempdir()?;
        let state = dir.path().join("s");
        let mut subject = Self {
            kind: Kind::Stapes,
            api: Api::new(state.join("unix.socket")),
            cli: bin.join("stapes"),
            environment: vec![
                ("STAPES_DIR", state.clone()),
                ("STAPES_SOCKET", state.join("unix.socket")),
                ("STAPES_CONF", dir.path().join("conf")),
                ("STAPES_CGROUP_PARENT", PARENT.into()),
            ],
            program: bin.join("stapesd"),
            arguments: vec!["--log-level".into(), "warn".into()],
            dir,
            child: None,
            ended: false,
            bridge: "stapesbench",
            subnet: "10.199",
        };
        subject.start()?;
        subject.furnish()?;
        Ok(subject)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.cli);
        command.args(args).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("HOME", self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Starts the daemon; milliseconds until it says that it is ready.
    pub fn start(&mut self) -> Result<f64> {
        let log_path = self.dir.path().join("log");
        let log = fs::File::options().create(true).append(true).open(&log_path)?;
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = self.child.insert(child.with_context(|| format!("failed to run {}", self.program.display()))?);
        loop {
            if let Ok(response) = self.api.raw("GET", "/internal/ready", &[], &[])
                && response.status == 200
            {
                return Ok(began.elapsed().as_secs_f64() * 1000.0);
            }
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended ({status}): {}", fs::read_to_string(&log_path).unwrap_or_default());
            }
            if began.elapsed() > Duration::from_secs(60) {
                bail!("the daemon is not ready after 60 s: {}", fs::read_to_string(&log_path).unwrap_or_default());
            }
            thread::sleep(Duration::from_micros(500));
        }
    }

    /// The same furniture for both: a btrfs pool on a loop file, a bridge, a busybox image.
    pub fn furnish(&self) -> Result<()> {
        let pool = json!({ "name": "default", "driver": "btrfs", "config": { "size": "20GiB" } });
        self.api.sync("POST", "/1.0/storage-pools", &pool)?;
        self.make_network(0)?;
        let profile = json!({ "description": "", "config": {}, "devices": {
            "root": { "type": "disk", "path": "/", "pool": "default" }, "eth0": self.nic(0) } });
        self.api.sync("PUT", "/1.0/profiles/default", &profile)?;
        let archive = self.dir.path().join("busybox.tar.gz");
        fs::write(&archive, ImageBuilder::unified("busybox").busybox().gzip())?;
        let path = archive.to_str().context("a temporary path in UTF-8")?;
        output(&mut self.command(&["image", "import", path, "--alias", "busybox"]))?;
        Ok(())
    }

    /// The managed network with this number has place for 500 instances; a bridge is advised to carry half as many.
    pub fn make_network(&self, number: usize) -> Result<()> {
        let address = format!("{}.{}.1/23", self.subnet, number * 2);
        let network = json!({ "name": self.network(number), "type": "bridge", "config":
            { "ipv4.address": address, "ipv4.nat": "true", "ipv6.address": "none" } });
        self.api.sync("POST", "/1.0/networks", &network).map(drop)
    }

    fn network(&self, number: usize) -> String {
        format!("{}{number}", self.bridge)
    }

    /// An instance's device on that network.
    pub fn nic(&self, number: usize) -> Value {
        json!({ "type": "nic", "name": "eth0", "network": self.network(number) })
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL; instances live on.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends the daemon in the way that takes its instances, networks and mounts with it. Whatever fails on the way, nothing
    /// of it is left on the host.
    pub fn end(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        let ended = self.shut_down();
        if ended.is_err() {
            self.wipe();
        }
        self.clean_up();
        ended?;
        let left = mounts_beneath(self.dir.path());
        if !left.is_empty() {
            bail!("still mounted: {}", left.join(", "));
        }
        Ok(())
    }

    fn shut_down(&mut self) -> Result<()> {
        if self.child.is_none() {
            // A row failed while the daemon was down: its instances run.
            self.start()?;
        }
        let mut child = self.child.take().context("no daemon")?;
        let asked = match self.kind {
            Kind::Stapes => run(&mut self.command(&["admin", "shutdown"])),
            // SIGPWR is the host's shutdown to Incus.
            Kind::Incus => run(Command::new("kill").args(["-PWR", &child.id().to_string()])),
        };
        let began = Instant::now();
        while asked.is_ok() && child.try_wait()?.is_none() {
            if began.elapsed() > Duration::from_secs(180) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if child.try_wait()?.is_none() {
            child.kill()?;
            child.wait()?;
            asked?;
            bail!("the daemon did not end within 180 s of being asked to");
        }
        Ok(())
    }

    /// The way out when the daemon cannot take its things away: by what carries this run's names alone.
    fn wipe(&self) {
        let dir = self.dir.path().display().to_string();
        // The nursery, its services and then the instances, whose shims would report to nobody.
        for pid in processes_naming(&dir).into_iter().chain(members(PARENT)) {
            let _ = output(Command::new("kill").args(["-KILL", &pid.to_string()]));
        }
        let mut points = mounts_beneath(self.dir.path());
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        for point in points {
            let _ = output(Command::new("umount").args(["-l", &point]));
        }
        for number in 0..NETWORKS {
            let network = self.network(number);
            let _ = output(Command::new("ip").args(["link", "delete", &network]));
            let _ = output(Command::new("nft").args(["delete", "table", "inet", &format!("stapes_{network}")]));
        }
        // Dying takes the kernel a moment.
        thread::sleep(Duration::from_secs(1));
    }

    fn clean_up(&self) {
        if self.kind == Kind::Incus {
            let mut points = mounts_beneath(self.dir.path());
            points.sort_by_key(|point| std::cmp::Reverse(point.len()));
            for point in points {
                let _ = output(Command::new("umount").args(["-l", &point]));
            }
        }
        remove_empty_groups(PARENT);
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Processes with `text` in their command line.
fn processes_naming(text: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() && String::from_utf8_lossy(&line).contains(text)
    };
    pids.filter(names).collect()
}

/// Processes in the groups of that name and beneath, in every hierarchy.
fn members(parent: &str) -> Vec<u32> {
    fn collect(group: &Path, pids: &mut Vec<u32>) {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(&entry.path(), pids);
            }
        }
    }
    let mut pids = Vec::new();
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        collect(&hierarchy.join(parent), &mut pids);
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}
