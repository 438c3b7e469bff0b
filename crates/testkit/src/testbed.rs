//! Process 1 of a test's own namespaces: reaps orphans, starts and signals daemons, answers one JSON line per request.
//!
//! A daemon that is killed leaves its instances behind on purpose. In a PID namespace of their own they end when this
//! process ends, so that a crashed test leaves nothing on the machine.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, wait},
};
use serde_json::{Value, json};

use crate::leaks::{self, remove_groups};

type Exits = Arc<Mutex<HashMap<i64, i64>>>;

/// Serves requests on standard input until it is closed; then the namespaces end with this process.
pub fn serve() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("stapes-testbed is process 1 of a test's PID namespace and nothing else");
        return ExitCode::FAILURE;
    }
    let exits = Exits::default();
    if let Err(error) = prepare() {
        println!("{}", json!({ "error": format!("{error:#}") }));
        return ExitCode::FAILURE;
    }
    let reaped = Arc::clone(&exits);
    thread::spawn(move || reap(&reaped));
    println!("{}", json!({ "ready": true }));
    let mut owned = Owned::default();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let answer = serde_json::from_str(&line)
            .map_err(anyhow::Error::from)
            .and_then(|request| answer(&request, &exits, &mut owned))
            .unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        if writeln!(io::stdout(), "{answer}").is_err() {
            break;
        }
    }
    // The test was killed before it could clean up: nobody else knows what was ours.
    end_everything(&owned);
    ExitCode::SUCCESS
}

/// What to remove when the test is gone: the daemon's directory, and its parent group.
#[derive(Default)]
struct Owned {
    dir: Option<PathBuf>,
    cgroup_parent: Option<String>,
}

fn end_everything(owned: &Owned) {
    let Some(dir) = &owned.dir else { return };
    // From process 1 this reaches every process of the namespace and no other.
    let _ = Command::new("sh").args(["-c", "kill -9 -1"]).output();
    thread::sleep(Duration::from_millis(100));
    for mount in leaks::mounts(1, dir).iter().rev() {
        let _ = Command::new("umount").args(["-l", mount.trim_start_matches("mount ")]).output();
    }
    if let Some(parent) = &owned.cgroup_parent {
        remove_groups(parent);
    }
    let _ = fs::remove_dir_all(dir);
}

fn run(argv: &[&str]) -> Result<()> {
    let output = Command::new(argv[0]).args(&argv[1..]).output().with_context(|| argv.join(" "))?;
    if !output.status.success() {
        bail!("{}: {}", argv.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Shows this network namespace in /sys (and keeps the machine's cgroups visible beneath it), and brings up loopback.
fn prepare() -> Result<()> {
    let keep = format!("/tmp/.stapes-testbed-{:x}", fs::read_link("/proc/self/ns/mnt").map(|p| hash(&p))?);
    fs::create_dir(&keep)?;
    let moved = (|| {
        run(&["mount", "--rbind", "/sys/fs/cgroup", &keep])?;
        run(&["mount", "-t", "sysfs", "sysfs", "/sys"])?;
        run(&["mount", "--rbind", &keep, "/sys/fs/cgroup"])?;
        run(&["umount", "-l", &keep])
    })();
    let _ = fs::remove_dir(&keep);
    moved?;
    run(&["ip", "link", "set", "lo", "up"])
}

fn hash(path: &std::path::Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

fn reap(exits: &Exits) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                let code = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => i64::from(code),
                    (None, signal) => 128 + i64::from(signal.unwrap_or(0)),
                };
                exits.lock().expect("reaper").insert(i64::from(pid.as_raw_nonzero().get()), code);
            }
            Err(Errno::INTR) => {}
            // No child yet, or none any more.
            Ok(None) | Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn answer(request: &Value, exits: &Exits, owned: &mut Owned) -> Result<Value> {
    if let Some(dir) = request["owned_dir"].as_str() {
        *owned = Owned { dir: Some(dir.into()), cgroup_parent: request["cgroup_parent"].as_str().map(str::to_owned) };
        return Ok(json!({}));
    }
    if let Some(start) = request.get("start") {
        return start_program(start);
    }
    if let Some(pid) = request["exited"].as_i64() {
        return Ok(json!({ "code": exits.lock().expect("reaper").get(&pid) }));
    }
    if let Some(pid) = request["signal"].as_i64() {
        let number = request["number"].as_i64().and_then(|n| i32::try_from(n).ok()).context("number")?;
        let signal = Signal::from_named_raw(number).with_context(|| format!("no signal {number}"))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("pid")?;
        kill_process(pid, signal).with_context(|| format!("kill({pid:?}, {number})"))?;
        return Ok(json!({}));
    }
    bail!("unknown request {request}")
}

fn start_program(start: &Value) -> Result<Value> {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let argv = strings(&start["argv"]);
    let program = argv.first().context("no program")?;
    let log = start["log"].as_str().context("no log")?;
    let log = File::options().create(true).append(true).open(log).with_context(|| format!("failed to open {log}"))?;
    let mut command = Command::new(program);
    command.args(&argv[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    for (name, value) in start["env"].as_object().into_iter().flatten() {
        command.env(name, value.as_str().unwrap_or_default());
    }
    let child = command.spawn().with_context(|| format!("failed to run {program}"))?;
    Ok(json!({ "pid": child.id() }))
}
