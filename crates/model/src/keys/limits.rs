use std::collections::BTreeMap;

use super::{
    KeyError, Tables,
    kind::{id_set, percent, quota, rlimit},
    parse_bool,
};
use crate::{ByteSize, Limits, Rlimit};

/// What of the host the limits refer to.
#[derive(Debug, Clone)]
pub struct Host {
    /// For `limits.memory=50%`.
    pub memory: ByteSize,
    /// CPUs that are online.
    pub cpus: Vec<u32>,
    /// Where in `cpus` an instance with a *number* of CPUs begins to take them, wrapping around: let the caller count up,
    /// so that instances spread over the host.
    pub first_cpu: usize,
}

/// Turns the `limits.*` of an expanded configuration into what the control groups are told.
///
/// As Incus: `limits.cpu` is a number of CPUs or a set of them; an allowance in percent is a weight, one in time a quota;
/// the priority (10 is the most) lowers the weight by what it lacks. Fails with the key that is ill-typed.
pub fn limits_from_config(config: &BTreeMap<String, String>, host: &Host) -> Result<Limits, KeyError> {
    for (key, value) in config.iter().filter(|(key, value)| key.starts_with("limits.") && !value.is_empty()) {
        let row = Tables::PROFILE.require(key)?;
        row.kind.check(value).map_err(|expected| KeyError::ill_typed(key, value, &expected))?;
    }
    let get = |key: &str| config.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let number = |key: &str| get(key).and_then(|value| value.parse::<i64>().ok());
    let (cpu_weight, cpu_quota) = cpu_share(get("limits.cpu.allowance"), number("limits.cpu.priority"));
    let mut limits = Limits {
        memory: get("limits.memory").and_then(|value| memory(value, host.memory)),
        memory_soft: get("limits.memory.enforce") == Some("soft"),
        no_swap: get("limits.memory.swap").and_then(parse_bool) == Some(false),
        processes: number("limits.processes").map(|number| number as u64),
        cpu_quota,
        cpu_weight,
        cpus: get("limits.cpu").map(|value| cpus(value, host)).transpose()?.flatten(),
        nodes: get("limits.cpu.nodes").map(nodes).transpose()?,
        disk_weight: number("limits.disk.priority").map(|priority| (priority as u64 * 100).max(10)),
        oom_score_adj: number("limits.memory.oom_priority").map(|priority| priority as i32),
        rlimits: Vec::new(),
    };
    for (key, value) in config {
        if let Some(name) = key.strip_prefix("limits.kernel.")
            && let Some((soft, hard)) = rlimit(value)
        {
            limits.rlimits.push(Rlimit { name: name.to_owned(), soft, hard });
        }
    }
    Ok(limits)
}

pub(super) fn memory(value: &str, host: ByteSize) -> Option<ByteSize> {
    match percent(value, 100) {
        Some(share) => Some(ByteSize::bytes((u128::from(host.as_bytes()) * u128::from(share) / 100) as u64)),
        None => value.parse().ok(),
    }
}

/// Weight and quota. Incus's scale on cgroup v2: 100 is the whole, minus one for each step of priority below 10.
fn cpu_share(allowance: Option<&str>, priority: Option<i64>) -> (Option<u64>, Option<(u64, u64)>) {
    let quota = allowance.and_then(quota);
    let share = allowance.and_then(|value| percent(value, 100));
    if share.is_none() && priority.is_none() {
        return (None, quota);
    }
    let weight = share.unwrap_or(100) as i64 - (10 - priority.unwrap_or(10));
    (Some(weight.max(1) as u64), quota)
}

fn cpus(value: &str, host: &Host) -> Result<Option<String>, KeyError> {
    let refuse = |why: String| Err(KeyError::new("limits.cpu", why));
    if value.contains('=') {
        return Err(KeyError::unsupported("limits.cpu", "a CPU topology is for virtual machines only"));
    }
    if let Ok(count) = value.parse::<usize>() {
        if count >= host.cpus.len() {
            return Ok(None);
        }
        let mut taken: Vec<u32> =
            host.cpus.iter().cycle().skip(host.first_cpu % host.cpus.len()).take(count).copied().collect();
        taken.sort_unstable();
        return Ok(Some(list(&taken)));
    }
    let Some(wanted) = id_set(value) else { return refuse(format!("value {value:?} is no set of CPUs")) };
    match wanted.iter().find(|cpu| !host.cpus.contains(cpu)) {
        Some(missing) => refuse(format!("this host has no CPU {missing}; it has {}", list(&host.cpus))),
        None => Ok(Some(list(&wanted))),
    }
}

fn nodes(value: &str) -> Result<String, KeyError> {
    match id_set(value) {
        Some(nodes) => Ok(list(&nodes)),
        None => Err(KeyError::unsupported("limits.cpu.nodes", "\"balanced\" is not built yet; name the nodes")),
    }
}

/// Ascending ids as the kernel writes them: `0-2,5`.
fn list(ids: &[u32]) -> String {
    let runs = ids.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [only] => only.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(",")
}
