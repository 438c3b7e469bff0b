//! Live state of instances: counters from cgroups, addresses from the kernel, one dump for all counters.

use std::{collections::BTreeMap, net::IpAddr};

use stapes_model::{ByteSize, InstanceId, Usage, state::Status};
use stapes_sys::netlink::Netlink;

use crate::{Engine, Error, Result, live::LiveInstance, records};

use super::Expanded;

/// Most threads that look at instances at a time.
const LOOKERS: usize = 4;
/// So few instances are not worth another thread.
const ALONE: usize = 16;

/// What an instance uses now.
#[derive(Debug, Clone)]
pub struct InstanceState {
    pub status: Status,
    /// Process id of init, 0 when it does not run.
    pub pid: u32,
    /// Seconds since 1970, 0 when it does not run.
    pub started_at: i64,
    pub usage: Usage,
    /// `limits.memory`, or the host's memory.
    pub memory_total: u64,
    /// Bytes of the root volume, where the pool counts them.
    pub root_used: Option<u64>,
    pub root_size: Option<u64>,
    pub nics: BTreeMap<String, NicState>,
}

/// One interface as seen from inside.
#[derive(Debug, Clone, Default)]
pub struct NicState {
    pub addresses: Vec<AddressState>,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub up: bool,
    pub loopback: bool,
    /// Interface on the host, empty for lo.
    pub host_name: String,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub errors_received: u64,
    pub errors_sent: u64,
    pub drops_received: u64,
    pub drops_sent: u64,
}

#[derive(Debug, Clone)]
pub struct AddressState {
    pub address: IpAddr,
    pub prefix: u8,
    /// `local`, `link` or `global`.
    pub scope: &'static str,
}

impl Engine {
    /// The state of several instances, in their order. Blocking; some 120 µs of the kernel's time for each that runs, on
    /// all processors.
    pub fn states<'a>(&self, instances: &[(&'a records::Instance, &'a Expanded)]) -> Result<Vec<InstanceState>> {
        let usages = self.root_usages();
        let memory = host_memory();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(LOOKERS);
        let share = instances.len().div_ceil(threads).max(ALONE);
        let look = |part: &[(&records::Instance, &Expanded)]| -> Result<Vec<InstanceState>> {
            let mut net = Netlink::open().map_err(|error| Error::failed("failed to open a netlink socket", error))?;
            let state = |(instance, expanded): &(&records::Instance, &Expanded)| {
                let mut state = self.state_of(&mut net, instance, memory);
                state.root_used = usages.get(&instance.id).copied();
                state.root_size = root_size(expanded);
                if let Some(limit) = expanded.config.get("limits.memory").and_then(|text| text.parse::<ByteSize>().ok())
                {
                    state.memory_total = limit.as_bytes();
                }
                state
            };
            Ok(part.iter().map(state).collect())
        };
        let (first, rest) = instances.split_at(share.min(instances.len()));
        std::thread::scope(|scope| {
            let others: Vec<_> = rest.chunks(share).map(|part| scope.spawn(|| look(part))).collect();
            let mut states = look(first)?;
            for other in others {
                let part = other.join().map_err(|_| Error::Refused("a thread that read states died".to_owned()))?;
                states.extend(part?);
            }
            Ok(states)
        })
    }

    fn state_of(&self, net: &mut Netlink, instance: &records::Instance, memory_total: u64) -> InstanceState {
        let stopped = InstanceState {
            status: Status::Stopped,
            pid: 0,
            started_at: 0,
            usage: Usage::default(),
            memory_total: 0,
            root_used: None,
            root_size: None,
            nics: BTreeMap::new(),
        };
        let Some(live) = self.live.get(&instance.id) else { return stopped };
        InstanceState {
            status: live.status(),
            pid: live.running.pid(),
            started_at: live.running.started_at(),
            // It may end while it is looked at: then its counters are zero.
            usage: live.running.usage().unwrap_or_default(),
            memory_total,
            nics: nics(net, &live, &instance.id).unwrap_or_default(),
            ..stopped
        }
    }
}

/// Links and addresses of an instance's network namespace, asked for through its id from outside: no namespace is
/// entered and no descriptor of it is kept, which would keep it alive after its end.
fn nics(net: &mut Netlink, live: &LiveInstance, id: &InstanceId) -> std::io::Result<BTreeMap<String, NicState>> {
    let Some(nsid) = live.netns_id(net)? else {
        tracing::debug!(instance = %id, "its network namespace has no id");
        return Ok(BTreeMap::new());
    };
    let mut nics = BTreeMap::new();
    let mut names = BTreeMap::new();
    for link in net.links_in(nsid)? {
        names.insert(link.index, link.name.clone());
        nics.insert(link.name.clone(), nic_state(&link));
    }
    for address in net.addresses_in(nsid)? {
        let Some(nic) = names.get(&address.index).and_then(|name| nics.get_mut(name)) else { continue };
        let scope = address.scope.as_str();
        nic.addresses.push(AddressState { address: address.address, prefix: address.prefix, scope });
    }
    Ok(nics)
}

fn nic_state(link: &stapes_sys::netlink::LinkInfo) -> NicState {
    let stats = link.stats;
    NicState {
        addresses: Vec::new(),
        mac: link.mac,
        mtu: link.mtu,
        up: link.is_up(),
        loopback: link.is_loopback(),
        host_name: String::new(),
        bytes_received: stats.rx_bytes,
        bytes_sent: stats.tx_bytes,
        packets_received: stats.rx_packets,
        packets_sent: stats.tx_packets,
        errors_received: stats.rx_errors,
        errors_sent: stats.tx_errors,
        drops_received: stats.rx_dropped,
        drops_sent: stats.tx_dropped,
    }
}

fn root_size(expanded: &Expanded) -> Option<u64> {
    let root = expanded.devices.values().find(|device| device.get("path").is_some_and(|path| path == "/"))?;
    Some(root.get("size")?.parse::<ByteSize>().ok()?.as_bytes())
}

/// Bytes of memory that this host has.
pub(crate) fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
