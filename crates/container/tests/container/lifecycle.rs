//! The driver on real containers: busybox and, where a Debian root is given, systemd. Needs root.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use crate::support::{Host, exec_output, spec, wait_event};
use stapes_instance::{
    Asked, Driver, DriverError, Event, ExecIo, ExecSpec, ExitReason, ExitStatus, FileKind, FileReply, FileRequest,
    GuestFile, Running, SpawnService, WriteMode,
};

#[test]
fn a_guest_that_takes_the_group_of_commands_away_keeps_none_out() {
    let Some(host) = Host::new("leaf") else { return };
    let running = host.driver.start(&host.busybox_plan(4)).unwrap();
    let tree = exec_output(&*running, "grep -m1 cgroup2 /proc/mounts | cut -d' ' -f2").0;
    if tree.is_empty() {
        eprintln!("SKIP a_guest_that_takes_the_group_of_commands_away_keeps_none_out: needs version 2 control groups");
        return;
    }
    let take = format!("cd {} && echo $$ > cgroup.procs && rmdir .stapes && mkdir .stapes && echo taken", tree.trim());
    assert_eq!(exec_output(&*running, &take), ("taken\n".into(), ExitStatus::Code(0)));
    let seen = exec_output(&*running, "cat /proc/self/cgroup");
    assert!(seen.0.contains("0::/.stapes-1\n"), "{seen:?}");
    running.kill().unwrap();
}

#[test]
fn a_busybox_container_starts_runs_commands_and_is_killed() {
    let Some(host) = Host::new("basic") else { return };
    let plan = host.busybox_plan(1);
    let running = host.driver.start(&plan).unwrap();
    assert_eq!(
        exec_output(&*running, "echo hello; id -u; hostname; exit 7"),
        ("hello\n0\nc1\n".into(), ExitStatus::Code(7))
    );
    let seen = exec_output(&*running, "cat > /tmp/x && cat /tmp/x; ls /dev; cat /proc/1/comm; cat /proc/self/cgroup").0;
    for wanted in ["input", "null", "console", "init", "0::/.stapes"] {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
    let again = host.driver.start(&plan).err().unwrap();
    assert!(again.to_string().contains("running already"), "{again}");
    running.kill().unwrap();
    let Event::Exited { reason, status } = wait_event(&*running, |event| matches!(event, Event::Exited { .. })) else {
        panic!()
    };
    assert_eq!((reason, status), (ExitReason::Killed, ExitStatus::Signal(9)));
    running.kill().unwrap();
    // The same id at once again: the groups of the first run are on their way out.
    let second = host.driver.start(&plan).unwrap();
    assert_eq!(exec_output(&*second, "true").1, ExitStatus::Code(0));
    second.kill().unwrap();
    wait_event(&*second, |event| matches!(event, Event::Exited { .. }));
    host.assert_gone(&plan);
}

#[test]
fn commands_that_cannot_be_executed_say_what_a_shell_would() {
    let Some(host) = Host::new("notfound") else { return };
    let plan = host.busybox_plan(2);
    let running = host.driver.start(&plan).unwrap();
    let failure = |command: &[&str], cwd: Option<&str>| {
        let spec = ExecSpec { cwd: cwd.map(str::to_owned), ..spec(command) };
        match running.exec(&spec, crate::support::null_io()) {
            Err(DriverError::Command { code, reason, .. }) => (code, reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failure(&["no-such-program"], None).0, 127);
    assert_eq!(failure(&["/no/such"], None).0, 127);
    assert_eq!(failure(&["/etc/inittab"], None).0, 126);
    assert!(failure(&["true"], Some("/nowhere")).1.contains("/nowhere"));
    assert_eq!(exec_output(&*running, "true").1, ExitStatus::Code(0));
    let many: Vec<_> =
        (0..40).map(|_| running.exec(&spec(&["true"]), crate::support::null_io()).unwrap().exec).collect();
    for exec in many {
        crate::support::wait_status(&*running, exec);
    }
}

#[test]
fn a_pty_is_the_commands_terminal_and_can_be_resized() {
    let Some(host) = Host::new("pty") else { return };
    let running = host.driver.start(&host.busybox_plan(3)).unwrap();
    let handle = running
        .exec(
            &spec(&["sh", "-c", "tty; stty size; read x; stty size; echo $TERM"]),
            ExecIo::Pty { columns: 100, rows: 30 },
        )
        .unwrap();
    let mut pty = std::fs::File::from(handle.pty.unwrap());
    let first = crate::support::read_until(&mut pty, "30 100");
    assert!(first.contains("/dev/pts/"), "{first}");
    stapes_sys::pty::resize(pty.as_fd(), 120, 40).unwrap();
    pty.write_all(b"\n").unwrap();
    crate::support::read_until(&mut pty, "xterm-256color");
    assert_eq!(crate::support::wait_status(&*running, handle.exec), ExitStatus::Code(0));
    let sleeper = running.exec(&spec(&["sleep", "100"]), crate::support::null_io()).unwrap();
    running.exec_signal(sleeper.exec, 15).unwrap();
    assert_eq!(crate::support::wait_status(&*running, sleeper.exec), ExitStatus::Signal(15));
}

#[test]
fn the_console_is_logged_and_mirrored() {
    let Some(host) = Host::new("console") else { return };
    let plan = host.busybox_plan(4);
    let running = host.driver.start(&plan).unwrap();
    let mut one = std::fs::File::from(running.console().unwrap());
    let mut two = std::fs::File::from(running.console().unwrap());
    exec_output(&*running, "echo seen-by-all > /dev/console");
    crate::support::read_until(&mut one, "seen-by-all");
    crate::support::read_until(&mut two, "seen-by-all");
    drop((one, two));
    crate::support::wait_booted(&plan);
    let log = std::fs::read_to_string(plan.log_dir.join("console.log")).unwrap();
    assert!(log.contains("booted") && log.contains("seen-by-all"), "{log}");
}

#[test]
fn files_are_served_and_links_do_not_lead_outside() {
    let Some(host) = Host::new("files") else { return };
    let plan = host.busybox_plan(5);
    std::fs::write(host.dir.join("secret"), "host").unwrap();
    let running = host.driver.start(&plan).unwrap();
    let check = |ask: &dyn Fn(FileRequest) -> Result<FileReply, DriverError>| {
        let path = |path: &str| path.to_owned();
        let write = FileRequest::Write {
            path: path("/root/a"),
            how: WriteMode::Overwrite,
            uid: Some(5),
            gid: None,
            mode: Some(0o640),
        };
        let FileReply::Opened { file: GuestFile::Local(file), meta } = ask(write).unwrap() else { panic!() };
        assert_eq!((meta.uid, meta.gid, meta.mode), (5, 0, 0o640));
        (&*file).write_all(b"text").unwrap();
        let FileReply::Opened { file: GuestFile::Local(file), meta } =
            ask(FileRequest::Read { path: path("/root/a") }).unwrap()
        else {
            panic!()
        };
        let mut text = String::new();
        (&*file).read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), meta.size), ("text", 4));
        ask(FileRequest::MakeDirectory { path: path("/root/d"), uid: None, gid: None, mode: None }).unwrap();
        ask(FileRequest::MakeDirectory { path: path("/root/d"), uid: None, gid: None, mode: None }).unwrap();
        let target = format!("../../../../../../..{}", host.dir.join("secret").display());
        ask(FileRequest::MakeSymlink { path: path("/root/d/l"), target: target.clone(), uid: None, gid: None })
            .unwrap();
        assert!(
            matches!(ask(FileRequest::Read { path: path("/root/d/l") }).unwrap(), FileReply::Link { target: found, .. } if found == target)
        );
        ask(FileRequest::MakeSymlink { path: path("/root/out"), target: path("/../../.."), uid: None, gid: None })
            .unwrap();
        for escape in [
            format!("/root/out{}", host.dir.join("secret").display()),
            format!("/..{}", host.dir.join("secret").display()),
        ] {
            let error = ask(FileRequest::Stat { path: escape.clone() }).err().unwrap();
            assert!(matches!(error, DriverError::File { errno: 2, .. }), "{escape}: {error:?}");
        }
        let replace =
            FileRequest::Replace { path: path("/root/r"), content: b"new".to_vec(), uid: 1, gid: 2, mode: 0o600 };
        ask(replace).unwrap();
        let FileReply::Meta(meta) = ask(FileRequest::Stat { path: path("/root/r") }).unwrap() else { panic!() };
        assert_eq!((meta.kind, meta.uid, meta.gid, meta.mode, meta.size), (FileKind::File, 1, 2, 0o600, 3));
        let FileReply::Listed { names, .. } = ask(FileRequest::Read { path: path("/root") }).unwrap() else { panic!() };
        assert_eq!(names, ["a", "d", "out", "r"]);
        let error = ask(FileRequest::Remove { path: path("/root/d"), recursive: false }).err().unwrap();
        assert!(matches!(error, DriverError::File { errno: 39, .. }), "{error:?}");
        for name in names {
            ask(FileRequest::Remove { path: format!("/root/{name}"), recursive: true }).unwrap();
        }
        let error = ask(FileRequest::Read { path: path("/root/a") }).err().unwrap();
        assert!(matches!(error, DriverError::File { errno: 2, .. }), "{error:?}");
    };
    check(&|request| running.file(&request));
    running.kill().unwrap();
    check(&|request| host.driver.files_offline(&plan.root, &request));
    assert_eq!(std::fs::read_to_string(host.dir.join("secret")).unwrap(), "host");
}

#[test]
fn a_frozen_container_stands_still_and_can_be_killed() {
    let Some(host) = Host::new("freeze") else { return };
    let plan = host.busybox_plan(6);
    let running = host.driver.start(&plan).unwrap();
    exec_output(&*running, "(while :; do echo x >> /tmp/ticks; sleep 0.02; done) > /dev/null 2>&1 &");
    running.freeze().unwrap();
    assert!(running.is_frozen().unwrap());
    let size = || std::fs::metadata(plan.root.join("tmp/ticks")).map_or(0, |meta| meta.len());
    let before = size();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(size(), before);
    assert!(running.exec(&spec(&["true"]), crate::support::null_io()).is_err());
    running.thaw().unwrap();
    assert_eq!(exec_output(&*running, "true").1, ExitStatus::Code(0));
    assert!(running.usage().unwrap().processes >= 2);
    running.freeze().unwrap();
    running.kill().unwrap();
}

#[test]
fn init_says_why_it_ended() {
    let Some(host) = Host::new("reason") else { return };
    for (number, command, wanted) in [(7, "reboot", ExitReason::Reboot), (8, "poweroff", ExitReason::Halt)] {
        let plan = host.busybox_plan(number);
        let running = host.driver.start(&plan).unwrap();
        crate::support::wait_booted(&plan);
        exec_output(&*running, command);
        let event = wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
        assert!(matches!(event, Event::Exited { reason, .. } if reason == wanted), "{command}: {event:?}");
    }
    let plan = host.busybox_plan(9);
    let running = host.driver.start(&plan).unwrap();
    // Init was executed and has hardly run: it would lose a signal.
    while matches!(running.request_shutdown(), Ok(Asked::NotListening)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let event = wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    assert!(matches!(event, Event::Exited { reason: ExitReason::Halt, .. }), "{event:?}");
}

#[test]
fn an_init_that_is_missing_or_leaves_at_once_is_reported() {
    let Some(host) = Host::new("missing") else { return };
    let mut plan = host.busybox_plan(10);
    plan.init = Some(vec!["/no/init".into()]);
    let error = host.driver.start(&plan).err().unwrap();
    assert!(error.to_string().contains("/no/init"), "{error}");
    host.assert_gone(&plan);
    plan.init = Some(vec!["/bin/true".into()]);
    let running = host.driver.start(&plan).unwrap();
    let event = wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    assert_eq!(event, Event::Exited { reason: ExitReason::Halt, status: ExitStatus::Code(0) });
}

#[test]
fn a_second_driver_adopts_what_the_first_left() {
    let Some(mut host) = Host::new("adopt") else { return };
    let plan = host.busybox_plan(11);
    let running = host.driver.start(&plan).unwrap();
    let exec = running.exec(&spec(&["sh", "-c", "sleep 0.3; exit 9"]), crate::support::null_io()).unwrap().exec;
    let pid = running.pid();
    drop(running);
    host.restart_driver();
    let running = host.driver.adopt(&plan.id, &plan.run_dir).unwrap().unwrap();
    assert_eq!(running.pid(), pid);
    assert_eq!(crate::support::wait_status(&*running, exec), ExitStatus::Code(9));
    assert_eq!(exec_output(&*running, "echo still here").0, "still here\n");
    drop(running);
    // It ends with nobody listening: the next one is told.
    stapes_sys::process::kill(pid as i32, 9).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    host.restart_driver();
    let running = host.driver.adopt(&plan.id, &plan.run_dir).unwrap().unwrap();
    let event = wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    assert!(matches!(event, Event::Exited { reason: ExitReason::Killed, .. }), "{event:?}");
    assert!(host.driver.adopt(&plan.id, &plan.run_dir).unwrap().is_none());
    host.assert_gone(&plan);
}

#[test]
fn a_killed_shim_is_noticed_and_replaced() {
    let Some(host) = Host::new("lost") else { return };
    let plan = host.busybox_plan(12);
    let running = host.driver.start(&plan).unwrap();
    let pid = running.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    stapes_sys::process::kill(shim, 9).unwrap();
    assert_eq!(wait_event(&*running, |_| true), Event::ShimLost);
    assert!(running.exec(&spec(&["true"]), crate::support::null_io()).is_err());
    let replaced = host.driver.adopt(&plan.id, &plan.run_dir).unwrap().unwrap();
    assert_eq!(replaced.pid(), pid);
    assert_eq!(exec_output(&*replaced, "echo back").0, "back\n");
    let mut console = std::fs::File::from(replaced.console().unwrap());
    exec_output(&*replaced, "echo on-console > /dev/console");
    crate::support::read_until(&mut console, "on-console");
    replaced.freeze().unwrap();
    replaced.kill().unwrap();
    let event = wait_event(&*replaced, |event| matches!(event, Event::Exited { .. }));
    assert!(matches!(event, Event::Exited { reason: ExitReason::Killed, .. }), "{event:?}");
    host.assert_gone(&plan);
}

#[test]
fn many_start_and_end_side_by_side() {
    let Some(host) = Host::new("parallel") else { return };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let host = &host;
            scope.spawn(move || {
                let plan = host.busybox_plan(100 + thread);
                for round in 0..3 {
                    let running = host.driver.start(&plan).unwrap();
                    let text = format!("{thread} {round}\n");
                    assert_eq!(exec_output(&*running, &format!("echo {}", text.trim())), (text, ExitStatus::Code(0)));
                    running.kill().unwrap();
                    wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
                }
                host.assert_gone(&plan);
            });
        }
    });
}

#[test]
fn services_are_kept_by_the_nursery() {
    let Some(mut host) = Host::new("services") else { return };
    let argv = |seconds: &str| vec!["sleep".to_owned(), seconds.to_owned()];
    let first = host.driver.ensure_service("one", &argv("1000")).unwrap();
    assert_eq!(host.driver.ensure_service("one", &argv("1000")).unwrap(), first);
    host.restart_driver();
    assert_eq!(host.driver.services().unwrap(), ["one"]);
    assert_ne!(host.driver.ensure_service("one", &argv("1001")).unwrap(), first);
    host.driver.signal_service("one", 15).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !host.driver.services().unwrap().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(host.driver.services().unwrap().is_empty());
    assert!(host.driver.ensure_service("two", &["/no/such/service".to_owned()]).is_err());
    host.driver.stop_service("two").unwrap();
}

#[test]
fn systemd_boots() {
    let Some(host) = Host::new("systemd") else { return };
    let Some(plan) = host.debian_plan(13) else { return };
    let running = host.driver.start(&plan).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let state = loop {
        let (state, _) = exec_output(&*running, "systemctl is-system-running 2>&1");
        if ["running\n", "degraded\n"].contains(&state.as_str()) {
            break state;
        }
        if Instant::now() > deadline {
            let log = std::fs::read_to_string(plan.log_dir.join("console.log")).unwrap_or_default();
            panic!("{state}\n{log}");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let failed = exec_output(&*running, "systemctl --failed --no-legend --plain").0;
    println!("systemd: {state}{failed}");
    assert_eq!(running.request_shutdown().unwrap(), Asked::Told);
    let event = wait_event(&*running, |event| matches!(event, Event::Exited { .. }));
    assert!(matches!(event, Event::Exited { reason: ExitReason::Halt, .. }), "{event:?}");
}

/// The embryo of an instance: a child of the shim, as init is.
fn embryos_of(running: &dyn Running) -> Vec<i32> {
    let parent = |pid: u32| -> Option<String> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(status.lines().find(|line| line.starts_with("PPid:"))?.to_owned())
    };
    let shim = parent(running.pid()).unwrap();
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "stapes-embryo" && parent(*pid).as_ref() == Some(&shim)
    })
    .map(|pid| pid as i32)
    .collect()
}

#[test]
fn commands_run_after_their_embryo_was_killed_and_no_other_comes_unasked() {
    let Some(host) = Host::new("embryo") else { return };
    let running = host.driver.start(&host.busybox_plan(1)).unwrap();
    let before = embryos_of(&*running);
    assert_eq!(before.len(), 1);
    stapes_sys::process::kill(before[0], 9).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while embryos_of(&*running).contains(&before[0]) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(embryos_of(&*running).is_empty(), "whoever sweeps the group would find it");
    assert_eq!(exec_output(&*running, "echo hello").0, "hello\n");
    assert_eq!(embryos_of(&*running).len(), 1);
    running.kill().unwrap();
}
