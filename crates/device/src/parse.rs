use std::collections::BTreeMap;

use stapes_model::{
    DeviceName,
    keys::{Tables, parse_bool, validate_config},
};

use crate::{Config, Device, DeviceError, disk, nic, unix};

/// Every type that Incus has.
pub const TYPES: [&str; 12] = [
    "none",
    "nic",
    "disk",
    "unix-char",
    "unix-block",
    "usb",
    "gpu",
    "infiniband",
    "proxy",
    "unix-hotplug",
    "tpm",
    "pci",
];

/// A device's values, all checked against the table.
pub(crate) struct Values<'a> {
    pub device: &'a str,
    pub config: &'a Config,
}

impl<'a> Values<'a> {
    /// An empty value is an unset one.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.config.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn need(&self, key: &'static str, why: &'static str) -> Result<&'a str, DeviceError> {
        self.get(key).ok_or_else(|| DeviceError::Missing { device: self.device.to_owned(), key, why })
    }

    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(parse_bool).unwrap_or(default)
    }
}

/// Judges one device of an instance or a profile by its own values.
pub fn parse(name: &str, config: &Config) -> Result<Device, DeviceError> {
    let _: DeviceName = name.parse()?;
    let kind = config.get("type").filter(|kind| !kind.is_empty());
    let kind = kind.ok_or_else(|| DeviceError::NoType { device: name.to_owned() })?.as_str();
    match kind {
        "none" => Ok(Device::None),
        "disk" => {
            check(name, config, "disk", &["type"])?;
            disk::parse(name, config).map(Device::Disk)
        }
        "nic" => parse_nic(name, config),
        "unix-char" | "unix-block" => {
            check(name, config, "unix-char-block", &["type"])?;
            unix::parse(name, config, kind == "unix-block").map(Device::Unix)
        }
        "gpu" => not_built(name, config, gpu_group(config), "gputype", "a device of type gpu"),
        "infiniband" => not_built(name, config, Some("infiniband"), "nictype", "a device of type infiniband"),
        "usb" => not_built(name, config, Some("usb"), "", "a device of type usb"),
        "proxy" => not_built(name, config, Some("proxy"), "", "a device of type proxy"),
        "unix-hotplug" => not_built(name, config, Some("unix-hotplug"), "", "a device of type unix-hotplug"),
        "tpm" => not_built(name, config, Some("tpm"), "", "a device of type tpm"),
        "pci" => not_built(name, config, Some("pci"), "", "a device of type pci"),
        other => Err(DeviceError::UnknownType { device: name.to_owned(), found: other.chars().take(40).collect() }),
    }
}

/// [`parse`] for every device of a profile; whether they fit together only the instance knows.
pub fn parse_all(devices: &BTreeMap<String, Config>) -> Result<BTreeMap<String, Device>, DeviceError> {
    devices.iter().map(|(name, config)| Ok((name.clone(), parse(name, config)?))).collect()
}

fn parse_nic(name: &str, config: &Config) -> Result<Device, DeviceError> {
    let values = Values { device: name, config };
    let what = |nictype: &str| format!("a nic of nictype {nictype}");
    let later = |group, nictype| not_built(name, config, Some(group), "nictype", &what(nictype));
    match values.get("nictype") {
        None | Some("bridged") => {
            check(name, config, "nic_bridged", &["type", "nictype"])?;
            nic::parse(name, config).map(Device::Nic)
        }
        Some("p2p") => later("nic_p2p", "p2p"),
        Some("routed") => later("nic_routed", "routed"),
        Some("macvlan") => later("nic_macvlan", "macvlan"),
        Some("ipvlan") => later("nic_ipvlan", "ipvlan"),
        Some("ovn") => later("nic_ovn", "ovn"),
        Some("sriov") => later("nic_sriov", "sriov"),
        Some("physical") => later("nic_physical", "physical"),
        Some(other) => {
            let known = "expected one of bridged, p2p, routed, macvlan, ipvlan, ovn, sriov, physical";
            Err(DeviceError::invalid(name, "nictype", other, known))
        }
    }
}

fn gpu_group(config: &Config) -> Option<&'static str> {
    match config.get("gputype").map_or("physical", String::as_str) {
        "physical" | "" => Some("gpu_physical"),
        "mdev" => Some("gpu_mdev"),
        "mig" => Some("gpu_mig"),
        "sriov" => Some("gpu_sriov"),
        "native-context" => Some("gpu_native_context"),
        _ => None,
    }
}

/// Holds the values against the table; `structural` are the keys that chose it.
fn check(name: &str, config: &Config, group: &'static str, structural: &[&str]) -> Result<(), DeviceError> {
    let own = config.iter().filter(|(key, _)| !structural.contains(&key.as_str()));
    let own: Config = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    let named = |error| DeviceError::Key { device: name.to_owned(), error };
    validate_config(Tables::device(group), &own).map_err(named)
}

/// Refuses a known type, but an unknown key first: whoever mistypes should not wait for the feature to learn of it.
fn not_built(
    name: &str,
    config: &Config,
    group: Option<&'static str>,
    selector: &'static str,
    what: &str,
) -> Result<Device, DeviceError> {
    let Some(group) = group else {
        let value = config.get(selector).map(String::as_str).unwrap_or_default();
        return Err(DeviceError::invalid(name, selector, value, "it is unknown"));
    };
    for key in config.keys().filter(|key| *key != "type" && *key != selector) {
        Tables::device(group).require(key).map_err(|error| DeviceError::Key { device: name.to_owned(), error })?;
    }
    Err(DeviceError::not_built(name, what))
}
