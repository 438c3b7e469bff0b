//! From a plan to the program that the machine is: its files, its descriptors, its command line.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
};

use stapes_agent_api::{INTRODUCTION_FILE, IntroducedFile, Introduction, KEY_BYTES, KEY_FILE};
use stapes_instance::{Accelerator, DriverError, Firmware, Limits, Machine, Plan, ProgramPlan, Rlimit, TemplateFile};
use stapes_model::IdMap;
use stapes_sys::pty;

use crate::{
    channels::{self, Channel, SOCKETS},
    command::{self, Descriptors, Recipe},
    config_drive::{self, Entry},
    firmware::{self, FirmwareFiles},
    running::{BROKEN, REBOOTING},
    taps,
    view::{CONFIG_DRIVE, NVRAM, View},
};

/// Number of the first descriptor that a program is born with.
const FIRST: u32 = 3;
const KVM: &str = "/dev/kvm";
const DRIVE_FILE: &str = "config.img";
const AGENT_FILE: &str = "stapes-agent";
/// Name of QEMU's log, and of its environment's only word.
const NAME: &str = "qemu";
const PATH: &str = "/usr/bin:/bin";

/// A machine that is ready to be launched.
pub struct Birth {
    pub program: ProgramPlan,
    pub console: OwnedFd,
    pub fds: Vec<OwnedFd>,
    /// Connections to the monitors and the agent's port.
    pub ours: [UnixStream; 3],
    pub key: [u8; KEY_BYTES],
}

fn failed(plan: &Plan, doing: impl Into<String>, error: io::Error) -> DriverError {
    DriverError::Start { id: plan.id, step: doing.into(), source: Some(error.into()) }
}

fn refused(plan: &Plan, step: impl Into<String>) -> DriverError {
    DriverError::Start { id: plan.id, step: step.into(), source: None }
}

/// Prepares everything that a start needs; nothing runs yet. What is made is in the instance's own directories.
pub fn prepare(plan: &Plan, agent: &Path, accelerator: Accelerator) -> Result<Birth, DriverError> {
    let machine = plan.machine.as_ref().ok_or_else(|| refused(plan, "its plan says nothing of its hardware"))?;
    let IdMap::Range(range) = plan.idmap else {
        return Err(refused(plan, "a virtual machine runs as a user of its own and needs a range of user ids"));
    };
    let owner = range.base;
    let program = find_program(&machine.architecture).map_err(|step| refused(plan, step))?;

    let mut view = View::of_program(&program);
    if accelerator == Accelerator::Kvm {
        let given = view.give(Path::new(KVM), KVM, false, owner);
        given.map_err(|error| failed(plan, format!("failed to open {KVM}"), error))?;
    }
    own_disks(plan, machine, owner)?;
    let seen = view.of_machine(machine, owner).map_err(|error| failed(plan, "failed to open its disks", error))?;
    let firmware = match &machine.firmware {
        Firmware::Uefi { secure_boot } => Some(prepare_firmware(plan, machine, *secure_boot, owner, &mut view)?),
        Firmware::Bios | Firmware::Kernel { .. } => None,
    };
    let key = prepare_config(plan, machine, agent, owner, &mut view)?;

    let make = |name: &str| {
        channels::make(&plan.run_dir, name)
            .map_err(|error| failed(plan, format!("failed to make its socket {name}"), error))
    };
    let [monitor, events, port] = [make(SOCKETS[0])?, make(SOCKETS[1])?, make(SOCKETS[2])?];
    let console = pty::open("/dev/ptmx")
        .and_then(|pty| pty::resize(pty.master.as_fd(), 80, 25).map(|()| pty))
        .map_err(|error| failed(plan, "failed to make its console", error))?;
    let taps = taps::make(&plan.links)?;
    let fds = Descriptors {
        monitor: FIRST,
        events: FIRST + 1,
        agent: FIRST + 2,
        console: FIRST + 3,
        taps: (0..taps.len() as u32).map(|number| FIRST + 4 + number).collect(),
    };
    let mut argv = command::arguments(&Recipe {
        name: plan.name.as_str(),
        machine: &seen,
        links: &plan.links,
        accelerator,
        firmware: firmware.as_ref(),
        nvram: Path::new(NVRAM),
        config_drive: Some(Path::new(CONFIG_DRIVE)),
        fds: &fds,
    });
    // By its whole name QEMU finds its modules and firmware beside it, without a /proc to look itself up in.
    argv[0] = program.to_string_lossy().into_owned();
    let program = ProgramPlan {
        id: plan.id,
        name: NAME.to_owned(),
        path: argv[0].clone(),
        argv,
        environment: BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]),
        uid: owner,
        gid: owner,
        view: view.mounts,
        nodes: view.nodes,
        links: view.links,
        run_dir: plan.run_dir.clone(),
        log_dir: plan.log_dir.clone(),
        limits: limits_of_program(&plan.limits),
    };
    let own = [monitor, events, port].map(|Channel { theirs, ours }| (theirs, ours));
    let [(monitor, ours0), (events, ours1), (port, ours2)] = own;
    let fds = [monitor, events, port, console.slave].into_iter().chain(taps).collect();
    Ok(Birth { program, console: console.master, fds, ours: [ours0, ours1, ours2], key })
}

/// What of an instance's limits is the machine's own program's: the guest's memory is what it is built with, and its
/// processes are the guest kernel's.
pub fn limits_of_program(limits: &Limits) -> Limits {
    // A dump would hold the guest's memory.
    let none = Rlimit { name: "core".to_owned(), soft: Some(0), hard: Some(0) };
    Limits { memory: None, memory_soft: false, processes: None, rlimits: vec![none], ..limits.clone() }
}

/// `qemu-system-<architecture>` on the path.
pub fn find_program(architecture: &str) -> Result<PathBuf, String> {
    let name = format!("qemu-system-{architecture}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(usual).map(|dir| dir.join(&name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let package = match architecture {
            "x86_64" | "i686" => "qemu-system-x86",
            "aarch64" | "armv7l" => "qemu-system-arm",
            _ => "qemu-system-misc",
        };
        format!("{name} is not installed (package {package})")
    })
}

/// Makes a file the machine's user's, and nobody else's.
fn own(path: &Path, owner: u32) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(owner), Some(owner))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
}

/// Files in the instance's own volume are the machine's user's. Others keep their owners, and must be open to it.
fn own_disks(plan: &Plan, machine: &Machine, owner: u32) -> Result<(), DriverError> {
    for disk in &machine.disks {
        let doing = || format!("failed to open {} of device {}", disk.source.display(), disk.device);
        let meta = std::fs::metadata(&disk.source).map_err(|error| failed(plan, doing(), error))?;
        if meta.is_file() && disk.source.starts_with(&plan.root) && meta.uid() != owner {
            own(&disk.source, owner).map_err(|error| failed(plan, doing(), error))?;
        }
    }
    Ok(())
}

/// The firmware as QEMU sees it, with variables of the instance's own: they stay for as long as its volume does.
fn prepare_firmware(
    plan: &Plan,
    machine: &Machine,
    secure_boot: bool,
    owner: u32,
    view: &mut View,
) -> Result<FirmwareFiles, DriverError> {
    let files = firmware::find(&machine.architecture, secure_boot).ok_or_else(|| {
        let with = if secure_boot { " with Secure Boot" } else { "" };
        let package = if machine.architecture == "aarch64" { "qemu-efi-aarch64" } else { "ovmf" };
        refused(plan, format!("no UEFI firmware{with} for {} is installed (package {package})", machine.architecture))
    })?;
    // Those of another firmware mean nothing to this one.
    let kind = files.variables.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let nvram = plan.root.join(format!("nvram.{kind}"));
    let made = (|| {
        if !nvram.exists() {
            let beside = plan.root.join("nvram.new");
            std::fs::copy(&files.variables, &beside)?;
            std::fs::rename(&beside, &nvram)?;
        }
        own(&nvram, owner)
    })();
    made.map_err(|error| {
        failed(plan, format!("failed to prepare its firmware's variables {}", nvram.display()), error)
    })?;
    view.show(&nvram, NVRAM, false);
    Ok(view.of_firmware(&files))
}

/// What the guest is told of itself, as JSON.
fn introduce(plan: &Plan, machine: &Machine) -> io::Result<Vec<u8>> {
    let files = |files: &[TemplateFile]| {
        let files = files.iter().cloned().map(|file| {
            let TemplateFile { path, content, uid, gid, mode, create_only } = file;
            IntroducedFile { path, content, uid, gid, mode, create_only }
        });
        files.collect::<Vec<_>>()
    };
    let introduction = Introduction {
        uuid: machine.uuid.clone(),
        name: plan.name.to_string(),
        create: files(&machine.templates.create),
        rename: files(&machine.templates.rename),
        start: files(&machine.templates.start),
    };
    Ok(serde_json::to_vec(&introduction)?)
}

/// Writes the drive that brings the guest its agent, a new key and its introduction; returns the key, which a later daemon
/// finds in the run directory.
fn prepare_config(
    plan: &Plan,
    machine: &Machine,
    agent: &Path,
    owner: u32,
    view: &mut View,
) -> Result<[u8; KEY_BYTES], DriverError> {
    let drive = plan.run_dir.join(DRIVE_FILE);
    let program = std::fs::read(agent)
        .map_err(|error| failed(plan, format!("failed to read the guest's agent {}", agent.display()), error))?;
    let mut key = [0; KEY_BYTES];
    let made = getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string())).and_then(|()| {
        let text = stapes_shim_api::to_hex(&key);
        let own_copy = plan.run_dir.join(KEY_FILE);
        std::fs::write(&own_copy, &text)?;
        std::fs::set_permissions(&own_copy, PermissionsExt::from_mode(0o600))?;
        let introduction = introduce(plan, machine)?;
        let entries = [
            Entry { name: AGENT_FILE, content: &program },
            Entry { name: KEY_FILE, content: text.as_bytes() },
            Entry { name: INTRODUCTION_FILE, content: &introduction },
        ];
        config_drive::write(&drive, &entries)?;
        own(&drive, owner)
    });
    made.map_err(|error| failed(plan, format!("failed to write its configuration drive {}", drive.display()), error))?;
    view.show(&drive, CONFIG_DRIVE, true);
    Ok(key)
}

/// Removes what [`prepare`] made for one run, and what came of it. Only when no machine runs from it.
pub fn clean_up(run_dir: &Path) {
    for name in SOCKETS.into_iter().chain([DRIVE_FILE, KEY_FILE, REBOOTING, BROKEN]) {
        let _ = std::fs::remove_file(run_dir.join(name));
    }
}

/// The key of a machine that runs.
pub fn read_key(run_dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let text = std::fs::read_to_string(run_dir.join(KEY_FILE))?;
    let bytes = stapes_shim_api::from_hex(text.trim()).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the agent's key is damaged"))
}
