//! A plan as the instructions that a shim gets.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use stapes_cgroup::{DeviceRule, Group, Layout, Leaf};
use stapes_instance::{DriverError, Limits, Plan, Security};
use stapes_model::IdMap;
use stapes_shim_api as wire;
use stapes_sys::privilege;

use crate::{
    capabilities,
    lsm::Labels,
    masks,
    seccomp::{self, SeccompContext},
    warm::join_files,
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LXCFS: &str = "/var/lib/lxcfs";
const LXCFS_FILES: [&str; 9] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/loadavg",
    "proc/meminfo",
    "proc/slabinfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "sys/devices/system/cpu",
];

/// What does not change from one start to the next.
#[derive(Debug)]
pub struct Host {
    /// The hierarchies as a container sees them.
    pub v1: Vec<(String, Vec<String>)>,
    /// Where each of them is mounted.
    v1_mounts: Vec<PathBuf>,
    pub unified: Option<String>,
    pub lxcfs: bool,
    filter: KnownFilter,
}

/// The system call filter that was compiled last, in the form that it travels in: most instances have the same, and to
/// compile it takes a good part of the daemon's share of a start.
#[derive(Debug, Default)]
struct KnownFilter(Mutex<Option<(Security, bool, String)>>);

impl KnownFilter {
    fn of(&self, security: &Security, privileged: bool) -> Result<String, DriverError> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, filter)) = last.as_ref().filter(|(one, kind, _)| (one, *kind) == (security, privileged)) {
            return Ok(filter.clone());
        }
        let filter = seccomp::compile(security, SeccompContext { privileged })
            .map_err(|error| DriverError::other("failed to compile the system call filter", error))?;
        let filter = wire::to_hex(&privilege::filter_to_bytes(&filter));
        *last = Some((security.clone(), privileged, filter.clone()));
        Ok(filter)
    }
}

impl Host {
    pub fn probe() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let layout = Layout::from_mountinfo(&mounts);
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let v1 = layout.v1.iter().filter_map(|hierarchy| {
            let options = match &hierarchy.name {
                Some(name) => vec!["none".to_owned(), format!("name={name}")],
                None => hierarchy.controllers.clone(),
            };
            Some(((name(&hierarchy.mount)?, options), hierarchy.mount.clone()))
        });
        let (v1, v1_mounts): (Vec<_>, Vec<_>) = v1.unzip();
        let unified = layout
            .v2
            .as_deref()
            .map(|path| if v1.is_empty() { String::new() } else { name(path).unwrap_or_else(|| "unified".to_owned()) });
        let lxcfs = mounts.lines().any(|line| line.contains(&format!(" {LXCFS} ")) && line.contains(" - fuse"));
        Self { v1, v1_mounts, unified, lxcfs, filter: KnownFilter::default() }
    }
}

/// Fails for a filter that cannot be compiled, before anything is made.
pub fn start(plan: &Plan, host: &Host, labels: Labels) -> Result<wire::Start, DriverError> {
    let privileged = plan.idmap == IdMap::Privileged;
    let seccomp = host.filter.of(&plan.security, privileged)?;
    let masks = masks::masks(privileged, plan.security.nesting);
    let text = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let path = |path: &Path| path.display().to_string();
    Ok(wire::Start {
        id: plan.id.to_string(),
        hostname: plan.name.to_string(),
        run_dir: path(&plan.run_dir),
        log_dir: path(&plan.log_dir),
        root: path(&plan.root),
        root_shifted: false,
        ids: match plan.idmap {
            IdMap::Range(range) => Some(wire::IdRange { base: range.base, size: range.size }),
            IdMap::Privileged => None,
        },
        init: plan.init.clone().unwrap_or_else(|| vec!["/sbin/init".to_owned()]),
        environment: environment(plan),
        mounts: plan.mounts.iter().map(bind).collect(),
        nodes: plan.nodes.iter().map(node).collect(),
        links: plan.links.iter().map(link).collect(),
        cgroup: wire::CgroupView {
            v1: host.v1.clone(),
            v1_payloads: BTreeMap::new(),
            unified: host.unified.clone(),
            exec_join: Vec::new(),
            v2_directories: false,
        },
        rlimits: rlimits(&plan.limits),
        oom_score_adj: plan.limits.oom_score_adj,
        bounding: capabilities::bounding_set(privileged),
        seccomp,
        masked: text(masks.masked),
        read_only: text(masks.read_only),
        writable: text(masks.writable),
        pristine: masks.pristine.iter().map(|(kind, path)| ((*kind).to_owned(), (*path).to_owned())).collect(),
        overlays: if host.lxcfs && !plan.security.nesting { lxcfs() } else { Vec::new() },
        lsm: labels.exec,
        file_context: labels.files,
    })
}

/// Fills in where the instance's groups are. The descriptors for version 2 are opened by the caller.
pub fn place(start: &mut wire::Start, host: &Host, group: &Group) {
    let joined = group.join_paths();
    let own = host.v1.iter().zip(&host.v1_mounts).filter_map(|((name, _), mount)| {
        let payload = joined.iter().find(|path| path.starts_with(mount))?.parent()?;
        Some((name.clone(), payload.display().to_string()))
    });
    start.cgroup.v1_payloads = own.collect();
    start.cgroup.exec_join = join_files(group);
    start.cgroup.v2_directories = group.v2_dir(Leaf::Payload).is_some();
}

/// What everybody may open, and these nodes, as rules for the group.
pub fn device_rules(nodes: &[stapes_instance::DeviceNode]) -> Vec<DeviceRule> {
    let rule = |node: &stapes_instance::DeviceNode| match node.block {
        true => DeviceRule::block(node.major, node.minor),
        false => DeviceRule::char(node.major, node.minor),
    };
    stapes_cgroup::DEFAULT_DEVICES.into_iter().chain(nodes.iter().map(rule)).collect()
}

/// systemd reads `container` and `container_uuid`, and makes an empty machine-id of the latter.
fn environment(plan: &Plan) -> std::collections::BTreeMap<String, String> {
    let mut environment = plan.environment.clone();
    environment.insert("container".to_owned(), "lxc".to_owned());
    environment.insert("container_uuid".to_owned(), plan.machine_id.clone());
    environment.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    environment.entry("TERM".to_owned()).or_insert_with(|| "linux".to_owned());
    environment
}

pub fn rlimits(limits: &Limits) -> Vec<wire::ResourceLimit> {
    let limits = limits.rlimits.iter();
    limits.map(|limit| wire::ResourceLimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard }).collect()
}

pub fn bind(mount: &stapes_instance::Mount) -> wire::BindMount {
    wire::BindMount {
        device: mount.device.clone(),
        source: mount.source.display().to_string(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        recursive: mount.recursive,
        shift: mount.shift,
        optional: mount.optional,
    }
}

pub fn node(node: &stapes_instance::DeviceNode) -> wire::DeviceNode {
    wire::DeviceNode {
        device: node.device.clone(),
        source: node.source.display().to_string(),
        target: node.target.clone(),
        block: node.block,
        major: node.major,
        minor: node.minor,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
    }
}

fn link(link: &stapes_instance::Link) -> wire::Link {
    wire::Link {
        device: link.device.clone(),
        host_name: link.host_name.clone(),
        guest_name: link.guest_name.clone(),
        guest_index: link.guest_index,
        mac: link.mac,
        mtu: link.mtu,
        bridge: link.bridge.clone(),
        addresses: link.addresses.clone(),
        gateways: link.gateways.clone(),
        gateway_mac: link.gateway_mac,
    }
}

fn lxcfs() -> Vec<(String, String)> {
    LXCFS_FILES.iter().map(|file| (format!("{LXCFS}/{file}"), format!("/{file}"))).collect()
}
