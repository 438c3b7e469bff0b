//! Programs of the host's in the place of containers.

use std::{
    fs,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use stapes_instance::{
    DeviceNode, DriverError, Event, ExitReason, ExitStatus, Limits, Mount, ProgramPlan, Rlimit, Running, Supervise,
};
use stapes_model::InstanceId;
use stapes_sys::pty;

use crate::support::{Host, null_io, read_until, spec, wait_event};

fn view(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        device: "test".to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
        recursive: false,
        shift: false,
        optional: false,
    }
}

fn node(name: &str, major: u32, minor: u32) -> DeviceNode {
    let (source, target) = (PathBuf::from("/nowhere"), format!("/dev/{name}"));
    let device = "test".to_owned();
    DeviceNode { device, source, target, block: false, major, minor, mode: 0o600, uid: 54321, gid: 54322 }
}

/// A shell of busybox's that sees itself, two device nodes and a file.
fn plan(host: &Host, number: u64, script: &str) -> ProgramPlan {
    let id = InstanceId::from_bits(number);
    let (run_dir, log_dir) = (host.dir.join(format!("run-{id}")), host.dir.join(format!("log-{id}")));
    for dir in [&run_dir, &log_dir] {
        fs::create_dir_all(dir).unwrap();
    }
    let file = host.dir.join(format!("file-{number}"));
    fs::write(&file, "of the host").unwrap();
    rustix::fs::chown(&file, Some(rustix::fs::Uid::from_raw(54321)), None).unwrap();
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists()).unwrap();
    ProgramPlan {
        id,
        name: "shell".to_owned(),
        path: "/usr/bin/busybox".to_owned(),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        environment: [("WORD".to_owned(), "kept".to_owned())].into(),
        uid: 54321,
        gid: 54322,
        view: vec![
            view(busybox, "/usr/bin/busybox", true),
            view(&file, "/deep/er/file", false),
            Mount { optional: true, ..view(Path::new("/nonexistent"), "/nothing", true) },
        ],
        // Of /dev/urandom, and of one that nobody may open without being named in its group.
        nodes: [("urandom", 1, 9), ("loop-control", 10, 237)]
            .map(|(name, major, minor)| node(name, major, minor))
            .into(),
        links: vec![("/bin".to_owned(), "usr/bin".to_owned())],
        run_dir,
        log_dir,
        limits: Limits {
            rlimits: vec![Rlimit { name: "core".to_owned(), soft: Some(0), hard: Some(0) }],
            ..Limits::default()
        },
    }
}

fn launch(host: &Host, plan: &ProgramPlan, fds: Vec<OwnedFd>) -> Result<std::sync::Arc<dyn Running>, DriverError> {
    let console = pty::open("/dev/ptmx").unwrap();
    let fds = [console.slave].into_iter().chain(fds).collect();
    host.driver.launch(plan, console.master, fds)
}

fn exited(running: &dyn Running) -> (ExitReason, ExitStatus) {
    match wait_event(running, |event| matches!(event, Event::Exited { .. })) {
        Event::Exited { reason, status } => (reason, status),
        _ => unreachable!(),
    }
}

#[test]
fn a_program_has_its_descriptors_and_its_view_and_no_rights() {
    let Some(host) = Host::new("program") else { return };
    let script = "b=/bin/busybox; $b id; $b grep -E 'Cap|NoNewPrivs|Groups' /proc/self/status; $b echo $WORD $$; \
                  $b ls / /deep/er; $b cat /deep/er/file; $b echo changed > /deep/er/file; $b echo x > /x; \
                  $b head -c 4 /dev/urandom | $b wc -c; $b echo to-the-console >&3; $b echo to-the-pipe >&4; \
                  $b echo none >&5; : < /dev/loop-control && $b echo opened; $b ls -n /dev; $b sleep 0.1; exit 7";
    let plan = plan(&host, 40, script);
    let (mut output, theirs) = std::io::pipe().unwrap();
    let running = launch(&host, &plan, vec![theirs.into()]).unwrap();
    assert_eq!(exited(&*running), (ExitReason::Halt, ExitStatus::Code(7)));
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "to-the-pipe\n");
    let log = fs::read_to_string(plan.log_dir.join("shell.log")).unwrap();
    for wanted in ["uid=54321 gid=54322\n", "kept 1", "/deep/er:\nfile\n", "of the host", "\n4\n"] {
        assert!(log.contains(wanted), "{wanted} in {log}");
    }
    assert!(log.contains("/:\nbin\ndeep\ndev\nusr\n"), "nothing else of the host is seen: {log}");
    assert!(log.contains("opened\n") && log.contains("54321    54322"), "its own nodes: {log}");
    assert!(log.contains("/x: Read-only file system") && log.contains("5: Bad file descriptor"), "{log}");
    let file = fs::read_to_string(host.dir.join("file-40")).unwrap();
    assert_eq!(file, "changed\n");
    assert!(fs::read_to_string(plan.log_dir.join("console.log")).unwrap().contains("to-the-console"));
    let usual = host.busybox_plan(40);
    host.assert_gone(&usual);
}

#[test]
fn a_program_cannot_have_capabilities() {
    let Some(host) = Host::new("programcaps") else { return };
    let plan = plan(&host, 41, "/bin/busybox sleep 1000");
    let running = launch(&host, &plan, Vec::new()).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{name}:\t0000000000000000\n")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Groups:\t \n"), "{status}");
    let links = fs::read_to_string(format!("/proc/{}/net/dev", running.pid())).unwrap();
    assert_eq!(links.lines().skip(2).count(), 1, "a loopback and no other interface: {links}");
    assert!(launch(&host, &plan, Vec::new()).err().unwrap().to_string().contains("running already"));
    let refused = running.exec(&spec(&["true"]), null_io()).unwrap_err().to_string();
    assert!(refused.contains("nothing is done inside"), "{refused}");
    running.kill().unwrap();
    assert_eq!(exited(&*running), (ExitReason::Killed, ExitStatus::Signal(9)));
    host.assert_gone(&host.busybox_plan(41));
}

#[test]
fn a_program_that_cannot_be_executed_is_named() {
    let Some(host) = Host::new("programbad") else { return };
    let fine = plan(&host, 42, "true");
    let missing = ProgramPlan { path: "/bin/nothing".to_owned(), ..fine.clone() };
    let error = launch(&host, &missing, Vec::new()).err().unwrap().to_string();
    assert!(error.contains("failed to execute /bin/nothing: No such file"), "{error}");
    let gone = host.dir.join("gone");
    let blind = ProgramPlan { view: vec![view(&gone, "/gone", true)], ..fine };
    let error = launch(&host, &blind, Vec::new()).err().unwrap().to_string();
    assert!(error.contains(&format!("failed to open {}", gone.display())), "{error}");
    host.assert_gone(&host.busybox_plan(42));
}

#[test]
fn a_program_outlives_its_driver_and_its_shim() {
    let Some(mut host) = Host::new("programadopt") else { return };
    let plan = plan(&host, 43, "while read line; do /bin/busybox echo heard $line; done <&3 >&3");
    let running = launch(&host, &plan, Vec::new()).unwrap();
    let pid = running.pid();
    drop(running);
    host.restart_driver();
    let running = Supervise::adopt(&host.driver, &plan.id, &plan.run_dir).unwrap().unwrap();
    assert_eq!(running.pid(), pid);
    let mut console = fs::File::from(running.console().unwrap());
    std::io::Write::write_all(&mut console, b"one\n").unwrap();
    read_until(&mut console, "heard one");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    stapes_sys::process::kill(shim, 9).unwrap();
    assert_eq!(wait_event(&*running, |_| true), Event::ShimLost);
    let replaced = Supervise::adopt(&host.driver, &plan.id, &plan.run_dir).unwrap().unwrap();
    let mut console = fs::File::from(replaced.console().unwrap());
    std::io::Write::write_all(&mut console, b"two\n").unwrap();
    read_until(&mut console, "heard two");
    replaced.kill().unwrap();
    assert_eq!(exited(&*replaced).0, ExitReason::Killed);
    host.assert_gone(&host.busybox_plan(43));
}
