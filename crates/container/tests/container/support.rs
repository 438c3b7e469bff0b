//! A driver of its own with a busybox root, and nothing left behind.

use std::{
    fs,
    io::Read,
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use stapes_cgroup::Cgroups;
use stapes_container::{ContainerDriver, Settings};
use stapes_instance::{Event, ExecIo, ExecSpec, ExitStatus, Plan, Running, Security};
use stapes_model::{IdMap, IdRange, InstanceId, Limits};
use stapes_sys::socket;

const APPLETS: [&str; 20] = [
    "sh", "ls", "cat", "echo", "id", "sleep", "true", "stty", "tty", "reboot", "poweroff", "halt", "init", "hostname",
    "mkdir", "ip", "kill", "ps", "mount", "head",
];

pub struct Host {
    pub driver: ContainerDriver,
    pub dir: PathBuf,
    settings: Settings,
}

/// Builds the shim once; the test program lies beside it.
fn shim() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let status = Command::new(env!("CARGO")).args(["build", "-q", "-p", "stapes-shim"]).status().unwrap();
            assert!(status.success());
            let test = std::env::current_exe().unwrap();
            test.parent().and_then(Path::parent).unwrap().join("stapes-shim")
        })
        .clone()
}

impl Host {
    /// `None`, with the reason printed, where a test cannot run.
    pub fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        if !Path::new("/usr/bin/busybox").exists() && !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs busybox-static");
            return None;
        }
        let own = format!("stapes-test-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&own);
        fs::create_dir_all(dir.join("run")).unwrap();
        let (run_dir, cache_dir) = (dir.join("run"), dir.join("cache"));
        let settings = Settings { shim: shim(), run_dir, cache_dir, cgroup_parent: own, warm: 1 };
        let driver = ContainerDriver::open(settings.clone()).unwrap();
        Some(Self { driver, dir, settings })
    }

    pub fn restart_driver(&mut self) {
        self.driver = ContainerDriver::open(self.settings.clone()).unwrap();
    }

    fn plan(&self, number: u64, root: PathBuf) -> Plan {
        let id = InstanceId::from_bits(number);
        let (run_dir, log_dir) = (self.dir.join(format!("run-{id}")), self.dir.join(format!("log-{id}")));
        fs::create_dir_all(&run_dir).unwrap();
        fs::create_dir_all(&log_dir).unwrap();
        Plan {
            id,
            name: "c1".parse().unwrap(),
            root,
            idmap: IdMap::Range(IdRange { base: 1_000_000 + number as u32 * 65_536, size: 65_536 }),
            run_dir,
            log_dir,
            init: None,
            environment: Default::default(),
            machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
            mounts: Vec::new(),
            nodes: Vec::new(),
            links: Vec::new(),
            limits: Limits::default(),
            machine: None,
            security: Security::default(),
        }
    }

    pub fn busybox_plan(&self, number: u64) -> Plan {
        let root = self.dir.join(format!("root-{number}"));
        for dir in ["bin", "sbin", "etc", "tmp", "proc", "sys", "dev", "run", "root"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        symlink("../bin/busybox", root.join("sbin/init")).unwrap();
        fs::write(root.join("etc/inittab"), "::sysinit:/bin/echo booted\n::ctrlaltdel:/bin/reboot\n").unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        self.plan(number, root)
    }

    /// A root made by mmdebstrap, named by `STAPES_TEST_DEBIAN`; copied, since a boot writes to it.
    pub fn debian_plan(&self, number: u64) -> Option<Plan> {
        let Some(source) = std::env::var_os("STAPES_TEST_DEBIAN") else {
            eprintln!("skipped: set STAPES_TEST_DEBIAN to a Debian root with systemd");
            return None;
        };
        let root = self.dir.join("debian");
        assert!(Command::new("cp").arg("-a").arg(source).arg(&root).status().unwrap().success());
        Some(self.plan(number, root))
    }

    /// Nothing named by the instance is left, or it is on its way out.
    pub fn assert_gone(&self, plan: &Plan) {
        let cgroups = Cgroups::open(&self.settings.cgroup_parent).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let groups = cgroups.list().unwrap();
            if !groups.contains(&plan.id.to_string()) && !plan.run_dir.join("shim.sock").exists() {
                return;
            }
            assert!(Instant::now() < deadline, "left: {groups:?} {:?}", fs::read_dir(&plan.run_dir).unwrap().count());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        use stapes_instance::Driver;
        let _ = self.driver.sweep(&Default::default());
        self.settings.warm = 0;
        let cgroups = Cgroups::open(&self.settings.cgroup_parent);
        if let Ok(empty) = ContainerDriver::open(self.settings.clone()) {
            self.driver = empty;
        }
        if let Ok(cgroups) = cgroups {
            // A thread of the driver's may still be removing the last instance's groups.
            let deadline = Instant::now() + Duration::from_secs(5);
            while cgroups.remove_parent().is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for shim in shims_of(&self.dir) {
            let _ = stapes_sys::process::kill(shim, 9);
        }
        quit_nursery(&self.dir.join("run"));
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Shims whose instance ended with nobody to take the exit.
fn shims_of(dir: &Path) -> Vec<i32> {
    let sockets =
        fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().join("shim.sock").exists());
    sockets
        .filter_map(|entry| ask(&entry.path(), "shim.sock", r#"{"hello":{"version":1}}"#))
        .filter_map(|reply| pid_in(&reply))
        .collect()
}

fn pid_in(reply: &str) -> Option<i32> {
    reply.split("\"pid\":").nth(1)?.split(['}', ',']).next()?.parse().ok()
}

fn ask(dir: &Path, name: &str, request: &str) -> Option<String> {
    let dir = socket::open_directory(dir).ok()?;
    let connection = socket::connect_in(dir.as_fd(), name).ok()?;
    socket::send(connection.as_fd(), request.as_bytes(), &[], true).ok()?;
    socket::wait_readable(&connection, Duration::from_secs(5)).ok()?;
    let reply = socket::receive(connection.as_fd(), 65536, false).ok()??;
    String::from_utf8(reply.bytes).ok()
}

fn quit_nursery(run_dir: &Path) {
    let _ = ask(run_dir, "nursery.sock", r#""quit""#);
}

/// Waits until init has printed its greeting: before, it has no handler for the signals that it is sent.
pub fn wait_booted(plan: &Plan) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(plan.log_dir.join("console.log")).is_ok_and(|log| log.contains("booted")) {
        assert!(Instant::now() < deadline, "init prints nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
}

pub fn spec(command: &[&str]) -> ExecSpec {
    ExecSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: Default::default(),
        uid: 0,
        gid: 0,
        cwd: None,
    }
}

pub fn null_io() -> ExecIo {
    let null = || fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
    ExecIo::Streams { stdin: null(), stdout: null(), stderr: null() }
}

/// Runs a shell command with "input" on its standard input; returns its standard output and its exit.
pub fn exec_output(running: &dyn Running, script: &str) -> (String, ExitStatus) {
    let (stdin, mut input) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut input, b"input\n").unwrap();
    drop(input);
    let stderr = fs::File::options().write(true).open("/dev/null").unwrap();
    let io = ExecIo::Streams { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
    let handle = running.exec(&spec(&["sh", "-c", script]), io).unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (text, wait_status(running, handle.exec))
}

pub fn wait_status(running: &dyn Running, exec: u64) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match running.exec_status(exec) {
            Ok(Some(status)) => return status,
            Ok(None) => {}
            // It took the whole container down.
            Err(_) => return ExitStatus::Unknown,
        }
        assert!(Instant::now() < deadline, "exec {exec} does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn wait_event(running: &dyn Running, wanted: impl Fn(&Event) -> bool) -> Event {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        while let Some(event) = running.next_event() {
            if wanted(&event) {
                if matches!(event, Event::Exited { .. }) {
                    running.acknowledge_exit();
                }
                return event;
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no such event");
        socket::wait_readable(running.events_fd(), left).unwrap();
    }
}

/// Reads until `wanted` was seen.
pub fn read_until(from: &mut fs::File, wanted: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        assert!(socket::wait_readable(from.as_fd(), Duration::from_secs(10)).unwrap(), "{wanted} after {seen:?}");
        let mut buffer = [0; 1024];
        let count = from.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}
