//! The virtual machine driver on real machines, under the container driver's shims and without a daemon.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use stapes_cgroup::Cgroups;
use stapes_container::{ContainerDriver, Settings};
use stapes_image::build::{self, BuildSpec};
use stapes_instance::{
    Asked, Disk, DiskBus, DiskFormat, Driver, DriverError, Event, ExecIo, ExecSpec, ExitReason, ExitStatus, FileReply,
    FileRequest, Firmware, GuestFile, Limits, Link, Machine, MachineProfile, Plan, Running, Security, Templates,
};
use stapes_model::{ByteSize, IdMap, IdRange, InstanceId, InstanceType};
use stapes_qemu::QemuDriver;
use stapes_sys::{loopdev, socket};
use stapes_testkit::{Need, binaries_dir, host_with};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Programs,
    Need::StaticBusybox,
    Need::DebianArchive,
    Need::Tool("qemu-img"),
    Need::Tool("sfdisk"),
    Need::Tool("mkfs.vfat"),
    Need::Tool("mcopy"),
    Need::Tool("qemu-system-x86_64"),
    Need::File("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "ovmf"),
];

/// A guest boots in 12 s without KVM where nobody else works, and other tests may have every processor.
const BOOT: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(180);

/// Two drivers, a directory and a parent group; all of it is gone at the end.
struct Host {
    dir: tempfile::TempDir,
    settings: Settings,
    containers: Arc<ContainerDriver>,
    driver: QemuDriver,
}

fn drivers(settings: &Settings) -> (Arc<ContainerDriver>, QemuDriver) {
    let containers = Arc::new(ContainerDriver::open(settings.clone()).unwrap());
    let agent = binaries_dir().join("stapes-agent");
    let driver = QemuDriver::open(stapes_qemu::Settings { agent }, Arc::clone(&containers) as _).unwrap();
    (containers, driver)
}

impl Host {
    fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("stapes-vm-").tempdir().unwrap();
        let settings = Settings {
            shim: binaries_dir().join("stapes-shim"),
            run_dir: dir.path().join("run"),
            cache_dir: dir.path().join("cache"),
            cgroup_parent: format!("stapes-test-{name}-{}", std::process::id()),
            warm: 1,
        };
        fs::create_dir(dir.path().join("run")).unwrap();
        let (containers, driver) = drivers(&settings);
        Self { dir, settings, containers, driver }
    }

    /// Another daemon's drivers, the first one's being gone.
    fn restart(&mut self) {
        (self.containers, self.driver) = drivers(&self.settings);
    }

    fn plan(&self, number: u64, secure_boot: bool) -> Plan {
        let id = InstanceId::from_bits(number);
        let place = |kind: &str| {
            let dir = self.dir.path().join(format!("{kind}-{id}"));
            fs::create_dir(&dir).unwrap();
            dir
        };
        let root = place("root");
        let disk = Disk {
            device: "root".to_owned(),
            source: root.join("root.img"),
            format: DiskFormat::Raw,
            bus: DiskBus::VirtioScsi,
            read_only: false,
            boot_priority: None,
        };
        let machine = Machine {
            architecture: "x86_64".to_owned(),
            profile: MachineProfile::Full,
            firmware: Firmware::Uefi { secure_boot },
            accelerator: None,
            cpus: 1,
            max_cpus: 1,
            memory: ByteSize::mib(512),
            max_memory: ByteSize::mib(512),
            disks: vec![disk],
            boot_nics: BTreeMap::new(),
            uuid: "6e1b2f6a-5a8e-4d55-9d2e-2f2a7f0a9a11".to_owned(),
            raw_arguments: Vec::new(),
            templates: Templates::default(),
        };
        Plan {
            id,
            name: "v1".parse().unwrap(),
            root,
            idmap: IdMap::Range(IdRange { base: 1_000_000 + number as u32 * 65_536, size: 65_536 }),
            run_dir: place("run"),
            log_dir: place("log"),
            init: None,
            environment: BTreeMap::new(),
            machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
            mounts: Vec::new(),
            nodes: Vec::new(),
            links: Vec::new(),
            limits: Limits { memory: Some(ByteSize::mib(512)), processes: Some(5), ..Limits::default() },
            machine: Some(machine),
            security: Security::default(),
        }
    }

    /// With the small image on its disk.
    fn bootable_plan(&self, number: u64, secure_boot: bool) -> Plan {
        let plan = self.plan(number, secure_boot);
        let disk = &plan.machine.as_ref().unwrap().disks[0].source;
        let image = image();
        let convert = ["convert", "-O", "raw", image.to_str().unwrap(), disk.to_str().unwrap()];
        let done = Command::new("qemu-img").args(convert).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        plan
    }

    /// Nothing named by the instance is left, or it is on its way out.
    fn assert_gone(&self, plan: &Plan) {
        let cgroups = Cgroups::open(&self.settings.cgroup_parent).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let sockets = || {
            let entries = fs::read_dir(&plan.run_dir).unwrap().flatten().map(|entry| entry.file_name());
            entries.filter(|name| name.to_string_lossy().ends_with(".sock")).collect::<Vec<_>>()
        };
        while cgroups.list().unwrap().contains(&plan.id.to_string()) || !sockets().is_empty() {
            assert!(Instant::now() < deadline, "left: {:?} {:?}", cgroups.list().unwrap(), sockets());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What a test that failed has left: a shim stays until its instance's end is taken.
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().strip_prefix("run-").and_then(|id| id.parse().ok());
            if let Some(id) = id
                && let Ok(Some(running)) = self.driver.adopt(&id, &entry.path())
            {
                let _ = running.kill();
                let deadline = Instant::now() + PATIENCE;
                while !matches!(running.next_event(), Some(Event::Exited { .. })) && Instant::now() < deadline {
                    let _ = socket::wait_readable(running.events_fd(), Duration::from_millis(100));
                }
                running.acknowledge_exit();
            }
        }
        self.driver.close();
        let _ = self.containers.sweep(&Default::default());
        self.containers.close();
        if std::thread::panicking() {
            // Whatever cannot be reached any more, a QEMU that hangs or a shim that lost it, sits in our groups.
            kill_members(&self.settings.cgroup_parent);
        }
        let left = Cgroups::open(&self.settings.cgroup_parent).and_then(|groups| {
            let deadline = Instant::now() + PATIENCE;
            while let Err(error) = groups.remove_parent() {
                if Instant::now() > deadline {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        assert!(left.is_ok() || std::thread::panicking(), "{left:?}");
    }
}

/// Kills what is in the groups of this name, in every hierarchy.
fn kill_members(parent: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut groups: Vec<_> = hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(parent)).collect();
    while let Some(group) = groups.pop() {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
            let _ = stapes_sys::process::kill(pid, 9);
        }
        let inner = fs::read_dir(&group).into_iter().flatten().flatten();
        groups
            .extend(inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
}

/// Built once per target directory: it takes some 10 s.
fn image() -> PathBuf {
    let cache_dir = binaries_dir().join("test-images");
    let spec = BuildSpec {
        release: String::new(),
        arch: "amd64".into(),
        kind: InstanceType::VirtualMachine,
        variant: String::new(),
        work_dir: cache_dir.join("work"),
        cache_dir,
        refresh: false,
    };
    build::busybox(&spec, &mut |_| {}).unwrap().rootfs.unwrap()
}

fn spec(script: &str) -> ExecSpec {
    ExecSpec {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
        uid: 0,
        gid: 0,
        cwd: None,
    }
}

fn null_io() -> ExecIo {
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    ExecIo::Streams { stdin: null(), stdout: null(), stderr: null() }
}

/// Waits for an event, looking whenever there is one.
fn wait_event(running: &dyn Running, patience: Duration, wanted: impl Fn(&Event) -> bool) -> Event {
    let deadline = Instant::now() + patience;
    loop {
        while let Some(event) = running.next_event() {
            if wanted(&event) {
                return event;
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no such event");
        socket::wait_readable(running.events_fd(), left).unwrap();
    }
}

fn exited(running: &dyn Running, patience: Duration) -> (ExitReason, ExitStatus) {
    let event = wait_event(running, patience, |event| matches!(event, Event::Exited { .. }));
    let Event::Exited { reason, status } = event else { unreachable!() };
    assert_eq!(running.next_event(), None, "it was the last");
    running.acknowledge_exit();
    (reason, status)
}

/// Waits until the agent answers, heeding events meanwhile as a daemon does; how long it took.
fn wait_agent(running: &dyn Running, plan: &Plan) -> Duration {
    let begun = Instant::now();
    loop {
        match running.exec_status(u64::from(u32::MAX >> 8)) {
            Ok(_) => return begun.elapsed(),
            Err(DriverError::Agent { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let event = running.next_event();
        assert!(event.is_none(), "{event:?}: {}", log(plan));
        assert!(begun.elapsed() < BOOT, "no agent: {}", log(plan));
        socket::wait_readable(running.events_fd(), Duration::from_millis(100)).unwrap();
    }
}

fn log(plan: &Plan) -> String {
    let read = |name: &str| fs::read(plan.log_dir.join(name)).unwrap_or_default();
    let [old, console, qemu] = ["console.log.old", "console.log", "qemu.log"].map(read);
    String::from_utf8_lossy(&[old, console, qemu].concat()).into_owned()
}

/// Runs a shell script with "input" on its standard input; its standard output and its exit.
fn output(running: &dyn Running, script: &str) -> (String, ExitStatus) {
    let (stdin, mut input) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    input.write_all(b"input\n").unwrap();
    drop(input);
    let stderr = File::options().write(true).open("/dev/null").unwrap();
    let io = ExecIo::Streams { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
    let exec = running.exec(&spec(script), io).unwrap().exec;
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (text, exec_end(running, exec))
}

fn exec_end(running: &dyn Running, exec: u64) -> ExitStatus {
    let event =
        wait_event(running, PATIENCE, |event| matches!(event, Event::ExecExited { exec: one, .. } if *one == exec));
    let Event::ExecExited { status, .. } = event else { unreachable!() };
    assert_eq!(running.exec_status(exec).unwrap(), Some(status));
    status
}

fn read_until(from: &mut File, wanted: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        assert!(socket::wait_readable(from.as_fd(), PATIENCE).unwrap(), "{wanted} after {seen:?}");
        let mut buffer = [0; 1024];
        let count = from.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

/// QEMU is a user of its own without rights, and sees nothing of the host's.
fn assert_confined(running: &dyn Running, plan: &Plan) {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let uid = plan.idmap.root();
    for line in [format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"), "CapEff:\t0000000000000000\n".to_owned()] {
        assert!(status.contains(&line), "{line} in {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
    let root = PathBuf::from(format!("/proc/{}/root", running.pid()));
    let mut names: Vec<_> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("lib"));
    names.sort();
    assert_eq!(names, ["dev", "disks", "etc", "machine", "usr"]);
}

#[test]
fn a_machine_boots_does_what_it_is_told_and_powers_off() {
    let Some(_) = host_with(NEEDS) else { return };
    let host = Host::new("vmrun");
    let plan = host.bootable_plan(1, true);
    let begun = Instant::now();
    let running = host.driver.start(&plan).unwrap();
    let started = begun.elapsed();
    assert_confined(&*running, &plan);
    let absent = running.exec(&spec("true"), null_io()).unwrap_err();
    assert!(matches!(&absent, DriverError::Agent { .. }), "{absent}");
    assert!(absent.to_string().contains("has the guest booted?"), "{absent}");
    let again = host.driver.start(&plan).err().unwrap().to_string();
    assert!(again.contains("running already"), "{again}");
    assert_eq!(running.request_shutdown().unwrap(), Asked::NotListening, "the firmware has no power button");
    let agent = wait_agent(&*running, &plan);
    println!("start returned after {started:?}, the agent answered {agent:?} later");
    assert!(log(&plan).contains("Secure boot enabled"), "{}", log(&plan));

    assert_eq!(output(&*running, "cat; id -u; exit 7"), ("input\n0\n".to_owned(), ExitStatus::Code(7)));
    let missing = running.exec(&ExecSpec { command: vec!["no-such-program".to_owned()], ..spec("") }, null_io());
    assert!(matches!(missing, Err(DriverError::Command { code: 127, .. })), "{missing:?}");
    let endless = running.exec(&spec("exec sleep 1000"), null_io()).unwrap();
    running.exec_signal(endless.exec, 15).unwrap();
    assert_eq!(exec_end(&*running, endless.exec), ExitStatus::Signal(15));
    a_pty_is_a_terminal(&*running);
    files_are_served(&*running);

    let mut console = File::from(running.console().unwrap());
    assert_eq!(output(&*running, "echo on-the-console > /dev/console").1, ExitStatus::Code(0));
    read_until(&mut console, "on-the-console");

    running.freeze().unwrap();
    assert!(running.is_frozen().unwrap());
    let frozen = running.exec(&spec("true"), null_io()).unwrap_err().to_string();
    assert!(frozen.contains("is frozen; resume it first"), "{frozen}");
    running.thaw().unwrap();
    assert!(!running.is_frozen().unwrap());
    assert_eq!(output(&*running, "echo again").0, "again\n");
    let usage = running.usage().unwrap();
    assert!(usage.cpu_nanoseconds > 1_000_000_000 && usage.processes > 1, "{usage:?}");

    assert_eq!(running.request_shutdown().unwrap(), Asked::Told);
    assert_eq!(exited(&*running, BOOT), (ExitReason::Halt, ExitStatus::Code(0)), "{}", log(&plan));
    assert!(matches!(running.freeze(), Err(DriverError::NotRunning { .. })));
    running.kill().unwrap();
    host.assert_gone(&plan);
}

fn a_pty_is_a_terminal(running: &dyn Running) {
    let io = ExecIo::Pty { columns: 91, rows: 17 };
    let script = "stty size; until stty size | grep -q '40 100'; do sleep 0.1; done; echo resized; \
                  read line; echo got $line; exit 5";
    let handle = running.exec(&spec(script), io).unwrap();
    let mut terminal = File::from(handle.pty.unwrap());
    read_until(&mut terminal, "17 91");
    stapes_sys::pty::resize(terminal.as_fd(), 100, 40).unwrap();
    read_until(&mut terminal, "resized");
    terminal.write_all(b"typed\n").unwrap();
    read_until(&mut terminal, "got typed");
    assert_eq!(exec_end(running, handle.exec), ExitStatus::Code(5));
}

fn files_are_served(running: &dyn Running) {
    let path = || "/tmp/new".to_owned();
    let done = |request: FileRequest| running.file(&request).unwrap();
    done(FileRequest::MakeDirectory { path: path(), uid: Some(7), gid: None, mode: Some(0o750) });
    let content = b"content".to_vec();
    done(FileRequest::Replace { path: "/tmp/new/file".into(), content, uid: 0, gid: 0, mode: 0o600 });
    let FileReply::Meta(meta) = done(FileRequest::Stat { path: path() }) else { panic!() };
    assert_eq!((meta.uid, meta.mode), (7, 0o750));
    let FileReply::Entries { entries, .. } = done(FileRequest::List { path: path() }) else { panic!() };
    assert_eq!((entries.len(), entries[0].0.as_str(), entries[0].1.size), (1, "file", 7));
    assert_eq!(output(running, "cat /tmp/new/file").0, "content");
    let FileReply::Opened { file: GuestFile::Remote(file), meta } =
        done(FileRequest::Read { path: "/tmp/new/file".into() })
    else {
        panic!()
    };
    assert_eq!((meta.size, file.read_at(100, 3).unwrap()), (7, b"tent".to_vec()));
    assert!(file.write_at(b"x", 0).is_err(), "it was opened to read");
    whole_files_are_put_in_place(running);
    done(FileRequest::Remove { path: path(), recursive: true });
    let gone = running.file(&FileRequest::Stat { path: path() }).unwrap_err();
    assert!(matches!(gone, DriverError::File { errno: 2, .. }), "{gone}");
}

fn whole_files_are_put_in_place(running: &dyn Running) {
    let path = || "/tmp/new/file".to_owned();
    let whole = FileRequest::WriteWhole { path: path(), uid: Some(3), gid: None, mode: Some(0o640) };
    let FileReply::Beside { file, .. } = running.file(&whole).unwrap() else { panic!() };
    let GuestFile::Remote(remote) = &file else { panic!() };
    let content: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
    remote.write_all_at(&content, 0).unwrap();
    assert_eq!(output(running, "cat /tmp/new/file").0, "content", "nothing changes before it is put in place");
    running.file(&FileRequest::PutInPlace { path: path(), file: file.clone() }).unwrap();
    assert_eq!(output(running, "stat -c '%u %a %s' /tmp/new/file").0, "3 640 300000\n");
    let read = running.file(&FileRequest::Read { path: path() }).unwrap();
    let FileReply::Opened { file: GuestFile::Remote(read), .. } = read else { panic!() };
    let mut back = Vec::new();
    read.read_piece(&mut back, 1 << 20, 0).unwrap();
    assert!(back == content);
    let host = GuestFile::Local(Arc::new(File::open("/dev/null").unwrap()));
    let other = running.file(&FileRequest::PutInPlace { path: path(), file: host }).unwrap_err();
    assert!(matches!(other, DriverError::File { errno: 18, .. }), "{other}");
}

#[test]
fn a_machine_outlives_its_drivers_and_its_shim_and_reboots() {
    let Some(_) = host_with(NEEDS) else { return };
    let mut host = Host::new("vmadopt");
    let plan = host.bootable_plan(2, false);
    let running = host.driver.start(&plan).unwrap();
    wait_agent(&*running, &plan);
    let exec = running.exec(&spec("sleep 3; exit 9"), null_io()).unwrap().exec;
    let pid = running.pid();
    drop(running);

    host.restart();
    let running = host.driver.adopt(&plan.id, &plan.run_dir).unwrap().unwrap();
    assert_eq!(running.pid(), pid);
    println!("the agent answers the next driver after {:?}", wait_agent(&*running, &plan));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = running.exec_status(exec).unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "an earlier daemon's command does not end");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status, ExitStatus::Code(9));
    assert_eq!(output(&*running, "echo still here").0, "still here\n");

    let shim = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = shim.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    stapes_sys::process::kill(shim, 9).unwrap();
    wait_event(&*running, PATIENCE, |event| *event == Event::ShimLost);
    // The handle of the lost shim is kept: what it held of the machine must be free all the same.
    let replaced = host.driver.adopt(&plan.id, &plan.run_dir).unwrap().unwrap();
    wait_agent(&*replaced, &plan);
    drop(running);
    assert_eq!(output(&*replaced, "echo back").0, "back\n");
    replaced.kill().unwrap();
    assert_eq!(exited(&*replaced, PATIENCE).0, ExitReason::Killed);
    host.assert_gone(&plan);

    // The same volume again; its guest asks for a reboot.
    let running = host.driver.start(&plan).unwrap();
    wait_agent(&*running, &plan);
    let _ = running.exec(&spec("reboot -f"), null_io());
    assert_eq!(exited(&*running, BOOT), (ExitReason::Reboot, ExitStatus::Code(0)), "{}", log(&plan));
    host.assert_gone(&plan);
}

#[test]
fn a_reboot_while_nobody_listens_is_done_by_the_machine_itself() {
    let Some(_) = host_with(NEEDS) else { return };
    let mut host = Host::new("vmreboot");
    let plan = host.bootable_plan(3, false);
    let running = host.driver.start(&plan).unwrap();
    wait_agent(&*running, &plan);
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let first = output(&*running, boot).0;
    running.exec(&spec("sleep 10; reboot -f"), null_io()).unwrap();
    let pid = running.pid();
    drop(running);
    host.restart();
    // Nobody adopts it until it has booted again.
    let deadline = Instant::now() + BOOT;
    let boots = || log(&plan).matches("Linux version").count();
    while boots() < 2 {
        assert!(Instant::now() < deadline, "{}", log(&plan));
        std::thread::sleep(Duration::from_millis(200));
    }
    let running = host.driver.adopt(&plan.id, &plan.run_dir).unwrap().unwrap();
    assert_eq!(running.pid(), pid);
    wait_agent(&*running, &plan);
    assert_ne!(output(&*running, boot).0, first);

    // An agent that hangs is waited for once, and then there is the power button, which a kernel listens to.
    running.exec(&spec("sleep 1; kill -STOP $(pidof stapes-agent)"), null_io()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while running.exec_status(1).is_ok() {
        assert!(Instant::now() < deadline, "the agent cannot be stopped");
        std::thread::sleep(Duration::from_millis(50));
    }
    let begun = Instant::now();
    assert_eq!(running.request_shutdown().unwrap(), Asked::Told);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    running.kill().unwrap();
    assert_eq!(exited(&*running, PATIENCE).0, ExitReason::Killed);
    host.assert_gone(&plan);
}

const INSIDE: &str = "STAPES_TEST_NETNS";

/// Firmware that finds nothing to boot is a guest too. In a network namespace of its own.
#[test]
fn a_machine_has_its_devices_and_its_end_is_told_to_whoever_comes_next() {
    let Some(_) = host_with(&[NEEDS, &[Need::Tool("unshare"), Need::Tool("ip")]].concat()) else { return };
    if std::env::var_os(INSIDE).is_none() {
        let test = "a_machine_has_its_devices_and_its_end_is_told_to_whoever_comes_next";
        let mut inside = Command::new("unshare");
        inside.arg("--net").arg(std::env::current_exe().unwrap()).args(["--exact", test]).env(INSIDE, "1");
        // Where the programs are is told from the place of the first.
        let done = inside.env("STAPES_TEST_BIN", binaries_dir()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        return;
    }
    let mut host = Host::new("vmlink");
    let link = Link {
        device: "eth0".to_owned(),
        host_name: "vmtest0".to_owned(),
        guest_name: "eth0".to_owned(),
        guest_index: 0,
        mac: [2, 0, 0, 0, 0, 9],
        mtu: None,
        bridge: None,
        addresses: Vec::new(),
        gateways: Vec::new(),
        gateway_mac: None,
    };
    let mut plan = Plan { links: vec![link], ..host.plan(5, false) };
    let disk = File::create(&plan.machine.as_ref().unwrap().disks[0].source).unwrap();
    disk.set_len(1 << 20).unwrap();
    let backing =
        File::options().create(true).truncate(true).read(true).write(true).open(host.dir.path().join("block"));
    let backing = backing.unwrap();
    backing.set_len(1 << 20).unwrap();
    let block = loopdev::attach(&backing, loopdev::Options { autoclear: true, ..Default::default() }).unwrap();
    let machine = plan.machine.as_mut().unwrap();
    let device = Disk {
        device: "block".to_owned(),
        source: block.path().to_owned(),
        bus: DiskBus::VirtioBlk,
        ..machine.disks[0].clone()
    };
    machine.disks.push(device);
    let interface = || {
        let shown = Command::new("ip").args(["-o", "link", "show", "vmtest0"]).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    for (profile, firmware) in
        [(MachineProfile::Full, Firmware::Uefi { secure_boot: false }), (MachineProfile::Micro, Firmware::Bios)]
    {
        let machine = plan.machine.as_mut().unwrap();
        (machine.profile, machine.firmware) = (profile, firmware);
        let running = host.driver.start(&plan).unwrap();
        assert!(interface().contains("LOWER_UP"), "QEMU holds it: {}", interface());
        let pid = running.pid();
        drop(running);
        host.restart();
        stapes_sys::process::kill(pid as i32, 9).unwrap();
        let running = host.driver.adopt(&plan.id, &plan.run_dir).unwrap().unwrap();
        assert_eq!(exited(&*running, PATIENCE), (ExitReason::Killed, ExitStatus::Signal(9)));
        assert!(running.request_shutdown().is_err() && interface().is_empty());
        assert!(host.driver.adopt(&plan.id, &plan.run_dir).unwrap().is_none());
        host.assert_gone(&plan);
    }
    block.detach().unwrap();
}

#[test]
fn a_machine_that_cannot_start_says_why_and_leaves_nothing() {
    let Some(_) = host_with(NEEDS) else { return };
    let host = Host::new("vmbad");
    let plan = host.plan(4, false);
    let error = |plan: &Plan| {
        let error = host.driver.start(plan).err().unwrap();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        host.assert_gone(plan);
        format!("{error}: {cause}")
    };
    let missing = error(&plan);
    assert!(missing.contains("root.img of device root: No such file"), "{missing}");
    fs::write(&plan.machine.as_ref().unwrap().disks[0].source, "short").unwrap();
    let with = |change: &dyn Fn(&mut Machine)| {
        let mut plan = plan.clone();
        change(plan.machine.as_mut().unwrap());
        error(&plan)
    };
    let broken = with(&|machine| machine.disks[0].format = DiskFormat::Qcow2);
    assert!(broken.contains("Image is not in qcow2 format"), "{broken}");
    let unknown = with(&|machine| machine.raw_arguments = vec!["-device".to_owned(), "no-such-device".to_owned()]);
    assert!(unknown.contains("'no-such-device' is not a valid device model name"), "{unknown}");
    let foreign = with(&|machine| machine.architecture = "m68k".to_owned());
    assert!(foreign.contains("qemu-system-m68k is not installed"), "{foreign}");
    let rights = Plan { idmap: IdMap::Privileged, ..plan.clone() };
    assert!(error(&rights).contains("needs a range of user ids"));
    let without = Plan { machine: None, ..plan.clone() };
    assert!(error(&without).contains("nothing of its hardware"));
    assert!(Path::new(&plan.root).exists());
}
