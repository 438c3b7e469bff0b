//! How each figure is taken. The same code measures Stapes and Incus.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use stapes_testkit::{Api, Connection, launch_body};

use super::{
    Options,
    stats::Figure,
    subject::{Kind, Subject},
    table::{Figures, Row},
};
use crate::{
    quickstart::force_stop,
    shell::{output, target_dir},
};

/// Every row; one that fails is told and left out.
pub fn measure(subject: &mut Subject, options: &Options) -> Figures {
    let mut figures = BTreeMap::new();
    let mut told = |what: &str, taken: Result<Vec<(Row, Option<Figure>)>>| match taken {
        Ok(rows) => figures.extend(rows.into_iter().filter_map(|(row, figure)| Some((row, figure?)))),
        Err(error) => println!("    {what} could not be measured: {error:#}"),
    };
    told("start and stop", start_and_stop(subject, options));
    told("launch and delete", launch_and_delete(subject, options));
    told("exec", exec(subject, options));
    if options.with_debian {
        told("Debian", debian(subject, options));
    }
    told("many", many(subject, options));
    told("ready, empty", ready_empty(subject, options));
    // Right after a restart.
    told("fresh memory", fresh(subject));
    figures
}

fn ms(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

fn state_path(name: &str) -> String {
    format!("/1.0/instances/{name}/state")
}

fn create(api: &Api, name: &str) -> Result<()> {
    let mut body = launch_body(name);
    body["start"] = json!(false);
    api.operation("POST", "/1.0/instances", &body).map(drop)
}

fn remove(api: &Api, name: &str) -> Result<()> {
    let _ = api.operation("PUT", &state_path(name), &force_stop());
    api.operation("DELETE", &format!("/1.0/instances/{name}"), &Value::Null).map(drop)
}

/// By then a busybox guest has its address. Killed before, its DHCP client closes a packet socket, for which the kernel
/// waits for an RCU grace period (packet_release, some 40 ms) before anybody's kill is over.
const BOOTED: Duration = Duration::from_secs(1);

/// A pause between rounds: on an idle kernel some paths are slower, and that is how people use it.
fn settle() {
    thread::sleep(Duration::from_millis(60));
}

fn fresh(subject: &Subject) -> Result<Vec<(Row, Option<Figure>)>> {
    Ok(vec![(Row::RssFresh, Some(Figure::single(rss_mib(subject)?)))])
}

fn start_and_stop(subject: &Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    let [mut creates, mut firsts, mut starts, mut stops] = [const { Vec::new() }; 4];
    for round in 0..options.rounds {
        let name = format!("cycle{round}");
        creates.push(ms(|| create(&subject.api, &name))?);
        settle();
        firsts.push(ms(|| start(&subject.api, &name))?);
        thread::sleep(BOOTED);
        stops.push(ms(|| output(&mut subject.command(&["stop", &name, "--force"])).map(drop))?);
        settle();
        starts.push(ms(|| start(&subject.api, &name))?);
        remove(&subject.api, &name)?;
    }
    Ok(vec![
        (Row::CreateStopped, Figure::of(creates)),
        (Row::FirstStart, Figure::of(firsts)),
        (Row::Start, Figure::of(starts)),
        (Row::ForceStop, Figure::of(stops)),
    ])
}

fn launch_and_delete(subject: &Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    let (mut launches, mut deletes) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let name = format!("launch{round}");
        launches.push(ms(|| output(&mut subject.command(&["launch", "busybox", &name])).map(drop))?);
        settle();
        subject.api.operation("PUT", &state_path(&name), &force_stop())?;
        deletes.push(ms(|| output(&mut subject.command(&["delete", &name])).map(drop))?);
    }
    Ok(vec![(Row::Launch, Figure::of(launches)), (Row::DeleteStopped, Figure::of(deletes))])
}

fn exec(subject: &Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    subject.api.operation("POST", "/1.0/instances", &launch_body("exec"))?;
    thread::sleep(Duration::from_secs(1));
    let (mut cli, mut api) = (Vec::new(), Vec::new());
    let mut connection = Connection::open(&subject.api.socket)?;
    // Incus answers nobody else while a connection has not said its first word.
    connection.request("GET", "/1.0", &[], &[])?;
    for _ in 0..options.rounds {
        cli.push(ms(|| output(&mut subject.command(&["exec", "exec", "--", "true"])).map(drop))?);
        settle();
        api.push(ms(|| exec_true(&mut connection))?);
        settle();
    }
    remove(&subject.api, "exec")?;
    Ok(vec![(Row::ExecCli, Figure::of(cli)), (Row::ExecApi, Figure::of(api))])
}

/// Two requests on a kept connection: start, and wait for the end.
fn exec_true(connection: &mut Connection) -> Result<()> {
    let body = json!({ "command": ["true"], "wait-for-websocket": false, "interactive": false, "environment": {} });
    let headers = [("Content-Type", "application/json")];
    let path = "/1.0/instances/exec/exec";
    let started = connection.request("POST", path, &headers, body.to_string().as_bytes())?.json()?;
    let url = started["operation"].as_str().with_context(|| format!("no operation: {started}"))?;
    let ended = connection.request("GET", &format!("{url}/wait?timeout=20"), &[], &[])?.json()?;
    anyhow::ensure!(ended["metadata"]["metadata"]["return"] == 0, "exec true: {ended}");
    Ok(())
}

/// Time from the command to systemd's own beginning, which is what its end comes later than its own boot takes. The
/// clock is the kernel's, the same inside and outside.
fn debian(subject: &Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    let (meta, root) = stapes_testkit::image::debian(&target_dir().join("test-images"))?;
    let [meta, root] = [meta, root].map(|path| path.display().to_string());
    output(&mut subject.command(&["image", "import", &meta, &root, "--alias", "debian"]))?;
    let mut beyond = Vec::new();
    for round in 0..options.rounds.div_ceil(5) + 1 {
        let name = format!("debian{round}");
        let (began, patience) = (monotonic_ms(), Instant::now() + Duration::from_secs(120));
        output(&mut subject.command(&["launch", "debian", &name]))?;
        let stamps =
            ["systemctl", "show", "--property=UserspaceTimestampMonotonic,FinishTimestampMonotonic", "--value"];
        let userspace = loop {
            let said = subject.api.exec(&name, &stamps).map(|(_, out, _)| out).unwrap_or_default();
            let stamps: Vec<f64> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
            match stamps[..] {
                [userspace, finish] if finish > 0.0 => break userspace / 1000.0,
                _ if Instant::now() > patience => anyhow::bail!("systemd did not finish: {said:?}"),
                _ => thread::sleep(Duration::from_millis(20)),
            }
        };
        // The first launch unpacks the image; that is not what the row is about.
        if round > 0 {
            beyond.push(userspace - began);
        }
        remove(&subject.api, &name)?;
    }
    Ok(vec![(Row::DebianBeyondBoot, Figure::of(beyond))])
}

#[expect(clippy::cast_precision_loss)]
fn monotonic_ms() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 * 1000.0 + now.tv_nsec as f64 / 1e6
}

/// Ports that one bridge gets: more make every broadcast on it dearer, and 1,023 are the most.
const PORTS: usize = 250;

/// Starts in parallel, memory with many running, a restart among them; then lists.
fn many(subject: &mut Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    let mut rows = running_many(subject, options)?;
    rows.extend(lists(subject, options)?);
    Ok(rows)
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("many{n}")).collect()
}

/// Does `work` to each name, eight at a time; seconds from the beginning to the end of each, in order.
fn in_parallel(names: &[String], work: impl Fn(usize, &str) -> Result<()> + Sync) -> Result<Vec<f64>> {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let worker = || -> Result<Vec<f64>> {
        let mut ends = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(number) else { return Ok(ends) };
            work(number, name)?;
            ends.push(began.elapsed().as_secs_f64());
        }
    };
    let mut ends = thread::scope(|scope| -> Result<Vec<f64>> {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        let mut ends = Vec::new();
        for worker in workers {
            ends.extend(worker.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(ends)
    })?;
    ends.sort_by(f64::total_cmp);
    Ok(ends)
}

/// Makes instances on as many networks as they need.
fn create_many(subject: &Subject, names: &[String]) -> Result<()> {
    for network in 1..names.len().div_ceil(PORTS) {
        // There already, after another row.
        let _ = subject.make_network(network);
    }
    in_parallel(names, |number, name| {
        let mut body = launch_body(name);
        body["start"] = json!(false);
        body["devices"] = json!({ "eth0": subject.nic(number / PORTS) });
        subject.api.operation("POST", "/1.0/instances", &body).map(drop)
    })?;
    Ok(())
}

fn start(api: &Api, name: &str) -> Result<()> {
    api.operation("PUT", &state_path(name), &json!({ "action": "start", "timeout": -1 })).map(drop)
}

fn running_many(subject: &mut Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    let names = numbered(options.density);
    create_many(subject, &names)?;
    let ends = in_parallel(&names, |_, name| start(&subject.api, name))?;
    let (per_second, last_to_first) = rates(&ends)?;
    let rss = rss_mib(subject)?;
    let pss = manager_pss_kib(subject, options.density);
    let ready = match subject.kind {
        // Incus's container monitors live on too, but its restart with many takes seconds: three rounds are enough.
        Kind::Incus => restart(subject, 3)?,
        Kind::Stapes => restart(subject, options.rounds.min(10))?,
    };
    in_parallel(&names, |_, name| remove(&subject.api, name))?;
    Ok(vec![
        (Row::StartsPerSecond, Some(Figure::single(per_second))),
        (Row::LastToFirst, Some(Figure::single(last_to_first))),
        (Row::RssRunning, Some(Figure::single(rss))),
        (Row::PssPerContainer, pss.map(Figure::single)),
        (Row::ReadyRunning, ready),
    ])
}

/// Lists of `count`, all of them running.
fn lists(subject: &Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    let names = numbered(options.count);
    create_many(subject, &names)?;
    in_parallel(&names, |_, name| start(&subject.api, name))?;
    let rounds = options.rounds.min(if subject.kind == Kind::Incus { 8 } else { usize::MAX });
    let list = |path: &str| -> Result<Option<Figure>> {
        let mut connection = Connection::open(&subject.api.socket)?;
        let mut samples = Vec::new();
        for _ in 0..rounds {
            samples.push(ms(|| {
                let answer = connection.request("GET", path, &[], &[])?;
                anyhow::ensure!(answer.status == 200, "{path}: {}", answer.text());
                Ok(())
            })?);
        }
        Ok(Figure::of(samples))
    };
    let once = list("/1.0/instances?recursion=1")?;
    let full = list("/1.0/instances?recursion=2")?;
    in_parallel(&names, |_, name| remove(&subject.api, name))?;
    Ok(vec![(Row::ListOnce, once), (Row::ListFull, full)])
}

fn restart(subject: &mut Subject, rounds: usize) -> Result<Option<Figure>> {
    let mut samples = Vec::new();
    for _ in 0..rounds {
        subject.kill()?;
        samples.push(subject.start()?);
        settle();
    }
    Ok(Figure::of(samples))
}

/// Starts per second, and the last tenth's rate to the first's.
fn rates(ends: &[f64]) -> Result<(f64, f64)> {
    let total = ends.last().copied().context("nothing was started")?;
    let tenth = (ends.len() / 10).max(1);
    let first = ends[tenth - 1];
    let last = total - ends.get(ends.len().saturating_sub(tenth + 1)).copied().unwrap_or(0.0);
    #[expect(clippy::cast_precision_loss)]
    let rate = ends.len() as f64 / total;
    Ok((rate, first / last.max(f64::EPSILON)))
}

fn ready_empty(subject: &mut Subject, options: &Options) -> Result<Vec<(Row, Option<Figure>)>> {
    Ok(vec![(Row::ReadyEmpty, restart(subject, options.rounds.min(10))?)])
}

fn rss_mib(subject: &Subject) -> Result<f64> {
    let pid = subject.pid().context("no daemon")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kib / 1024.0)
}

/// Memory of the processes that stand beside each container: shims with what is parked for them, or Incus's monitors.
fn manager_pss_kib(subject: &Subject, running: usize) -> Option<f64> {
    let mark = match subject.kind {
        Kind::Stapes => "stapes-shim",
        Kind::Incus => "forkstart",
    };
    let listed = output(Command::new("ps").args(["-eo", "pid=,args="])).ok()?;
    let state = subject.dir.path().display().to_string();
    let mut total = 0.0;
    let mut found = 0;
    for line in listed.lines() {
        let (pid, args) = line.trim().split_once(' ')?;
        // Others of the same name may run beside it.
        if !args.contains(&state) {
            continue;
        }
        let is_monitor = subject.kind == Kind::Incus && args.contains("[lxc monitor]");
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if is_monitor || program.to_string_lossy().contains(mark) {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            total += pss.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0);
            found += 1;
        }
    }
    #[expect(clippy::cast_precision_loss)]
    let each = total / running.max(1) as f64;
    (found > 0).then_some(each)
}
