//! From an instance's record to the plan that its driver starts.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use stapes_device::NodeStat;
use stapes_instance::{Plan, Security};
use stapes_model::IdMap;
use stapes_storage::{Pool, VolumeRef};

use crate::{Engine, Error, Result, records, shape};

use super::{Expanded, instances::limit_host};

/// What a driver is told is the instance's root.
pub(super) fn root_of(pool: &dyn Pool, instance: &records::Instance) -> PathBuf {
    shape::of(instance.kind).root(&pool.volume_path(&VolumeRef::instance(&instance.id)))
}

impl Engine {
    /// The plan of a start. Looks at device nodes of the host; changes nothing.
    pub(crate) fn plan(&self, instance: &records::Instance, expanded: &Expanded) -> Result<Plan> {
        let requests = stapes_device::requests(&expanded.devices)?;
        let volume = self.pool(&instance.pool)?.volume_path(&VolumeRef::instance(&instance.id));
        let (shape, host) = (shape::of(instance.kind), limit_host());
        let config = |key: &str| expanded.config.get(key).map(String::as_str);
        let idmap = match instance.ids {
            _ if shape.ids(expanded).is_none() => IdMap::Privileged,
            Some(range) => IdMap::Range(range),
            // A start sees to it first.
            None => return Err(Error::Refused(format!("instance {} has no id range", instance.name))),
        };
        let mut nodes = Vec::new();
        for (device, node) in &requests.nodes {
            nodes.extend(node.node(device, stat_node)?);
        }
        let prefix = "environment.";
        let environment = expanded
            .config
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        let list = |key: &str| -> Vec<String> {
            config(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let mut machine = shape.machine(instance, expanded, &requests, &host, &volume)?;
        if let Some(machine) = &mut machine {
            machine.templates = self.guest_templates(instance)?;
        }
        Ok(Plan {
            id: instance.id,
            name: instance.name.clone(),
            root: shape.root(&volume),
            idmap,
            run_dir: self.paths.instance_run(&instance.id),
            log_dir: self.paths.instance_log(&instance.id),
            init: None,
            environment: environment.collect(),
            machine_id: config("volatile.uuid").unwrap_or_default().replace('-', ""),
            mounts: requests.mounts.clone(),
            nodes,
            links: self.links(instance, &requests)?,
            limits: shape.limits(&expanded.config, &host)?,
            machine,
            security: Security {
                nesting: expanded.is_on("security.nesting"),
                no_default_deny: expanded.flag("security.syscalls.deny_default") == Some(false),
                deny: list("security.syscalls.deny"),
                allow: list("security.syscalls.allow"),
                raw_apparmor: config("raw.apparmor").unwrap_or_default().to_owned(),
            },
        })
    }
}

/// What a path of the host is, for unix-* devices.
fn stat_node(path: &Path) -> io::Result<NodeStat> {
    use std::os::unix::fs::FileTypeExt;
    let metadata = std::fs::metadata(path)?;
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    Ok(if metadata.file_type().is_block_device() {
        NodeStat::Block { major, minor }
    } else if metadata.file_type().is_char_device() {
        NodeStat::Char { major, minor }
    } else {
        NodeStat::Other
    })
}
