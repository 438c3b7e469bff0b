//! What the guest knows of itself.

use std::collections::BTreeSet;

use stapes_agent_api::{Address, Disk, GuestState, Interface, Memory, OsInfo};
use stapes_sys::netlink::Netlink;

use crate::mounts::{MountInfo, mounted};

/// Most of a kind that one answer names: it must fit a frame.
const MOST: usize = 256;
/// The kernel's unit of processor time as programs see it, on every architecture that has virtio.
const TICKS_PER_SECOND: u64 = 100;

pub fn read() -> GuestState {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_else(|_| file("/usr/lib/os-release"));
    let kernel = rustix::system::uname();
    GuestState {
        hostname: kernel.nodename().to_string_lossy().into_owned(),
        os: OsInfo {
            name: os_field(&os_release, "PRETTY_NAME"),
            version: os_field(&os_release, "VERSION_ID"),
            kernel: kernel.release().to_string_lossy().into_owned(),
        },
        processes: processes(),
        cpu_nanoseconds: cpu_nanoseconds(&file("/proc/stat")),
        memory: memory(&file("/proc/meminfo")),
        disks: disks(mounted()),
        interfaces: interfaces().unwrap_or_default(),
        load: load(&file("/proc/loadavg")),
    }
}

/// See os-release(5).
fn os_field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim().trim_matches(['"', '\'']).chars().take(200).collect()
}

fn processes() -> u64 {
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| is_process(&entry.file_name())).count()
        as u64
}

/// All but idle, waiting and what a hypervisor took: the first line of proc_stat(5).
fn cpu_nanoseconds(stat: &str) -> u64 {
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    let ticks: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum();
    ticks.saturating_mul(1_000_000_000 / TICKS_PER_SECOND)
}

fn memory(meminfo: &str) -> Memory {
    let bytes = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    let (total, swap_total) = (bytes("MemTotal"), bytes("SwapTotal"));
    Memory {
        total,
        used: total.saturating_sub(bytes("MemAvailable")),
        swap_total,
        swap_used: swap_total.saturating_sub(bytes("SwapFree")),
    }
}

/// Each device once, where it was mounted first; images that are only read are no disks.
fn disks(mounts: Vec<MountInfo>) -> Vec<Disk> {
    let mut seen = BTreeSet::new();
    let is_disk =
        |mount: &MountInfo| mount.source.starts_with("/dev/") && mount.kind != "squashfs" && mount.kind != "iso9660";
    let mut disks = Vec::new();
    for mount in mounts.into_iter().filter(is_disk) {
        let Ok(stat) = rustix::fs::statvfs(mount.mount_point.as_str()) else { continue };
        if disks.len() < MOST && seen.insert(mount.source) {
            let total = stat.f_blocks.saturating_mul(stat.f_frsize);
            let free = stat.f_bfree.saturating_mul(stat.f_frsize);
            disks.push(Disk { mount_point: mount.mount_point, total, used: total.saturating_sub(free) });
        }
    }
    disks
}

fn interfaces() -> std::io::Result<Vec<Interface>> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let addresses = netlink.addresses(None)?;
    let interface = |link: &stapes_sys::netlink::LinkInfo| {
        let mac = link.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        let own = addresses.iter().filter(|address| address.index == link.index && !address.is_tentative());
        Interface {
            name: link.name.clone(),
            mac: mac.unwrap_or_default(),
            mtu: link.mtu,
            is_up: link.is_up(),
            is_loopback: link.is_loopback(),
            addresses: own.map(|one| Address { address: one.address, prefix: one.prefix }).take(MOST).collect(),
            bytes_received: link.stats.rx_bytes,
            bytes_sent: link.stats.tx_bytes,
            packets_received: link.stats.rx_packets,
            packets_sent: link.stats.tx_packets,
            errors_received: link.stats.rx_errors,
            errors_sent: link.stats.tx_errors,
            dropped_received: link.stats.rx_dropped,
            dropped_sent: link.stats.tx_dropped,
        }
    };
    Ok(links.iter().take(MOST).map(interface).collect())
}

fn load(loadavg: &str) -> [f64; 3] {
    let mut fields = loadavg.split(' ').map(|field| field.parse().unwrap_or(0.0));
    std::array::from_fn(|_| fields.next().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_can_be_had_is_not_used() {
        let text =
            "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\nSwapTotal: 8 kB\nSwapFree: 3 kB\n";
        let expected = Memory { total: 1_024_000, used: 400 * 1024, swap_total: 8192, swap_used: 5 * 1024 };
        assert_eq!(memory(text), expected);
    }

    #[test]
    fn idle_time_is_no_work() {
        assert_eq!(cpu_nanoseconds("cpu  1 2 3 1000 500 4 5 0 0 0\ncpu0 1"), 150_000_000);
        assert_eq!(cpu_nanoseconds(""), 0);
    }

    #[test]
    fn names_of_systems_lose_their_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID='12'\n";
        assert_eq!(os_field(text, "PRETTY_NAME"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!((os_field(text, "VERSION_ID"), os_field(text, "VERSION")), ("12".into(), String::new()));
    }

    #[test]
    fn loads_are_three_numbers_or_none() {
        assert_eq!(load("0.20 0.18 1.12 1/80 11206"), [0.2, 0.18, 1.12]);
        assert_eq!(load(""), [0.0; 3]);
    }
}
