use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use stapes_instance::DeviceNode;

use crate::{Config, DeviceError, disk::clean, parse::Values};

/// A character or block device of the host that appears inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixNode {
    pub block: bool,
    pub source: PathBuf,
    pub target: String,
    /// Given, or else read from `source`.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub required: bool,
}

/// What stat(2) says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStat {
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Other,
}

pub(crate) fn parse(device: &str, config: &Config, block: bool) -> Result<UnixNode, DeviceError> {
    let values = Values { device, config };
    let (source, path) = (values.get("source"), values.get("path"));
    let Some(either) = source.or(path) else {
        let why = "set it to the device's path on the host, or path= to its path inside";
        return Err(DeviceError::Missing { device: device.to_owned(), key: "source", why });
    };
    if !either.starts_with('/') {
        return Err(DeviceError::invalid(device, "source", either, "expected an absolute path"));
    }
    let target = path.unwrap_or(either);
    if target.split('/').any(|part| part == "..") || clean(target) == "/" {
        return Err(DeviceError::invalid(device, "path", target, "it must name a file inside, without .."));
    }
    let number = |key: &str| values.get(key).and_then(|text| text.parse().ok());
    let mode = values.get("mode").and_then(|text| u32::from_str_radix(text, 8).ok());
    Ok(UnixNode {
        block,
        source: PathBuf::from(either),
        target: clean(target),
        major: number("major"),
        minor: number("minor"),
        mode: mode.unwrap_or(0o660),
        uid: number("uid").unwrap_or(0),
        gid: number("gid").unwrap_or(0),
        required: values.flag("required", true),
    })
}

impl UnixNode {
    /// The plan's piece; `None` if the host has no such device now and it is not required. `stat` follows symlinks and is
    /// not asked when the configuration has both numbers.
    pub fn node(
        &self,
        device: &str,
        stat: impl FnOnce(&Path) -> io::Result<NodeStat>,
    ) -> Result<Option<DeviceNode>, DeviceError> {
        let numbers = match self.major.zip(self.minor) {
            Some(numbers) => Some(numbers),
            None => self
                .look(device, stat)?
                .map(|(major, minor)| (self.major.unwrap_or(major), self.minor.unwrap_or(minor))),
        };
        Ok(numbers.map(|(major, minor)| DeviceNode {
            device: device.to_owned(),
            source: self.source.clone(),
            target: self.target.clone(),
            block: self.block,
            major,
            minor,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
        }))
    }

    fn look(
        &self,
        device: &str,
        stat: impl FnOnce(&Path) -> io::Result<NodeStat>,
    ) -> Result<Option<(u32, u32)>, DeviceError> {
        let (device, path) = (device.to_owned(), self.source.clone());
        match (stat(&self.source), self.block) {
            (Ok(NodeStat::Block { major, minor }), true) | (Ok(NodeStat::Char { major, minor }), false) => {
                Ok(Some((major, minor)))
            }
            (Ok(_), true) => Err(DeviceError::WrongNode { device, path, expected: "block" }),
            (Ok(_), false) => Err(DeviceError::WrongNode { device, path, expected: "character" }),
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound && !self.required => Ok(None),
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Err(DeviceError::NoSource { device, path }),
            (Err(error), _) => Err(DeviceError::Stat { device, path, source: Arc::new(error) }),
        }
    }
}
