//! What a daemon may have left behind: looked for by the names and directories that were its own.

use std::{fs, path::Path, thread, time::Duration};

/// Mounts beneath `dir` in the mount namespace of process `pid`.
pub(crate) fn mounts(pid: u32, dir: &Path) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let dir = dir.to_string_lossy();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(&*dir)).map(|point| format!("mount {point}")).collect()
}

/// Network interfaces other than loopback in the network namespace of process `pid`.
pub(crate) fn links(pid: u32) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let names = table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.filter(|name| *name != "lo").map(|name| format!("link {name}")).collect()
}

/// Processes in the PID namespace of process `pid`, itself left out.
pub(crate) fn processes(pid: u32) -> Vec<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(&pid.to_string()) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_other = name.parse::<u32>().is_ok_and(|other| other != pid);
        if is_other && namespace(&name).as_ref() == Some(&own) {
            let status = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // A zombie is waited for by process 1 in a moment.
            if !status.contains(") Z ") {
                let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
                found.push(format!("process {name} {}", command.trim()));
            }
        }
    }
    found
}

/// Groups named `name` (and what is in them) in any hierarchy, deepest first.
pub(crate) fn cgroups(name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        collect_groups(&hierarchy.join(name), &mut found);
    }
    found
}

/// Removes those groups; the tasks in them have just been killed and take a moment to leave.
pub(crate) fn remove_groups(name: &str) {
    for _ in 0..50 {
        let stuck = cgroups(name).iter().filter(|group| fs::remove_dir(group).is_err()).count();
        if stuck == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn collect_groups(group: &Path, found: &mut Vec<std::path::PathBuf>) {
    if !group.is_dir() {
        return;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_groups(&entry.path(), found);
        }
    }
    found.push(group.to_owned());
}

/// Loop devices whose file lies beneath `dir`.
pub(crate) fn loops(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.trim().starts_with(&*dir.to_string_lossy()) {
            found.push(format!("loop device {} on {}", entry.file_name().to_string_lossy(), file.trim()));
        }
    }
    found
}
