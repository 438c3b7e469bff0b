//! A daemon under measurement: ours or Incus's, both behind the same API.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use stapes_testkit::{Api, ImageBuilder};
use tempfile::TempDir;

use crate::{
    quickstart::{mounts_beneath, remove_empty_groups},
    shell::{output, run},
};

const PARENT: &str = "stapes-bench";

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
    pub bridge: &'static str,
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
            bridge: "stapesbench0",
            subnet: "10.199.0.1/16",
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
        let network = json!({ "name": self.bridge, "type": "bridge", "config":
            { "ipv4.address": self.subnet, "ipv4.nat": "true", "ipv6.address": "none" } });
        self.api.sync("POST", "/1.0/networks", &network)?;
        let profile = json!({ "description": "", "config": {}, "devices": {
            "root": { "type": "disk", "path": "/", "pool": "default" },
            "eth0": { "type": "nic", "name": "eth0", "network": self.bridge } } });
        self.api.sync("PUT", "/1.0/profiles/default", &profile)?;
        let archive = self.dir.path().join("busybox.tar.gz");
        fs::write(&archive, ImageBuilder::unified("busybox").busybox().gzip())?;
        let path = archive.to_str().context("a temporary path in UTF-8")?;
        output(&mut self.command(&["image", "import", path, "--alias", "busybox"]))?;
        Ok(())
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

    /// Ends the daemon in the way that takes its instances, networks and mounts with it.
    pub fn end(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        match self.kind {
            Kind::Stapes => run(&mut self.command(&["admin", "shutdown"]))?,
            // SIGPWR is the host's shutdown to Incus.
            Kind::Incus => run(Command::new("kill").args(["-PWR", &child.id().to_string()]))?,
        }
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if began.elapsed() > Duration::from_secs(180) {
                child.kill()?;
                child.wait()?;
                bail!("the daemon did not end within 180 s of being asked to");
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.clean_up();
        let left = mounts_beneath(self.dir.path());
        if !left.is_empty() {
            bail!("still mounted: {}", left.join(", "));
        }
        Ok(())
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
