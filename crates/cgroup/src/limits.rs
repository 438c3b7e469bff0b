//! Limits, each by the controller that this host has for it, v1 or v2.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use stapes_model::Limits;

use crate::{CgroupError, Group, knob};

/// The period of CPU quotas unless one is given, in microseconds: the kernel's own default.
const CPU_PERIOD: u64 = 100_000;

/// Which files speak for a controller.
pub(crate) enum Home {
    V1(PathBuf),
    V2(PathBuf),
}

/// Where a value goes and which key asked for it.
struct Knob<'a> {
    dir: &'a Path,
    file: &'static str,
    controller: &'static str,
    key: &'static str,
}

impl Knob<'_> {
    fn missing(&self) -> CgroupError {
        CgroupError::ControllerMissing { controller: self.controller, key: self.key, knob: self.file }
    }

    fn set(&self, value: &str) -> Result<(), CgroupError> {
        let Err(error) = knob::write(&self.dir.join(self.file), value) else { return Ok(()) };
        match error {
            CgroupError::Call { source, call } => match source.raw_os_error().map(Errno::from_raw_os_error) {
                // The group exists, so it is the knob that does not. A controller not enabled looks the same.
                Some(Errno::NOENT | Errno::ACCESS) if self.dir.exists() => Err(self.missing()),
                Some(Errno::INVAL | Errno::RANGE | Errno::BUSY | Errno::NOSPC) => {
                    Err(CgroupError::Refused { key: self.key, knob: self.file, value: value.to_owned(), source })
                }
                _ => Err(CgroupError::Call { call, source }),
            },
            other => Err(other),
        }
    }

    /// Takes a limit away; where the knob is missing there was none.
    fn lift(&self, value: &str) -> Result<(), CgroupError> {
        match self.set(value) {
            Err(CgroupError::ControllerMissing { .. }) => Ok(()),
            result => result,
        }
    }
}

impl Group {
    pub(crate) fn home(&self, controller: &str) -> Option<Home> {
        let has = |controllers: &[String]| controllers.iter().any(|one| one == controller);
        let homes = &self.homes;
        if let Some(v1) = homes.v1.iter().find(|home| has(&home.controllers)) {
            return Some(Home::V1(v1.dir.join(self.name())));
        }
        homes.v2.as_ref().filter(|home| has(&home.controllers)).map(|home| Home::V2(home.dir.join(self.name())))
    }

    /// Makes `limits` the group's limits, whatever they were: what is `None` is lifted. May run while the guest does.
    ///
    /// Lowering `memory` below what is in use makes the kernel reclaim and may kill tasks of the group; v1 answers
    /// EBUSY instead where it cannot reclaim enough. v2 weights become v1 shares (100 is 1,024). Not here, since they
    /// belong to processes: `oom_score_adj` and `rlimits`. Limits are written in the order of the fields, and the first
    /// that fails ends it. Source: kernel, admin-guide/cgroup-v2 and admin-guide/cgroup-v1.
    pub fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.write_limits(limits, true)
    }

    /// Like [`apply`](Self::apply) for a group that was never limited: writes nothing for what is `None`.
    pub fn apply_to_new(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.write_limits(limits, false)
    }

    fn write_limits(&self, limits: &Limits, lift: bool) -> Result<(), CgroupError> {
        self.limit_memory(limits, lift)?;
        self.limit_processes(limits.processes, lift)?;
        self.limit_cpu_time(limits.cpu_quota, lift)?;
        self.weigh_cpu(limits.cpu_weight, lift)?;
        self.limit_cpus("cpuset.cpus", "limits.cpu", limits.cpus.as_deref(), lift)?;
        self.limit_cpus("cpuset.mems", "limits.cpu.nodes", limits.nodes.as_deref(), lift)?;
        self.weigh_disk(limits.disk_weight, lift)
    }

    fn limit_memory(&self, limits: &Limits, lift: bool) -> Result<(), CgroupError> {
        if limits.memory.is_none() && !limits.no_swap && !lift {
            return Ok(());
        }
        let (controller, key) = ("memory", "limits.memory");
        let bytes = limits.memory.map(|size| size.as_bytes().to_string());
        let (hard, soft) = if limits.memory_soft { (None, bytes) } else { (bytes, None) };
        match self.home(controller) {
            Some(Home::V2(dir)) => {
                let knob = |file, key| Knob { dir: &dir, file, controller, key };
                set_or_lift(&knob("memory.max", key), hard.as_deref(), "max", lift)?;
                set_or_lift(&knob("memory.high", key), soft.as_deref(), "max", lift)?;
                let swap = limits.no_swap.then_some("0");
                set_or_lift(&knob("memory.swap.max", "limits.memory.swap"), swap, "max", lift)
            }
            Some(Home::V1(dir)) => {
                let knob = |file, key| Knob { dir: &dir, file, controller, key };
                let both = knob("memory.memsw.limit_in_bytes", "limits.memory.swap");
                // The kernel keeps memory ≤ memory + swap at every moment: open the outer limit first.
                if lift {
                    both.lift("-1")?;
                }
                set_or_lift(&knob("memory.limit_in_bytes", key), hard.as_deref(), "-1", lift)?;
                set_or_lift(&knob("memory.soft_limit_in_bytes", key), soft.as_deref(), "-1", lift)?;
                match (limits.no_swap, &hard) {
                    (true, Some(hard)) => both.set(hard),
                    // Without a hard cap v1 has no "no swap", only "last resort".
                    (true, None) => knob("memory.swappiness", "limits.memory.swap").set("0"),
                    (false, _) if lift => knob("memory.swappiness", "limits.memory.swap").lift("60"),
                    (false, _) => Ok(()),
                }
            }
            None if limits.memory.is_some() => {
                Err(CgroupError::ControllerMissing { controller, key, knob: "memory.max" })
            }
            None if limits.no_swap => {
                Err(CgroupError::ControllerMissing { controller, key: "limits.memory.swap", knob: "memory.swap.max" })
            }
            None => Ok(()),
        }
    }

    fn limit_processes(&self, most: Option<u64>, lift: bool) -> Result<(), CgroupError> {
        let (controller, file, key) = ("pids", "pids.max", "limits.processes");
        match self.home(controller) {
            Some(Home::V1(dir) | Home::V2(dir)) => {
                let value = most.map(|most| most.to_string());
                set_or_lift(&Knob { dir: &dir, file, controller, key }, value.as_deref(), "max", lift)
            }
            None if most.is_some() => Err(CgroupError::ControllerMissing { controller, key, knob: file }),
            None => Ok(()),
        }
    }

    fn limit_cpu_time(&self, quota: Option<(u64, u64)>, lift: bool) -> Result<(), CgroupError> {
        let (controller, key) = ("cpu", "limits.cpu.allowance");
        match self.home(controller) {
            Some(Home::V2(dir)) => {
                let value = quota.map(|(quota, period)| format!("{quota} {period}"));
                let unlimited = format!("max {CPU_PERIOD}");
                set_or_lift(&Knob { dir: &dir, file: "cpu.max", controller, key }, value.as_deref(), &unlimited, lift)
            }
            Some(Home::V1(dir)) => {
                let knob = |file| Knob { dir: &dir, file, controller, key };
                if lift {
                    // Unlimited first: the kernel would judge the old quota by the new period.
                    knob("cpu.cfs_quota_us").lift("-1")?;
                }
                let Some((quota, period)) = quota else { return Ok(()) };
                knob("cpu.cfs_period_us").set(&period.to_string())?;
                knob("cpu.cfs_quota_us").set(&quota.to_string())
            }
            None if quota.is_some() => Err(CgroupError::ControllerMissing { controller, key, knob: "cpu.max" }),
            None => Ok(()),
        }
    }

    fn weigh_cpu(&self, weight: Option<u64>, lift: bool) -> Result<(), CgroupError> {
        let (controller, key) = ("cpu", "limits.cpu.priority");
        let (dir, file, value) = match (self.home(controller), weight) {
            (Some(Home::V2(dir)), weight) => (dir, "cpu.weight", weight),
            (Some(Home::V1(dir)), weight) => (dir, "cpu.shares", weight.map(shares)),
            (None, Some(_)) => return Err(CgroupError::ControllerMissing { controller, key, knob: "cpu.weight" }),
            (None, None) => return Ok(()),
        };
        let default = if file == "cpu.weight" { "100" } else { "1024" };
        let value = value.map(|value| value.to_string());
        set_or_lift(&Knob { dir: &dir, file, controller, key }, value.as_deref(), default, lift)
    }

    fn limit_cpus(
        &self,
        file: &'static str,
        key: &'static str,
        list: Option<&str>,
        lift: bool,
    ) -> Result<(), CgroupError> {
        if list.is_none() && !lift {
            return Ok(());
        }
        let controller = "cpuset";
        match self.home(controller) {
            // An empty list is the parent's.
            Some(Home::V2(dir)) => set_or_lift(&Knob { dir: &dir, file, controller, key }, list, "\n", lift),
            Some(Home::V1(dir)) => {
                let parent = dir.parent().map(|parent| knob::read(&parent.join(file))).transpose()?.unwrap_or_default();
                move_v1_cpuset(&Knob { dir: &dir, file, controller, key }, list.unwrap_or(parent.trim()))
            }
            None if list.is_some() => Err(CgroupError::ControllerMissing { controller, key, knob: file }),
            None => Ok(()),
        }
    }

    fn weigh_disk(&self, weight: Option<u64>, lift: bool) -> Result<(), CgroupError> {
        let key = "limits.disk.priority";
        let (dir, controller, knobs): (PathBuf, _, [(&str, u64); 2]) = match (self.home("io"), self.home("blkio")) {
            (Some(Home::V2(dir)), _) => (dir, "io", [("io.weight", 100), ("io.bfq.weight", 100)]),
            (_, Some(Home::V1(dir))) => (dir, "blkio", [("blkio.weight", 500), ("blkio.bfq.weight", 100)]),
            _ if weight.is_some() => {
                return Err(CgroupError::ControllerMissing { controller: "io", key, knob: "io.weight" });
            }
            _ => return Ok(()),
        };
        if weight.is_none() && !lift {
            return Ok(());
        }
        let present = knobs.into_iter().find(|(file, _)| dir.join(file).exists());
        let Some((file, default)) = present else {
            let knob = knobs[0].0;
            return weight.map_or(Ok(()), |_| Err(CgroupError::ControllerMissing { controller, key, knob }));
        };
        // The key's scale is blkio's, where 500 is the middle; the newer knobs have theirs at 100.
        let value = weight.map_or(default, |weight| (weight * default / 500).max(1));
        Knob { dir: &dir, file, controller, key }.set(&value.to_string())
    }
}

fn set_or_lift(knob: &Knob<'_>, value: Option<&str>, unlimited: &str, lift: bool) -> Result<(), CgroupError> {
    match value {
        Some(value) => knob.set(value),
        None if lift => knob.lift(unlimited),
        None => Ok(()),
    }
}

/// v2's weight (1 to 10,000, middle 100) as v1's shares (2 to 262,144, middle 1,024), as the kernel's scheduler does.
fn shares(weight: u64) -> u64 {
    (weight.saturating_mul(1024) / 100).clamp(2, 262_144)
}

/// Moves a v1 cpuset with all beneath it: the kernel wants each group within its parent at every moment, so the tree
/// first grows from the top to the union, then shrinks from the bottom.
fn move_v1_cpuset(knob: &Knob<'_>, wanted: &str) -> Result<(), CgroupError> {
    let old = knob::read(&knob.dir.join(knob.file))?;
    let old = old.trim();
    if old == wanted {
        return Ok(());
    }
    let mut tree = vec![knob.dir.to_owned()];
    let mut at = 0;
    while at < tree.len() {
        tree.extend(knob::child_groups(&tree[at])?);
        at += 1;
    }
    let both = format!("{old},{wanted}");
    let set = |dir: &PathBuf, value: &str| Knob { dir, ..*knob }.set(value);
    let moved = tree.iter().try_for_each(|dir| set(dir, &both));
    let moved = moved.and_then(|()| tree.iter().rev().try_for_each(|dir| set(dir, wanted)));
    moved.map_err(|error| {
        for dir in tree.iter().rev() {
            let _ = set(dir, old);
        }
        match error {
            // The message should show the key's value, not our union.
            CgroupError::Refused { key, knob, source, .. } => {
                CgroupError::Refused { key, knob, value: wanted.to_owned(), source }
            }
            other => other,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn weights_keep_their_ratio_and_stay_in_range() {
        assert_eq!([1, 100, 200, 10_000, u64::MAX].map(shares), [10, 1024, 2048, 102_400, 262_144]);
    }
}
