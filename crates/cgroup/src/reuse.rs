//! Keeping v1 groups, and the one process parked in them, from an instance that ended for the next one.
//!
//! Joining a v1 group holds the kernel's lock on every fork for 7 to 10 ms, so an instance's groups are not thrown away
//! with it: they are renamed, and made as good as new. What cannot be made so is not kept.

use std::path::Path;

use rustix::{
    fs::{AtFlags, CWD, Mode},
    io::Errno,
};
use stapes_model::Limits;

use crate::{CgroupError, Cgroups, DEFAULT_DEVICES, Group, group::remove_nested, knob, limits::Home};

/// Memory (page cache of its last guest) with which a group may still be reused: the next instance is told of it as its
/// own.
const LEFT_OVER_BYTES: u64 = 4 << 20;

/// Counters that are set back by a write, by controller, and what to write.
const RESETTABLE: [(&str, &str, &str); 6] = [
    ("cpuacct", "cpuacct.usage", "0"),
    ("memory", "memory.failcnt", "0"),
    ("memory", "memory.max_usage_in_bytes", "0"),
    ("memory", "memory.memsw.failcnt", "0"),
    ("memory", "memory.memsw.max_usage_in_bytes", "0"),
    ("blkio", "blkio.reset_stats", "1"),
];

/// Counters that the kernel never sets back, by controller, file and line.
const TELLTALES: [(&str, &str, &str); 3] =
    [("memory", "memory.oom_control", "oom_kill"), ("pids", "pids.events", "max"), ("cpu", "cpu.stat", "nr_throttled")];

impl Cgroups {
    /// Whether groups are worth keeping here and can be: all limits are v1's.
    pub fn can_retire(&self) -> bool {
        !self.homes.v1.is_empty() && self.homes.v2.as_ref().is_none_or(|home| home.controllers.is_empty())
    }

    /// Gives the v1 groups of an instance that ended the name of a spare, with the process that is parked in them.
    /// Groups that its guest made go, and so does v2's half, which has no rename and which
    /// [`rename`](Self::rename) makes anew. Before it is used again the group must be [renewed](Group::renew).
    ///
    /// On an error the group keeps its name and should be removed.
    pub fn retire(&self, from: &str, to: &str) -> Result<Group, CgroupError> {
        let old = self.group(from);
        for home in &self.homes.v1 {
            knob::child_groups(&old.v1_payload(&home.dir))?.iter().try_for_each(|group| remove_nested(group, 0))?;
        }
        old.remove_v2()?;
        self.rename_v1(from, to)?;
        Ok(self.group(to))
    }
}

impl Group {
    /// Takes away all that the last instance left in v1 groups: limits, device rules, modes, counters.
    ///
    /// Fails with [`Used`](CgroupError::Used) where something cannot be undone. Not for groups of a privileged instance, whose root could write any file of the payload.
    pub fn renew(&self) -> Result<(), CgroupError> {
        if let Some(Home::V1(_)) = self.home("freezer") {
            self.thaw()?;
        }
        self.apply(&Limits::default())?;
        if let Some(Home::V1(_)) = self.home("devices") {
            self.allow_devices(&DEFAULT_DEVICES)?;
        }
        for home in &self.homes.v1 {
            disown(&self.v1_payload(&home.dir))?;
        }
        self.check_memory()?;
        for dir in [self.name().to_owned(), format!("{}/payload", self.name())] {
            let file = |controller: &str, file: &str| {
                let home = self.homes.v1.iter().find(|home| home.controllers.iter().any(|one| one == controller));
                home.map(|home| home.dir.join(&dir).join(file))
            };
            for (controller, name, line) in TELLTALES {
                let text = file(controller, name).and_then(|path| knob::read(&path).ok()).unwrap_or_default();
                if counted(&text, line) {
                    return Err(CgroupError::Used { group: self.name().to_owned(), left: format!("{line} in {name}") });
                }
            }
            for (controller, name, value) in RESETTABLE {
                match file(controller, name).map(|path| knob::write(&path, value)) {
                    // Not every kernel has every one of them.
                    Some(Err(error)) if !matches!(error.errno(), Some(Errno::NOENT | Errno::ACCESS)) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Page cache stays: most of it is of files that the same instance will read again at its next start.
    fn check_memory(&self) -> Result<(), CgroupError> {
        let Some(Home::V1(base)) = self.home("memory") else { return Ok(()) };
        match knob::read_number(&base.join("memory.usage_in_bytes")).unwrap_or(0) {
            bytes if bytes <= LEFT_OVER_BYTES => Ok(()),
            bytes => Err(CgroupError::Used { group: self.name().to_owned(), left: format!("{bytes} bytes of memory") }),
        }
    }
}

/// Takes back from the guest's root what [`Group::delegate`] gave it. As the owner it may have changed modes.
fn disown(payload: &Path) -> Result<(), CgroupError> {
    for (name, mode) in [("", 0o755), ("cgroup.procs", 0o644), ("tasks", 0o644)] {
        let path = if name.is_empty() { payload.to_owned() } else { payload.join(name) };
        knob::chown(&path, 0, 0)?;
        rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|errno| CgroupError::call("chmod", &path, errno))?;
    }
    Ok(())
}

/// Whether the line `name N` counts more than nothing.
fn counted(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split_once(' ').is_some_and(|(key, count)| key == name && count.trim() != "0"))
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        assert!(counted("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"));
        assert!(!counted("oom_kill_disable 1\nunder_oom 0\noom_kill 0\n", "oom_kill"));
        assert!(!counted("", "max"));
    }
}
