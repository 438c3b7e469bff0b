use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use stapes_model::{InstanceId, InstanceType, Limits, Usage};

use crate::{DriverError, FileReply, FileRequest, Plan};

/// Makes instances of one type run. Every call is blocking and bounded in time (a start within seconds even when the
/// guest misbehaves); calls for different instances may run in parallel on any thread.
pub trait Driver: Send + Sync {
    fn kind(&self) -> InstanceType;

    /// A hint that an instance with this root will be started in a moment; returns at once. Roots of one `likeness` (an
    /// image's fingerprint) are alike. May be left out, and repeated.
    fn expect(&self, _root: &Path, _likeness: &str) {}

    /// Starts init (or the machine) and returns once its first instruction runs, or says which step failed; then
    /// nothing is left behind. Starting an id that runs already fails.
    fn start(&self, plan: &Plan) -> Result<Arc<dyn Running>, DriverError>;

    /// Takes over an instance that outlived an earlier daemon. `None`: it does not run (any more), and nothing of it
    /// is left running either.
    fn adopt(&self, id: &InstanceId, run_dir: &Path) -> Result<Option<Arc<dyn Running>>, DriverError>;

    /// Removes everything on this host (cgroups, sockets, processes) named by an instance id that is not in `keep`.
    /// Returns what it removed, for the log. May run twice.
    fn sweep(&self, keep: &HashSet<InstanceId>) -> Result<Vec<String>, DriverError>;

    /// Ends what the driver keeps for itself on the host (spare shims, the nursery and its services, parent groups): the
    /// last call of a host's shutdown. An instance that still runs keeps what it needs.
    fn close(&self) {}

    /// Whether what lies at `path` can be shown to an instance under ids of its own. Where it cannot, a start changes the
    /// files' owners instead, once. May take some milliseconds; the answer is the file system's.
    fn maps_owners(&self, path: &Path) -> Result<bool, DriverError>;

    /// A file request on an instance that does not run: `root` is its root directory.
    fn files_offline(&self, root: &Path, request: &FileRequest) -> Result<FileReply, DriverError>;

    /// One line a feature for `info`: what this kernel offers and which fallback is used instead.
    fn features(&self) -> BTreeMap<String, String>;
}

/// A handle to one running instance. Cheap calls; each may fail with `ShimGone`. Dropping it touches nothing.
pub trait Running: Send + Sync {
    fn id(&self) -> InstanceId;

    /// Process id of init (or QEMU) on the host.
    fn pid(&self) -> u32;

    /// Seconds since 1970 at which it was started.
    fn started_at(&self) -> i64;

    /// Asks the guest to power off, in the way that it understands, and returns at once; the exit comes as an event.
    /// Repeating it is safe.
    fn request_shutdown(&self) -> Result<Asked, DriverError>;

    /// Kills everything inside and returns once init is reaped (bounded); an instance that is gone is success.
    fn kill(&self) -> Result<(), DriverError>;

    fn freeze(&self) -> Result<(), DriverError>;
    fn thaw(&self) -> Result<(), DriverError>;
    fn is_frozen(&self) -> Result<bool, DriverError>;

    /// Runs a command inside; returns once it was executed, with its handle and, for a pty, the master.
    fn exec(&self, spec: &ExecSpec, io: ExecIo) -> Result<ExecHandle, DriverError>;
    fn exec_signal(&self, exec: u64, signal: i32) -> Result<(), DriverError>;
    /// The exit of an exec, if it has ended (it stays known for the life of the shim, newest 1,024).
    fn exec_status(&self, exec: u64) -> Result<Option<ExitStatus>, DriverError>;

    /// A duplicate of the console's pty master. Everything printed is in the console log already.
    fn console(&self) -> Result<OwnedFd, DriverError>;

    fn file(&self, request: &FileRequest) -> Result<FileReply, DriverError>;

    fn update_limits(&self, limits: &Limits) -> Result<(), DriverError>;

    /// Counters of now, read from the host without asking the guest.
    fn usage(&self) -> Result<Usage, DriverError>;

    /// Where links, addresses and processes of its inside are to be looked for. May ask the guest, which has a second
    /// to answer.
    fn inside(&self) -> Inside {
        Inside::Namespaces
    }

    /// How it runs, one line a fact: `accelerator` of a machine.
    fn facts(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Readable when [`Running::next_event`] has something. Non-blocking; wait for it with `AsyncFd`.
    fn events_fd(&self) -> BorrowedFd<'_>;
    /// The next event, or `None` when there is none now. After [`Event::Exited`] or [`Event::ShimLost`] no more follow.
    fn next_event(&self) -> Option<Event>;
    /// What followed from [`Event::Exited`] is written down: until then whoever adopts the instance is told of the end
    /// again. May run twice; a start of the same instance does it too.
    fn acknowledge_exit(&self);
}

/// What tells of an instance's inside.
#[derive(Debug, Clone, PartialEq)]
pub enum Inside {
    /// Namespaces of this kernel, those of [`Running::pid`].
    Namespaces,
    /// A kernel of its own; what it says, where its agent answers.
    Guest(Option<GuestReport>),
}

/// What a guest says of itself; it may lie.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GuestReport {
    pub hostname: String,
    /// Name and version of the system, and the kernel's release.
    pub os: String,
    pub os_version: String,
    pub kernel: String,
    pub processes: u64,
    pub memory_used: u64,
    pub memory_total: u64,
    pub swap_used: u64,
    pub links: Vec<GuestLink>,
}

/// An interface as a guest sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestLink {
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub is_up: bool,
    pub is_loopback: bool,
    /// With the length of their prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    pub received: Traffic,
    pub sent: Traffic,
}

/// Counters of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub drops: u64,
}

/// What happened to a running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Init is gone, and with it everything inside.
    Exited {
        reason: ExitReason,
        status: ExitStatus,
    },
    ExecExited {
        exec: u64,
        status: ExitStatus,
    },
    /// The shim died. The instance may still run; `adopt` tells.
    ShimLost,
}

/// What became of a request to power off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Asked {
    /// The guest has been told.
    Told,
    /// The guest does not seem to listen yet, and the request may be lost: ask again a little later.
    NotListening,
}

/// Why init ended. A pid namespace reports reboot(2) from inside as a signal of its init; see pid_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Power-off or halt from inside, or init returned.
    Halt,
    /// Asked to be started again.
    Reboot,
    /// Killed from outside or by a crash.
    Killed,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// Its parent was lost and the kernel could not tell.
    Unknown,
}

impl ExitStatus {
    /// The number a shell would give: 128 + signal; 255 when unknown.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Unknown => 255,
        }
    }
}

/// A command to run inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments; the program is looked up in the environment's `PATH`, inside.
    pub command: Vec<String>,
    /// Complete environment; the driver adds only what is missing of PATH, HOME, USER, LANG, TERM (for a pty).
    pub environment: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    /// Working directory inside; `None` is the user's home, or `/`.
    pub cwd: Option<String>,
}

/// Where the command's standard streams go.
#[derive(Debug)]
pub enum ExecIo {
    /// A new pty of the instance's own; the master comes back in [`ExecHandle::pty`].
    Pty { columns: u16, rows: u16 },
    /// Three descriptors of the caller's, handed to the command.
    Streams { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
}

/// A command that runs.
#[derive(Debug)]
pub struct ExecHandle {
    /// Names it in events and signals; unique within the instance's run.
    pub exec: u64,
    /// Process id on the host.
    pub pid: u32,
    pub pty: Option<OwnedFd>,
}

/// A supervised helper of the daemon (dnsmasq, a proxy relay) that outlives it, as a child of the nursery's.
pub trait SpawnService: Send + Sync {
    /// Makes sure that `name` runs with exactly this command line; returns its pid. A change of argv restarts it.
    fn ensure_service(&self, name: &str, argv: &[String]) -> Result<u32, DriverError>;
    /// Ends it; one that does not run is success.
    fn stop_service(&self, name: &str) -> Result<(), DriverError>;
    /// Sends a signal to it.
    fn signal_service(&self, name: &str, signal: i32) -> Result<(), DriverError>;
    /// Names that run now.
    fn services(&self) -> Result<Vec<String>, DriverError>;
}
