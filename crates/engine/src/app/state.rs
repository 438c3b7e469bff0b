//! Live state of instances: counters from cgroups, addresses from the kernel, one dump for all counters.

use std::{collections::BTreeMap, net::IpAddr};

use stapes_device::Attachment;
use stapes_instance::{GuestLink, GuestReport, Inside};
use stapes_model::{InstanceId, Usage, state::Status};
use stapes_storage::VolumeRef;
use stapes_sys::netlink::Netlink;

use crate::{Engine, Error, Result, live::LiveInstance, records, shape};

use super::{Expanded, instances::limit_host};

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
    /// `None`: nobody who is asked knows.
    pub processes: Option<u64>,
    /// `limits.memory`, or the host's memory.
    pub memory_total: u64,
    /// Bytes of the root volume, where the pool counts them.
    pub root_used: Option<u64>,
    pub root_size: Option<u64>,
    pub nics: BTreeMap<String, NicState>,
    /// What a guest with a kernel of its own says of its system.
    pub os: Option<OsState>,
    /// How it runs, one line a fact.
    pub facts: BTreeMap<String, String>,
}

/// A system inside, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsState {
    pub hostname: String,
    pub name: String,
    pub version: String,
    pub kernel: String,
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
        let host = limit_host();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(LOOKERS);
        let share = instances.len().div_ceil(threads).max(ALONE);
        let look = |part: &[(&records::Instance, &Expanded)]| -> Result<Vec<InstanceState>> {
            let mut net = Netlink::open().map_err(|error| Error::failed("failed to open a netlink socket", error))?;
            let state = |(instance, expanded): &(&records::Instance, &Expanded)| {
                let limit = shape::of(instance.kind).memory(&expanded.config, &host);
                let mut state = self.state_of(&mut net, instance, limit.unwrap_or(host.memory.as_bytes()));
                state.root_used = usages.get(&instance.id).copied();
                let volume = || Some(self.pool(&instance.pool).ok()?.volume_path(&VolumeRef::instance(&instance.id)));
                state.root_size = shape::of(instance.kind).size(expanded, &volume);
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
            processes: Some(0),
            memory_total: 0,
            root_used: None,
            root_size: None,
            nics: BTreeMap::new(),
            os: None,
            facts: BTreeMap::new(),
        };
        let Some(live) = self.live.get(&instance.id) else { return stopped };
        let state = InstanceState {
            status: live.status(),
            pid: live.running.pid(),
            started_at: live.running.started_at(),
            // It may end while it is looked at: then its counters are zero.
            usage: live.running.usage().unwrap_or_default(),
            memory_total,
            facts: live.running.facts(),
            ..stopped
        };
        match live.running.inside() {
            Inside::Namespaces => InstanceState {
                processes: Some(state.usage.processes),
                nics: nics(net, &live, &instance.id).unwrap_or_default(),
                ..state
            },
            Inside::Guest(told) => self.told_state(net, instance, state, told),
        }
    }

    /// What a guest says, or as much of it as the host knows.
    fn told_state(
        &self,
        net: &mut Netlink,
        instance: &records::Instance,
        mut state: InstanceState,
        told: Option<GuestReport>,
    ) -> InstanceState {
        let ports = self.ports(net, instance).unwrap_or_default();
        let Some(told) = told else {
            // QEMU's threads are no processes of the guest's.
            state.processes = None;
            state.nics = ports.into_iter().map(|port| (port.name.clone(), port.nic)).collect();
            return state;
        };
        state.processes = Some(told.processes);
        state.usage.memory_bytes = told.memory_used;
        state.usage.memory_peak_bytes = 0;
        state.usage.swap_bytes = told.swap_used;
        state.memory_total = told.memory_total;
        state.os =
            Some(OsState { hostname: told.hostname, name: told.os, version: told.os_version, kernel: told.kernel });
        for link in told.links {
            let port = ports.iter().find(|port| link.mac.is_some() && port.nic.mac == link.mac);
            let host_name = port.map(|port| port.nic.host_name.clone()).unwrap_or_default();
            state.nics.insert(link.name.clone(), told_nic(&link, host_name));
        }
        state
    }

    /// The NICs of a machine as its host knows them: what was given to each, and its interface's counters.
    fn ports(&self, net: &mut Netlink, instance: &records::Instance) -> Result<Vec<Port>> {
        let requests = stapes_device::requests(&self.expanded(instance).devices)?;
        let mut ports = Vec::new();
        for (asked, link) in requests.links.iter().zip(self.links(instance, &requests)?) {
            let failed = |error| Error::failed(format!("failed to look at {}", link.host_name), error);
            let Some(own) = net.link(&link.host_name).map_err(failed)?.as_ref().map(nic_state) else { continue };
            let ipv4 = match &asked.nic.attachment {
                Attachment::Network(network) => self.bridge(&*self.network(network)?)?.ipv4,
                Attachment::Bridge(_) => None,
            };
            let ipv4_prefix = ipv4.map_or(32, |ipv4| ipv4.address.prefix_len());
            let address = |address: IpAddr| AddressState {
                address,
                prefix: if address.is_ipv4() { ipv4_prefix } else { 64 },
                scope: scope(address),
            };
            // Who has not sent anything has not taken its address yet.
            let talks = own.packets_received > 0;
            let nic = NicState {
                addresses: link.addresses.into_iter().filter(|_| talks).map(address).collect(),
                mac: Some(link.mac),
                host_name: link.host_name,
                // What the host receives, the guest sent.
                bytes_received: own.bytes_sent,
                bytes_sent: own.bytes_received,
                packets_received: own.packets_sent,
                packets_sent: own.packets_received,
                errors_received: own.errors_sent,
                errors_sent: own.errors_received,
                drops_received: own.drops_sent,
                drops_sent: own.drops_received,
                ..own
            };
            ports.push(Port { name: link.guest_name, nic });
        }
        Ok(ports)
    }
}

/// A NIC of a machine, seen from the host.
struct Port {
    name: String,
    nic: NicState,
}

fn told_nic(link: &GuestLink, host_name: String) -> NicState {
    let address =
        |(address, prefix): &(IpAddr, u8)| AddressState { address: *address, prefix: *prefix, scope: scope(*address) };
    NicState {
        addresses: link.addresses.iter().map(address).collect(),
        mac: link.mac,
        mtu: link.mtu,
        up: link.is_up,
        loopback: link.is_loopback,
        host_name,
        bytes_received: link.received.bytes,
        bytes_sent: link.sent.bytes,
        packets_received: link.received.packets,
        packets_sent: link.sent.packets,
        errors_received: link.received.errors,
        errors_sent: link.sent.errors,
        drops_received: link.received.drops,
        drops_sent: link.sent.drops,
    }
}

/// As the kernel would say.
fn scope(address: IpAddr) -> &'static str {
    let link = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match link {
        _ if address.is_loopback() => "local",
        true => "link",
        false => "global",
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

/// Bytes of memory that this host has.
pub(crate) fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
