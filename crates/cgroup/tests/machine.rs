//! Against the control groups of the machine itself, in every layout that can be had on it. Needs root.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use stapes_cgroup::{Cgroups, DEFAULT_DEVICES, DeviceRule, Kind, Layout, Leaf};
use stapes_model::{ByteSize, Limits};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A parent group of this test's own, removed at its end.
struct Bed {
    cgroups: Cgroups,
    layout: Layout,
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in self.cgroups.list().unwrap_or_default() {
            let group = self.cgroups.group(&name);
            let _ = group.kill().and_then(|()| group.remove());
        }
        let removed = self.cgroups.remove_parent();
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

fn host_layout() -> Option<Layout> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP cgroup: needs root");
        return None;
    }
    let layout = Layout::from_mountinfo(&std::fs::read_to_string("/proc/self/mountinfo").unwrap());
    if layout == Layout::default() {
        eprintln!("SKIP cgroup: no hierarchy is mounted writable");
        return None;
    }
    Some(layout)
}

fn bed(layout: Layout) -> Bed {
    let parent = format!("stapes-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    Bed { cgroups: Cgroups::with_layout(&parent, &layout).unwrap(), layout }
}

/// The host's own layout, and its v1 and v2 halves as if the other were not mounted.
fn beds() -> Vec<Bed> {
    let Some(layout) = host_layout() else { return Vec::new() };
    let mut layouts = vec![layout.clone()];
    if layout.v2.is_some() && !layout.v1.is_empty() {
        layouts.push(Layout { v1: Vec::new(), ..layout.clone() });
        layouts.push(Layout { v2: None, ..layout });
    }
    layouts.into_iter().map(bed).collect()
}

fn every_dir(bed: &Bed, name: &str) -> Vec<PathBuf> {
    let group = bed.cgroups.group(name);
    let v1 = group.join_paths().into_iter().map(|procs| procs.parent().unwrap().to_owned());
    v1.chain(group.v2_dir(Leaf::Exec)).chain(group.v2_dir(Leaf::Payload)).collect()
}

#[test]
fn a_group_is_made_renamed_listed_and_removed_in_every_hierarchy() {
    for bed in beds() {
        let cgroups = &bed.cgroups;
        cgroups.create("one").unwrap();
        assert!(every_dir(&bed, "one").iter().all(|dir| dir.is_dir()));
        assert_eq!(cgroups.create("one").unwrap_err().kind(), stapes_model::ErrorKind::Conflict);

        cgroups.rename("one", "two").unwrap();
        assert_eq!(cgroups.list().unwrap(), ["two"]);
        assert!(every_dir(&bed, "two").iter().all(|dir| dir.is_dir()));
        assert!(!every_dir(&bed, "one").iter().any(|dir| dir.exists()));

        cgroups.group("two").remove().unwrap();
        cgroups.group("two").remove().unwrap();
        assert!(cgroups.list().unwrap().is_empty());
    }
}

#[test]
fn a_spare_becomes_a_whole_group() {
    for bed in beds() {
        bed.cgroups.create_spare("spare").unwrap();
        let group = bed.cgroups.rename("spare", "one").unwrap();
        assert_eq!(bed.cgroups.list().unwrap(), ["one"]);
        assert!(every_dir(&bed, "one").iter().all(|dir| dir.is_dir()));
        group.delegate(1_000_000).unwrap();
    }
}

#[test]
fn the_groups_of_a_guest_that_ended_are_as_new_for_the_next() {
    for bed in beds().into_iter().filter(|bed| bed.cgroups.can_retire()) {
        let cgroups = &bed.cgroups;
        let read = |name: &str, controller: &str, file: &str| {
            let dirs = every_dir(&bed, name);
            let dir = dirs.iter().find(|dir| dir.components().any(|part| part.as_os_str() == controller));
            dir.map(|dir| std::fs::read_to_string(dir.parent().unwrap().join(file)).unwrap_or_default())
        };
        let pristine = cgroups.create("pristine").unwrap();
        pristine.allow_devices(&DEFAULT_DEVICES).unwrap();
        let group = cgroups.create("one").unwrap();
        group.delegate(1_000_000).unwrap();
        let limits = Limits {
            processes: Some(5),
            memory: has(&bed, "memory").then(|| ByteSize::mib(64)),
            // More than the guest can use: one that was throttled is not kept.
            cpu_quota: has(&bed, "cpu").then_some((4_000_000, 40_000)),
            cpu_weight: has(&bed, "cpu").then_some(50),
            ..Limits::default()
        };
        group.apply_to_new(&limits).unwrap();
        let sound = [DeviceRule::char(116, 2)];
        group.allow_devices(&DEFAULT_DEVICES.into_iter().chain(sound).collect::<Vec<_>>()).unwrap();
        let parked = Guest::park(&group);
        let (status, _) = Guest::run(&group, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").output();
        assert!(status.success());
        let procs = group.join_paths();
        for file in &procs {
            std::fs::create_dir_all(file.with_file_name("inner").join("most")).unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
        }
        assert_eq!(group.pids().unwrap(), [parked.0.id()]);
        let before = group.usage().unwrap();

        let spare = cgroups.retire("one", "spare").unwrap();
        spare.renew().unwrap();
        assert_eq!(cgroups.list().unwrap(), ["pristine", "spare"]);
        assert_eq!(spare.pids().unwrap(), [parked.0.id()]);
        for (controller, file) in [
            ("pids", "pids.max"),
            ("memory", "memory.limit_in_bytes"),
            ("cpu", "cpu.shares"),
            ("cpu", "cpu.cfs_quota_us"),
            ("devices", "devices.list"),
            ("cpuset", "cpuset.cpus"),
        ] {
            let sorted = |text: Option<String>| {
                let mut lines: Vec<_> = text.unwrap_or_default().lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(read("spare", controller, file)), sorted(read("pristine", controller, file)), "{file}");
        }
        for file in spare.join_paths() {
            let meta = std::fs::metadata(&file).unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o644), "{}", file.display());
            assert!(!file.with_file_name("inner").exists());
        }
        let after = spare.usage().unwrap();
        assert!(after.cpu_nanoseconds * 4 < before.cpu_nanoseconds.max(1), "{after:?} of {before:?}");
        assert!(after.memory_peak_bytes <= 2 << 20, "{after:?}");
        cgroups.rename("spare", "two").unwrap();
        assert!(every_dir(&bed, "two").iter().all(|dir| dir.is_dir()));
    }
}

#[test]
fn a_group_in_which_the_kernel_killed_for_memory_is_not_used_again() {
    for bed in beds().into_iter().filter(|bed| bed.cgroups.can_retire() && has(bed, "memory")) {
        let group = bed.cgroups.create("one").unwrap();
        group.apply_to_new(&Limits { memory: Some(ByteSize::mib(8)), no_swap: true, ..Limits::default() }).unwrap();
        let parked = Guest::park(&group);
        let (status, _) = Guest::run(&group, "exec tail /dev/zero").output();
        assert!(!status.success());
        let spare = bed.cgroups.retire("one", "spare").unwrap();
        assert!(spare.renew().unwrap_err().to_string().contains("oom_kill"));
        drop(parked);
    }
}

#[test]
fn the_kind_follows_the_mounts() {
    for bed in beds() {
        let expected = match (bed.layout.v1.is_empty(), bed.layout.v2.is_some()) {
            (true, _) => Kind::V2,
            (false, true) => Kind::Hybrid,
            (false, false) => Kind::V1,
        };
        assert_eq!(bed.cgroups.kind(), expected);
        assert_eq!(bed.cgroups.describe()["cgroups"], expected.as_str());
    }
}

#[test]
fn a_failed_creation_leaves_nothing() {
    for bed in beds() {
        // The last hierarchy already has the name: everything made before it must go again.
        let last = every_dir(&bed, "one").pop().unwrap();
        let base = last.parent().unwrap();
        std::fs::create_dir(base).unwrap();
        assert!(bed.cgroups.create("one").is_err());
        let left: Vec<_> = every_dir(&bed, "one").into_iter().filter(|dir| dir.parent().unwrap().exists()).collect();
        assert!(left.iter().all(|dir| dir.parent().unwrap() == base), "{left:?}");
        std::fs::remove_dir(base).unwrap();
    }
}

#[test]
fn a_failed_rename_keeps_the_old_name_everywhere() {
    for bed in beds() {
        bed.cgroups.create("one").unwrap();
        bed.cgroups.create("two").unwrap();
        assert!(bed.cgroups.rename("one", "two").is_err());
        assert!(every_dir(&bed, "one").iter().all(|dir| dir.is_dir()));
        assert!(every_dir(&bed, "two").iter().all(|dir| dir.is_dir()));
    }
}

#[test]
fn groups_that_the_guest_made_go_with_theirs() {
    for bed in beds() {
        let group = bed.cgroups.create("one").unwrap();
        for dir in every_dir(&bed, "one") {
            std::fs::create_dir_all(dir.join("system.slice/a.service/b")).unwrap();
        }
        group.remove().unwrap();
        assert!(bed.cgroups.list().unwrap().is_empty());
    }
}

#[test]
fn bad_names_are_refused_and_cannot_leave_the_parent() {
    for bed in beds() {
        for bad in ["", ".", "..", "a/b", "/", "../x", "a\nb"] {
            assert!(bed.cgroups.create(bad).is_err(), "{bad:?}");
            assert!(bed.cgroups.rename("one", bad).is_err(), "{bad:?}");
        }
        assert!(
            bed.cgroups
                .group("../../x")
                .join_paths()
                .iter()
                .all(|path| { !path.components().any(|part| part == std::path::Component::ParentDir) })
        );
        for bad in ["", "/", "../x", "a/../b"] {
            assert!(Cgroups::with_layout(bad, &bed.layout).is_err(), "{bad:?}");
        }
    }
}

#[test]
fn the_payload_is_delegated_and_the_limits_are_not() {
    for bed in beds() {
        let group = bed.cgroups.create("one").unwrap();
        group.delegate(1_000_000).unwrap();
        for procs in group.join_paths() {
            assert_eq!(std::fs::metadata(&procs).unwrap().uid(), 1_000_000);
            assert_eq!(std::fs::metadata(procs.parent().unwrap()).unwrap().uid(), 1_000_000);
            assert_eq!(std::fs::metadata(procs.ancestors().nth(2).unwrap()).unwrap().uid(), 0);
            let release = procs.with_file_name("notify_on_release");
            assert_eq!(std::fs::metadata(release).unwrap().uid(), 0);
        }
        if let Some(payload) = group.v2_dir(Leaf::Payload) {
            assert_eq!(std::fs::metadata(payload.join("cgroup.subtree_control")).unwrap().uid(), 1_000_000);
            assert_eq!(std::fs::metadata(payload.join("cgroup.freeze")).unwrap().uid(), 0);
        }
    }
}

/// Prints what a start pays for its groups; `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_groups_cost() {
    for bed in beds() {
        let mut costs = [const { Vec::new() }; 6];
        for _ in 0..200 {
            let mut clock = std::time::Instant::now();
            let mut lap = |costs: &mut Vec<u128>| {
                costs.push(clock.elapsed().as_micros());
                clock = std::time::Instant::now();
            };
            let group = bed.cgroups.create("one").unwrap();
            lap(&mut costs[0]);
            group.allow_devices(&DEFAULT_DEVICES).unwrap();
            lap(&mut costs[3]);
            group.delegate(1_000_000).unwrap();
            lap(&mut costs[4]);
            group.remove().unwrap();
            lap(&mut costs[2]);
            bed.cgroups.create_spare("one").unwrap();
            lap(&mut costs[5]);
            let group = bed.cgroups.rename("one", "two").unwrap();
            lap(&mut costs[1]);
            group.remove().unwrap();
        }
        let [create, rename, remove, devices, delegate, spare] = costs.map(|mut all| {
            all.sort_unstable();
            (all[100], all[190])
        });
        eprintln!(
            "{:?}: create {create:?} spare {spare:?} rename of a spare {rename:?} remove {remove:?} devices {devices:?} delegate {delegate:?} µs (p50, p95)",
            bed.cgroups.kind()
        );
    }
}

/// A process in the group, doing what a shell line says once it has joined. Killed and reaped when dropped.
struct Guest(std::process::Child);

impl Guest {
    /// Joins payload by its own hand, so that the test process stays where it is.
    fn run(group: &stapes_cgroup::Group, script: &str) -> Self {
        let mut joins = group.join_paths();
        joins.extend(group.v2_dir(Leaf::Payload).map(|dir| dir.join("cgroup.procs")));
        let joins: String = joins.iter().map(|path| format!("echo 0 > '{}' || exit 99; ", path.display())).collect();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("{joins} {script}")]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let mut guest = Self(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(5);
        let pid = guest.0.id();
        while !group.pids().unwrap().contains(&pid) && Instant::now() < deadline {
            if guest.0.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        guest
    }

    /// A process of the manager's: in v1 alone, as an embryo is.
    fn park(group: &stapes_cgroup::Group) -> Self {
        let joins = group.join_paths();
        let joins: String = joins.iter().map(|path| format!("echo 0 > '{}' || exit 99; ", path.display())).collect();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("{joins} echo parked; exec sleep 100")]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let mut guest = Self(command.spawn().unwrap());
        let mut word = [0; 7];
        std::io::Read::read_exact(guest.0.stdout.as_mut().unwrap(), &mut word).unwrap();
        guest
    }

    fn output(mut self) -> (std::process::ExitStatus, String) {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut text).unwrap();
        (self.0.wait().unwrap(), text)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has(bed: &Bed, controller: &str) -> bool {
    let found = bed.cgroups.describe().contains_key(&format!("cgroup_{controller}"));
    if !found {
        eprintln!("SKIP {controller} on {:?}: not on this host", bed.cgroups.kind());
    }
    found
}

#[test]
fn what_no_controller_can_enforce_is_refused_by_name() {
    for bed in beds() {
        let group = bed.cgroups.create("one").unwrap();
        let limits = Limits { processes: Some(5), ..Limits::default() };
        match group.apply(&limits) {
            Ok(()) => assert!(has(&bed, "pids")),
            Err(error) => {
                assert_eq!(
                    error.to_string(),
                    "limits.processes needs the cgroup controller pids, and this host has no pids.max"
                );
                assert_eq!(error.kind(), stapes_model::ErrorKind::Unsupported);
            }
        }
        group.apply(&Limits::default()).unwrap();
    }
}

#[test]
fn forks_beyond_the_limit_fail_until_it_is_lifted() {
    for bed in beds().into_iter().filter(|bed| has(bed, "pids")) {
        let group = bed.cgroups.create("one").unwrap();
        group.apply_to_new(&Limits { processes: Some(1), ..Limits::default() }).unwrap();
        // /bin/true in a subshell needs a second process; a shell that cannot fork exits.
        let (status, _) = Guest::run(&group, "/bin/true; echo forked").output();
        assert!(!status.success());
        group.apply(&Limits::default()).unwrap();
        let (status, text) = Guest::run(&group, "/bin/true; echo forked").output();
        assert!(status.success());
        assert_eq!(text, "forked\n");
    }
}

#[test]
fn memory_beyond_the_limit_is_not_given() {
    for bed in beds().into_iter().filter(|bed| has(bed, "memory")) {
        let group = bed.cgroups.create("one").unwrap();
        let limits = Limits { memory: Some(ByteSize::mib(16)), no_swap: true, ..Limits::default() };
        group.apply(&limits).unwrap();
        group.apply(&limits).unwrap();
        let hog = "head -c 64M /dev/zero | tail > /dev/null; echo $?";
        let (_, text) = Guest::run(&group, hog).output();
        assert_ne!(text, "0\n", "64 MiB went into 16");
        let usage = group.usage().unwrap();
        assert!(usage.memory_peak_bytes > 8 << 20 && usage.memory_peak_bytes <= 16 << 20, "{usage:?}");

        group.apply(&Limits { memory_soft: true, ..limits.clone() }).unwrap();
        group.apply(&Limits::default()).unwrap();
        let (_, text) = Guest::run(&group, hog).output();
        assert_eq!(text, "0\n");
    }
}

#[test]
fn a_cpu_quota_slows_a_busy_loop() {
    for bed in beds().into_iter().filter(|bed| has(bed, "cpu")) {
        let group = bed.cgroups.create("one").unwrap();
        group.apply(&Limits { cpu_quota: Some((5_000, 50_000)), cpu_weight: Some(50), ..Limits::default() }).unwrap();
        let guest = Guest::run(&group, "while :; do :; done");
        let before = group.usage().unwrap().cpu_nanoseconds;
        std::thread::sleep(Duration::from_millis(600));
        let used = group.usage().unwrap().cpu_nanoseconds - before;
        drop(guest);
        assert!((1_000_000..200_000_000).contains(&used), "{used} ns in 600 ms at 10 %");
        group.apply(&Limits { cpu_quota: Some((1_000_000, 500_000)), ..Limits::default() }).unwrap();
        group.apply(&Limits::default()).unwrap();
    }
}

#[test]
fn cpus_move_with_the_groups_beneath() {
    for bed in beds().into_iter().filter(|bed| has(bed, "cpuset")) {
        let group = bed.cgroups.create("one").unwrap();
        let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f2";
        let all = Guest::run(&group, allowed).output().1;
        group.apply(&Limits { cpus: Some("0".into()), ..Limits::default() }).unwrap();
        assert_eq!(Guest::run(&group, allowed).output().1, "0\n");
        let error = group.apply(&Limits { cpus: Some("4000".into()), ..Limits::default() }).unwrap_err();
        assert_eq!(error.to_string(), "limits.cpu: the kernel refuses \"4000\" in cpuset.cpus");
        assert_eq!(Guest::run(&group, allowed).output().1, "0\n");
        group.apply(&Limits::default()).unwrap();
        assert_eq!(Guest::run(&group, allowed).output().1, all);
    }
}

#[test]
fn a_frozen_group_stands_still_and_goes_on() {
    for bed in beds() {
        let group = bed.cgroups.create("one").unwrap();
        let guest = Guest::run(&group, "while :; do :; done");
        assert!(!group.is_frozen().unwrap());
        group.freeze().unwrap();
        group.freeze().unwrap();
        assert!(group.is_frozen().unwrap());
        let stat = |pid: u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let user_time = text.rsplit(')').next().unwrap().split_whitespace().nth(11).unwrap();
            user_time.parse::<u64>().unwrap()
        };
        let before = stat(guest.0.id());
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(stat(guest.0.id()), before);
        group.thaw().unwrap();
        assert!(!group.is_frozen().unwrap());
        let deadline = Instant::now() + Duration::from_secs(5);
        while stat(guest.0.id()) == before {
            assert!(Instant::now() < deadline, "still standing");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn killing_reaches_nested_and_frozen_processes() {
    for bed in beds() {
        let group = bed.cgroups.create("one").unwrap();
        let mut guest = Guest::run(&group, "sleep 600 & sleep 600 & sleep 600");
        let deadline = Instant::now() + Duration::from_secs(5);
        while group.pids().unwrap().len() < 4 {
            assert!(Instant::now() < deadline, "{:?}", group.pids());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(group.usage().unwrap().processes >= 4);
        for dir in every_dir(&bed, "one").iter().filter(|dir| dir.ends_with("payload")) {
            std::fs::create_dir(dir.join("nested")).unwrap();
        }
        group.freeze().unwrap();
        group.kill().unwrap();
        assert!(group.pids().unwrap().is_empty());
        assert!(guest.0.wait().unwrap().code().is_none());
        group.remove().unwrap();
        group.kill().unwrap();
    }
}

#[test]
fn devices_that_no_rule_allows_cannot_be_opened() {
    // Loop control and kmsg are on no list; null is.
    let probe = "(: < /dev/null) && echo null; (: < /dev/kmsg) && echo kmsg; :";
    for bed in beds() {
        let group = bed.cgroups.create("one").unwrap();
        group.delegate(1_000_000).unwrap();
        if let Err(error) = group.allow_devices(&DEFAULT_DEVICES) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            eprintln!("SKIP devices on {:?}: {error}: {cause:?}", bed.cgroups.kind());
            continue;
        }
        assert_eq!(Guest::run(&group, probe).output().1, "null\n");
        for procs in group.join_paths() {
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(procs).unwrap()), 1_000_000);
        }
        group.allow_devices(&DEFAULT_DEVICES).unwrap();
        assert_eq!(Guest::run(&group, probe).output().1, "null\n");
        let mut more = DEFAULT_DEVICES.to_vec();
        more.push(DeviceRule::char(1, 11));
        let guest = Guest::run(&group, "sleep 600");
        group.allow_devices(&more).unwrap();
        assert_eq!(Guest::run(&group, probe).output().1, "null\nkmsg\n");
        group.allow_devices(&DEFAULT_DEVICES).unwrap();
        assert_eq!(Guest::run(&group, probe).output().1, "null\n");
        drop(guest);
    }
}

#[test]
fn usage_counts_and_an_unborn_group_has_used_nothing() {
    for bed in beds() {
        assert_eq!(bed.cgroups.group("unborn").usage().unwrap(), stapes_model::Usage::default());
        let group = bed.cgroups.create("one").unwrap();
        let (_, _) = Guest::run(&group, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").output();
        assert!(group.usage().unwrap().cpu_nanoseconds > 100_000);
        if bed.layout.v2.is_none() {
            assert_eq!(group.pressure("cpu"), None);
        }
    }
}
