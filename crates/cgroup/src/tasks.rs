//! The processes of a group: who they are, stopping them for a while, and for ever.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{CgroupError, Group, knob, limits::Home};

/// The kernel freezes a task when it next leaves the kernel; one stuck in there must not hold us for ever.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Descriptors that [`Group::kill`] holds at once.
const KILL_BATCH: usize = 128;

impl Group {
    /// Processes anywhere in the group, nested groups included, sorted. An unborn group has none.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = BTreeSet::new();
        // One v1 hierarchy speaks for all of them (the guest may have left a named one alone), and v2 is its own.
        let homes = &self.homes.v1;
        let v1 = ["pids", "freezer"]
            .iter()
            .find_map(|name| homes.iter().find(|home| home.controllers.iter().any(|one| one == name)))
            .or(homes.first());
        for base in v1.map(|home| home.dir.join(self.name())).into_iter().chain(self.v2_base()) {
            collect(&base, &mut pids)?;
        }
        // 0 is a process outside our pid namespace.
        pids.remove(&0);
        Ok(pids.into_iter().collect())
    }

    /// Stops every task until [`thaw`](Self::thaw); returns once all stand still, at the latest after 5 seconds with
    /// [`TimedOut`](CgroupError::TimedOut), thawed again. Freezing a frozen group changes nothing.
    ///
    /// v1's freezer is used where it is mounted, else v2's. Source: cgroup-v1/freezer-subsystem, cgroup-v2 "cgroup.freeze".
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen(true)?;
        if wait_until(FREEZE_PATIENCE, || self.is_frozen())? {
            return Ok(());
        }
        self.set_frozen(false)?;
        Err(CgroupError::TimedOut { group: self.name().to_owned(), wanted: "frozen", patience: FREEZE_PATIENCE })
    }

    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen(false)
    }

    /// Every task stands still by our order. A group that is missing is not frozen.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let text = match self.freezer()? {
            Home::V1(dir) => knob::read(&dir.join("freezer.state")).map(|state| state.trim() == "FROZEN"),
            Home::V2(dir) => knob::read(&dir.join("cgroup.events")).map(|events| flag(&events, "frozen")),
        };
        match text {
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV)) => Ok(false),
            other => other,
        }
    }

    fn freezer(&self) -> Result<Home, CgroupError> {
        let missing = CgroupError::ControllerMissing { controller: "freezer", key: "freezing", knob: "freezer.state" };
        self.home("freezer").or(self.v2_base().map(Home::V2)).ok_or(missing)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        match self.freezer()? {
            Home::V1(dir) => knob::write(&dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" }),
            Home::V2(dir) => knob::write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
        }
    }

    /// Kills every process of the group and returns when none is left, at the latest after 5 seconds with
    /// [`TimedOut`](CgroupError::TimedOut). Frozen ones die too. Zombies do not count; an unborn group is success.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(base) = self.v2_base() {
            // Linux 5.14: atomic even against a fork bomb. Older kernels: the loop below.
            let _ = knob::write(&base.join("cgroup.kill"), "1");
        }
        let dead = wait_until(KILL_PATIENCE, || {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(true);
            }
            for batch in pids.chunks(KILL_BATCH) {
                self.kill_some(batch)?;
            }
            // A task that v1 froze takes the signal only when it is thawed.
            if let Some(Home::V1(dir)) = self.home("freezer") {
                let _ = knob::write(&dir.join("freezer.state"), "THAWED");
            }
            Ok(false)
        })?;
        if dead {
            return Ok(());
        }
        Err(CgroupError::TimedOut { group: self.name().to_owned(), wanted: "empty", patience: KILL_PATIENCE })
    }

    /// A number may have passed to a stranger since it was read: take hold of the process, then look again whether
    /// the number is still ours, and only then shoot.
    fn kill_some(&self, batch: &[u32]) -> Result<(), CgroupError> {
        let held: Vec<_> = batch
            .iter()
            .filter_map(|&pid| {
                let handle = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
                Some((pid, handle))
            })
            .collect();
        let still = self.pids()?;
        for (pid, handle) in &held {
            if still.binary_search(pid).is_ok() {
                // Already dead is what we want.
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
        }
        Ok(())
    }
}

/// The line `name 1` of a flat-keyed file.
fn flag(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split_once(' ') == Some((name, "1")))
}

fn collect(group: &Path, pids: &mut BTreeSet<u32>) -> Result<(), CgroupError> {
    let mut groups = vec![group.to_owned()];
    while let Some(group) = groups.pop() {
        match knob::read(&group.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
            // Gone, or a threaded group, whose processes its domain lists.
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)) => {}
            Err(error) => return Err(error),
        }
        groups.extend(knob::child_groups(&group)?);
    }
    Ok(())
}

/// Asks again and again, politely; `false` when `patience` ran out.
fn wait_until(patience: Duration, mut done: impl FnMut() -> Result<bool, CgroupError>) -> Result<bool, CgroupError> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(100);
    while !done()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::flag;

    #[test]
    fn flags_are_read_by_their_whole_name() {
        assert!(flag("populated 1\nfrozen 1\n", "frozen"));
        assert!(!flag("populated 1\nfrozen 0\n", "frozen"));
        assert!(!flag("unfrozen 1\n", "frozen"));
    }
}
