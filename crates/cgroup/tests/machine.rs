//! Against the control groups of the machine itself, in every layout that can be had on it. Needs root.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use stapes_cgroup::{Cgroups, Kind, Layout, Leaf};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A parent group of this test's own, removed at its end.
struct Bed {
    cgroups: Cgroups,
    layout: Layout,
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in self.cgroups.list().unwrap_or_default() {
            let _ = self.cgroups.group(&name).remove();
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
    let v1 = group.join_paths(Leaf::Payload).into_iter().map(|procs| procs.parent().unwrap().to_owned());
    v1.chain(group.v2_dir(Leaf::Payload)).chain(group.v2_dir(Leaf::Exec)).collect()
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
                .join_paths(Leaf::Payload)
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
    use std::os::unix::fs::MetadataExt;
    for bed in beds() {
        let group = bed.cgroups.create("one").unwrap();
        group.delegate(1_000_000).unwrap();
        for procs in group.join_paths(Leaf::Payload) {
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
        let mut costs = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..200 {
            let mut clock = std::time::Instant::now();
            let mut lap = |costs: &mut Vec<u128>| {
                costs.push(clock.elapsed().as_micros());
                clock = std::time::Instant::now();
            };
            bed.cgroups.create("one").unwrap();
            lap(&mut costs[0]);
            let group = bed.cgroups.rename("one", "two").unwrap();
            lap(&mut costs[1]);
            group.remove().unwrap();
            lap(&mut costs[2]);
        }
        let [create, rename, remove] = costs.map(|mut all| {
            all.sort_unstable();
            (all[100], all[190])
        });
        eprintln!("{:?}: create {create:?} rename {rename:?} remove {remove:?} µs (p50, p95)", bed.cgroups.kind());
    }
}
