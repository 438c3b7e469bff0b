//! The command lines that a plan becomes, given to a real QEMU: it takes each of them, and its monitor answers.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::io::FdFlags;
use serde_json::{Value, json};
use stapes_instance::{Accelerator, Disk, DiskBus, DiskFormat, Firmware, Machine, MachineProfile, Templates};
use stapes_model::ByteSize;
use stapes_qemu::{
    command::{Descriptors, Recipe, arguments},
    firmware,
    qmp::Monitor,
};
use stapes_testkit::{Need, host_with};

/// On a machine whose processors are all taken QEMU itself needs a while.
const PATIENCE: Duration = Duration::from_secs(60);

const QEMU: Need = Need::Tool("qemu-system-x86_64");

fn machine(firmware: Firmware) -> Machine {
    Machine {
        architecture: "x86_64".to_owned(),
        profile: MachineProfile::Full,
        firmware,
        accelerator: None,
        cpus: 1,
        max_cpus: 4,
        memory: ByteSize::mib(128),
        max_memory: ByteSize::gib(1),
        disks: Vec::new(),
        boot_nics: BTreeMap::new(),
        uuid: "6e1b2f6a-5a8e-4d55-9d2e-2f2a7f0a9a11".to_owned(),
        raw_arguments: Vec::new(),
        templates: Templates::default(),
    }
}

fn disk(dir: &Path, device: &str, bus: DiskBus) -> Disk {
    let source = dir.join(format!("{device}.img"));
    File::create(&source).unwrap().set_len(1 << 20).unwrap();
    Disk { device: device.to_owned(), source, format: DiskFormat::Raw, bus, read_only: false, boot_priority: None }
}

struct Qemu {
    child: Child,
    monitor: Monitor,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts QEMU stopped before its first instruction, with descriptors as the shim gives them.
fn start(dir: &Path, machine: &Machine) -> Qemu {
    let secure = matches!(machine.firmware, Firmware::Uefi { secure_boot: true });
    let files = firmware::find("x86_64", secure);
    let nvram = dir.join("nvram.fd");
    if let (Firmware::Uefi { .. }, Some(files)) = (&machine.firmware, &files) {
        std::fs::copy(&files.variables, &nvram).unwrap();
    }
    let drive = dir.join("config.img");
    File::create(&drive).unwrap().set_len(1 << 20).unwrap();
    let listen = |name: &str| OwnedFd::from(UnixListener::bind(dir.join(name)).unwrap());
    let sockets = [listen("monitor"), listen("events"), listen("agent")];
    let console = stapes_sys::pty::open("/dev/ptmx").unwrap();
    let inherited = |fd: &OwnedFd| {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).unwrap();
        fd.as_raw_fd() as u32
    };
    let fds = Descriptors {
        monitor: inherited(&sockets[0]),
        events: inherited(&sockets[1]),
        agent: inherited(&sockets[2]),
        console: inherited(&console.slave),
        taps: Vec::new(),
    };
    let recipe = Recipe {
        name: "v1, with a comma",
        machine,
        links: &[],
        accelerator: Accelerator::Tcg,
        firmware: files.as_ref(),
        nvram: &nvram,
        config_drive: Some(&drive),
        fds: &fds,
    };
    let words = arguments(&recipe);
    let log = dir.join("qemu.log");
    let child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let connected = UnixStream::connect(dir.join("monitor")).unwrap();
    match Monitor::open(connected.into(), PATIENCE) {
        Ok(monitor) => Qemu { child, monitor },
        Err(error) => panic!("{error}: {}\n{words:#?}", std::fs::read_to_string(&log).unwrap()),
    }
}

fn is_accepted(machine: &Machine) {
    let dir = tempfile::tempdir().unwrap();
    let mut qemu = start(dir.path(), machine);
    let status = qemu.monitor.execute("query-status", &Value::Null, PATIENCE).unwrap();
    assert_eq!(status["status"], "prelaunch", "nothing runs before it is told to: {status}");
}

#[test]
fn qemu_takes_a_machine_with_every_firmware() {
    let Some(_host) = host_with(&[QEMU]) else { return };
    is_accepted(&machine(Firmware::Bios));
    for secure_boot in [false, true] {
        assert!(firmware::find("x86_64", secure_boot).is_some(), "the package ovmf is not installed");
        is_accepted(&machine(Firmware::Uefi { secure_boot }));
    }
}

#[test]
fn qemu_takes_every_kind_of_disk() {
    let Some(_host) = host_with(&[QEMU]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let disks =
        [("root", DiskBus::VirtioScsi), ("data", DiskBus::VirtioBlk), ("fast", DiskBus::Nvme), ("cd", DiskBus::CdRom)];
    let disks = disks.map(|(device, bus)| disk(dir.path(), device, bus)).into();
    let mut qemu = start(dir.path(), &Machine { disks, ..machine(Firmware::Bios) });
    let blocks = qemu.monitor.execute("query-named-block-nodes", &json!({ "flat": true }), PATIENCE).unwrap();
    for device in ["root", "data", "fast", "cd", "config"] {
        let node = format!("disk-{device}");
        assert!(blocks.as_array().unwrap().iter().any(|block| block["node-name"] == node), "{node}: {blocks}");
    }
    let free = qemu.monitor.execute("qom-list", &json!({ "path": "/machine/peripheral" }), PATIENCE).unwrap();
    let ports = free.as_array().unwrap().iter().filter(|device| device["type"] == "child<pcie-root-port>").count();
    assert!(ports > stapes_qemu::command::SPARE_PORTS, "{free}");
}

#[test]
fn two_machines_never_open_one_disk() {
    let Some(_host) = host_with(&[QEMU]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let shared = disk(dir.path(), "root", DiskBus::VirtioBlk);
    let machine = Machine { disks: vec![shared], ..machine(Firmware::Bios) };
    let first = tempfile::tempdir().unwrap();
    let _first = start(first.path(), &machine);
    let second = tempfile::tempdir().unwrap();
    let refused = std::panic::catch_unwind(|| start(second.path(), &machine));
    assert!(refused.is_err());
    let log = std::fs::read_to_string(second.path().join("qemu.log")).unwrap();
    assert!(log.contains("lock"), "{log}");
}
