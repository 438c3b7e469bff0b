//! The real agent, as root, on a Unix socket in place of the port.
#![forbid(unsafe_code)]

mod host;

use std::{
    os::unix::{net::UnixDatagram, process::CommandExt},
    process::Command,
    time::{Duration, Instant},
};

use host::{Guest, KEY, PATIENCE, await_file};
use stapes_agent_api::{
    Access, Create, Exec, ExitStatus, FailureKind, FileAnswer, FileOp, Frame, KEY_BYTES, MAX_BYTES, Reply, Request,
    StreamId, StreamKind, WINDOW, WriteMode,
};
use stapes_testkit::{Need, host_with};

#[test]
fn a_host_without_the_key_gets_nothing_and_keeps_nobody_out() {
    let guest = Guest::start();
    let mut host = guest.accept();
    assert!(host.offer(&[1; KEY_BYTES]), "the agent has the key");
    let lost = host.send(Request::Ping, Vec::new());
    host.greet(&KEY);
    host.ping();
    assert!(!host.has(lost));
}

#[test]
fn commands_end_as_a_shell_would_say() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    assert_eq!(host.run(1, &["true"]).1, ExitStatus::Code(0));
    assert_eq!(host.run(2, &["false"]).1, ExitStatus::Code(1));
    assert_eq!(host.exec(3, &["no-such-program"]).unwrap_err().code, 127);
    assert_eq!(host.exec(4, &["/etc/passwd"]).unwrap_err().code, 126);
    assert_eq!(host.exec(5, &[]).unwrap_err().kind, FailureKind::Other);
    let nowhere = Exec { exec: 6, command: vec!["true".into()], cwd: Some("/nonexistent".into()), ..Exec::default() };
    let failure = host.ask(Request::Exec(nowhere)).unwrap_err();
    assert_eq!((failure.kind, failure.code, failure.errno), (FailureKind::Command, 126, 2));
    let again = host.exec(1, &["true"]).unwrap_err();
    assert!(again.message.contains("cannot be used"), "{again:?}");
    let status = host.ask(Request::ExecStatus { exec: 2 }).unwrap();
    assert!(matches!(status, Reply::Exec { status: Some(ExitStatus::Code(1)) }), "{status:?}");
    let never = host.ask(Request::ExecStatus { exec: 99 }).unwrap();
    assert!(matches!(never, Reply::Exec { status: Some(ExitStatus::Unknown) }), "{never:?}");
}

#[test]
fn a_command_gets_its_environment_directory_and_user() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let (said, _) =
        host.run(1, &["sh", "-c", "echo $HOME $USER $LANG $TERM $KEPT; pwd; umask; id -G; ls /proc/self/fd"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(&lines[..4], ["/root root C.UTF-8", "/root", "0022", "0"], "{said}");
    assert_eq!(lines[4..], ["0", "1", "2", "3"], "nothing of the agent's is open: {said}");
    let nobody = Exec {
        exec: 2,
        command: ["sh", "-c", "echo $KEPT; id -u; id -g; id -G; pwd"].map(str::to_owned).to_vec(),
        environment: [("KEPT".to_owned(), "kept".to_owned())].into(),
        uid: 12345,
        gid: 54321,
        cwd: Some("/usr".into()),
        pty: None,
    };
    host.ask(Request::Exec(nobody)).unwrap();
    assert_eq!(host.wait(2), ExitStatus::Code(0));
    assert_eq!(host.output(2, StreamKind::Output), b"kept\n12345\n54321\n54321\n/usr\n");
}

#[test]
fn a_terminal_has_a_size_that_changes() {
    let Some(_) = host_with(&[Need::Root, Need::Tool("stty")]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let command = ["sh", "-c", "test -t 0 && echo $TERM; stty size; read x; stty size; exit 3"].map(str::to_owned);
    let exec = Exec { exec: 1, command: command.to_vec(), pty: Some((100, 40)), ..Exec::default() };
    host.ask(Request::Exec(exec)).unwrap();
    while !host.output(1, StreamKind::Output).ends_with(b"40 100\r\n") {
        host.pump();
    }
    host.ask(Request::ExecResize { exec: 1, columns: 120, rows: 50 }).unwrap();
    host.input(1, b"\n");
    assert_eq!(host.wait(1), ExitStatus::Code(3));
    let said = String::from_utf8_lossy(host.output(1, StreamKind::Output)).into_owned();
    assert!(said.starts_with("xterm-256color") && said.ends_with("50 120\r\n"), "{said:?}");
    assert!(host.ends.contains(&StreamId::new(1, StreamKind::Output).0));
}

/// Bytes that repeat nowhere near.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

#[test]
fn many_megabytes_go_both_ways_through_the_windows() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let sent = noise(12 << 20);
    host.exec(1, &["sh", "-c", "cat; echo end >&2"]).unwrap();
    host.input(1, &sent);
    host.end_input(1);
    assert_eq!(host.wait(1), ExitStatus::Code(0));
    assert!(host.output(1, StreamKind::Output) == sent, "what came back is what was sent");
    assert_eq!(host.output(1, StreamKind::Error), b"end\n");
    for kind in [StreamKind::Output, StreamKind::Error] {
        assert!(host.ends.contains(&StreamId::new(1, kind).0), "the ends come before the exit");
    }
}

#[test]
fn a_host_that_grants_nothing_is_sent_a_window_and_loses_nothing() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    host.grants = false;
    host.exec(1, &["head", "-c", "300000", "/dev/zero"]).unwrap();
    while host.output(1, StreamKind::Output).len() < WINDOW as usize {
        host.pump();
    }
    // The command ends, since a pipe holds the rest; the rest is kept beyond the time that its children would have.
    loop {
        if let Reply::Exec { status: Some(_) } = host.ask(Request::ExecStatus { exec: 1 }).unwrap() {
            break;
        }
    }
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        host.ping();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(host.output(1, StreamKind::Output).len(), WINDOW as usize);
    host.frame(&Frame::Credit { stream: StreamId::new(1, StreamKind::Output), bytes: WINDOW });
    assert_eq!(host.wait(1), ExitStatus::Code(0));
    assert_eq!(host.output(1, StreamKind::Output).len(), 300_000);
}

#[test]
fn the_end_of_a_command_does_not_wait_for_its_children() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let begun = Instant::now();
    let (said, status) = host.run(1, &["sh", "-c", "sleep 3000 & echo $!"]);
    assert_eq!(status, ExitStatus::Code(0));
    assert!(begun.elapsed() >= Duration::from_millis(900), "its child may have had something to say");
    assert_eq!(host.run(2, &["kill", said.trim()]).1, ExitStatus::Code(0));
}

#[test]
fn a_command_that_does_not_read_does_not_stop_the_others() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    host.exec(1, &["sleep", "3000"]).unwrap();
    host.input(1, &vec![1; WINDOW as usize]);
    assert_eq!(host.run(2, &["echo", "x"]), ("x\n".to_owned(), ExitStatus::Code(0)));
    host.ask(Request::ExecSignal { exec: 1, signal: 15 }).unwrap();
    assert_eq!(host.wait(1), ExitStatus::Signal(15));
    assert_eq!(host.ask(Request::ExecSignal { exec: 1, signal: 15 }).unwrap_err().kind, FailureKind::Other);
}

#[test]
fn input_that_nobody_reads_is_granted_all_the_same() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    host.exec(1, &["sh", "-c", "exec 0<&-; exec sleep 3000"]).unwrap();
    host.input(1, &noise(1 << 20));
    host.ask(Request::ExecSignal { exec: 1, signal: 9 }).unwrap();
    assert_eq!(host.wait(1), ExitStatus::Signal(9));
}

#[test]
fn a_new_host_finds_the_commands_of_the_last_one() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    host.grants = false;
    let (begun, go) = (guest.path("begun"), guest.path("go"));
    let script = format!("head -c 3000000 /dev/zero; touch {begun}; while ! test -e {go}; do sleep 0.05; done; exit 7");
    host.exec(1, &["sh", "-c", &script]).unwrap();
    host.exec(2, &["cat"]).unwrap();
    let shell = Exec { exec: 3, command: vec!["cat".into()], pty: Some((80, 25)), ..Exec::default() };
    host.ask(Request::Exec(shell)).unwrap();
    while host.output(1, StreamKind::Output).len() < 100_000 {
        host.pump();
    }
    drop(host);
    let mut host = guest.connect();
    // Its output goes nowhere now, and does not hold it up.
    await_file(begun.as_ref());
    std::fs::write(&go, "").unwrap();
    for (exec, expected) in [(1, ExitStatus::Code(7)), (2, ExitStatus::Code(0)), (3, ExitStatus::Signal(1))] {
        let status = match host.ask(Request::ExecStatus { exec }).unwrap() {
            Reply::Exec { status: Some(status) } => status,
            _ => host.wait(exec),
        };
        assert_eq!(status, expected, "command {exec}");
    }
    assert!(host.output.is_empty(), "streams do not outlive their session");
}

#[test]
fn a_hello_ends_the_session_without_a_new_connection() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    host.exec(1, &["cat"]).unwrap();
    let path = guest.path("file");
    std::fs::write(&path, "content").unwrap();
    let handle = host.file(FileOp::Read { path }).unwrap().1.unwrap();
    host.raw(&[1, 2, 3]);
    host.greet(&KEY);
    let status = match host.ask(Request::ExecStatus { exec: 1 }).unwrap() {
        Reply::Exec { status: Some(status) } => status,
        _ => host.wait(1),
    };
    assert_eq!(status, ExitStatus::Code(0), "its input ended");
    assert_eq!(host.ask(Request::FileRead { handle, offset: 0, length: 1 }).unwrap_err().errno, 9);
}

#[test]
fn files_are_read_written_and_listed() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let path = guest.path("file");
    let write = |how| FileOp::Write { path: path.clone(), how, uid: Some(1), gid: None, mode: Some(0o640) };
    let handle = host.file(write(WriteMode::Overwrite)).unwrap().1.unwrap();
    let content = noise(300_000);
    let mut under_way = Vec::new();
    for (at, piece) in content.chunks(MAX_BYTES).enumerate() {
        let request = Request::FileWrite { handle, offset: (at * MAX_BYTES) as u64 };
        under_way.push(host.send(request, piece.to_vec()));
    }
    under_way.push(host.send(Request::FileClose { handle }, Vec::new()));
    for id in under_way {
        assert!(matches!(host.answer(id).0, Reply::Done));
    }
    assert!(std::fs::read(&path).unwrap() == content);
    let handle = host.file(write(WriteMode::Append)).unwrap().1.unwrap();
    host.ask_with(Request::FileWrite { handle, offset: 0 }, b"more".to_vec()).unwrap();
    host.ask(Request::FileClose { handle }).unwrap();
    let (answer, handle, _) = host.file(FileOp::Read { path: path.clone() }).unwrap();
    let (FileAnswer::Opened(meta), Some(handle)) = (answer, handle) else { panic!() };
    assert_eq!((meta.size, meta.uid, meta.mode), (300_004, 1, 0o640));
    let read = Request::FileRead { handle, offset: 299_999, length: 100 };
    let (_, bytes) = host.ask_with(read, Vec::new()).unwrap();
    assert_eq!(bytes, [&content[299_999..], b"more"].concat());
    let too_much = Request::FileRead { handle, offset: 0, length: MAX_BYTES as u32 + 1 };
    assert_eq!(host.ask(too_much).unwrap_err().errno, 22);
    let replace = FileOp::Replace { path: path.clone(), uid: 0, gid: 0, mode: 0o600 };
    host.ask_with(Request::File { op: replace, handle: None }, b"new".to_vec()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    let failure = host.file(FileOp::Read { path: guest.path("missing") }).unwrap_err();
    assert_eq!((failure.kind, failure.errno), (FailureKind::File, 2));
}

#[test]
fn a_directory_of_any_size_is_listed() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let dir = guest.path("dir");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(format!("{dir}/one"), "").unwrap();
    let (answer, handle, names) = host.file(FileOp::Read { path: dir.clone() }).unwrap();
    assert!(matches!(answer, FileAnswer::Listed(_)) && handle.is_none());
    assert_eq!(names, b"one\0");
    let (answer, _, entries) = host.file(FileOp::List { path: dir.clone() }).unwrap();
    assert!(matches!(answer, FileAnswer::Entries(_)));
    assert!(entries.ends_with(b" one\0"), "{}", String::from_utf8_lossy(&entries));
    for number in 0..1500 {
        std::fs::write(format!("{dir}/{number:0120}"), "").unwrap();
    }
    let (_, handle, names) = host.file(FileOp::Read { path: dir }).unwrap();
    assert!(names.is_empty());
    let (mut all, handle) = (Vec::new(), handle.unwrap());
    loop {
        let read = Request::FileRead { handle, offset: all.len() as u64, length: MAX_BYTES as u32 };
        let (_, bytes) = host.ask_with(read, Vec::new()).unwrap();
        all.extend_from_slice(&bytes);
        if bytes.len() < MAX_BYTES {
            break;
        }
    }
    assert_eq!(all.iter().filter(|byte| **byte == 0).count(), 1501);
}

#[test]
fn open_files_are_counted_and_closed() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let open = FileOp::Open {
        path: guest.path("file"),
        access: Access::Both,
        create: Create::IfMissing,
        append: false,
        truncate: false,
        mode: None,
    };
    let handles: Vec<u64> = (0..256).map(|_| host.file(open.clone()).unwrap().1.unwrap()).collect();
    assert_eq!(host.file(open.clone()).unwrap_err().errno, 24);
    host.ask(Request::FileClose { handle: handles[7] }).unwrap();
    assert_eq!(host.ask(Request::FileClose { handle: handles[7] }).unwrap_err().errno, 9);
    host.file(open).unwrap();
}

#[test]
fn a_stalled_file_system_stops_nothing_else() {
    let Some(_) = host_with(&[Need::Root, Need::Tool("unshare"), Need::File("/dev/fuse", "a kernel with FUSE")]) else {
        return;
    };
    let guest = Guest::start_by(&["unshare", "--mount"]);
    let mut host = guest.connect();
    let stalled = guest.path("stalled");
    std::fs::create_dir(&stalled).unwrap();
    // A file system whose server never answers.
    let options = "fd=3,rootmode=40000,user_id=0,group_id=0";
    let script = format!(
        "exec 3<>/dev/fuse; mount -i -t fuse -o {options} stalled {stalled} && touch {stalled}.on; exec sleep 3000"
    );
    host.exec(1, &["sh", "-c", &script]).unwrap();
    await_file(format!("{stalled}.on").as_ref());
    let hung: Vec<u64> = (0..7)
        .map(|_| {
            host.send(Request::File { op: FileOp::Stat { path: format!("{stalled}/x") }, handle: None }, Vec::new())
        })
        .collect();
    assert_eq!(host.run(2, &["true"]).1, ExitStatus::Code(0));
    let there = host.file(FileOp::Stat { path: "/etc/passwd".into() }).unwrap();
    assert!(matches!(there.0, FileAnswer::Meta(_)));
    assert!(hung.iter().all(|id| !host.has(*id)));
    // A command that starts there hangs alone.
    let inside = Exec { exec: 3, command: vec!["true".into()], cwd: Some(format!("{stalled}/x")), ..Exec::default() };
    let inside = host.send(Request::Exec(inside), Vec::new());
    host.ping();
    host.ask(Request::ExecSignal { exec: 1, signal: 9 }).unwrap();
    for id in hung.into_iter().chain([inside]) {
        assert!(matches!(host.answer(id).0, Reply::Failed(_)));
    }
}

#[test]
fn the_state_tells_what_the_kernel_tells() {
    let Some(_) = host_with(&[Need::Root]) else { return };
    let guest = Guest::start();
    let mut host = guest.connect();
    let Reply::State(state) = host.ask(Request::State).unwrap() else { panic!() };
    let lo = state.interfaces.iter().find(|interface| interface.name == "lo").unwrap();
    assert!(lo.is_loopback && lo.mac == "00:00:00:00:00:00");
    assert!(lo.addresses.iter().any(|one| one.address.to_string() == "127.0.0.1" && one.prefix == 8), "{lo:?}");
    assert!(state.processes > 1 && state.cpu_nanoseconds > 0 && !state.os.kernel.is_empty());
    assert!(state.memory.used > 0 && state.memory.used < state.memory.total);
}

#[test]
fn a_mount_needs_its_device() {
    let Some(_) = host_with(&[Need::Root, Need::Tool("unshare")]) else { return };
    let guest = Guest::start_by(&["unshare", "--mount"]);
    let mut host = guest.connect();
    let path = guest.path("a/b");
    let kind = stapes_agent_api::MountKind::VirtioFs;
    let mount = stapes_agent_api::Mount { kind, tag: "no-such-share".into(), path: path.clone(), read_only: true };
    let failure = host.ask(Request::Mount(mount)).unwrap_err();
    assert!(failure.errno != 0 && failure.message.contains("no-such-share"), "{failure:?}");
    assert!(matches!(host.ask(Request::Unmount { path: path.clone() }), Ok(Reply::Done)), "nothing is mounted there");
    assert_eq!(host.run(1, &["mount", "-t", "tmpfs", "x", &path]).1, ExitStatus::Code(0));
    host.ask(Request::Unmount { path: path.clone() }).unwrap();
    assert_eq!(host.run(2, &["mountpoint", "-q", &path]).1, ExitStatus::Code(32));
}

#[test]
fn garbage_is_survived_without_growing() {
    let guest = Guest::start();
    let mut host = guest.accept();
    for seed in 0..64 {
        let mut bytes = noise((1 << 20) + seed);
        match seed % 3 {
            // A frame that never ends.
            0 => bytes.iter_mut().for_each(|byte| *byte |= 1),
            // Frames of every length.
            1 => bytes.iter_mut().for_each(|byte| *byte &= 0x1f),
            _ => {}
        }
        host.raw(&bytes);
    }
    host.greet(&KEY);
    host.raw(&noise(100_000));
    host.raw(&[0]);
    host.ping();
    let status = std::fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 32 << 10, "{kib} KiB at the most");
}

#[test]
fn it_starts_under_the_name_that_the_loaders_of_others_give_it() {
    let dir = tempfile::tempdir().unwrap();
    let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_stapes-agent"), dir.path().join("incus-agent")).unwrap();
    std::fs::write(dir.path().join("agent.key"), "00".repeat(KEY_BYTES)).unwrap();
    let mut agent = Command::new(dir.path().join("incus-agent"))
        .arg0("/run/incus_agent/incus-agent")
        .args(["--secrets-location", "/nonexistent"])
        .current_dir("/")
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .spawn()
        .unwrap();
    let mut said = [0; 64];
    let heard = notify.recv(&mut said);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(&said[..heard.unwrap()], b"READY=1");
}
