//! A whole daemon in namespaces of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Api, ImageBuilder, binaries_dir, leaks};

const READY_PATIENCE: Duration = Duration::from_secs(30);
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);

/// How a command ended, with its output as text.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "exit code {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr);
        self.stdout
    }

    fn of(mut command: Command) -> Self {
        let shown = format!("{command:?}");
        let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("failed to run {shown}: {e}"));
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Asks `question` until it says yes; panics with `what` after `patience`.
///
/// # Panics
/// It never does.
#[track_caller]
pub fn eventually(what: &str, patience: Duration, mut question: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !question() {
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The body that creates `name` from the image with the alias `busybox`, and starts it.
pub fn launch_body(name: &str) -> Value {
    json!({ "name": name, "type": "container", "start": true, "source": { "type": "image", "alias": "busybox" } })
}

/// The pipes to process 1 of the namespaces.
#[derive(Debug)]
struct Bed {
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Bed {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}").context("process 1 of the test bed is gone")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("test bed: {line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => bail!("test bed: {error}"),
            None => Ok(answer),
        }
    }
}

/// One `stapesd` with its own mount, network and PID namespaces, directory, and parent group in the host's cgroups.
///
/// The cgroup namespace is the machine's: the memory hierarchy often puts a test elsewhere than the others do, and a
/// namespace rooted there would show the daemon a host that does not exist. When the value is dropped the daemon is
/// asked to shut down and everything it could have left is looked for; a test that already failed just cleans up.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    holder: Child,
    bed: Mutex<Bed>,
    /// Process 1 of the namespaces, as the machine numbers it.
    init: u32,
    /// The daemon, as its own namespace numbers it.
    pid: Option<i64>,
    cgroup_parent: String,
    environment: Vec<(String, String)>,
    api: Api,
}

impl Daemon {
    /// A daemon with what `stapes admin init --auto` makes and the image `busybox`.
    ///
    /// # Panics
    /// Anything of it fails; the daemon's log is in the message.
    pub fn start() -> Self {
        let daemon = Self::empty();
        daemon.stapes(&["admin", "init", "--auto"]).ok();
        daemon.import_busybox();
        daemon
    }

    /// A daemon that nobody has initialised.
    ///
    /// # Panics
    /// As [`Daemon::start`].
    pub fn empty() -> Self {
        Self::empty_with(&[])
    }

    /// [`Daemon::empty`] with environment variables of the test's own, such as a failpoint.
    ///
    /// # Panics
    /// As [`Daemon::start`].
    pub fn empty_with(environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("stapes-").tempdir().expect("a temporary directory");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "private"])
            .arg("--kill-child=SIGKILL")
            .arg(binaries_dir().join("stapes-testbed"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run unshare");
        let (requests, answers) = (holder.stdin.take().expect("stdin"), holder.stdout.take().expect("stdout"));
        let mut bed = Bed { requests, answers: BufReader::new(answers) };
        bed.answer().expect("process 1 of the test bed");
        let init = child_of(holder.id()).expect("process 1 of the test bed");
        let cgroup_parent = format!("stapes-test-{}", std::process::id() as u64 * 1000 + unique());
        let mut daemon = Self {
            api: Api::new(dir.path().join("state/unix.socket")),
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            bed: Mutex::new(bed),
            pid: None,
            dir,
            holder,
            init,
            cgroup_parent,
        };
        let owned = json!({ "owned_dir": daemon.dir.path(), "cgroup_parent": daemon.cgroup_parent });
        daemon.ask(&owned).expect("process 1 of the test bed");
        daemon.launch_daemon();
        daemon
    }

    /// The daemon's state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A directory of this test's own for files.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What the daemon has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("stapesd.log")).unwrap_or_default()
    }

    /// The end of the daemon's log, for a failed test's message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Starts the daemon (again) and waits until it is ready; how long that took.
    ///
    /// # Panics
    /// It ends instead, or is not ready in time.
    pub fn launch_daemon(&mut self) -> Duration {
        self.launch_daemon_with(&[])
    }

    /// [`Daemon::launch_daemon`] with environment variables for this one run, such as a failpoint.
    ///
    /// # Panics
    /// As [`Daemon::launch_daemon`].
    pub fn launch_daemon_with(&mut self, more: &[(&str, &str)]) -> Duration {
        let began = Instant::now();
        self.spawn_daemon_with(more);
        loop {
            if let Ok(response) = self.api.raw("GET", "/internal/ready", &[], &[])
                && response.status == 200
            {
                return began.elapsed();
            }
            if let Some(code) = self.exit_code() {
                panic!("stapesd ended with {code}:\n{}", self.log_tail());
            }
            assert!(began.elapsed() < READY_PATIENCE, "stapesd is not ready:\n{}", self.log_tail());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts the daemon and does not wait for it.
    pub fn spawn_daemon(&mut self) {
        self.spawn_daemon_with(&[]);
    }

    fn spawn_daemon_with(&mut self, more: &[(&str, &str)]) {
        let bin = binaries_dir();
        let mut environment = json!({
            "STAPES_DIR": self.state_dir(), "STAPES_CGROUP_PARENT": self.cgroup_parent,
            "STAPES_SHIM": bin.join("stapes-shim"), "RUST_BACKTRACE": "1",
        });
        let own = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(more.iter().copied()) {
            environment[name] = json!(value);
        }
        let start = json!({ "start": { "argv": [bin.join("stapesd"), "--log-level", "debug"], "env": environment,
                                       "log": self.dir.path().join("stapesd.log") } });
        let answer = self.ask(&start).expect("start stapesd");
        self.pid = answer["pid"].as_i64();
    }

    /// The daemon's number in its own PID namespace.
    pub fn pid(&self) -> Option<i64> {
        self.pid
    }

    /// Name of the group beneath the daemon's parent group that `path`, as [`Daemon::remains`] tells it, lies in.
    pub fn group_name(&self, path: &str) -> Option<String> {
        let (_, beneath) = path.split_once(&format!("/{}/", self.cgroup_parent))?;
        beneath.split('/').next().map(str::to_owned)
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        self.bed.lock().expect("test bed").ask(request)
    }

    /// The exit code of the daemon, or 128 and the number of the signal that ended it; `None` while it runs.
    pub fn exit_code(&self) -> Option<i64> {
        let pid = self.pid?;
        self.ask(&json!({ "exited": pid })).ok()?["code"].as_i64()
    }

    /// Sends `number` to the daemon.
    ///
    /// # Panics
    /// There is no such process.
    pub fn signal(&self, number: i32) {
        let pid = self.pid.expect("a daemon");
        self.ask(&json!({ "signal": pid, "number": number })).expect("signal stapesd");
    }

    /// Kills a process by its number in the daemon's PID namespace.
    ///
    /// # Panics
    /// There is no such process.
    pub fn kill_inside(&self, pid: i64) {
        self.ask(&json!({ "signal": pid, "number": 9 })).expect("kill");
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(9);
        self.await_end();
    }

    /// SIGTERM: the daemon ends, the instances live on.
    pub fn terminate(&mut self) {
        self.signal(15);
        self.await_end();
    }

    /// Waits until the daemon has ended, however that came about.
    ///
    /// # Panics
    /// It goes on running.
    pub fn await_end(&mut self) {
        let end = Instant::now() + SHUTDOWN_PATIENCE;
        while self.pid.is_some() && self.exit_code().is_none() {
            assert!(Instant::now() < end, "stapesd does not end:\n{}", self.log_tail());
            thread::sleep(Duration::from_millis(2));
        }
        self.pid = None;
    }

    /// `stapes admin shutdown`, and waits for the daemon's end.
    ///
    /// # Panics
    /// The command fails or the daemon stays.
    pub fn shut_down(&mut self) {
        self.stapes(&["admin", "shutdown"]).ok();
        self.await_end();
    }

    /// Runs `stapes` against this daemon.
    pub fn stapes(&self, args: &[&str]) -> Output {
        self.run_client(self.stapes_command(), args)
    }

    /// The command `stapes`, told where this daemon is.
    pub fn stapes_command(&self) -> Command {
        let mut command = Command::new(binaries_dir().join("stapes"));
        command.env("STAPES_DIR", self.state_dir()).env("STAPES_SOCKET", &self.api.socket);
        command.env("STAPES_CONF", self.dir.path().join("stapes-conf"));
        command
    }

    /// The official client of Incus, told where this daemon is.
    pub fn incus_command(&self) -> Command {
        let mut command = Command::new("incus");
        command.env("INCUS_DIR", self.state_dir()).env("INCUS_SOCKET", &self.api.socket);
        command.env("INCUS_CONF", self.dir.path().join("incus-conf"));
        command
    }

    /// Runs the official client of Incus against this daemon.
    pub fn incus(&self, args: &[&str]) -> Output {
        self.run_client(self.incus_command(), args)
    }

    /// Runs the official client of LXD against this daemon.
    pub fn lxc(&self, args: &[&str]) -> Output {
        let mut command = Command::new("lxc");
        command.env("LXD_DIR", self.state_dir()).env("LXD_SOCKET", &self.api.socket);
        command.env("LXD_CONF", self.dir.path().join("lxc-conf"));
        self.run_client(command, args)
    }

    fn run_client(&self, mut command: Command, args: &[&str]) -> Output {
        command.args(args).env("HOME", self.dir.path());
        Output::of(command)
    }

    /// Runs a command where the daemon lives: in its network, with its mounts and its processes in view.
    pub fn on_host(&self, argv: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--net", "--pid", "--"]).args(argv);
        Output::of(command)
    }

    /// Brings in the image `busybox`; its fingerprint.
    ///
    /// # Panics
    /// The daemon refuses it.
    pub fn import_busybox(&self) -> String {
        let archive = ImageBuilder::unified("busybox for tests").busybox().gzip();
        self.import(&archive, "busybox").expect("import busybox")
    }

    /// Brings in a unified image under an alias; its fingerprint.
    ///
    /// # Errors
    /// The daemon refuses it.
    pub fn import(&self, archive: &[u8], alias: &str) -> Result<String> {
        let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-filename", "image.tar.gz")];
        let response = self.api.raw("POST", "/1.0/images", &headers, archive)?;
        let envelope = response.json()?;
        let Some(operation) = envelope["operation"].as_str().filter(|url| !url.is_empty()) else {
            bail!("{}", envelope["error"].as_str().unwrap_or("the import was refused without a word"));
        };
        let ended = self.api.wait(operation)?;
        let fingerprint = ended["metadata"]["fingerprint"].as_str().context("no fingerprint")?.to_owned();
        self.api.sync("POST", "/1.0/images/aliases", &json!({ "name": alias, "target": fingerprint }))?;
        Ok(fingerprint)
    }

    /// Launches a busybox container and waits for its init script.
    ///
    /// # Panics
    /// It does not start.
    pub fn launch(&self, name: &str) {
        self.api.operation("POST", "/1.0/instances", &launch_body(name)).unwrap_or_else(|e| {
            panic!("launch {name}: {e:#}\n{}", self.log_tail());
        });
        self.await_boot(name);
    }

    /// Waits until busybox's init script has come to its end.
    pub fn await_boot(&self, name: &str) {
        eventually("busybox's init script ends", Duration::from_secs(20), || {
            self.api.exec(name, &["test", "-e", "/run/booted"]).is_ok_and(|(code, ..)| code == 0)
        });
    }

    /// `Running`, `Stopped`, `Frozen` … as the API calls it.
    ///
    /// # Panics
    /// There is no such instance.
    pub fn status_of(&self, name: &str) -> String {
        let state = self.api.get(&format!("/1.0/instances/{name}/state")).expect("state");
        state["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The number of an instance's init in the daemon's PID namespace, and the tick it started at.
    ///
    /// # Panics
    /// It is not running.
    pub fn init_of(&self, name: &str) -> (i64, String) {
        let pid = self.api.get(&format!("/1.0/instances/{name}/state")).expect("state")["pid"].as_i64().expect("pid");
        let stat = self.on_host(&["cat", &format!("/proc/{pid}/stat")]).ok();
        let started = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)).unwrap_or_default();
        (pid, started.to_owned())
    }

    /// The first IPv4 address that the API reports for `eth0`, waited for.
    ///
    /// # Panics
    /// There is none in time.
    pub fn address_of(&self, name: &str) -> String {
        let mut found = None;
        eventually("an IPv4 address", Duration::from_secs(30), || {
            let state = self.api.get(&format!("/1.0/instances/{name}/state")).unwrap_or_default();
            let addresses = state["network"]["eth0"]["addresses"].as_array().cloned().unwrap_or_default();
            let global = addresses.iter().find(|a| a["family"] == "inet" && a["scope"] == "global");
            found = global.and_then(|a| a["address"].as_str().map(str::to_owned));
            found.is_some()
        });
        found.unwrap_or_default()
    }

    /// Everything of this daemon's that is on the machine now.
    pub fn remains(&self) -> Vec<String> {
        let mut found = leaks::mounts(self.init, self.dir.path());
        found.extend(leaks::links(self.init));
        found.extend(leaks::processes(self.init));
        found.extend(leaks::loops(self.dir.path()));
        // The parent group itself may stay: it is the setting's, not an instance's.
        let groups = leaks::cgroups(&self.cgroup_parent);
        let inner = groups.iter().filter(|group| !group.ends_with(&self.cgroup_parent));
        found.extend(inner.map(|group| format!("cgroup {}", group.display())));
        if crate::needs::find_program("nft").is_some() {
            let tables = self.on_host(&["nft", "list", "tables"]);
            found.extend(tables.stdout.lines().map(|line| format!("nftables {line}")));
        }
        found
    }

    /// Shuts the daemon down and checks that nothing of it is left.
    ///
    /// # Panics
    /// Something is.
    pub fn finish(mut self) {
        self.check_end();
    }

    fn check_end(&mut self) {
        if self.pid.is_some() {
            self.shut_down();
        }
        // The suite can be run against Incus, to test the tests; what Incus leaves is its own affair.
        if std::env::var_os("STAPES_TEST_REFERENCE").is_some() {
            return;
        }
        let mut remains = Vec::new();
        // The kernel takes links away some 40 ms after their namespace, and zombies a moment after their end.
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            remains = self.remains();
            if remains.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert!(remains.is_empty(), "left behind after shutdown:\n  {}\n{}", remains.join("\n  "), self.log_tail());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            eprintln!("--- log of stapesd ---\n{}", self.log_tail());
        }
        let checked =
            if failed { Ok(()) } else { std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.check_end())) };
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        clean_up(&self.cgroup_parent, self.dir.path());
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Removes what a crashed daemon left outside its namespaces: groups, once empty, and loop devices.
fn clean_up(cgroup_parent: &str, dir: &Path) {
    leaks::remove_groups(cgroup_parent);
    for line in leaks::loops(dir) {
        if let Some(name) = line.split(' ').nth(2) {
            let _ = Command::new("losetup").args(["-d", &format!("/dev/{name}")]).output();
        }
    }
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
