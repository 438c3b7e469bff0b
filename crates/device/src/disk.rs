use std::path::PathBuf;

use stapes_instance::{DiskBus, Mount};
use stapes_model::{ByteSize, PoolName};

use crate::{Config, DeviceError, parse::Values};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    Root(Root),
    Bind(Bind),
}

/// The volume that the instance boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// `None` in a profile that leaves the pool to another; an instance needs one.
    pub pool: Option<PoolName>,
    /// Quota; `None` is the pool's default.
    pub size: Option<ByteSize>,
    /// Where a virtual machine sees it.
    pub bus: DiskBus,
    /// Higher boots first.
    pub boot_priority: Option<u32>,
}

/// A path of the host that appears inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    /// Absolute, without `.`, `..`, doubled or trailing slashes.
    pub target: String,
    pub read_only: bool,
    pub recursive: bool,
    pub shift: bool,
    pub required: bool,
}

pub(crate) fn parse(device: &str, config: &Config) -> Result<Disk, DeviceError> {
    let values = Values { device, config };
    let path = values.need("path", "it says where the disk appears inside")?;
    let target = clean(path);
    let pool = values.get("pool");
    let source = values.get("source");
    if target == "/" {
        if let Some(source) = source {
            return Err(DeviceError::invalid(device, "source", source, "the root disk is a volume of its pool"));
        }
        for key in ["recursive", "shift", "readonly"] {
            if values.flag(key, false) {
                return Err(DeviceError::invalid(device, key, "true", "the root disk cannot have it"));
            }
        }
        let pool = pool.map(|name| {
            name.parse()
                .map_err(|error: stapes_model::NameError| DeviceError::invalid(device, "pool", name, error.to_string()))
        });
        let size = values.get("size").and_then(|text| text.parse().ok());
        let bus = match values.get("io.bus") {
            Some("virtio-blk") => DiskBus::VirtioBlk,
            Some("nvme") => DiskBus::Nvme,
            _ => DiskBus::VirtioScsi,
        };
        let boot_priority = values.get("boot.priority").and_then(|text| text.parse().ok());
        return Ok(Disk::Root(Root { pool: pool.transpose()?, size, bus, boot_priority }));
    }
    if pool.is_some() {
        return Err(DeviceError::not_built(device, "a custom volume (pool= with a path other than /)"));
    }
    let source = values.need("source", "it names the path on the host")?;
    if let Some(size) = values.get("size") {
        return Err(DeviceError::invalid(device, "size", size, "only the root disk has a size of its own"));
    }
    if let Some(bus) = values.get("io.bus") {
        return Err(DeviceError::invalid(device, "io.bus", bus, "only the root disk is a block device so far"));
    }
    if !source.starts_with('/') {
        let what = source.split_once(':').map(|(scheme, _)| format!("a source of kind {:?}", shorten(scheme)));
        return Err(match what {
            Some(what) => DeviceError::not_built(device, what),
            None => DeviceError::invalid(device, "source", source, "expected an absolute path"),
        });
    }
    Ok(Disk::Bind(Bind {
        source: PathBuf::from(source),
        target,
        read_only: values.flag("readonly", false),
        recursive: values.flag("recursive", false),
        shift: values.flag("shift", false),
        required: values.flag("required", true),
    }))
}

fn shorten(text: &str) -> String {
    text.chars().take(20).collect()
}

/// Drops what makes two spellings of one path differ; the table has refused `..` and relative paths already.
pub(crate) fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

impl Bind {
    pub fn mount(&self, device: &str) -> Mount {
        Mount {
            device: device.to_owned(),
            source: self.source.clone(),
            target: self.target.clone(),
            read_only: self.read_only,
            recursive: self.recursive,
            shift: self.shift,
            optional: !self.required,
        }
    }
}
