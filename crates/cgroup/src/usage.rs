//! Counters. Each is read from the hierarchy that keeps it; what no controller counts is zero.

use std::path::Path;

use stapes_model::Usage;

use crate::{CgroupError, Group, knob, limits::Home};

/// Shares of time, in per cent over the last 10 seconds, in which tasks waited for a resource (pressure stall
/// information). Source: kernel, accounting/psi.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: f64,
    /// All tasks waited at once.
    pub full: f64,
}

impl Group {
    /// What the group used since it was made, the manager's own parked processes included. Keeps no descriptor.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let mut usage = Usage { cpu_nanoseconds: self.cpu_time(), ..Usage::default() };
        match self.home("memory") {
            Some(Home::V1(dir)) => {
                let number = |file: &str| knob::read_number(&dir.join(file)).unwrap_or(0);
                usage.memory_bytes = number("memory.usage_in_bytes");
                usage.memory_peak_bytes = number("memory.max_usage_in_bytes");
                usage.swap_bytes = number("memory.memsw.usage_in_bytes").saturating_sub(usage.memory_bytes);
            }
            Some(Home::V2(dir)) => {
                let number = |file: &str| knob::read_number(&dir.join(file)).unwrap_or(0);
                usage.memory_bytes = number("memory.current");
                usage.memory_peak_bytes = number("memory.peak");
                usage.swap_bytes = number("memory.swap.current");
            }
            None => {}
        }
        usage.processes = match self.home("pids") {
            Some(Home::V1(dir) | Home::V2(dir)) => knob::read_number(&dir.join("pids.current")).unwrap_or(0),
            None => self.pids()?.len() as u64,
        };
        Ok(usage)
    }

    fn cpu_time(&self) -> u64 {
        if let Some(Home::V1(dir)) = self.home("cpuacct") {
            return knob::read_number(&dir.join("cpuacct.usage")).unwrap_or(0);
        }
        // v2 counts time for every group, with the cpu controller or without.
        let stat = self.v2_base().and_then(|base| knob::read(&base.join("cpu.stat")).ok()).unwrap_or_default();
        let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
        micros.unwrap_or(0).saturating_mul(1000)
    }

    /// Pressure on `cpu`, `memory` or `io`; `None` without v2 or without pressure accounting in the kernel.
    pub fn pressure(&self, resource: &str) -> Option<Pressure> {
        let file = Path::new(resource).file_name()?.to_str()?;
        let text = knob::read(&self.v2_base()?.join(format!("{file}.pressure"))).ok()?;
        Some(parse_pressure(&text))
    }
}

fn parse_pressure(text: &str) -> Pressure {
    let average = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
    };
    Pressure { some: average("some ").unwrap_or(0.0), full: average("full ").unwrap_or(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_last_ten_seconds() {
        let text = "some avg10=1.50 avg60=0.40 avg300=0.10 total=9\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(parse_pressure(text), Pressure { some: 1.5, full: 0.25 });
        assert_eq!(parse_pressure(""), Pressure::default());
    }
}
