//! What is written into which knob, for controllers that a test machine may lack: ordinary files in ordinary directories.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use stapes_cgroup::{CgroupError, Cgroups, Hierarchy, Layout};
use stapes_model::{ByteSize, Limits};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("stapes-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const V2_KNOBS: [&str; 10] = [
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "pids.max",
    "cpu.max",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "io.weight",
    "cgroup.subtree_control",
];

/// A unified hierarchy with every controller enabled, and a group `one` in it.
fn unified(scratch: &Scratch) -> (Cgroups, PathBuf) {
    let group = scratch.0.join("p/one");
    std::fs::create_dir_all(&group).unwrap();
    for dir in [scratch.0.clone(), scratch.0.join("p")] {
        for file in ["cgroup.controllers", "cgroup.subtree_control"] {
            std::fs::write(dir.join(file), "cpuset cpu io memory hugetlb pids\n").unwrap();
        }
    }
    let layout = Layout { v1: Vec::new(), v2: Some(scratch.0.clone()) };
    (Cgroups::with_layout("p", &layout).unwrap(), group)
}

/// Applies limits to empty files and returns those that were written.
fn written(
    group: &Path,
    knobs: &[&'static str],
    apply: impl FnOnce() -> Result<(), CgroupError>,
) -> BTreeMap<&'static str, String> {
    for knob in knobs {
        std::fs::write(group.join(knob), "").unwrap();
    }
    apply().unwrap();
    let texts = knobs.iter().map(|knob| (*knob, std::fs::read_to_string(group.join(knob)).unwrap()));
    texts.filter(|(_, text)| !text.is_empty()).collect()
}

fn all_limits() -> Limits {
    Limits {
        memory: Some(ByteSize::mib(64)),
        no_swap: true,
        processes: Some(100),
        cpu_quota: Some((20_000, 100_000)),
        cpu_weight: Some(250),
        cpus: Some("0-2,5".into()),
        nodes: Some("0".into()),
        disk_weight: Some(1000),
        ..Limits::default()
    }
}

fn expect(pairs: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    pairs.iter().map(|(knob, value)| (*knob, (*value).to_owned())).collect()
}

#[test]
fn v2_takes_the_limits_as_they_are() {
    let scratch = Scratch::new("v2-limits");
    let (cgroups, dir) = unified(&scratch);
    let group = cgroups.group("one");
    let got = written(&dir, &V2_KNOBS, || group.apply_to_new(&all_limits()));
    let wanted = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("pids.max", "100"),
        ("cpu.max", "20000 100000"),
        ("cpu.weight", "250"),
        ("cpuset.cpus", "0-2,5"),
        ("cpuset.mems", "0"),
        ("io.weight", "200"),
    ];
    assert_eq!(got, expect(&wanted));
    let soft = Limits { memory: Some(ByteSize::mib(1)), memory_soft: true, ..Limits::default() };
    assert_eq!(written(&dir, &V2_KNOBS, || group.apply_to_new(&soft)), expect(&[("memory.high", "1048576")]));
}

#[test]
fn v2_lifts_what_is_not_set_and_writes_nothing_to_a_new_group() {
    let scratch = Scratch::new("v2-lift");
    let (cgroups, dir) = unified(&scratch);
    let group = cgroups.group("one");
    assert!(written(&dir, &V2_KNOBS, || group.apply_to_new(&Limits::default())).is_empty());
    let lifted = [
        ("memory.max", "max"),
        ("memory.high", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "max"),
        ("cpu.max", "max 100000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", "\n"),
        ("cpuset.mems", "\n"),
        ("io.weight", "100"),
    ];
    assert_eq!(written(&dir, &V2_KNOBS, || group.apply(&Limits::default())), expect(&lifted));
}

#[test]
fn a_missing_knob_is_named_when_it_is_needed_and_forgiven_when_it_is_not() {
    let scratch = Scratch::new("v2-missing");
    let (cgroups, dir) = unified(&scratch);
    let group = cgroups.group("one");
    written(&dir, &V2_KNOBS, || Ok(()));
    for knob in ["memory.swap.max", "io.weight"] {
        std::fs::remove_file(dir.join(knob)).unwrap();
    }
    group.apply(&Limits::default()).unwrap();
    let error = |limits: Limits| group.apply(&limits).unwrap_err().to_string();
    assert_eq!(
        error(Limits { no_swap: true, ..Limits::default() }),
        "limits.memory.swap needs the cgroup controller memory, and this host has no memory.swap.max"
    );
    assert_eq!(
        error(Limits { disk_weight: Some(10), ..Limits::default() }),
        "limits.disk.priority needs the cgroup controller io, and this host has no io.weight"
    );
}

#[test]
fn v1_disk_weights_keep_the_scale_of_the_key_or_of_bfq() {
    let scratch = Scratch::new("v1-blkio");
    let dir = scratch.0.join("p/one");
    std::fs::create_dir_all(&dir).unwrap();
    let layout = Layout {
        v1: vec![Hierarchy { mount: scratch.0.clone(), controllers: vec!["blkio".into()], name: None }],
        v2: None,
    };
    let group = Cgroups::with_layout("p", &layout).unwrap().group("one");
    let limits = Limits { disk_weight: Some(1000), ..Limits::default() };
    let bfq = written(&dir, &["blkio.bfq.weight"], || group.apply(&limits));
    assert_eq!(bfq, expect(&[("blkio.bfq.weight", "200")]));
    let both = ["blkio.weight", "blkio.bfq.weight"];
    assert_eq!(written(&dir, &both, || group.apply(&limits)), expect(&[("blkio.weight", "1000")]));
}

#[test]
fn v2_counters_are_read() {
    let scratch = Scratch::new("v2-usage");
    let (cgroups, dir) = unified(&scratch);
    for (file, text) in [
        ("cpu.stat", "usage_usec 1234\nuser_usec 1000\n"),
        ("memory.current", "4096\n"),
        ("memory.peak", "8192\n"),
        ("memory.swap.current", "0\n"),
        ("pids.current", "3\n"),
        ("memory.pressure", "some avg10=2.00 avg60=0.00 avg300=0.00 total=1\n"),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let usage = cgroups.group("one").usage().unwrap();
    assert_eq!(usage.cpu_nanoseconds, 1_234_000);
    assert_eq!((usage.memory_bytes, usage.memory_peak_bytes, usage.processes), (4096, 8192, 3));
    assert_eq!(cgroups.group("one").pressure("memory").unwrap().some, 2.0);
    assert_eq!(cgroups.group("one").pressure("../memory"), cgroups.group("one").pressure("memory"));
}
