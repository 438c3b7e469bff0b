//! Capabilities by name, and the bounding set of a container. Source: capabilities(7), linux/capability.h.

/// Names by number, as Incus and LXC write them: lower case, without `CAP_`.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// What a privileged container may never have, as in Incus and LXC: each acts on the one kernel that all share.
///
/// `sys_boot` is not among them: inside a pid namespace reboot(2) ends that namespace only, and "reboot from inside"
/// needs it. `sys_admin` is what makes it a privileged container.
pub const DROPPED_PRIVILEGED: [&str; 5] = ["mac_admin", "mac_override", "sys_module", "sys_rawio", "sys_time"];

/// The number of a capability; `CAP_SYS_ADMIN`, `cap_sys_admin` and `sys_admin` are the same.
pub fn number(name: &str) -> Option<u32> {
    let name = name.to_ascii_lowercase();
    let bare = name.strip_prefix("cap_").unwrap_or(&name);
    NAMES.iter().position(|one| *one == bare).and_then(|at| u32::try_from(at).ok())
}

/// The set as one bit each.
pub fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<u64> {
    names.into_iter().try_fold(0, |mask, name| Some(mask | 1 << number(name)?))
}

/// The names in a set, by number. Bits that have no name yet are left out.
pub fn names(mask: u64) -> Vec<&'static str> {
    NAMES.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, name)| *name).collect()
}

/// What stays in the bounding set of a container's init and of each exec; for `sys::privilege::drop_bounding`.
///
/// Unprivileged: everything, capabilities without a name yet included, since they hold in the container's own user
/// namespace only. Privileged: all but [`DROPPED_PRIVILEGED`] and those that this table does not know.
pub fn bounding_set(privileged: bool) -> u64 {
    if !privileged {
        return u64::MAX;
    }
    let known = (1 << NAMES.len()) - 1;
    known & !mask(DROPPED_PRIVILEGED).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        let expected = [("chown", 0), ("CAP_SYS_ADMIN", 21), ("cap_mknod", 27), ("setfcap", 31), ("bpf", 39)];
        for (name, wanted) in expected {
            assert_eq!(number(name), Some(wanted), "{name}");
        }
        assert_eq!(number("checkpoint_restore"), Some(40));
        assert_eq!(number("cap_"), None);
        assert_eq!(number("fly"), None);
    }

    #[test]
    fn names_and_masks_are_inverse() {
        let all = mask(NAMES).unwrap();
        assert_eq!(all, (1 << 41) - 1);
        assert_eq!(names(all), NAMES);
        assert_eq!(names(mask(["syslog", "kill"]).unwrap()), ["kill", "syslog"]);
        assert_eq!(mask(["kill", "fly"]), None);
        assert!(names(1 << 63).is_empty());
    }

    #[test]
    fn a_privileged_container_cannot_touch_modules_clock_or_policy() {
        let kept = names(bounding_set(true));
        assert_eq!(kept.len(), NAMES.len() - DROPPED_PRIVILEGED.len());
        assert!(!kept.contains(&"sys_module") && !kept.contains(&"sys_time") && kept.contains(&"sys_boot"));
        assert_eq!(names(bounding_set(false)), NAMES);
    }
}
