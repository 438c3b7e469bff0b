//! The driver itself: start, adopt.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use stapes_instance::{Driver, DriverError, Event, FileReply, FileRequest, Plan, ProgramPlan, Running, Supervise};
use stapes_model::{InstanceId, InstanceType};
use stapes_sys::socket;

use crate::{
    accelerator::Accelerators,
    agent::Agents,
    birth::{self, Birth},
    channels::{self, SOCKETS},
    firmware,
    qmp::MonitorError,
    running::{Greeting, Machine},
};

/// From `execve` of QEMU to its first answer: it reads firmware and sets up the guest's memory, on a machine that may be
/// busy.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the end of a QEMU that could not start may take to be told.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How a driver is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `stapes-agent` program, a static executable for the guests of this host.
    pub agent: PathBuf,
}

/// Makes virtual machines run.
pub struct QemuDriver {
    settings: Settings,
    supervise: Arc<dyn Supervise>,
    accelerators: Accelerators,
    agents: Agents,
}

impl QemuDriver {
    /// Begins to find out who can execute guests' instructions, in the background. A host without QEMU has a driver too:
    /// its starts say what is missing.
    pub fn open(settings: Settings, supervise: Arc<dyn Supervise>) -> Result<Self, DriverError> {
        let agents = Agents::new()
            .map_err(|error| DriverError::other("failed to prepare for conversations with virtual machines", error))?;
        Ok(Self { settings, supervise, accelerators: Accelerators::probe(), agents })
    }

    fn launch(&self, plan: &Plan, birth: Birth) -> Result<Arc<dyn Running>, DriverError> {
        let Birth { program, console, fds, ours, key } = birth;
        let running = self.supervise.launch(&program, console, fds)?;
        let launched = Instant::now();
        let greeting = Greeting::First(START_PATIENCE);
        let opened = Machine::open(Arc::clone(&running), &plan.run_dir, ours, key, &self.agents, greeting);
        let machine = match opened {
            Ok(machine) => machine,
            Err(error) => return Err(give_up(&program, &*running, &error)),
        };
        tracing::debug!(id = %plan.id, qemu = launched.elapsed().as_micros(), "microseconds until QEMU answers");
        if let Err(error) = machine.ask("cont", &Value::Null) {
            return Err(give_up(&program, &*running, &error));
        }
        Ok(Arc::new(machine))
    }
}

/// Takes a QEMU down that does not do what it should, and says why.
fn give_up(program: &ProgramPlan, running: &dyn Running, error: &(dyn std::error::Error + 'static)) -> DriverError {
    let gone = matches!(error.downcast_ref(), Some(MonitorError::Gone | MonitorError::Io(_)));
    if !gone {
        // It lives, and hangs.
        let _ = running.kill();
    }
    let deadline = Instant::now() + END_PATIENCE;
    let mut killed = false;
    let ended = |event: Event| matches!(event, Event::Exited { .. } | Event::ShimLost);
    while !running.next_event().is_some_and(ended) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() && !killed {
            killed = running.kill().is_ok();
        }
        if left.is_zero() || !socket::wait_readable(running.events_fd(), left).unwrap_or(false) {
            let _ = running.kill();
            break;
        }
    }
    running.acknowledge_exit();
    let log = program.log_dir.join(format!("{}.log", program.name));
    let said = last_lines(&log).unwrap_or_default();
    let why = match (gone, said.is_empty()) {
        (true, false) => said,
        (_, true) => chain(error),
        (false, false) => format!("{} ({said})", chain(error)),
    };
    let source: Box<dyn std::error::Error + Send + Sync> = why.into();
    DriverError::Start { id: program.id, step: "QEMU did not start the machine".to_owned(), source: Some(source) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The last few lines of a log, in one.
fn last_lines(log: &Path) -> io::Result<String> {
    const TAIL: u64 = 1024;
    const LINES: usize = 3;
    let mut file = std::fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(LINES)..].join("; "))
}

impl Driver for QemuDriver {
    fn kind(&self) -> InstanceType {
        InstanceType::VirtualMachine
    }

    fn start(&self, plan: &Plan) -> Result<Arc<dyn Running>, DriverError> {
        let begun = Instant::now();
        // Before anything of its files is touched. The supervisor would say so too.
        if channels::connect(&plan.run_dir, SOCKETS[0]).is_ok() {
            return Err(DriverError::Start { id: plan.id, step: "it is running already".to_owned(), source: None });
        }
        birth::clean_up(&plan.run_dir);
        let (architecture, wanted) = match &plan.machine {
            Some(machine) => (machine.architecture.as_str(), machine.accelerator),
            None => (std::env::consts::ARCH, None),
        };
        let refused = |reason| DriverError::Unsupported { what: "the accelerator kvm".to_owned(), reason };
        let accelerator = self.accelerators.choose(wanted, architecture).map_err(refused)?;
        let started = birth::prepare(plan, &self.settings.agent, accelerator).and_then(|birth| {
            let prepared = begun.elapsed();
            tracing::debug!(id = %plan.id, prepare = prepared.as_micros(), "microseconds of a machine's preparation");
            self.launch(plan, birth)
        });
        if started.is_err() {
            birth::clean_up(&plan.run_dir);
        }
        started
    }

    fn adopt(&self, id: &InstanceId, run_dir: &Path) -> Result<Option<Arc<dyn Running>>, DriverError> {
        let Some(supervised) = self.supervise.adopt(id, run_dir)? else { return Ok(None) };
        Ok(Some(Arc::new(Machine::reach(supervised, run_dir, &self.agents)?)))
    }

    /// Groups and shims are the supervisor's to sweep.
    fn sweep(&self, _keep: &HashSet<InstanceId>) -> Result<Vec<String>, DriverError> {
        Ok(Vec::new())
    }

    /// A disk's owner is one file's.
    fn maps_owners(&self, _path: &Path) -> Result<bool, DriverError> {
        Ok(true)
    }

    fn files_offline(&self, _root: &Path, _request: &FileRequest) -> Result<FileReply, DriverError> {
        Err(DriverError::Unsupported {
            what: "access to files of a stopped virtual machine".to_owned(),
            reason: "its disk is read by the guest alone; start the instance first".to_owned(),
        })
    }

    fn features(&self) -> BTreeMap<String, String> {
        let architecture = std::env::consts::ARCH;
        let qemu = match birth::find_program(architecture) {
            Ok(program) => program.display().to_string(),
            Err(missing) => format!("no: {missing}"),
        };
        let has = |secure_boot| match firmware::find(architecture, secure_boot) {
            Some(files) => files.code.display().to_string(),
            None => "no: none is installed".to_owned(),
        };
        BTreeMap::from([
            ("vm_accelerator".to_owned(), self.accelerators.describe()),
            ("vm_qemu".to_owned(), qemu),
            ("vm_firmware".to_owned(), has(false)),
            ("vm_firmware_secure_boot".to_owned(), has(true)),
        ])
    }
}
