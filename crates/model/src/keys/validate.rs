use std::collections::BTreeMap;

use super::{GROUPS, Key, Kind, Status, Types, did_you_mean, parse_bool};
use crate::{ErrorKind, InstanceType};

/// A configuration key or value that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration key {key:?}: {why}{}", hint(.suggestion))]
pub struct KeyError {
    pub key: String,
    pub why: String,
    /// The key that was probably meant.
    pub suggestion: Option<String>,
    kind: ErrorKind,
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

impl KeyError {
    pub fn new(key: &str, why: impl Into<String>) -> Self {
        Self { key: shorten(key), why: why.into(), suggestion: None, kind: ErrorKind::BadRequest }
    }

    pub fn unsupported(key: &str, reason: &str) -> Self {
        Self { kind: ErrorKind::Unsupported, ..Self::new(key, format!("not supported: {reason}")) }
    }

    pub fn ill_typed(key: &str, value: &str, expected: &str) -> Self {
        Self::new(key, format!("value {:?} is invalid, expected {expected}", shorten(value)))
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// A hostile key or value may be megabytes long; an error is for a person.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The part of the table that applies to one kind of object.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    entities: &'static [&'static str],
    /// One sub-group of the entities, for devices: `nic_bridged`.
    group: Option<&'static str>,
    instance: Option<InstanceType>,
}

impl Tables {
    pub const PROFILE: Tables = Tables { entities: &["instance", "kernel"], group: None, instance: None };
    pub const NETWORK_BRIDGE: Tables = Tables { entities: &["network_bridge"], group: None, instance: None };
    pub const SERVER: Tables = Tables { entities: &["server"], group: None, instance: None };
    pub const PROJECT: Tables = Tables { entities: &["project"], group: None, instance: None };

    pub const fn instance(kind: InstanceType) -> Tables {
        Tables { instance: Some(kind), ..Self::PROFILE }
    }

    /// The keys of a device: `disk`, `nic_bridged`, `unix-char-block`.
    pub const fn device(group: &'static str) -> Tables {
        Tables { entities: &["devices"], group: Some(group), instance: None }
    }

    /// The keys of a pool with this driver; `None` for a driver that is not built.
    pub fn pool(driver: &str) -> Option<Tables> {
        let entities: &[&str] = match driver {
            "btrfs" => &["storage_btrfs"],
            "dir" => &["storage_dir"],
            _ => return None,
        };
        Some(Tables { entities, group: None, instance: None })
    }

    /// The keys of a volume in a pool with this driver.
    pub fn volume(driver: &str) -> Option<Tables> {
        let entities: &[&str] = match driver {
            "btrfs" => &["storage_volume_btrfs"],
            "dir" => &["storage_volume_dir"],
            _ => return None,
        };
        Some(Tables { entities, group: None, instance: None })
    }

    pub fn keys(self) -> impl Iterator<Item = &'static Key> {
        GROUPS
            .iter()
            .filter(move |group| self.entities.contains(&group.entity) && self.group.is_none_or(|g| g == group.name))
            .flat_map(|group| group.keys)
    }

    /// The row of a key: its own before a pattern that fits, and of two patterns the one that says more.
    pub fn find(self, key: &str) -> Option<&'static Key> {
        let more = |row: &&'static Key| row.pattern().map_or(usize::MAX, |(start, end)| start.len() + end.len());
        self.keys().filter(|row| row.describes(key)).max_by_key(more)
    }

    /// The row of a key, or the error that names it and what was probably meant.
    pub fn require(self, key: &str) -> Result<&'static Key, KeyError> {
        let named = || self.keys().filter(|row| row.pattern().is_none()).map(|row| row.name);
        self.find(key).ok_or_else(|| KeyError {
            suggestion: did_you_mean(key, named()).map(str::to_owned),
            ..KeyError::new(key, "unknown key")
        })
    }

    /// The row of a key whose value has the row's form.
    fn check_form(self, key: &str, value: &str) -> Result<&'static Key, KeyError> {
        let row = self.require(key)?;
        if !value.is_empty() {
            row.kind.check(value).map_err(|expected| KeyError::ill_typed(key, value, &expected))?;
        }
        Ok(row)
    }

    fn check(self, key: &str, value: &str) -> Result<(), KeyError> {
        let row = self.require(key)?;
        if value.is_empty() {
            return Ok(());
        }
        match (self.instance, row.types) {
            (Some(InstanceType::Container), Types::VmOnly) => {
                return Err(KeyError::unsupported(key, "it is for virtual machines only"));
            }
            (Some(InstanceType::VirtualMachine), Types::ContainerOnly) => {
                return Err(KeyError::unsupported(key, "it is for containers only"));
            }
            _ => {}
        }
        self.check_form(key, value)?;
        match row.status {
            Status::Unsupported(reason) if !says_the_default(row, value) => Err(KeyError::unsupported(key, reason)),
            _ => Ok(()),
        }
    }
}

/// Asking for what happens anyway needs no feature.
fn says_the_default(row: &Key, value: &str) -> bool {
    let Some(default) = row.default else { return false };
    match row.kind {
        Kind::Bool => parse_bool(default) == parse_bool(value),
        _ => default == value,
    }
}

/// Checks every key and value against the table; the first wrong one in key order is reported.
pub fn validate_config(tables: Tables, config: &BTreeMap<String, String>) -> Result<(), KeyError> {
    config.iter().try_for_each(|(key, value)| tables.check(key, value))
}

/// Checks an instance's own configuration. An expanded one is checked with [`validate_profile_config`], because a profile
/// may carry keys of the other type.
pub fn validate_instance_config(kind: InstanceType, config: &BTreeMap<String, String>) -> Result<(), KeyError> {
    validate_config(Tables::instance(kind), config)
}

/// Checks a profile's configuration: keys of either instance type.
pub fn validate_profile_config(config: &BTreeMap<String, String>) -> Result<(), KeyError> {
    validate_config(Tables::PROFILE, config)
}

/// Checks a pool's configuration; `volume.<key>` is a default for the keys of its volumes, and taken when it has that
/// key's form: until such a volume can be made, a default for it has no effect and does no harm.
pub fn validate_pool_config(driver: &str, config: &BTreeMap<String, String>) -> Result<(), KeyError> {
    let known = Tables::pool(driver).zip(Tables::volume(driver));
    let (pool, volume) = known.ok_or_else(|| KeyError::new("driver", format!("{driver:?} is not btrfs or dir")))?;
    config.iter().try_for_each(|(key, value)| match key.strip_prefix("volume.") {
        Some(own) => volume.check_form(own, value).map(drop).map_err(|error| KeyError {
            key: format!("volume.{}", error.key),
            suggestion: error.suggestion.map(|key| format!("volume.{key}")),
            ..error
        }),
        None if key.starts_with("volatile.") => Ok(()),
        None => pool.check(key, value),
    })
}

/// Whether every one of `keys` takes effect while the instance runs; unknown keys do not.
pub fn changes_live<'a>(keys: impl IntoIterator<Item = &'a str>) -> bool {
    keys.into_iter().all(|key| Tables::PROFILE.find(key).is_some_and(|row| row.live))
}

/// What the daemon reads when its time comes: at the next start, at a shutdown of the host, when a snapshot is due. The
/// running instance itself is not touched by a change.
const READ_LATER: [&str; 6] = ["boot.", "cloud-init.", "cluster.", "image.", "snapshots.", "user."];

/// Whether a key may be changed while the instance runs: it takes effect at once, or is the daemon's own to read later.
pub fn may_change_running(key: &str) -> bool {
    READ_LATER.iter().any(|start| key.starts_with(start)) || changes_live([key])
}
