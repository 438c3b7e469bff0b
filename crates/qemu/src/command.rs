//! What a plan means to QEMU: its command line. Pure, so that every choice can be read and tested without a machine.
//!
//! QEMU opens nothing by itself that a guest could have a say in: sockets, terminals and network interfaces come as open
//! descriptors; disks are named by path, and its sandbox shows no other. Source: qemu-system(1), and for properties
//! `qemu-system-x86_64 -device NAME,help`.

use std::path::Path;

use stapes_instance::{Accelerator, Disk, DiskBus, DiskFormat, Firmware, Link, Machine, MachineProfile};

use crate::firmware::FirmwareFiles;

/// Root ports that are free at birth, for what is plugged in later.
pub const SPARE_PORTS: usize = 8;

/// Translated code that TCG keeps; its default of 1 GiB on a 64-bit host is memory that a small guest never needs.
const TCG_CACHE_MIB: u32 = 128;

/// Id of the agent's port, by which QEMU tells that it was opened.
pub const AGENT_PORT: &str = "agent-port";

/// Descriptors that QEMU is born with, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// Listening sockets of the two monitors.
    pub monitor: u32,
    pub events: u32,
    /// Listening socket of the agent's port.
    pub agent: u32,
    /// Slave of the console's terminal.
    pub console: u32,
    /// One tap interface a link, in order.
    pub taps: Vec<u32>,
}

/// Everything that the command line is made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    pub name: &'a str,
    pub machine: &'a Machine,
    pub links: &'a [Link],
    pub accelerator: Accelerator,
    /// Of UEFI.
    pub firmware: Option<&'a FirmwareFiles>,
    /// Writable variables of the firmware, the instance's own copy.
    pub nvram: &'a Path,
    /// A read-only file system with what the guest is told at birth.
    pub config_drive: Option<&'a Path>,
    pub fds: &'a Descriptors,
}

/// A list of arguments with a memory for bus addresses.
struct Line {
    words: Vec<String>,
    ports: usize,
    /// Boot order of everything that has a priority, first to last.
    boot: Vec<String>,
}

/// `recipe` as arguments; the first is the program's name.
pub fn arguments(recipe: &Recipe<'_>) -> Vec<String> {
    let mut line = Line { words: Vec::new(), ports: 0, boot: boot_order(recipe) };
    line.word(&format!("qemu-system-{}", recipe.machine.architecture));
    line.option("-name", &format!("{},debug-threads=on", escape(recipe.name)));
    line.option("-uuid", &recipe.machine.uuid);
    for flag in ["-nodefaults", "-no-user-config", "-S"] {
        line.word(flag);
    }
    line.option("-display", "none");
    // A guest that asks for a reset goes on in the same QEMU until its driver hears of it; one that panics has failed.
    line.option("-action", "reboot=reset,shutdown=poweroff,panic=exit-failure");
    line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    machine(&mut line, recipe);
    firmware(&mut line, recipe);
    channels(&mut line, recipe);
    if is_micro(recipe) {
        micro_devices(&mut line, recipe);
    } else {
        devices(&mut line, recipe);
    }
    line.words.extend(recipe.machine.raw_arguments.iter().cloned());
    line.words
}

fn is_micro(recipe: &Recipe<'_>) -> bool {
    recipe.machine.profile == MachineProfile::Micro
}

impl Line {
    fn word(&mut self, word: &str) {
        self.words.push(word.to_owned());
    }

    fn option(&mut self, name: &str, value: &str) {
        self.word(name);
        self.word(value);
    }

    fn device(&mut self, value: &str) {
        self.option("-device", value);
    }

    /// A root port of its own for a device that can be unplugged: eight share a slot.
    fn port(&mut self) -> String {
        let (slot, function) = (0x10 + self.ports / 8, self.ports % 8);
        let id = format!("port{}", self.ports);
        let first = if function == 0 { ",multifunction=on" } else { "" };
        self.device(&format!(
            "pcie-root-port,id={id},bus=pcie.0,chassis={},addr={slot:#x}.{function}{first}",
            self.ports + 1
        ));
        self.ports += 1;
        id
    }

    /// `,bootindex=N` where the device has a place in the boot order.
    fn boot_index(&self, device: &str) -> String {
        let place = self.boot.iter().position(|name| name == device);
        place.map_or_else(String::new, |place| format!(",bootindex={place}"))
    }
}

/// A comma ends an option's value unless it is doubled.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

/// Device names from first to last: by priority, then the root disk, other disks, NICs.
fn boot_order(recipe: &Recipe<'_>) -> Vec<String> {
    let disks = recipe.machine.disks.iter().enumerate().map(|(place, disk)| {
        (disk.boot_priority.unwrap_or(if disk.device == "root" { 1 } else { 0 }), 0, place, disk.device.clone())
    });
    let nics = recipe.links.iter().enumerate().map(|(place, link)| {
        (recipe.machine.boot_nics.get(&link.device).copied().unwrap_or(0), 1, place, link.device.clone())
    });
    let mut order: Vec<_> = disks.chain(nics).collect();
    order.sort_by_key(|(priority, kind, place, _)| (std::cmp::Reverse(*priority), *kind, *place));
    order.into_iter().map(|(.., device)| device).collect()
}

fn machine(line: &mut Line, recipe: &Recipe<'_>) {
    let machine = recipe.machine;
    let secure = matches!(machine.firmware, Firmware::Uefi { secure_boot: true });
    let board = match (machine.profile, machine.architecture.as_str()) {
        (MachineProfile::Micro, _) => "microvm,x-option-roms=off,isa-serial=on,rtc=on".to_owned(),
        (MachineProfile::Full, "x86_64") => format!("q35,vmport=off,smm={}", if secure { "on" } else { "off" }),
        (MachineProfile::Full, _) => "virt,gic-version=max".to_owned(),
    };
    line.option("-machine", &format!("{board},memory-backend=ram,dump-guest-core=off"));
    match recipe.accelerator {
        Accelerator::Kvm => {
            line.option("-accel", "kvm");
            line.option("-cpu", "host");
        }
        Accelerator::Tcg => {
            line.option("-accel", &format!("tcg,thread=multi,tb-size={TCG_CACHE_MIB}"));
            line.option("-cpu", "max");
        }
    }
    if secure {
        // Only code in system management mode may write the variables.
        line.option("-global", "driver=cfi.pflash01,property=secure,value=on");
    }
    let (cpus, most) = (machine.cpus, machine.max_cpus.max(machine.cpus));
    line.option("-smp", &format!("{cpus},maxcpus={most},sockets={most},cores=1,threads=1"));
    let (memory, most) = (machine.memory.as_bytes(), machine.max_memory.as_bytes());
    let room = if most > memory { format!(",slots=8,maxmem={most}b") } else { String::new() };
    line.option("-m", &format!("size={memory}b{room}"));
    // Shared, so that helpers of the vhost-user kind can serve it.
    line.option("-object", &format!("memory-backend-memfd,id=ram,size={memory},share=on"));
    line.option("-rtc", "base=utc,driftfix=none");
}

fn firmware(line: &mut Line, recipe: &Recipe<'_>) {
    match &recipe.machine.firmware {
        Firmware::Uefi { .. } => {
            let Some(files) = recipe.firmware else { return };
            let flash = |unit: u8, file: &Path, more: &str| {
                format!("if=pflash,unit={unit},format=raw,file={}{more}", escape(&file.to_string_lossy()))
            };
            line.option("-drive", &flash(0, &files.code, ",readonly=on"));
            line.option("-drive", &flash(1, recipe.nvram, ""));
        }
        Firmware::Bios => {}
        Firmware::Kernel { kernel, initrd, arguments } => {
            line.option("-kernel", &kernel.to_string_lossy());
            if let Some(initrd) = initrd {
                line.option("-initrd", &initrd.to_string_lossy());
            }
            // Under TCG a microvm has no clock that the kernel could measure its time stamp counter by.
            let blind = is_micro(recipe) && recipe.accelerator == Accelerator::Tcg;
            let hint = if blind { " tsc_early_khz=2000000" } else { "" };
            line.option("-append", &format!("{arguments}{hint}"));
        }
    }
}

/// Sockets and terminals, all of them open already.
fn channels(line: &mut Line, recipe: &Recipe<'_>) {
    let fds = recipe.fds;
    for (id, fd) in [("monitor", fds.monitor), ("events", fds.events)] {
        line.option("-chardev", &format!("socket,id={id},fd={fd},server=on,wait=off"));
        line.option("-mon", &format!("chardev={id},mode=control"));
    }
    line.option("-chardev", &format!("socket,id=agent,fd={},server=on,wait=off", fds.agent));
    line.option("-add-fd", &format!("fd={},set=1", fds.console));
    line.option("-chardev", "serial,id=console,path=/dev/fdset/1");
    line.option("-serial", "chardev:console");
    line.option("-object", "rng-random,id=entropy,filename=/dev/urandom");
}

/// Ports that loaders in official images look for before they start an agent, beside our own.
const LOADER_PORTS: [&str; 3] = ["org.linuxcontainers.incus", "org.linuxcontainers.lxd", "com.canonical.lxd"];

fn devices(line: &mut Line, recipe: &Recipe<'_>) {
    line.device("virtio-rng-pci,rng=entropy");
    line.device("virtio-balloon-pci,id=balloon,free-page-reporting=on,deflate-on-oom=on");
    line.device("virtio-serial-pci,id=serial");
    line.device(&format!(
        "virtserialport,id={AGENT_PORT},bus=serial.0,chardev=agent,name={}",
        stapes_agent_api::PORT_NAME
    ));
    for (number, name) in LOADER_PORTS.into_iter().enumerate() {
        line.option("-chardev", &format!("null,id=loader{number}"));
        line.device(&format!("virtserialport,bus=serial.0,chardev=loader{number},name={name}"));
    }
    if recipe.machine.architecture == "x86_64" {
        line.device("pvpanic");
    }
    line.device("vmgenid,guid=auto");
    if recipe.machine.disks.iter().any(|disk| matches!(disk.bus, DiskBus::VirtioScsi | DiskBus::CdRom)) {
        line.device("virtio-scsi-pci,id=scsi");
    }
    for disk in &recipe.machine.disks {
        self::disk(line, disk);
    }
    if let Some(drive) = recipe.config_drive {
        node(line, "config", drive, DiskFormat::Raw, true);
        line.device("virtio-blk-pci,drive=disk-config,serial=stapes-config");
    }
    for (link, tap) in recipe.links.iter().zip(&recipe.fds.taps) {
        let port = line.port();
        let boot = line.boot_index(&link.device);
        nic(line, link, *tap, &format!("virtio-net-pci,bus={port}{boot},romfile="));
    }
    for _ in 0..SPARE_PORTS {
        line.port();
    }
}

fn micro_devices(line: &mut Line, recipe: &Recipe<'_>) {
    line.device("virtio-rng-device,rng=entropy");
    line.device("virtio-balloon-device,id=balloon,free-page-reporting=on,deflate-on-oom=on");
    line.device("virtio-serial-device,id=serial");
    line.device(&format!(
        "virtserialport,id={AGENT_PORT},bus=serial.0,chardev=agent,name={}",
        stapes_agent_api::PORT_NAME
    ));
    for disk in &recipe.machine.disks {
        node(line, &disk.device, &disk.source, disk.format, disk.read_only);
        line.device(&format!("virtio-blk-device,id=dev-{0},drive=disk-{0}", disk.device));
    }
    if let Some(drive) = recipe.config_drive {
        node(line, "config", drive, DiskFormat::Raw, true);
        line.device("virtio-blk-device,drive=disk-config,serial=stapes-config");
    }
    for (link, tap) in recipe.links.iter().zip(&recipe.fds.taps) {
        nic(line, link, *tap, "virtio-net-device");
    }
}

/// The block node of a disk: not flushed by QEMU's own choice, never more careless than the guest asks.
fn node(line: &mut Line, device: &str, source: &Path, format: DiskFormat, read_only: bool) {
    let driver = match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    };
    // A disk beneath /dev is a device, which the driver of files refuses.
    let protocol = if source.starts_with("/dev") { "host_device" } else { "file" };
    let node = serde_json::json!({
        "node-name": format!("disk-{device}"),
        "driver": driver,
        "read-only": read_only,
        "discard": "unmap",
        "detect-zeroes": if read_only { "off" } else { "unmap" },
        "file": {
            "driver": protocol,
            "filename": source,
            "read-only": read_only,
            "discard": "unmap",
            "aio": "threads",
            "cache": { "direct": false, "no-flush": false },
            "locking": "on",
        },
    });
    line.option("-blockdev", &node.to_string());
}

fn disk(line: &mut Line, disk: &Disk) {
    node(line, &disk.device, &disk.source, disk.format, disk.read_only);
    let (device, boot) = (&disk.device, line.boot_index(&disk.device));
    // The guest finds the device by this name in /dev/disk/by-id.
    let serial: String = device.chars().take(20).collect();
    match disk.bus {
        DiskBus::VirtioScsi => line.device(&format!(
            "scsi-hd,id=dev-{device},bus=scsi.0,drive=disk-{device},device_id=stapes_{serial},serial={serial}{boot}"
        )),
        DiskBus::CdRom => line.device(&format!("scsi-cd,id=dev-{device},bus=scsi.0,drive=disk-{device}{boot}")),
        DiskBus::VirtioBlk => {
            let port = line.port();
            line.device(&format!(
                "virtio-blk-pci,id=dev-{device},bus={port},drive=disk-{device},serial={serial}{boot}"
            ));
        }
        DiskBus::Nvme => {
            let port = line.port();
            line.device(&format!("nvme,id=dev-{device},bus={port},drive=disk-{device},serial={serial}{boot}"));
        }
    }
}

fn nic(line: &mut Line, link: &Link, tap: u32, device: &str) {
    let mac: Vec<_> = link.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    line.option("-netdev", &format!("tap,id=net-{},fd={tap},vhost=off", link.device));
    let mtu = link.mtu.map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
    line.device(&format!("{device},id=dev-{0},netdev=net-{0},mac={1}{mtu}", link.device, mac.join(":")));
}
