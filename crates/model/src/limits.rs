use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// Resource limits; `None` means the host's. All can be changed while the instance runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory: Option<ByteSize>,
    /// `limits.memory.enforce=soft`: reclaim under pressure instead of a hard cap.
    pub memory_soft: bool,
    /// `limits.memory.swap=false`.
    pub no_swap: bool,
    pub processes: Option<u64>,
    /// CFS quota: microseconds of CPU time in each period.
    pub cpu_quota: Option<(u64, u64)>,
    /// Relative weight 1 to 10,000 (cgroup v2's scale; 100 is the default).
    pub cpu_weight: Option<u64>,
    /// CPUs that it may use, as the kernel writes a list (`0-2,5`).
    pub cpus: Option<String>,
    /// Memory nodes, same format.
    pub nodes: Option<String>,
    /// Relative disk weight 10 to 1,000.
    pub disk_weight: Option<u64>,
    /// -1000 to 1000, written to `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    pub rlimits: Vec<Rlimit>,
}

/// One `limits.kernel.*`: name as the key has it (`nofile`), `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub name: String,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// Counters of a running instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_nanoseconds: u64,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub swap_bytes: u64,
    pub processes: u64,
}
