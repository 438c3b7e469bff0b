//! Prints how long start, exec and kill take: `cargo run --release -p stapes-container --example latency -- SHIM ROOT`.
//!
//! ROOT is a root directory whose `/sbin/init` stays (busybox will do). Times are of the driver's calls, without a
//! daemon around them.

use std::{
    fs,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use stapes_container::{ContainerDriver, Settings};
use stapes_instance::{Driver, Event, ExecIo, ExecSpec, Plan, Security};
use stapes_model::{IdMap, IdRange, InstanceId, Limits};

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!("{what:24} min {:6.2}  p50 {:6.2}  p90 {:6.2}  p95 {:6.2} ms", at(0), at(50), at(90), at(95));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, shim, root, rest @ ..] = &arguments[..] else { return Err("usage: latency SHIM ROOT [ROUNDS]".into()) };
    let rounds: u64 = rest.first().map_or(Ok(40), |text| text.parse())?;
    let own = format!("stapes-latency-{}", std::process::id());
    let dir = std::path::Path::new("/dev/shm").join(&own);
    fs::create_dir_all(dir.join("run"))?;
    let (run_dir, cache_dir) = (dir.join("run"), dir.join("cache"));
    let settings = Settings { shim: PathBuf::from(shim), run_dir, cache_dir, cgroup_parent: own.clone(), warm: 4 };
    let driver = ContainerDriver::open(settings)?;
    let (mut starts, mut execs, mut kills) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        while driver.warm() < 4 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        let plan = plan(&dir, root, round)?;
        let begin = Instant::now();
        let running = driver.start(&plan)?;
        starts.push(begin.elapsed());
        // The embryo moves to the exec groups meanwhile.
        std::thread::sleep(Duration::from_millis(60));
        for _ in 0..5 {
            let null = || fs::File::options().read(true).write(true).open("/dev/null").map(Into::into);
            let io = ExecIo::Streams { stdin: null()?, stdout: null()?, stderr: null()? };
            let spec = ExecSpec {
                command: vec!["/bin/true".to_owned()],
                environment: Default::default(),
                uid: 0,
                gid: 0,
                cwd: None,
            };
            let begin = Instant::now();
            running.exec(&spec, io)?;
            wait(&*running, |event| matches!(event, Event::ExecExited { .. }));
            execs.push(begin.elapsed());
        }
        if round == 0 {
            memory(running.pid());
        }
        let begin = Instant::now();
        running.kill()?;
        kills.push(begin.elapsed());
        wait(&*running, |event| matches!(event, Event::Exited { .. }));
    }
    print("start (call)", starts);
    print("exec true (to exit)", execs);
    print("kill (call)", kills);
    std::thread::sleep(Duration::from_millis(300));
    drop(driver);
    stapes_cgroup::Cgroups::open(&own)?.remove_parent()?;
    let nursery = stapes_sys::socket::open_directory(&dir.join("run"))?;
    let nursery = stapes_sys::socket::connect_in(nursery.as_fd(), "nursery.sock")?;
    stapes_sys::socket::send(nursery.as_fd(), b"\"quit\"", &[], true)?;
    Ok(fs::remove_dir_all(&dir)?)
}

fn wait(running: &dyn stapes_instance::Running, wanted: impl Fn(&Event) -> bool) {
    loop {
        while let Some(event) = running.next_event() {
            if wanted(&event) {
                if matches!(event, Event::Exited { .. }) {
                    running.acknowledge_exit();
                }
                return;
            }
        }
        let _ = stapes_sys::socket::wait_readable(running.events_fd(), Duration::from_secs(10));
    }
}

/// PSS of the shim and of its embryo.
fn memory(init: u32) {
    let field = |pid: &str, file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned()).unwrap_or_default()
    };
    let shim = field(&init.to_string(), "status", "PPid:");
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
    println!("shim: PSS {}", field(&shim, "smaps_rollup", "Pss:"));
    for child in children.split_whitespace().filter(|child| **child != init.to_string()) {
        println!("{}: PSS {}", field(child, "status", "Name:"), field(child, "smaps_rollup", "Pss:"));
    }
}

fn plan(dir: &std::path::Path, root: &str, round: u64) -> std::io::Result<Plan> {
    let id = InstanceId::from_bits(round);
    let (run_dir, log_dir) = (dir.join(format!("run-{id}")), dir.join(format!("log-{id}")));
    fs::create_dir_all(&run_dir)?;
    fs::create_dir_all(&log_dir)?;
    Ok(Plan {
        id,
        name: "c1".parse().map_err(std::io::Error::other)?,
        root: PathBuf::from(root),
        idmap: IdMap::Range(IdRange { base: 1_000_000, size: 65_536 }),
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
    })
}
