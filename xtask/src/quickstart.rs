//! From nothing to a running Debian container and a virtual machine beside it, and back to nothing.

mod machine;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stapes_testkit::Api;

use crate::{
    programs::{self, Profile},
    setup,
    shell::{self, Step, find, require_root, run, target_dir},
};

/// Lies in a state directory that quickstart made, and lets `--stop` remove it.
const MARKER: &str = "made-by-quickstart";
const CONTAINER: &str = "c1";
const IMAGE: &str = "debian:12";
/// A one-page web server out of what a minimal Debian has.
const WEB_SERVER: &str = r#"use IO::Socket; my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 9, ReuseAddr => 1);
while (my $c = $s->accept) { while (<$c>) { last if /^\r?$/ }
print $c "HTTP/1.0 200 OK\r\n\r\nhello from ", `hostname`; close $c }"#;

pub fn main(args: &[&str]) -> Result<()> {
    require_root("quickstart")?;
    match args {
        [] => start(true),
        ["--no-vm"] => start(false),
        ["--stop"] => stop(),
        other => bail!("quickstart: unknown arguments {other:?}"),
    }
}

/// Where things are for this run.
struct Place {
    bin: PathBuf,
    dir: PathBuf,
    api: Api,
}

impl Place {
    fn find() -> Self {
        let dir = std::env::var_os("STAPES_DIR").map_or_else(|| PathBuf::from("/var/lib/stapes"), PathBuf::from);
        let socket = std::env::var_os("STAPES_SOCKET").map_or_else(|| dir.join("unix.socket"), PathBuf::from);
        Self { bin: target_dir().join("release"), dir, api: Api::new(socket) }
    }

    fn stapes(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("stapes"));
        command.args(args).env("STAPES_DIR", &self.dir).env("STAPES_SOCKET", &self.api.socket);
        command
    }

    fn answers(&self) -> bool {
        self.api.get("/1.0").is_ok()
    }

    fn exec(&self, command: &[&str]) -> Result<(i64, String)> {
        self.exec_in(CONTAINER, command)
    }

    fn exec_in(&self, instance: &str, command: &[&str]) -> Result<(i64, String)> {
        let (code, out, err) = self.api.exec(instance, command)?;
        Ok((code, if out.is_empty() { err } else { out }.trim().to_owned()))
    }
}

fn start(with_machine: bool) -> Result<()> {
    let machine = if with_machine { ", and the same Debian as a virtual machine" } else { "" };
    println!("Stapes quickstart: a daemon on this machine, a Debian container with an init of its own{machine}.\n");
    let step = Step::begin("Packages from Debian");
    setup::ensure(false)?;
    step.done("nothing is missing");

    let step = Step::begin("Release build (some minutes the first time)");
    programs::build(Profile::Release)?;
    step.done("stapesd, stapes, stapes-shim and stapes-agent are in target/release");

    let place = Place::find();
    start_daemon(&place)?;
    initialise(&place)?;
    launch(&place)?;
    let address = wait_for_system(&place)?;
    look_inside(&place, &address)?;
    // The container stands, whatever becomes of this.
    let machine = if with_machine { machine::show(&place) } else { Ok(()) };

    println!("\n==> stapes list");
    run(&mut place.stapes(&["list"]))?;
    println!("{}", next_steps(&place, with_machine));
    machine
}

fn start_daemon(place: &Place) -> Result<()> {
    let step = Step::begin("The daemon");
    if place.answers() {
        step.done(&format!("one answers already at {}", place.api.socket.display()));
        return Ok(());
    }
    let is_new = fs::read_dir(&place.dir).map_or(true, |mut entries| entries.next().is_none());
    fs::create_dir_all(&place.dir).with_context(|| format!("failed to create {}", place.dir.display()))?;
    if is_new {
        fs::write(place.dir.join(MARKER), "`cargo xtask quickstart --stop` removes this directory.\n")?;
    }
    let log_path = place.dir.join("stapesd.log");
    let log = fs::File::options().create(true).append(true).open(&log_path)?;
    // setsid: closing this terminal must not end the daemon.
    let mut child = Command::new("setsid")
        .arg(place.bin.join("stapesd"))
        .env("STAPES_DIR", &place.dir)
        .env("STAPES_SOCKET", &place.api.socket)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("failed to start stapesd")?;
    let began = Instant::now();
    while !place.answers() {
        if let Some(status) = child.try_wait()? {
            bail!("stapesd ended at once ({status}); its log {} ends:\n{}", log_path.display(), tail(&log_path));
        }
        if began.elapsed() > Duration::from_secs(30) {
            bail!("stapesd does not answer after 30 s; its log {} ends:\n{}", log_path.display(), tail(&log_path));
        }
        thread::sleep(Duration::from_millis(2));
    }
    run(&mut place.stapes(&["admin", "waitready"]))?;
    step.done(&format!("stapesd is process {}, its state is in {}", child.id(), place.dir.display()));
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn initialise(place: &Place) -> Result<()> {
    let step = Step::begin("A storage pool and a network");
    let pools = place.api.get("/1.0/storage-pools?recursion=1")?;
    if pools.as_array().is_none_or(Vec::is_empty) {
        run(&mut place.stapes(&["admin", "init", "--auto"]))?;
    }
    let pools = place.api.get("/1.0/storage-pools?recursion=1")?;
    let networks = place.api.get("/1.0/networks?recursion=1")?;
    for pool in pools.as_array().into_iter().flatten() {
        println!("    pool {} ({})", text(&pool["name"]), text(&pool["driver"]));
    }
    for network in networks.as_array().into_iter().flatten().filter(|n| n["managed"] == true) {
        let config = &network["config"];
        let (v4, v6) = (text(&config["ipv4.address"]), text(&config["ipv6.address"]));
        println!("    network {} ({v4}, {v6})", text(&network["name"]));
    }
    step.done("ready");
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn launch(place: &Place) -> Result<()> {
    ensure_running(
        place,
        CONTAINER,
        &[],
        "the first launch builds the image from Debian's packages, some 20 s; later ones find it",
    )
}

/// Launches an instance of our image, or starts the one that is there.
fn ensure_running(place: &Place, name: &str, arguments: &[&str], first: &str) -> Result<()> {
    let launch = [&["launch", IMAGE, name], arguments].concat();
    let step = Step::begin(&format!("stapes {}", launch.join(" ")));
    match place.api.get(&format!("/1.0/instances/{name}")) {
        Err(_) => {
            println!("    {first}");
            run(&mut place.stapes(&launch))?;
            step.done("launched");
        }
        Ok(instance) if instance["status"] == "Running" => step.done("it runs already"),
        Ok(_) => {
            run(&mut place.stapes(&["start", name]))?;
            step.done("it was there, and is started");
        }
    }
    Ok(())
}

/// Waits for an address and for systemd; the address.
fn wait_for_system(place: &Place) -> Result<String> {
    let step = Step::begin("Waiting for its address, and for systemd to finish");
    let end = Instant::now() + Duration::from_secs(90);
    let mut address = None;
    let mut state = String::new();
    loop {
        if address.is_none() {
            address = ipv4(&place.api.get(&format!("/1.0/instances/{CONTAINER}/state"))?);
        }
        if !matches!(state.as_str(), "running" | "degraded") {
            state = place.exec(&["systemctl", "is-system-running"]).map(|(_, said)| said).unwrap_or_default();
        }
        match &address {
            Some(found) if state == "running" => {
                step.done(&format!("address {found}, systemd says {state}"));
                return Ok(found.clone());
            }
            Some(found) if state == "degraded" => {
                step.done(&format!("address {found}, systemd says {state}; units that failed:"));
                let (_, units) = place.exec(&["systemctl", "--failed", "--no-legend", "--plain"])?;
                for unit in units.lines().filter_map(|line| line.split_whitespace().next()) {
                    let query = ["systemctl", "show", "--property=Result,StatusErrno", "--value", unit];
                    let reason = place.exec(&query).map(|(_, said)| said.replace('\n', " ")).unwrap_or_default();
                    println!("    {unit}: {reason}");
                }
                return Ok(found.clone());
            }
            _ if Instant::now() > end => {
                bail!(
                    "after 90 s: address {address:?}, systemd says {state:?}; see `stapes console {CONTAINER} --show-log`"
                )
            }
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn ipv4(state: &Value) -> Option<String> {
    // A machine's kernel names its interface by its slot.
    let links = state["network"].as_object()?.values();
    let mut addresses = links.filter_map(|link| link["addresses"].as_array()).flatten();
    let global = addresses.find(|a| a["family"] == "inet" && a["scope"] == "global")?;
    Some(global["address"].as_str()?.to_owned())
}

fn look_inside(place: &Place, address: &str) -> Result<()> {
    println!("==> stapes exec {CONTAINER} -- grep PRETTY_NAME /etc/os-release");
    run(&mut place.stapes(&["exec", CONTAINER, "--", "grep", "PRETTY_NAME", "/etc/os-release"]))?;
    println!("==> stapes exec {CONTAINER} -- cat /proc/self/uid_map   (its root is nobody out here)");
    run(&mut place.stapes(&["exec", CONTAINER, "--", "cat", "/proc/self/uid_map"]))?;

    let step = Step::begin("From the host over the network");
    let busybox = stapes_testkit::image::static_busybox().context("no static busybox")?;
    shell::output(Command::new(busybox).args(["ping", "-c", "1", "-W", "5", address]))?;
    println!("    {address} answers ping");
    let is_active = place.exec(&["systemctl", "is-active", "hello"])?.1 == "active";
    if !is_active {
        let (code, said) = place.exec(&["systemd-run", "--unit=hello", "perl", "-e", WEB_SERVER])?;
        anyhow::ensure!(code == 0, "systemd-run in {CONTAINER}: {said}");
    }
    let page = fetch(&format!("{address}:8080"))?;
    step.done(&format!("http://{address}:8080/ says: {}", page.trim()));
    Ok(())
}

fn fetch(authority: &str) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect(authority) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > end => return Err(error).with_context(|| format!("http://{authority}/")),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

fn next_steps(place: &Place, with_machine: bool) -> String {
    let mut lines = String::from("\nThe daemon goes on running. What to type next:\n");
    lines.push_str(&format!("    export PATH=\"{}:$PATH\"\n", place.bin.display()));
    if std::env::var_os("STAPES_DIR").is_some() {
        lines.push_str(&format!("    export STAPES_DIR={}\n", place.dir.display()));
    }
    lines.push_str(&format!("    stapes shell {CONTAINER}                      # a root shell inside\n"));
    lines.push_str(&format!("    stapes exec {CONTAINER} -- apt-get update     # it is a whole Debian\n"));
    lines.push_str(&format!("    stapes launch {IMAGE} c2                # another one, in milliseconds now\n"));
    if with_machine {
        let machine = machine::NAME;
        lines.push_str(&format!("    stapes shell {machine}                      # the same in the virtual machine\n"));
        lines
            .push_str(&format!("    stapes console {machine}                    # its serial line; Ctrl+a q leaves\n"));
    }
    lines.push_str("    stapes list\n");
    if find("incus").is_some() {
        lines
            .push_str(&format!("    INCUS_SOCKET={} incus list   # the client you know\n", place.api.socket.display()));
    }
    lines.push_str("    cargo xtask quickstart --stop         # take all of this away again");
    lines
}

fn stop() -> Result<()> {
    let place = Place::find();
    let step = Step::begin("Stopping instances, networks and the daemon");
    let had_daemon = place.answers();
    let is_ours = place.dir.join(MARKER).exists();
    if !had_daemon && is_ours && place.bin.join("stapesd").exists() {
        // A daemon that was killed leaves its instances running; only a daemon knows how to end them.
        println!("    no daemon answers: starting one, so that it can clean up");
        start_daemon(&place)?;
    }
    if place.answers() {
        run(&mut place.stapes(&["admin", "shutdown"]))?;
        let end = Instant::now() + Duration::from_secs(60);
        while place.answers() || processes(&place.bin).iter().any(|line| line.contains("stapesd")) {
            if Instant::now() > end {
                bail!("stapesd is still there 60 s after `stapes admin shutdown`; see {}", place.dir.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
        step.done("stopped");
    } else {
        step.done("nothing was running");
    }
    if is_ours {
        let mounts = mounts_beneath(&place.dir);
        if !mounts.is_empty() {
            bail!("these are still mounted, so {} is left alone:\n  {}", place.dir.display(), mounts.join("\n  "));
        }
        fs::remove_dir_all(&place.dir).with_context(|| format!("failed to remove {}", place.dir.display()))?;
        println!("    removed {}", place.dir.display());
    } else if place.dir.exists() {
        println!("    {} was there before quickstart (no {MARKER} in it): left alone", place.dir.display());
    }
    remove_empty_groups(&std::env::var("STAPES_CGROUP_PARENT").unwrap_or_else(|_| "stapes".to_owned()));
    let left = remains(&place);
    if !left.is_empty() {
        bail!("left behind:\n  {}", left.join("\n  "));
    }
    println!(
        "    nothing is left behind. Packages stay installed; `cargo xtask setup --undo` removes an apt source we added."
    );
    Ok(())
}

pub fn mounts_beneath(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

/// Removes the parent group in every hierarchy where nothing is in it.
pub fn remove_empty_groups(parent: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        remove_group(&hierarchy.join(parent));
    }
}

fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    // A group with processes in it is busy and stays.
    let _ = fs::remove_dir(group);
}

/// Processes whose program lies in `bin`, and what we call them.
pub fn processes(bin: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(program) = fs::read_link(entry.path().join("exe")) else { continue };
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if program.parent() == Some(bin) && name.starts_with("stapes") {
            found.push(format!("process {} {}", entry.file_name().to_string_lossy(), program.display()));
        }
    }
    found
}

fn remains(place: &Place) -> Vec<String> {
    let mut found = processes(&place.bin);
    found.extend(mounts_beneath(&place.dir).into_iter().map(|point| format!("mount {point}")));
    if Path::new("/sys/class/net/stapesbr0").exists() {
        found.push("network interface stapesbr0".to_owned());
    }
    let tables = shell::output(Command::new("nft").args(["list", "tables"])).unwrap_or_default();
    found.extend(tables.lines().filter(|line| line.contains("stapes")).map(|line| format!("nftables {line}")));
    found
}

/// The request that stops an instance at once.
pub fn force_stop() -> Value {
    json!({ "action": "stop", "force": true, "timeout": 0 })
}
