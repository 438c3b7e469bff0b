//! The AppArmor profile of a container as text.
//!
//! It is written for a stand-in of the instance's id and so is the same for all containers of a kind: compiled once, the
//! id is put in afterwards (see [`super::policy`]).

use std::fmt::Write;

use stapes_model::InstanceId;

use super::LsmError;

/// As long as an id, and none.
pub const STAND_IN: &str = "stapes-INSTANCE";

/// What a profile depends on, beside the id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProfileSpec<'a> {
    pub privileged: bool,
    pub nesting: bool,
    /// `raw.apparmor`: rules added as they are.
    pub raw: &'a str,
}

/// The profile's name on the host, by the immutable id.
pub fn profile_name(id: &InstanceId) -> String {
    format!("stapes-{id}")
}

/// All kinds: the container as such may do everything, less what follows.
const BASE: &str = "\
  capability,
  dbus,
  file,
  network,
  umount,

  # Its own processes, and signals from the host. The name of a peer is compiled into tables, where no id can be put in
  # later; other containers' processes are out of reach by their pid, user and network namespaces.
  signal (receive) peer=unconfined,
  signal peer=stapes-*,
  ptrace (readby, tracedby) peer=unconfined,
  ptrace peer=stapes-*,
  unix (receive) peer=(label=unconfined),
  unix peer=(label=stapes-*),

  # The machine's memory, its kernel's control, and security modules.
  deny /dev/{,k}mem rwklx,
  deny /dev/port rwklx,
  deny /proc/kcore rwklx,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/acpi/** rwklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/debug/{,**} rwklx,
  deny /sys/kernel/tracing/{,**} rwklx,
  deny mount fstype=debugfs,
  deny mount fstype=tracefs,
  deny mount fstype=efivarfs,

  # What every init does while it boots; asked for in vain it would fill the log.
  deny mount options=(ro,remount) -> /,
  deny mount options=(ro,remount,silent) -> /,
";

/// Root inside is root outside: the kernel's own files are closed by path.
const PRIVILEGED: &str = "
  # Kernel settings: only those of the container's own namespaces.
  deny /proc/sys/[^fkn]** wklx,
  deny /proc/sys/f[^s]** wklx,
  deny /proc/sys/fs/[^m]** wklx,
  deny /proc/sys/fs/m[^q]** wklx,
  deny /proc/sys/n[^e]** wklx,
  deny /proc/sys/k[^e]** wklx,
  deny /proc/sys/kernel/[^dhms]** wklx,
  deny /proc/sys/kernel/d[^o]** wklx,
  deny /proc/sys/kernel/h[^o]** wklx,
  deny /proc/sys/kernel/ho[^s]** wklx,
  deny /proc/sys/kernel/m[^s]** wklx,
  deny /proc/sys/kernel/s[^eh]** wklx,
  deny /proc/sys/kernel/se[^m]** wklx,
  deny /proc/sys/kernel/sh[^m]** wklx,
  deny /sys/[^cdf]** wklx,
  deny /sys/c[^l]** wklx,
  deny /sys/class/[^n]** wklx,
  deny /sys/d[^e]** wklx,
  deny /sys/devices/[^v]** wklx,
  deny /sys/devices/virtual/[^n]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,

  # File systems of namespaces and memory, and trees that it has already.
  mount fstype=proc -> /proc/,
  mount fstype=sysfs -> /sys/,
  mount fstype=tmpfs,
  mount fstype=ramfs,
  mount fstype=devpts,
  mount fstype=mqueue,
  mount fstype=cgroup -> /sys/fs/cgroup/{,**},
  mount fstype=cgroup2 -> /sys/fs/cgroup/{,**},
  mount fstype=fuse,
  mount fstype=fuse.*,
  mount fstype=overlay,
  mount options in (rw,ro,nosuid,nodev,noexec,noatime,relatime,bind,rbind,remount,silent),
  mount options in (rw,move),
  mount options in (rw,private,rprivate,slave,rslave,shared,rshared,unbindable,runbindable,silent),
";

/// The user namespace decides which mounts are allowed and what kernel settings are its own. A second proc or sysfs, which
/// would show what the masks cover, the kernel refuses by itself with EPERM; refused from here it would be EACCES, of which
/// systemd's sandboxes (`ProtectProc=`) die instead of doing without.
const UNPRIVILEGED: &str = "
  mount,
  pivot_root,
";

/// Containers within: their own proc and sysfs anywhere.
const NESTING: &str = "
  pivot_root,
  mount fstype=proc,
  mount fstype=sysfs,
  mount fstype=cgroup,
  mount fstype=cgroup2,
  mount fstype=binfmt_misc,
";

/// The profile as text for apparmor_parser(8).
///
/// `raw` may hold any rules, but no braces that close or open a profile: it would end up outside this one.
pub fn render(spec: &ProfileSpec<'_>) -> Result<String, LsmError> {
    let mut text = format!("profile \"{STAND_IN}\" flags=(attach_disconnected,mediate_deleted) {{\n");
    text.push_str(BASE);
    text.push_str(if spec.privileged { PRIVILEGED } else { UNPRIVILEGED });
    if spec.nesting {
        text.push_str(NESTING);
    }
    if !spec.raw.trim().is_empty() {
        text.push_str("\n  # raw.apparmor\n");
        for line in spec.raw.lines() {
            checked_raw(line)?;
            let _ = writeln!(text, "  {}", line.trim());
        }
    }
    text.push_str("}\n");
    Ok(text)
}

/// Braces within a rule (`/{a,b}`) are paired on their line; one that is not belongs to a profile.
fn checked_raw(line: &str) -> Result<(), LsmError> {
    let mut depth = 0_i32;
    for letter in line.chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if depth < 0 {
            break;
        }
    }
    if depth == 0 { Ok(()) } else { Err(LsmError::Raw { line: line.chars().take(80).collect() }) }
}

#[cfg(test)]
mod tests {
    use stapes_sys::exec::Exec;

    use super::*;

    fn profile(privileged: bool, nesting: bool, raw: &str) -> Result<String, LsmError> {
        render(&ProfileSpec { privileged, nesting, raw })
    }

    #[test]
    fn each_kind_has_its_own_rules() {
        let plain = profile(false, false, "").unwrap();
        assert!(plain.contains("profile \"stapes-INSTANCE\" flags"));
        assert!(plain.contains("\n  mount,\n") && !plain.contains("mount fstype=proc"));
        let nesting = profile(false, true, "").unwrap();
        assert!(nesting.contains("\n  mount fstype=proc,\n"));
        let privileged = profile(true, false, "").unwrap();
        assert!(!privileged.contains("\n  mount,\n") && privileged.contains("deny /proc/sys/kernel/[^dhms]** wklx,"));
    }

    #[test]
    fn every_rule_ends_with_a_comma_and_braces_are_paired() {
        for (privileged, nesting) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = profile(privileged, nesting, "/srv/** rw,").unwrap();
            for line in text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && *line != "}") {
                assert!(line.starts_with('#') || line.ends_with(','), "{line}");
            }
            assert_eq!(text.matches('{').count(), text.matches('}').count());
        }
    }

    #[test]
    fn the_parser_accepts_each_profile() {
        for (privileged, nesting) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = profile(privileged, nesting, "").unwrap();
            let parse = Exec::new("apparmor_parser").args(["--skip-kernel-load", "--skip-cache", "--quiet"]);
            match parse.input(text).run() {
                Err(error) if error.is_missing() => {
                    eprintln!("SKIP AppArmor syntax: needs apparmor_parser (package apparmor)");
                    return;
                }
                result => assert!(result.is_ok(), "{result:?}"),
            }
        }
    }

    #[test]
    fn raw_rules_stay_inside_the_profile() {
        assert!(profile(false, false, "/srv/{a,b}/** rw,\nmount,").unwrap().contains("\n  /srv/{a,b}/** rw,\n"));
        for bad in ["}", "}\nprofile x {", "/a rw, } profile y { file,", "profile x {"] {
            assert!(matches!(profile(false, false, bad), Err(LsmError::Raw { .. })), "{bad}");
        }
    }
}
