//! The driver itself: start, adopt, sweep.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use rustix::fs::{Mode, OFlags};
use stapes_cgroup::{Cgroups, Group, Leaf};
use stapes_instance::{Driver, DriverError, FileReply, FileRequest, Plan, Running, SpawnService};
use stapes_model::{IdMap, InstanceId, InstanceType};
use stapes_shim_api::{
    FailureKind, NurseryReply, NurseryRequest, Reply, Request, SHIM_SOCKET, Status, Takeover, VERSION,
};
use stapes_sys::{process, socket};

use crate::{
    ahead::ReadAhead,
    convert,
    lsm::{LsmError, Modules},
    nursery::Nursery,
    owners,
    registry::{Held, Registry},
    render::{self, Host},
    running::Container,
    warm::{Maker, PREFIX, Place, Pool, Warm, join_files},
    wire::{AskError, Connection},
};

/// A little more than the shim's own.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);
const FILE_PATIENCE: Duration = Duration::from_secs(35);

/// How a driver is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `stapes-shim` program.
    pub shim: PathBuf,
    /// The daemon's directory for sockets; erased by a reboot.
    pub run_dir: PathBuf,
    /// Where compiled security profiles are kept.
    pub cache_dir: PathBuf,
    /// Parent of the instances' control groups: a name, or under systemd the path of a delegated group.
    pub cgroup_parent: String,
    /// Spare shims kept ready; 0 makes each when it is needed, which costs some 10 ms more.
    pub warm: usize,
}

/// Makes containers run.
pub struct ContainerDriver {
    pub(crate) inner: Arc<Inner>,
    ahead: ReadAhead,
}

pub(crate) struct Inner {
    cgroups: Cgroups,
    nursery: Arc<Nursery>,
    pub pool: Pool,
    registry: Registry,
    host: Host,
    modules: Modules,
    /// Whether mounts of a file system can show other owners, by its device number.
    mapping: Mutex<HashMap<u64, bool>>,
    /// Does not change while we run.
    kernel: BTreeMap<String, String>,
}

impl ContainerDriver {
    /// Makes the parent groups, and begins to fill the pool of spare shims in the background.
    pub fn open(settings: Settings) -> Result<Self, DriverError> {
        let doing = || format!("failed to set up control groups beneath {}", settings.cgroup_parent);
        let cgroups = Cgroups::open(&settings.cgroup_parent).map_err(|error| DriverError::other(doing(), error))?;
        let modules = Modules::open(&settings.cache_dir, &settings.run_dir);
        let nursery = Arc::new(Nursery::new(settings.shim, settings.run_dir));
        let maker = Arc::new(Maker::new(cgroups.clone(), Arc::clone(&nursery)));
        let pool = Pool::new(maker, settings.warm);
        let inner = Inner {
            cgroups,
            nursery,
            pool,
            registry: Registry::default(),
            host: Host::probe(),
            modules,
            mapping: Mutex::default(),
            kernel: kernel_features(),
        };
        Ok(Self { inner: Arc::new(inner), ahead: ReadAhead::new() })
    }

    /// Spare shims that are ready now.
    pub fn warm(&self) -> usize {
        self.inner.pool.ready()
    }
}

/// What of an ended run could not be removed.
#[derive(Debug, thiserror::Error)]
enum CleanError {
    #[error("failed to remove its control groups")]
    Groups(#[from] stapes_cgroup::CgroupError),
    #[error("failed to remove its security profile")]
    Profile(#[from] LsmError),
}

pub(crate) fn start_error(
    id: InstanceId,
    step: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> DriverError {
    DriverError::Start { id, step: step.to_owned(), source: Some(Box::new(source)) }
}

impl Inner {
    /// Makes room for a new run of `id`: an ended one whose exit nobody took is taken now.
    fn retire(&self, id: InstanceId, run_dir: &Path) -> Result<(), DriverError> {
        if let Ok(Some(old)) = Connection::open(run_dir, SHIM_SOCKET) {
            match old.ask(&Request::Status, &[], PATIENCE) {
                Ok((Reply::Status(Status { exited: None, .. }), _)) => {
                    let step = "it is running already".to_owned();
                    return Err(DriverError::Start { id, step, source: None });
                }
                _ => drop(old.ask::<_, Reply>(&Request::AcknowledgeExit, &[], PATIENCE)),
            }
        }
        self.registry.retire(id);
        let result = self.clean(id);
        self.registry.end_cleaning(id);
        result.map_err(|error| start_error(id, "failed to remove what an earlier run left", error))
    }

    fn clean(&self, id: InstanceId) -> Result<(), CleanError> {
        self.clean_group(&self.cgroups.group(id.as_str()))?;
        Ok(self.modules.release(&id)?)
    }

    fn clean_group(&self, group: &Group) -> Result<(), stapes_cgroup::CgroupError> {
        group.kill()?;
        group.remove()
    }

    /// Acknowledges the end of a run and puts its groups away, on a thread of its own: as a spare where that is possible,
    /// else they are removed.
    pub fn clean_later(self: &Arc<Self>, id: InstanceId, run: u64, shim: Option<Connection>, reusable: bool) {
        if !self.registry.begin_cleaning(id, run) {
            return;
        }
        let inner = Arc::clone(self);
        std::thread::spawn(move || {
            let place = if reusable { inner.pool.place() } else { None };
            let kept = match (shim, place) {
                (Some(shim), Some(place)) => inner.reuse(id, shim, place),
                (Some(shim), None) => {
                    drop(shim.ask::<_, Reply>(&Request::AcknowledgeExit, &[], PATIENCE));
                    false
                }
                (None, _) => false,
            };
            if !kept {
                if let Err(error) = inner.clean(id) {
                    tracing::warn!(%id, error = &error as &dyn std::error::Error, "something of an ended run stays behind");
                }
                inner.registry.end_cleaning(id);
            }
        });
    }

    /// Makes a spare of the shim and the groups of an ended run; its id is free as soon as they have another name. False,
    /// with everything still under its old name, when it cannot be.
    fn reuse(&self, id: InstanceId, shim: Connection, place: Place<'_>) -> bool {
        // A frozen embryo does not answer its shim.
        let _ = self.cgroups.group(id.as_str()).thaw();
        if !matches!(shim.ask(&Request::Reuse, &[], PATIENCE), Ok((Reply::Done, _))) {
            drop(shim.ask::<_, Reply>(&Request::AcknowledgeExit, &[], PATIENCE));
            return false;
        }
        // The embryo alone.
        if !self.cgroups.group(id.as_str()).pids().is_ok_and(|pids| pids.len() == 1) {
            return false;
        }
        let group = match self.cgroups.retire(id.as_str(), &place.name()) {
            Ok(group) => group,
            Err(error) => {
                tracing::debug!(%id, error = &error as &dyn std::error::Error, "control groups are not kept");
                return false;
            }
        };
        // Nothing of the last guest is left that it could confine.
        if let Err(error) = self.modules.release(&id) {
            tracing::warn!(%id, error = &error as &dyn std::error::Error, "its security profile stays behind");
        }
        self.registry.end_cleaning(id);
        let renewed = group.renew();
        if let Err(error) = &renewed {
            tracing::debug!(%id, error = error as &dyn std::error::Error, "control groups are not kept");
        }
        let warm = Warm { group: group.name().to_owned(), control: shim };
        let refused = match renewed {
            Ok(()) => place.put(warm).err(),
            Err(_) => Some(warm),
        };
        if let Some(warm) = refused {
            drop(warm);
            if let Err(error) = group.kill().and_then(|()| group.remove()) {
                tracing::warn!(%id, error = &error as &dyn std::error::Error, "control groups stay behind");
            }
        }
        true
    }

    /// Whether mounts of the file system at `path` can show other owners.
    fn maps_owners(&self, path: &Path) -> Result<bool, DriverError> {
        let failed = |error: io::Error| DriverError::other(format!("failed to look at {}", path.display()), error);
        // The usual ones can, on every kernel that we run on; each btrfs subvolume has a device number of its own.
        const CAN: [u64; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
        let magic = rustix::fs::statfs(path).map_err(|error| failed(error.into()))?.f_type as u64;
        if CAN.contains(&(magic & 0xffff_ffff)) {
            return Ok(true);
        }
        let directory = socket::open_directory(path).map_err(failed)?;
        let device = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?.st_dev;
        let known = self.mapping.lock().unwrap_or_else(PoisonError::into_inner).get(&device).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        match self.nursery.ask(&NurseryRequest::MapsOwners, &[directory.as_fd()])? {
            NurseryReply::Answer(can) => {
                self.mapping.lock().unwrap_or_else(PoisonError::into_inner).insert(device, can);
                Ok(can)
            }
            _ => Err(DriverError::Other { doing: "a strange answer of the nursery".to_owned(), source: None }),
        }
    }

    /// Makes the files of the root carry the ids that this start needs; whether those are the host's.
    fn settle_owners(&self, plan: &Plan) -> Result<bool, DriverError> {
        let shifted = match plan.idmap {
            IdMap::Range(range) if !self.maps_owners(&plan.root)? => Some(range),
            IdMap::Range(_) | IdMap::Privileged => None,
        };
        let doing = "failed to change the owners of its files";
        owners::settle(&plan.root, shifted).map_err(|error| start_error(plan.id, doing, error))?;
        Ok(shifted.is_some())
    }

    fn run(self: &Arc<Self>, plan: &Plan, warm: &Warm, group: &Group) -> Result<Arc<dyn Running>, DriverError> {
        let id = plan.id;
        let begun = std::time::Instant::now();
        let labels = self.modules.label(plan).map_err(|error| start_error(id, "failed to confine it", error))?;
        let mut start = render::start(plan, &self.host, labels)?;
        start.root_shifted = self.settle_owners(plan)?;
        render::place(&mut start, &self.host, group);
        let rendered = begun.elapsed();
        let limited = |error| start_error(id, "failed to set its limits", error);
        group.delegate(plan.idmap.root()).map_err(limited)?;
        group.apply_to_new(&plan.limits).map_err(limited)?;
        if !plan.nodes.is_empty() || !self.pool.v1_devices() {
            group.allow_devices(&render::device_rules(&plan.nodes)).map_err(limited)?;
        }
        let directories = v2_directories(group).map_err(|error| start_error(id, "failed to open its groups", error))?;
        let fds: Vec<_> = directories.iter().map(AsFd::as_fd).collect();
        let prepared = begun.elapsed();
        let reply = warm.control.ask(&Request::Start(Box::new(start)), &fds, START_PATIENCE);
        tracing::debug!(
            %id,
            render = rendered.as_micros(),
            groups = (prepared - rendered).as_micros(),
            shim = (begun.elapsed() - prepared).as_micros(),
            "microseconds of a driver's work"
        );
        self.started(id, &plan.run_dir, reply)
    }

    /// What the shim said to a start.
    pub fn started(
        self: &Arc<Self>,
        id: InstanceId,
        run_dir: &Path,
        reply: Result<(Reply, Vec<OwnedFd>), AskError>,
    ) -> Result<Arc<dyn Running>, DriverError> {
        match reply {
            Ok((Reply::Status(status), fds)) => {
                // Root of a privileged container can write where it would leave things for the next one.
                let reusable = status.remembered.ids.is_some() || status.remembered.program;
                self.handle(id, run_dir, status, fds, None, reusable)
            }
            Ok((Reply::Failed(failure), _)) => Err(DriverError::Start { id, step: failure.message, source: None }),
            Ok(_) => Err(DriverError::Start { id, step: "its shim gave a strange answer".to_owned(), source: None }),
            Err(AskError::Silent { seconds }) => Err(DriverError::ShimSilent { seconds }),
            Err(error) => Err(start_error(id, "its shim did not answer", error)),
        }
    }

    /// Takes a spare, gives its groups the instance's name, and has `run` start something in it. On an error nothing is left.
    pub fn begin(
        self: &Arc<Self>,
        id: InstanceId,
        run_dir: &Path,
        run: impl FnOnce(&Warm, &Group) -> Result<Arc<dyn Running>, DriverError>,
    ) -> Result<Arc<dyn Running>, DriverError> {
        let begun = std::time::Instant::now();
        self.registry.wait_for_cleaning(&id);
        if Connection::open(run_dir, SHIM_SOCKET).is_ok_and(|found| found.is_some()) {
            self.retire(id, run_dir)?;
        }
        let cleaned = begun.elapsed();
        let warm = self.pool.take()?;
        let taken = begun.elapsed();
        let renamed = self.cgroups.rename(&warm.group, id.as_str()).or_else(|error| {
            tracing::debug!(%id, error = &error as &dyn std::error::Error, "groups of an earlier run are in the way");
            self.retire(id, run_dir)?;
            let doing = "failed to make its control groups";
            self.cgroups.rename(&warm.group, id.as_str()).map_err(|error| start_error(id, doing, error))
        });
        let (group, result) = match renamed {
            Ok(group) => {
                let renamed = begun.elapsed();
                let result = run(&warm, &group);
                tracing::debug!(
                    %id,
                    cleaning = cleaned.as_micros(),
                    spare = (taken - cleaned).as_micros(),
                    rename = (renamed - taken).as_micros(),
                    shim = (begun.elapsed() - renamed).as_micros(),
                    "microseconds of a birth"
                );
                (group, result)
            }
            Err(error) => (self.cgroups.group(&warm.group), Err(error)),
        };
        if result.is_err() {
            drop(warm);
            let cleaned = self.clean_group(&group).map_err(CleanError::from);
            if let Err(error) = cleaned.and_then(|()| Ok(self.modules.release(&id)?)) {
                tracing::warn!(%id, error = &error as &dyn std::error::Error, "something of a failed start stays behind");
            }
            let _ = std::fs::remove_file(run_dir.join(SHIM_SOCKET));
        }
        result
    }

    /// A handle from a status and the duplicates of pidfd and console. `reusable` is a shim that this driver forked: one
    /// that it found may be of an earlier build, and should not live for ever.
    fn handle(
        self: &Arc<Self>,
        id: InstanceId,
        run_dir: &Path,
        status: Status,
        fds: Vec<OwnedFd>,
        idle: Option<Connection>,
        reusable: bool,
    ) -> Result<Arc<dyn Running>, DriverError> {
        let mut fds = fds.into_iter();
        let pidfd = fds.next().ok_or(DriverError::ShimGone { id })?;
        let held = Arc::new(Held { status, pidfd, console: fds.next() });
        let events = Connection::open(run_dir, SHIM_SOCKET)
            .map_err(|error| DriverError::other(format!("failed to listen to the shim of {id}"), error))?
            .ok_or(DriverError::ShimGone { id })?;
        events.send(&Request::Subscribe, &[]).map_err(|_| DriverError::ShimGone { id })?;
        let run = self.registry.enter(id, Arc::clone(&held));
        Ok(Arc::new(Container {
            inner: Arc::clone(self),
            id,
            run,
            run_dir: run_dir.to_owned(),
            held,
            group: self.cgroups.group(id.as_str()),
            events: events.0,
            idle: Mutex::new(idle),
            reusable,
            over: AtomicBool::new(false),
        }))
    }

    /// See [`Driver::adopt`]; programs are adopted as containers are.
    pub fn adopt(self: &Arc<Self>, id: InstanceId, run_dir: &Path) -> Result<Option<Arc<dyn Running>>, DriverError> {
        let failed = |error: io::Error| DriverError::other(format!("failed to reach the shim of {id}"), error);
        // An end that this driver has told is acknowledged by then.
        self.registry.wait_for_cleaning(&id);
        if let Some(connection) = Connection::open(run_dir, SHIM_SOCKET).map_err(failed)? {
            let ask = |request| connection.ask::<_, Reply>(&request, &[], PATIENCE);
            let greeted = ask(Request::Hello { version: VERSION }).is_ok();
            if let (true, Ok((Reply::Status(status), _))) = (greeted, ask(Request::Status))
                && let Ok((Reply::Descriptors, fds)) = ask(Request::Duplicates)
            {
                return self.handle(id, run_dir, status, fds, Some(connection), false).map(Some);
            }
        }
        if let Some(held) = self.registry.held(&id)
            && !socket::wait_readable(&held.pidfd, Duration::ZERO).unwrap_or(true)
        {
            return self.replace_shim(id, run_dir, &held).map(Some);
        }
        // Whatever still runs has lost its parent and everyone who held a handle to it.
        self.registry.retire(id);
        let result = self.clean(id);
        self.registry.end_cleaning(id);
        result.map_err(|error| DriverError::other(format!("failed to clean up after instance {id}"), error))?;
        let _ = std::fs::remove_file(run_dir.join(SHIM_SOCKET));
        Ok(None)
    }

    /// Puts a new shim in the place of one that died, with what this daemon holds duplicates of.
    fn replace_shim(
        self: &Arc<Self>,
        id: InstanceId,
        run_dir: &Path,
        held: &Held,
    ) -> Result<Arc<dyn Running>, DriverError> {
        let failed = |error: AskError| DriverError::other(format!("failed to replace the shim of {id}"), error);
        let group = self.cgroups.group(id.as_str());
        let control = self.nursery.fork_shim(join_files(&group))?;
        let directories = v2_directories(&group).map_err(|error| failed(AskError::Io(error)))?;
        let takeover = Takeover { status: held.status.clone(), v2_directories: !directories.is_empty() };
        let fds: Vec<BorrowedFd<'_>> = [Some(held.pidfd.as_fd()), held.console.as_ref().map(AsFd::as_fd)]
            .into_iter()
            .flatten()
            .chain(directories.iter().map(AsFd::as_fd))
            .collect();
        match control.ask(&Request::Takeover(Box::new(takeover)), &fds, PATIENCE).map_err(failed)? {
            (Reply::Status(status), fds) => self.handle(id, run_dir, status, fds, Some(control), false),
            (Reply::Failed(failure), _) => Err(convert::failure(id, "", failure)),
            _ => Err(DriverError::ShimGone { id }),
        }
    }
}

/// Whether a group is a spare of a daemon that is gone. One that lives on (it relays streams) keeps its own, and this
/// one's are in the making.
fn is_orphaned_spare(name: &str) -> bool {
    let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    let Some(maker) = maker else { return false };
    let program = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    program(maker).is_none() || program(maker) != program(std::process::id())
}

/// Payload and exec directory of version 2, or none.
pub(crate) fn v2_directories(group: &Group) -> io::Result<Vec<OwnedFd>> {
    if let Some(exec) = group.v2_dir(Leaf::Exec) {
        // There already, unless the guest, whose group is around it, has removed it.
        let _ = rustix::fs::mkdir(exec, Mode::from_raw_mode(0o755));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    [Leaf::Payload, Leaf::Exec]
        .into_iter()
        .filter_map(|leaf| group.v2_dir(leaf))
        .map(|dir| rustix::fs::open(dir, flags, Mode::empty()).map_err(io::Error::from))
        .collect()
}

impl Driver for ContainerDriver {
    fn kind(&self) -> InstanceType {
        InstanceType::Container
    }

    fn expect(&self, root: &Path, likeness: &str) {
        self.ahead.begin(root, likeness);
    }

    fn start(&self, plan: &Plan) -> Result<Arc<dyn Running>, DriverError> {
        self.inner.begin(plan.id, &plan.run_dir, |warm, group| self.inner.run(plan, warm, group))
    }

    fn adopt(&self, id: &InstanceId, run_dir: &Path) -> Result<Option<Arc<dyn Running>>, DriverError> {
        self.inner.adopt(*id, run_dir)
    }

    fn sweep(&self, keep: &HashSet<InstanceId>) -> Result<Vec<String>, DriverError> {
        let cgroups = &self.inner.cgroups;
        // A group that is being renamed would be seen twice or not at all.
        self.inner.registry.wait_for_all(PATIENCE);
        let names = cgroups.list().map_err(|error| DriverError::other("failed to list control groups", error))?;
        let mut removed = Vec::new();
        for name in names {
            let group = cgroups.group(&name);
            let doomed = match name.parse::<InstanceId>() {
                Ok(id) => !keep.contains(&id),
                Err(_) => is_orphaned_spare(&name),
            };
            if doomed {
                self.inner
                    .clean_group(&group)
                    .map_err(|error| DriverError::other(format!("failed to remove control group {name}"), error))?;
                removed.push(format!("control group {name}"));
            }
        }
        let profiles = self.inner.modules.sweep(keep);
        removed.extend(profiles.map_err(|error| DriverError::other("failed to remove security profiles", error))?);
        Ok(removed)
    }

    fn close(&self) {
        self.inner.registry.wait_for_all(PATIENCE);
        self.inner.pool.close();
        self.inner.nursery.quit();
        // Refused while an instance is left, which is right.
        if let Err(error) = self.inner.cgroups.remove_parent() {
            tracing::debug!(error = &error as &dyn std::error::Error, "the parent groups stay");
        }
    }

    fn maps_owners(&self, path: &Path) -> Result<bool, DriverError> {
        self.inner.maps_owners(path)
    }

    fn files_offline(&self, root: &Path, request: &FileRequest) -> Result<FileReply, DriverError> {
        let path = convert::path(request);
        let failed = |error: io::Error| DriverError::other(format!("failed to prepare a request on {path}"), error);
        let ids = owners::carried(root).map_err(failed)?;
        let ids = ids.map(|range| stapes_shim_api::IdRange { base: range.base, size: range.size });
        let root = socket::open_directory(root).map_err(failed)?;
        let (op, content) = convert::file_op(request).map_err(failed)?;
        let fds: Vec<_> = [Some(root.as_fd()), content.as_ref().map(AsFd::as_fd)].into_iter().flatten().collect();
        // A connection of its own: the answer may take as long as the disk does.
        match self.inner.nursery.connect()?.ask(&NurseryRequest::File { op, ids }, &fds, FILE_PATIENCE) {
            Ok((NurseryReply::File(answer), mut fds)) => convert::file_reply(path, answer, fds.pop()),
            Ok((NurseryReply::Failed(failure), _)) if failure.kind == FailureKind::Unsupported => {
                Err(DriverError::Unsupported { what: format!("this request on {path}"), reason: failure.message })
            }
            Ok((NurseryReply::Failed(failure), _)) => {
                Err(DriverError::File { path: path.to_owned(), reason: failure.message, errno: failure.errno })
            }
            Ok(_) => {
                Err(DriverError::Other { doing: format!("{path}: the nursery gave a strange answer"), source: None })
            }
            Err(AskError::Silent { seconds }) => Err(DriverError::ShimSilent { seconds }),
            Err(error) => Err(DriverError::other(format!("failed to ask for {path}"), error)),
        }
    }

    fn features(&self) -> BTreeMap<String, String> {
        let mut features = self.inner.cgroups.describe();
        let lxcfs = if self.inner.host.lxcfs { "used" } else { "not there: /proc shows the host's figures" };
        features.insert("lxcfs".to_owned(), lxcfs.to_owned());
        let born =
            if self.inner.host.v1.is_empty() { "by CLONE_INTO_CGROUP" } else { "by an embryo (version 1 groups)" };
        features.insert("container_start".to_owned(), born.to_owned());
        features.extend(self.inner.kernel.clone());
        features.extend(self.inner.modules.describe());
        features
    }
}

/// What this kernel offers of what we know how to use, and what is done instead.
fn kernel_features() -> BTreeMap<String, String> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let known = |there: bool, instead: &str| if there { "yes".to_owned() } else { format!("no: {instead}") };
    BTreeMap::from([
        (
            "pidfd_get_info".to_owned(),
            known(process::has_pidfd_info(), "an init whose shim was killed ends with an unknown status"),
        ),
        (
            "clone_into_cgroup".to_owned(),
            known(process::has_clone_into_cgroup(), "containers need Linux 5.7 or version 1 groups"),
        ),
        (
            "seccomp_notify".to_owned(),
            known(actions.split_whitespace().any(|action| action == "user_notif"), "no call is answered by the host"),
        ),
    ])
}

impl SpawnService for ContainerDriver {
    fn ensure_service(&self, name: &str, argv: &[String]) -> Result<u32, DriverError> {
        match self.inner.nursery.ensure_service(name, argv)? {
            NurseryReply::Pid(pid) => Ok(pid),
            _ => Err(DriverError::Other { doing: format!("service {name}: a strange answer"), source: None }),
        }
    }

    fn stop_service(&self, name: &str) -> Result<(), DriverError> {
        self.inner.nursery.stop_service(name)
    }

    fn signal_service(&self, name: &str, signal: i32) -> Result<(), DriverError> {
        self.inner.nursery.ask(&NurseryRequest::SignalService { name: name.to_owned(), signal }, &[]).map(drop)
    }

    fn services(&self) -> Result<Vec<String>, DriverError> {
        match self.inner.nursery.ask(&NurseryRequest::Services, &[])? {
            NurseryReply::Names(names) => Ok(names),
            _ => Err(DriverError::Other { doing: "a strange answer of the nursery".to_owned(), source: None }),
        }
    }
}
