//! From the command line to a serving daemon, and back down.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, bail};
use stapes_container::{ContainerDriver, Settings};
use stapes_engine::{Engine, KernelNetwork, Parts, Paths, RealWorld, id_ranges::IdSupply};
use stapes_image::WorkerCommand;
use stapes_instance::{Driver, SpawnService, Supervise};
use stapes_journal::Journal;
use stapes_qemu::QemuDriver;
use stapes_store::SqliteStore;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    daemon::{Daemon, Phase},
    router::Router,
    server,
};

/// The argument that makes this program the confined image worker.
pub const WORKER: &str = "--image-worker";

const USAGE: &str = "usage: stapesd [--dir DIR] [--log-level LEVEL] [--group GROUP]
       stapesd --version
       stapesd --openapi    print the description of the API

Serves the Stapes API on DIR/unix.socket. Instances outlive the daemon: SIGTERM ends only the daemon,
`stapes admin shutdown` stops the instances too.

Environment: STAPES_DIR (default /var/lib/stapes), STAPES_RUN_DIR (default DIR/run), STAPES_CGROUP_PARENT (default
stapes), STAPES_SHIM (default: stapes-shim beside this program), STAPES_AGENT (default: stapes-agent beside it),
STAPES_WARM_SHIMS (default 4), STAPES_LOG.";

/// How the daemon was asked to run.
struct Options {
    dir: PathBuf,
    run: Option<PathBuf>,
    log: String,
    cgroup_parent: String,
    shim: PathBuf,
    agent: PathBuf,
    warm: usize,
}

/// Reads the command line and the environment; `None`: everything was said already.
fn options() -> anyhow::Result<Option<Options>> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut dir = env("STAPES_DIR");
    let mut log = env("STAPES_LOG").unwrap_or_else(|| "info".to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--dir" => dir = Some(value()?),
            "--log-level" => log = value()?,
            "--version" => {
                println!("{}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            "--openapi" => {
                print!("{}", crate::openapi::text());
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            other => bail!("unknown argument {other:?}\n{USAGE}"),
        }
    }
    let program = std::env::current_exe()?;
    let path = |variable: &str, name: &str| env(variable).map_or(program.with_file_name(name), PathBuf::from);
    let warm = match env("STAPES_WARM_SHIMS") {
        Some(text) => text.parse().with_context(|| format!("STAPES_WARM_SHIMS: {text:?} is no number"))?,
        None => 4,
    };
    Ok(Some(Options {
        dir: dir.unwrap_or_else(|| "/var/lib/stapes".to_owned()).into(),
        run: env("STAPES_RUN_DIR").map(PathBuf::from),
        log,
        cgroup_parent: env("STAPES_CGROUP_PARENT").unwrap_or_else(|| "stapes".to_owned()),
        shim: path("STAPES_SHIM", "stapes-shim"),
        agent: path("STAPES_AGENT", "stapes-agent"),
        warm,
    }))
}

/// A level, or levels by module: `info,stapes_container=debug`.
fn log_filter(text: &str) -> anyhow::Result<Targets> {
    if let Ok(level) = text.parse::<LevelFilter>() {
        return Ok(Targets::new().with_default(level));
    }
    match text.parse() {
        // A word alone would be taken for a module, and everything else would be silent.
        Ok(filter) if text.contains('=') => Ok(filter),
        _ => bail!("the log level {text:?} is none of off, error, warn, info, debug, trace, nor MODULE=LEVEL,…"),
    }
}

/// Runs the daemon until it is told to stop.
pub fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    let Some(options) = options()? else { return Ok(()) };
    let filter = log_filter(&options.log)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if !rustix::process::geteuid().is_root() {
        bail!("stapesd must run as root; rootless operation is not offered");
    }
    stapes_sys::process::keep_heap_small();
    make_room_for_descriptors();
    let inherited = stapes_sys::activation::inherited_listeners();
    std::fs::create_dir_all(&options.dir).with_context(|| format!("failed to make {}", options.dir.display()))?;
    let dir = options.dir.canonicalize().with_context(|| format!("failed to find {}", options.dir.display()))?;
    let engine = open(&dir, &options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_name("stapesd")
        .thread_stack_size(512 << 10)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(serve(engine, &dir, inherited, started))
}

/// Descriptors that the kernel's table has room for from the beginning: four for each of 2,000 instances, in 64 KiB of the
/// kernel's memory.
const DESCRIPTORS: u64 = 8192;

/// Raises the soft limit of open files to the hard one, and has the kernel's table of them made large at once. While
/// there is one thread that costs microseconds; later each doubling waits for an RCU grace period, which was seen to
/// take 9 to 15 ms of the start of a daemon with 40 instances.
fn make_room_for_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it there are fewer instances, and that is told when there are too many.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let most = limit.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let highest = i32::try_from(most.saturating_sub(1)).unwrap_or(0);
    if let Ok(null) = std::fs::File::open("/dev/null") {
        drop(rustix::io::fcntl_dupfd_cloexec(&null, highest));
    }
}

fn open(dir: &Path, options: &Options) -> anyhow::Result<Arc<Engine>> {
    let mut paths = Paths::new(dir);
    if let Some(run) = &options.run {
        paths.run.clone_from(run);
    }
    paths.ensure().with_context(|| format!("failed to make the directories beneath {}", dir.display()))?;
    let store = SqliteStore::open(paths.database()).context("failed to open the store")?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let journal = Journal::open(paths.journal(), boot.trim()).context("failed to open the journal")?;
    let settings = Settings {
        shim: options.shim.clone(),
        run_dir: paths.run.clone(),
        cache_dir: paths.cache(),
        cgroup_parent: options.cgroup_parent.clone(),
        warm: options.warm,
    };
    let containers = Arc::new(ContainerDriver::open(settings).context("failed to set up the container driver")?);
    let settings = stapes_qemu::Settings { agent: options.agent.clone() };
    let machines = QemuDriver::open(settings, Arc::clone(&containers) as Arc<dyn Supervise>)
        .context("failed to set up the virtual machine driver")?;
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let parts = Parts {
        paths,
        world: Arc::new(RealWorld),
        store: Arc::new(store),
        journal: Arc::new(journal),
        drivers: vec![Arc::clone(&containers) as Arc<dyn Driver>, Arc::new(machines)],
        services: containers as Arc<dyn SpawnService>,
        network: Arc::new(KernelNetwork::default()),
        ids: IdSupply::of_host(),
        worker: WorkerCommand { program, args: vec![WORKER.into()] },
    };
    Engine::open(parts).context("failed to open the engine")
}

async fn serve(
    engine: Arc<Engine>,
    dir: &Path,
    inherited: Vec<std::os::unix::net::UnixListener>,
    started: Instant,
) -> anyhow::Result<()> {
    let work = Arc::clone(&engine);
    let reconciled = tokio::task::spawn_blocking(move || work.reconcile()).await?;
    let (report, adopted) = reconciled.context("failed to make the host agree with the store")?;
    engine.resume(adopted);
    let listener = match inherited.into_iter().next() {
        Some(listener) => listener,
        None => server::bind(dir, "unix.socket")
            .with_context(|| format!("failed to listen on {}", dir.join("unix.socket").display()))?,
    };
    let daemon = Daemon::new(Arc::clone(&engine));
    let router = Arc::new(Router::new()?);
    let serving = tokio::spawn(server::serve(Arc::clone(&daemon), router, listener));
    daemon.phase.send_replace(Phase::Ready);
    tracing::info!(
        millis = started.elapsed().as_millis(),
        adopted = report.adopted,
        settled = report.undone,
        swept = report.swept.len(),
        "ready"
    );
    for left in &report.swept {
        tracing::warn!(left, "removed what an earlier run had left");
    }
    stop_signal(&daemon).await?;
    daemon.phase.send_replace(Phase::Stopping);
    tracing::info!("stopping; instances run on");
    serving.await??;
    if let Err(error) = engine.journal.stop() {
        tracing::warn!(%error, "the journal was not closed cleanly");
    }
    Ok(())
}

/// Returns when a signal or a request asks the daemon to end.
async fn stop_signal(daemon: &Daemon) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = daemon.reached(Phase::Stopping) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_is_a_level_or_names_its_module() {
        for text in ["debug", "WARN", "off", "info,stapes_container=debug", "stapes_engine=trace"] {
            log_filter(text).unwrap();
        }
        for text in ["loud", "stapes_engine=loud"] {
            assert!(log_filter(text).is_err(), "{text:?}");
        }
    }
}
