//! Paths of /proc and /sys that a container does not see, or sees read-only: data for whoever builds its mounts.
//!
//! **Why nesting has none.** The kernel lets a user namespace mount a fresh proc or sysfs only if an old one is *fully
//! visible* there: no mount may cover any part of it but an empty directory (`mount_too_revealing`, fs/namespace.c). One
//! mask, or one LXCFS file over /proc/meminfo, and a container inside this one cannot get its own /proc. So a nesting
//! container gets no masks but over directories that are empty by nature, and beside the covered /proc an uncovered one in a place of its own
//! ([`Masks::pristine`], where LXC puts it too). What guards these files then are their owners: in an unprivileged
//! container host root's files are nobody's, and the kernel asks for capabilities in the host's user namespace.

/// What to do to /proc and /sys once they are mounted. Paths are absolute inside; a missing one is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masks {
    /// Covered: a directory by an empty read-only tmpfs, a file by /dev/null.
    pub masked: &'static [&'static str],
    /// Bound over themselves, read-only, before [`writable`](Self::writable).
    pub read_only: &'static [&'static str],
    /// Bound over themselves, writable, within a read-only path.
    pub writable: &'static [&'static str],
    /// Further mounts: file system and where (the directory is made).
    pub pristine: &'static [(&'static str, &'static str)],
}

/// Tells about the host or its hardware, or controls it, and no guest needs it.
const MASKED: [&str; 16] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/fuse/connections",
    "/sys/kernel/config",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// Those of them that are mount points, which the kernel keeps empty: covering one hides nothing, so that proc and sysfs
/// stay fully visible. Without it systemd inside would try to mount the real thing, fail, and report itself degraded.
const MOUNT_POINTS: [&str; 5] = [
    "/sys/fs/fuse/connections",
    "/sys/kernel/config",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// /proc/sys is not here: what a namespace owns in it (net, hostname, IPC) the guest may set, the rest is host root's.
const READ_ONLY_UNPRIVILEGED: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];

/// Root inside is root outside: all that controls the kernel is read-only (LXC's `proc:mixed` and `sys:mixed`).
const READ_ONLY_PRIVILEGED: [&str; 6] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"];

/// What belongs to the container's own network, UTS and IPC namespaces, and its cgroups.
const WRITABLE_PRIVILEGED: [&str; 13] = [
    "/proc/sys/fs/mqueue",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/msgmax",
    "/proc/sys/kernel/msgmnb",
    "/proc/sys/kernel/msgmni",
    "/proc/sys/kernel/sem",
    "/proc/sys/kernel/shmall",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/kernel/shmmni",
    "/proc/sys/net",
    "/sys/devices/virtual/net",
    "/sys/fs/cgroup",
];

const PRISTINE: [(&str, &str); 2] = [("proc", "/dev/.lxc/proc"), ("sysfs", "/dev/.lxc/sys")];

/// The masks of a kind of container.
///
/// A privileged one keeps its read-only paths with nesting: what it loses is masks only, and its nested mounts need no
/// visible proc, since root of the host's user namespace may always mount one.
pub fn masks(privileged: bool, nesting: bool) -> Masks {
    match (privileged, nesting) {
        (false, false) => Masks { masked: &MASKED, read_only: &READ_ONLY_UNPRIVILEGED, writable: &[], pristine: &[] },
        (false, true) => Masks { masked: &MOUNT_POINTS, read_only: &[], writable: &[], pristine: &PRISTINE },
        (true, _) => Masks {
            masked: &MASKED,
            read_only: &READ_ONLY_PRIVILEGED,
            writable: &WRITABLE_PRIVILEGED,
            pristine: if nesting { &PRISTINE } else { &[] },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unprivileged_nesting_container_sees_all_of_proc() {
        let nesting = masks(false, true);
        assert!(nesting.read_only.is_empty());
        assert!(nesting.masked.iter().all(|path| path.starts_with("/sys/") && MASKED.contains(path)));
        assert_eq!(nesting.pristine[0], ("proc", "/dev/.lxc/proc"));
    }

    #[test]
    fn what_is_writable_lies_in_something_read_only() {
        for (privileged, nesting) in [(false, false), (false, true), (true, false), (true, true)] {
            let masks = masks(privileged, nesting);
            for path in masks.writable {
                assert!(masks.read_only.iter().any(|outer| path.starts_with(&format!("{outer}/"))), "{path}");
            }
            let all = masks.masked.iter().chain(masks.read_only).chain(masks.writable);
            assert!(all.clone().all(|path| path.starts_with("/proc/") || path.starts_with("/sys")));
            assert!(masks.masked.is_sorted() && masks.read_only.is_sorted() && masks.writable.is_sorted());
        }
    }

    #[test]
    fn the_network_settings_of_a_container_are_its_own() {
        assert!(masks(true, false).writable.contains(&"/proc/sys/net"));
        assert!(!masks(false, false).read_only.contains(&"/proc/sys"));
    }
}
