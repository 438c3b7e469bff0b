//! AppArmor profiles and SELinux labels: what a container is called to the host's security module, and what it may do.
//!
//! Rendering is pure text. Only [`available`], [`load`] and [`unload`] touch the host.

use std::{fmt::Write, path::Path};

use stapes_model::{ErrorKind, InstanceId};
use stapes_sys::exec::{Exec, ExecError};

/// Which security modules this host runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Available {
    pub apparmor: bool,
    pub selinux: bool,
}

/// A profile that cannot be rendered or loaded.
#[derive(Debug, thiserror::Error)]
pub enum LsmError {
    #[error("raw.apparmor: line {line:?} would end or begin a profile")]
    Raw { line: String },
    #[error("failed to load AppArmor profile {profile}")]
    Load {
        profile: String,
        #[source]
        source: ExecError,
    },
    #[error("AppArmor is on, but apparmor_parser is not installed: profile {profile} cannot be loaded")]
    NoParser { profile: String },
}

impl LsmError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Raw { .. } => ErrorKind::BadRequest,
            Self::Load { .. } => ErrorKind::Internal,
            Self::NoParser { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Looks for the modules' file systems beneath `/sys`.
pub fn available() -> Available {
    available_in(Path::new("/sys"))
}

fn available_in(sys: &Path) -> Available {
    Available {
        // The directory is there only when the module is enabled and securityfs is mounted; both are needed.
        apparmor: sys.join("kernel/security/apparmor/profiles").exists(),
        selinux: sys.join("fs/selinux/enforce").exists(),
    }
}

/// What a profile depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileSpec<'a> {
    pub id: &'a InstanceId,
    pub privileged: bool,
    pub nesting: bool,
    /// `raw.apparmor`: rules added as they are.
    pub raw: &'a str,
}

/// The profile's name on the host, by the immutable id.
pub fn profile_name(id: &InstanceId) -> String {
    format!("stapes-{id}")
}

/// What the child writes to [`APPARMOR_EXEC`] before execve of the guest's init, and each exec too.
pub fn apparmor_exec(id: &InstanceId) -> String {
    format!("exec {}", profile_name(id))
}

/// Beneath the *host's* /proc of the thread that will execve; the second is for kernels before 5.8.
pub const APPARMOR_EXEC: [&str; 2] = ["/proc/thread-self/attr/apparmor/exec", "/proc/thread-self/attr/exec"];

/// Where [`selinux_label`] is written before execve.
pub const SELINUX_EXEC: &str = "/proc/thread-self/attr/exec";

/// The label of a container that runs an init, as container-selinux knows it, in a pair of categories of its own:
/// containers cannot touch each other's files and processes. Two ids may share a pair (one in 523,776).
pub fn selinux_label(id: &InstanceId) -> String {
    let hash = id.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
    });
    let first = hash % 1024;
    // Never the same twice: a pair of equal categories is not a pair.
    let second = (first + 1 + (hash >> 32) % 1023) % 1024;
    let (low, high) = (first.min(second), first.max(second));
    format!("system_u:system_r:container_init_t:s0:c{low},c{high}")
}

/// All kinds: the container as such may do everything, less what follows.
const BASE: &str = "\
  capability,
  dbus,
  file,
  network,
  umount,

  # Its own processes, and signals from the host.
  signal (receive) peer=unconfined,
  signal peer=@{profile_name},
  ptrace (readby, tracedby) peer=unconfined,
  ptrace peer=@{profile_name},
  unix (receive) peer=(label=unconfined),
  unix peer=(label=@{profile_name}),

  # The machine's memory, its kernel's control, and security modules.
  deny /dev/{,k}mem rwklx,
  deny /dev/port rwklx,
  deny @{PROC}/kcore rwklx,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/acpi/** rwklx,
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
  deny @{PROC}/sys/[^fkn]** wklx,
  deny @{PROC}/sys/f[^s]** wklx,
  deny @{PROC}/sys/fs/[^m]** wklx,
  deny @{PROC}/sys/fs/m[^q]** wklx,
  deny @{PROC}/sys/n[^e]** wklx,
  deny @{PROC}/sys/k[^e]** wklx,
  deny @{PROC}/sys/kernel/[^dhms]** wklx,
  deny @{PROC}/sys/kernel/d[^o]** wklx,
  deny @{PROC}/sys/kernel/h[^o]** wklx,
  deny @{PROC}/sys/kernel/ho[^s]** wklx,
  deny @{PROC}/sys/kernel/m[^s]** wklx,
  deny @{PROC}/sys/kernel/s[^eh]** wklx,
  deny @{PROC}/sys/kernel/se[^m]** wklx,
  deny @{PROC}/sys/kernel/sh[^m]** wklx,
  deny /sys/[^cdf]** wklx,
  deny /sys/c[^l]** wklx,
  deny /sys/class/[^n]** wklx,
  deny /sys/d[^e]** wklx,
  deny /sys/devices/[^v]** wklx,
  deny /sys/devices/virtual/[^n]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,

  # File systems of namespaces and memory, and trees that it has already.
  mount fstype=proc -> @{PROC}/,
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

/// The user namespace decides which mounts are allowed and what kernel settings are its own.
const UNPRIVILEGED: &str = "
  mount,
  pivot_root,
";

/// Containers within: their own proc and sysfs anywhere, and profiles for them.
const NESTING: &str = "
  pivot_root,
  mount fstype=proc,
  mount fstype=sysfs,
  mount fstype=cgroup,
  mount fstype=cgroup2,
  mount fstype=binfmt_misc,
  change_profile -> @{profile_name}//**,
";

/// Without nesting a second proc or sysfs is refused: it would show what the masks cover.
const NO_NESTING: &str = "
  deny mount fstype=proc -> /[^p]**,
  deny mount fstype=sysfs -> /[^s]**,
  deny /dev/.lxc/{proc,sys}/** rw,
";

/// The profile as text for apparmor_parser(8).
///
/// `raw` may hold any rules, but no braces that close or open a profile: it would end up outside this one.
pub fn render(spec: &ProfileSpec<'_>) -> Result<String, LsmError> {
    let mut text = String::from("#include <tunables/global>\n\n");
    let _ = writeln!(text, "profile \"{}\" flags=(attach_disconnected,mediate_deleted) {{", profile_name(spec.id));
    text.push_str(BASE);
    text.push_str(if spec.privileged { PRIVILEGED } else { UNPRIVILEGED });
    text.push_str(if spec.nesting { NESTING } else { NO_NESTING });
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

/// Loads a rendered profile into the kernel, replacing one of the same name under the feet of whoever is confined by it.
///
/// Takes tens of milliseconds: at an instance's first start and when its keys change, not on every start.
pub fn load(id: &InstanceId, text: &str) -> Result<(), LsmError> {
    parser(id, "--replace", text)
}

/// Takes the profile out of the kernel, when its instance is deleted.
pub fn unload(id: &InstanceId, text: &str) -> Result<(), LsmError> {
    parser(id, "--remove", text)
}

/// Whether the kernel has the profile; needs no tool.
pub fn is_loaded(id: &InstanceId) -> bool {
    let name = profile_name(id);
    let profiles = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    profiles.lines().any(|line| line.split(" (").next() == Some(&name))
}

fn parser(id: &InstanceId, action: &str, text: &str) -> Result<(), LsmError> {
    let profile = profile_name(id);
    match Exec::new("apparmor_parser").args([action, "--quiet"]).input(text).run() {
        Ok(_) => Ok(()),
        Err(error) if error.is_missing() => Err(LsmError::NoParser { profile }),
        Err(source) => Err(LsmError::Load { profile, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> InstanceId {
        "abcdefg7".parse().unwrap()
    }

    fn profile(privileged: bool, nesting: bool, raw: &str) -> Result<String, LsmError> {
        render(&ProfileSpec { id: &id(), privileged, nesting, raw })
    }

    #[test]
    fn each_kind_has_its_own_rules() {
        let plain = profile(false, false, "").unwrap();
        assert!(plain.contains(&format!("profile \"stapes-{}\" flags", id())));
        assert!(plain.contains("\n  mount,\n") && plain.contains("deny mount fstype=proc -> /[^p]**,"));
        let nesting = profile(false, true, "").unwrap();
        assert!(nesting.contains("\n  mount fstype=proc,\n") && !nesting.contains("deny mount fstype=proc"));
        let privileged = profile(true, false, "").unwrap();
        assert!(!privileged.contains("\n  mount,\n") && privileged.contains("deny @{PROC}/sys/kernel/[^dhms]** wklx,"));
    }

    #[test]
    fn every_rule_ends_with_a_comma_and_braces_are_paired() {
        for (privileged, nesting) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = profile(privileged, nesting, "/srv/** rw,").unwrap();
            for line in text.lines().skip(3).map(str::trim).filter(|line| !line.is_empty() && *line != "}") {
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

    #[test]
    fn selinux_categories_are_two_in_order() {
        let label = selinux_label(&id());
        let (context, categories) = label.rsplit_once(':').unwrap();
        assert_eq!(context, "system_u:system_r:container_init_t:s0");
        let (low, high) = categories.split_once(',').unwrap();
        let number = |category: &str| category.strip_prefix('c').unwrap().parse::<u32>().unwrap();
        assert!(number(low) < number(high) && number(high) < 1024);
    }

    #[test]
    fn a_host_without_modules_has_none() {
        assert_eq!(available_in(Path::new("/nonexistent")), Available::default());
    }
}
