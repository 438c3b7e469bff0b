use std::{collections::BTreeSet, path::PathBuf};

/// One mounted cgroup v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// Controllers as the kernel names them; empty for a named hierarchy.
    pub controllers: Vec<String>,
    /// `systemd` of `name=systemd`.
    pub name: Option<String>,
}

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|one| one == controller)
    }

    /// The controllers, or `name=…`: what `/proc/PID/cgroup` shows.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("name={name}"),
            None => self.controllers.join(","),
        }
    }
}

/// Which hierarchies are mounted where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub v1: Vec<Hierarchy>,
    pub v2: Option<PathBuf>,
}

/// Words of a v1 super block that are no controllers. Source: kernel, cgroup1_show_options.
const V1_OPTIONS: [&str; 9] =
    ["rw", "ro", "noprefix", "xattr", "clone_children", "cpuset_v2_mode", "favordynmods", "nofavordynmods", "all"];

impl Layout {
    /// Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    ///
    /// A hierarchy mounted twice is taken once, where it is writable and, of two such places, beneath
    /// `/sys/fs/cgroup`. A hierarchy that is only mounted read-only is left out.
    pub fn from_mountinfo(text: &str) -> Self {
        let mut mounts: Vec<CgroupMount> = text.lines().filter_map(CgroupMount::parse).collect();
        mounts.sort_by_key(|mount| !mount.point.starts_with("/sys/fs/cgroup"));
        let mut layout = Self::default();
        let mut seen = BTreeSet::new();
        for mount in mounts {
            if mount.v2 {
                layout.v2.get_or_insert(mount.point);
            } else if seen.insert((mount.controllers.clone(), mount.name.clone())) {
                let CgroupMount { point, controllers, name, .. } = mount;
                layout.v1.push(Hierarchy { mount: point, controllers, name });
            }
        }
        layout
    }
}

struct CgroupMount {
    v2: bool,
    point: PathBuf,
    controllers: Vec<String>,
    name: Option<String>,
}

impl CgroupMount {
    /// `None` for other file systems and for mounts that cannot be written.
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let (point, options) = (fields.next()?, fields.next()?);
        let mut fields = file_system.split(' ');
        let (kind, super_options) = (fields.next()?, fields.nth(1)?);
        let v2 = match kind {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        if options.split(',').any(|word| word == "ro") || super_options.split(',').any(|word| word == "ro") {
            return None;
        }
        let mut name = None;
        let mut controllers = Vec::new();
        for word in super_options.split(',').filter(|_| !v2) {
            match word.split_once('=') {
                Some(("name", value)) => name = Some(value.to_owned()),
                Some(_) => {}
                None if V1_OPTIONS.contains(&word) => {}
                None => controllers.push(word.to_owned()),
            }
        }
        controllers.sort_unstable();
        Some(Self { v2, point: unescape(point).into(), controllers, name })
    }
}

/// The group that a process is in, from its `/proc/PID/cgroup` (cgroups(7)): the path on v2, else in systemd's hierarchy.
///
/// A daemon that systemd started with `Delegate=yes` makes its parent group beneath this one; `None` is the root, as
/// without systemd.
pub fn own_group(text: &str) -> Option<String> {
    let path = |wanted: &str| {
        let lines = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        let mut paths = lines.filter_map(|fields| match fields[..] {
            [_, label, path] if label == wanted => Some(path.trim_start_matches('/').to_owned()),
            _ => None,
        });
        // A path with `..` is outside our cgroup namespace: not ours to write beneath.
        paths.next().filter(|path| !path.is_empty() && !path.split('/').any(|part| part == ".."))
    };
    path("").or_else(|| path("name=systemd"))
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
33 25 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
    const LEGACY: &str = "\
33 25 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
34 33 0:29 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd
35 33 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
36 33 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
37 33 0:32 / /mnt/frozen ro - cgroup cgroup rw,freezer
";

    fn labels(layout: &Layout) -> Vec<String> {
        layout.v1.iter().map(Hierarchy::label).collect()
    }

    #[test]
    fn a_unified_host_has_one_hierarchy() {
        let layout = Layout::from_mountinfo(UNIFIED);
        assert_eq!(layout, Layout { v1: vec![], v2: Some("/sys/fs/cgroup".into()) });
    }

    #[test]
    fn a_legacy_host_has_joint_and_named_hierarchies_and_read_only_ones_do_not_count() {
        let layout = Layout::from_mountinfo(LEGACY);
        assert_eq!(labels(&layout), ["name=systemd", "cpu,cpuacct", "memory"]);
        assert_eq!(layout.v2, None);
        assert!(layout.v1[1].has("cpuacct"));
    }

    #[test]
    fn a_hybrid_host_has_both() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let layout = Layout::from_mountinfo(&format!("{LEGACY}{unified}"));
        assert_eq!(layout.v2, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(layout.v1.len(), 3);
    }

    #[test]
    fn the_own_group_under_systemd_is_found_in_every_layout() {
        let scope = Some("system.slice/stapes.service".to_owned());
        assert_eq!(own_group("0::/system.slice/stapes.service\n"), scope);
        let legacy = "9:memory:/system.slice\n1:name=systemd:/system.slice/stapes.service\n";
        assert_eq!(own_group(legacy), scope);
        assert_eq!(own_group(&format!("{legacy}0::/\n")), scope);
        assert_eq!(own_group("0::/a:b/c\n"), Some("a:b/c".to_owned()));
        for none in ["0::/\n", "1:name=systemd:/\n0::/\n", "0::/../init\n", ""] {
            assert_eq!(own_group(none), None, "{none}");
        }
    }

    #[test]
    fn the_second_mount_of_a_hierarchy_is_ignored() {
        let twice = format!("20 1 0:30 / /srv/jail/cpu rw - cgroup cgroup rw,cpuacct,cpu\n{LEGACY}{UNIFIED}");
        let layout = Layout::from_mountinfo(&format!("9 1 0:28 / /srv/cg2 rw - cgroup2 none rw\n{twice}"));
        assert_eq!(labels(&layout), ["name=systemd", "cpu,cpuacct", "memory"]);
        assert_eq!(layout.v1[1].mount, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(layout.v2, Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn mount_points_are_unescaped_and_broken_lines_are_skipped() {
        let text = "41 31 0:38 / /a\\040b\\134c rw - cgroup2 cgroup2 rw\nnonsense\n1 2 3 - cgroup2\n";
        assert_eq!(Layout::from_mountinfo(text).v2, Some("/a b\\c".into()));
        assert_eq!(unescape("\\9é\\0"), "\\9é\\0");
    }
}
