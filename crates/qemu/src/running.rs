//! A handle to one running virtual machine: what a process can do is its supervisor's, what a machine can do is QEMU's,
//! and what only the guest can do is its agent's.

use std::{
    collections::BTreeMap,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use stapes_agent_api::{Exec, FailureKind, KEY_BYTES, PowerAction, Reply, Request};
use stapes_instance::{
    Asked, DriverError, Event, ExecHandle, ExecIo, ExecSpec, ExitReason, ExitStatus, FileReply, FileRequest, Inside,
    Limits, Running, Usage,
};
use stapes_model::InstanceId;

use crate::{
    agent::{AgentError, Agents, Link},
    birth,
    channels::{self, SOCKETS},
    files,
    inbox::{Inbox, any_of, exit_status},
    qmp::{self, Events, Monitor, MonitorError},
    report::Reports,
};

/// QEMU answers from its main loop and not from the guest.
const PATIENCE: Duration = Duration::from_secs(10);
const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// A PATH inside may lie on a file system that does not answer; a little more than the agent's own.
const EXEC_PATIENCE: Duration = Duration::from_secs(25);
/// An agent that takes longer to hear of a shutdown is not waited for: the machine has a power button.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// No guest comes from its reset to a file system that it writes to within this time.
const FIRMWARE: Duration = Duration::from_secs(2);

/// In the run directory while a machine ends because its guest asked to be started again.
pub const REBOOTING: &str = "rebooting";

/// There while a machine ends because its processors cannot go on.
pub const BROKEN: &str = "broken";

/// Numbers of commands, of which the agent takes no more than these.
const EXECS: u32 = 1 << 29;

/// How long QEMU may take to answer its first question, and later ones.
#[derive(Debug, Clone, Copy)]
pub enum Greeting {
    /// It is being started.
    First(Duration),
    /// It runs.
    Again,
}

pub struct Machine {
    supervised: Arc<dyn Running>,
    id: InstanceId,
    run_dir: PathBuf,
    /// `None` when QEMU does not answer, or is gone.
    monitor: Mutex<Option<Monitor>>,
    news: Mutex<Option<Events>>,
    agent: Mutex<Option<Arc<Link>>>,
    inbox: Arc<Inbox>,
    any: OwnedFd,
    last_exec: AtomicU32,
    over: AtomicBool,
    reports: Reports,
    /// Who executes the guest's instructions, once somebody wanted to know.
    accelerator: OnceLock<String>,
}

/// What only the guest can do, and its agent did not.
pub fn agent_error(id: InstanceId, error: AgentError) -> DriverError {
    match error {
        AgentError::Failed(failure) => DriverError::Other { doing: failure.message, source: None },
        error => DriverError::Agent { id, reason: error.to_string() },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Greets QEMU on its two monitors and begins the conversation with the guest.
    pub fn open(
        supervised: Arc<dyn Running>,
        run_dir: &Path,
        channels: [UnixStream; 3],
        key: [u8; KEY_BYTES],
        agents: &Agents,
        greeting: Greeting,
    ) -> Result<Self, MonitorError> {
        let patience = if let Greeting::First(patience) = greeting { patience } else { PATIENCE };
        let [monitor, events, port] = channels;
        let monitor = Monitor::open(monitor.into(), patience)?;
        let events = Events::open(events.into(), patience)?;
        let inbox = Arc::new(Inbox::new()?);
        let told = Arc::clone(&inbox);
        let agent = agents.link(port, key, Box::new(move |one| told.tell(one)))?;
        Self::new(supervised, run_dir, Some(monitor), Some(events), Some(agent), inbox)
    }

    /// One whose QEMU does not answer: it can be looked at and killed.
    pub fn deaf(supervised: Arc<dyn Running>, run_dir: &Path) -> Result<Self, MonitorError> {
        Self::new(supervised, run_dir, None, None, None, Arc::new(Inbox::new()?))
    }

    fn new(
        supervised: Arc<dyn Running>,
        run_dir: &Path,
        monitor: Option<Monitor>,
        news: Option<Events>,
        agent: Option<Link>,
        inbox: Arc<Inbox>,
    ) -> Result<Self, MonitorError> {
        let sources = [Some(supervised.events_fd()), Some(inbox.bell()), news.as_ref().map(Events::fd)];
        let any = any_of(&sources.into_iter().flatten().collect::<Vec<_>>())?;
        // Somewhere: a daemon before this one may have given the first numbers away.
        let mut first = [0; 4];
        getrandom::fill(&mut first).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self {
            id: supervised.id(),
            supervised,
            run_dir: run_dir.to_owned(),
            monitor: Mutex::new(monitor),
            news: Mutex::new(news),
            agent: Mutex::new(agent.map(Arc::new)),
            inbox,
            any,
            last_exec: AtomicU32::new(u32::from_ne_bytes(first)),
            over: AtomicBool::new(false),
            reports: Reports::default(),
            accelerator: OnceLock::new(),
        })
    }

    /// Connects to what an earlier daemon left.
    pub fn reach(supervised: Arc<dyn Running>, run_dir: &Path, agents: &Agents) -> Result<Self, DriverError> {
        let id = supervised.id();
        let connected = || {
            let [monitor, events, agent] = SOCKETS.map(|name| channels::connect(run_dir, name));
            Ok::<_, std::io::Error>(([monitor?, events?, agent?], birth::read_key(run_dir)?))
        };
        let opened = connected().map_err(MonitorError::from).and_then(|(channels, key)| {
            Self::open(Arc::clone(&supervised), run_dir, channels, key, agents, Greeting::Again)
        });
        opened
            .or_else(|error| {
                // Its end has not been taken yet, or it hangs.
                tracing::warn!(%id, error = &error as &dyn std::error::Error, "a virtual machine does not answer");
                Self::deaf(supervised, run_dir)
            })
            .map_err(|error| DriverError::other(format!("failed to watch instance {id}"), error))
    }

    pub fn ask(&self, command: &str, arguments: &Value) -> Result<Value, DriverError> {
        let failed =
            |error| DriverError::other(format!("failed to have QEMU of instance {} {command}", self.id), error);
        let mut monitor = lock(&self.monitor);
        let Some(open) = monitor.as_mut() else {
            return Err(match self.has_ended() {
                true => DriverError::NotRunning { id: self.id },
                false => failed(MonitorError::Gone),
            });
        };
        let answer = open.execute(command, arguments, PATIENCE);
        if self.over.load(Ordering::Relaxed) {
            // It was closed meanwhile, by someone who does not wait for answers.
            *monitor = None;
        }
        answer.map_err(|error| match error {
            MonitorError::Gone => DriverError::NotRunning { id: self.id },
            error => failed(error),
        })
    }

    fn has_ended(&self) -> bool {
        !Path::new(&format!("/proc/{}", self.supervised.pid())).exists()
    }

    /// Not kept for longer than one request: the port is free for another daemon when nobody holds it.
    fn agent(&self) -> Result<Arc<Link>, DriverError> {
        lock(&self.agent).clone().ok_or_else(|| agent_error(self.id, AgentError::Absent))
    }

    /// Whether the guest's kernel has armed the power button: `PWRBTN_EN` of the board's ACPI event register, which QEMU
    /// reads for us without a trace. Firmware and boot loaders do not. False where it cannot be told.
    fn heeds_power_button(&self) -> bool {
        // PM1_EN of the ICH9, at the base that firmware gives it on this board. Source: QEMU's hw/isa/lpc_ich9.c.
        let look = json!({ "command-line": "i /h 0x602" });
        let Ok(said) = self.ask("human-monitor-command", &look) else { return false };
        power_button_armed(said.as_str().unwrap_or_default())
    }

    /// Acts on what QEMU tells by itself. It does not wait.
    fn hear(&self, event: &qmp::Event, news: &mut Events) {
        let data = &event.data;
        match event.name.as_str() {
            "VSERPORT_CHANGE" => {
                if let Ok(agent) = self.agent() {
                    let ours = data.get("id").and_then(Value::as_str) == Some(crate::command::AGENT_PORT);
                    let open = data.get("open").and_then(Value::as_bool).unwrap_or(false);
                    if ours {
                        agent.port_changed(open);
                    }
                }
            }
            // Started again it is by its driver, with the plan of then. Without a daemon the guest just goes on, and so it
            // does when this is heard late: it may have booted by now, and would lose what it has not written yet.
            "RESET" if data.get("reason").and_then(Value::as_str) == Some("guest-reset") && is_fresh(event.at) => {
                let _ = std::fs::write(self.run_dir.join(REBOOTING), "");
                let _ = news.tell("quit");
            }
            // By a monitor, for want of space, or because the hardware cannot go on: only QEMU knows.
            "STOP" => drop(news.tell("query-status")),
            Events::ANSWER if data.get("status").and_then(Value::as_str) == Some("internal-error") => {
                tracing::error!(id = %self.id, "the accelerator cannot run this guest any further: it is ended");
                let _ = std::fs::write(self.run_dir.join(BROKEN), "");
                let _ = news.tell("quit");
            }
            _ => {}
        }
    }

    fn listen(&self) {
        let mut news = lock(&self.news);
        let Some(events) = news.as_mut() else { return };
        match events.take() {
            Ok(heard) => heard.iter().for_each(|event| self.hear(event, events)),
            // Its end is told by the supervisor.
            Err(_) => *news = None,
        }
    }

    /// QEMU or its shim is gone: what was theirs is closed, and who comes next can have it.
    fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
        if let Ok(mut monitor) = self.monitor.try_lock() {
            monitor.take();
        }
        lock(&self.news).take();
        lock(&self.agent).take();
    }

    fn why(&self, status: ExitStatus) -> ExitReason {
        match status {
            ExitStatus::Code(0) if self.run_dir.join(BROKEN).exists() => ExitReason::Killed,
            ExitStatus::Code(0) if self.run_dir.join(REBOOTING).exists() => ExitReason::Reboot,
            ExitStatus::Code(0) => ExitReason::Halt,
            // A guest that panicked ends QEMU with an error.
            ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Unknown => ExitReason::Killed,
        }
    }
}

/// What follows `-accel` on a command line of words that zero bytes end, without its options.
fn accelerator(line: &[u8]) -> Option<String> {
    let word = line.split(|byte| *byte == 0).skip_while(|word| *word != b"-accel").nth(1)?;
    String::from_utf8(word.split(|byte| *byte == b',').next()?.to_vec()).ok()
}

/// Whether something happened a moment ago: no firmware has handed over to a kernel since.
fn is_fresh(at: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    now.saturating_sub(at) < FIRMWARE.as_millis() as i64
}

/// Reads `portw[0x0602] = 0x0120`. A register that is not there reads as ones.
fn power_button_armed(said: &str) -> bool {
    const PWRBTN_EN: u32 = 1 << 8;
    let value = said.split("= 0x").nth(1).and_then(|text| u32::from_str_radix(text.trim(), 16).ok());
    value.is_some_and(|value| value != 0xffff && value & PWRBTN_EN != 0)
}

impl Running for Machine {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn pid(&self) -> u32 {
        self.supervised.pid()
    }

    fn started_at(&self) -> i64 {
        self.supervised.started_at()
    }

    fn request_shutdown(&self) -> Result<Asked, DriverError> {
        if let Ok(agent) = self.agent()
            && agent.is_open()
            && agent.ask(Request::Power { action: PowerAction::Off }, Vec::new(), SHUTDOWN_PATIENCE).is_ok()
        {
            return Ok(Asked::Told);
        }
        let armed = self.heeds_power_button();
        self.ask("system_powerdown", &Value::Null)?;
        Ok(if armed { Asked::Told } else { Asked::NotListening })
    }

    fn kill(&self) -> Result<(), DriverError> {
        self.supervised.kill()
    }

    fn freeze(&self) -> Result<(), DriverError> {
        self.ask("stop", &Value::Null).map(drop)
    }

    fn thaw(&self) -> Result<(), DriverError> {
        self.ask("cont", &Value::Null).map(drop)
    }

    fn is_frozen(&self) -> Result<bool, DriverError> {
        let status = self.ask("query-status", &Value::Null)?;
        // A disk without space stops its machine as well, and a thaw lets it try again.
        Ok(status["status"] == "paused" || status["status"] == "io-error")
    }

    fn exec(&self, spec: &ExecSpec, io: ExecIo) -> Result<ExecHandle, DriverError> {
        let program = spec.command.first().map(String::as_str).unwrap_or_default();
        let agent = self.agent()?;
        if self.is_frozen()? {
            let doing = format!("failed to run {program}: instance {} is frozen; resume it first", self.id);
            return Err(DriverError::Other { doing, source: None });
        }
        let (pty, stdio) = match io {
            ExecIo::Pty { columns, rows } => (Some((columns, rows)), None),
            ExecIo::Streams { stdin, stdout, stderr } => (None, Some([stdin, stdout, stderr])),
        };
        let number = self.last_exec.fetch_add(1, Ordering::Relaxed) % EXECS;
        let exec = Exec {
            exec: number,
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            uid: spec.uid,
            gid: spec.gid,
            cwd: spec.cwd.clone(),
            pty,
        };
        self.inbox.begin(number);
        match agent.exec(exec, stdio, EXEC_PATIENCE) {
            Ok((pid, pty)) => Ok(ExecHandle { exec: u64::from(number), pid, pty }),
            Err(error) => {
                self.inbox.forget(number);
                Err(match error {
                    AgentError::Failed(failure) if failure.kind == FailureKind::Command => {
                        let (command, reason) = (program.to_owned(), failure.message);
                        DriverError::Command { command, reason, code: failure.code }
                    }
                    error => agent_error(self.id, error),
                })
            }
        }
    }

    fn exec_signal(&self, exec: u64, signal: i32) -> Result<(), DriverError> {
        let request = Request::ExecSignal { exec: exec as u32, signal };
        let asked = self.agent()?.ask(request, Vec::new(), AGENT_PATIENCE);
        asked.map(drop).map_err(|error| agent_error(self.id, error))
    }

    fn exec_status(&self, exec: u64) -> Result<Option<ExitStatus>, DriverError> {
        let request = Request::ExecStatus { exec: exec as u32 };
        match self.agent()?.ask(request, Vec::new(), AGENT_PATIENCE) {
            Ok((Reply::Exec { status }, _)) => Ok(status.map(exit_status)),
            Ok(_) => Err(agent_error(self.id, AgentError::Strange)),
            Err(error) => Err(agent_error(self.id, error)),
        }
    }

    fn console(&self) -> Result<OwnedFd, DriverError> {
        self.supervised.console()
    }

    fn file(&self, request: &FileRequest) -> Result<FileReply, DriverError> {
        files::perform(self.id, &self.agent()?, request)
    }

    fn inside(&self) -> Inside {
        Inside::Guest(self.agent().ok().and_then(|agent| self.reports.of(&agent)))
    }

    fn facts(&self) -> BTreeMap<String, String> {
        // It was told at its birth, whoever its daemon was then; QEMU may be too busy to be asked.
        let born = || std::fs::read(format!("/proc/{}/cmdline", self.pid())).ok().and_then(|line| accelerator(&line));
        if self.accelerator.get().is_none()
            && let Some(found) = born()
        {
            let _ = self.accelerator.set(found);
        }
        self.accelerator.get().map(|known| ("accelerator".to_owned(), known.clone())).into_iter().collect()
    }

    fn update_limits(&self, limits: &Limits) -> Result<(), DriverError> {
        self.supervised.update_limits(&birth::limits_of_program(limits))
    }

    fn usage(&self) -> Result<Usage, DriverError> {
        self.supervised.usage()
    }

    fn events_fd(&self) -> BorrowedFd<'_> {
        self.any.as_fd()
    }

    fn next_event(&self) -> Option<Event> {
        if self.over.load(Ordering::Relaxed) {
            return None;
        }
        // First, so that a reboot is known before the end that it leads to.
        self.listen();
        if let Some(event) = self.inbox.take() {
            return Some(event);
        }
        let event = self.supervised.next_event()?;
        match event {
            Event::Exited { status, .. } => {
                self.close();
                Some(Event::Exited { reason: self.why(status), status })
            }
            Event::ShimLost => {
                // Whoever adopts it connects anew.
                self.close();
                Some(event)
            }
            // It runs no commands.
            Event::ExecExited { .. } => None,
        }
    }

    fn acknowledge_exit(&self) {
        birth::clean_up(&self.run_dir);
        self.supervised.acknowledge_exit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accelerator_is_read_from_the_command_line() {
        assert_eq!(accelerator(b"qemu\0-accel\0tcg,thread=multi\0-cpu\0max\0").as_deref(), Some("tcg"));
        assert_eq!(accelerator(b"qemu\0-accel\0kvm\0").as_deref(), Some("kvm"));
        assert_eq!(accelerator(b"qemu\0-accel"), None);
    }

    #[test]
    fn the_power_button_s_register_is_read() {
        assert!(power_button_armed("portw[0x0602] = 0x0120\r\n"));
        for said in ["portw[0x0602] = 0x0020\r\n", "portw[0x0602] = 0xffff\r\n", "unknown command", ""] {
            assert!(!power_button_armed(said), "{said}");
        }
    }

    #[test]
    fn a_reset_that_was_heard_late_is_let_be() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!(is_fresh(now) && is_fresh(now - 500));
        assert!(!is_fresh(now - 5000) && !is_fresh(0));
    }
}
