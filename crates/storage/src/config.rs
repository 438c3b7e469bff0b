//! The configuration keys of the drivers: one table, from which everything else is asked.

use stapes_model::ByteSize;

use crate::{PoolConfig, PoolError};

enum Kind {
    Text,
    MountOptions,
    Size,
    Bool,
    /// An absolute path.
    Path,
    Number,
    Mode,
}

struct Key {
    name: &'static str,
    kind: Kind,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

/// What every pool takes, besides `user.*`.
const COMMON: &[Key] = &[
    key("source", Kind::Path),
    key("volatile.initial_source", Kind::Text),
    key("rsync.bwlimit", Kind::Text),
    key("rsync.compression", Kind::Bool),
    key("volume.size", Kind::Size),
    key("volume.initial.uid", Kind::Number),
    key("volume.initial.gid", Kind::Number),
    key("volume.initial.mode", Kind::Mode),
    key("volume.security.shared", Kind::Bool),
    key("volume.security.shifted", Kind::Bool),
    key("volume.security.unmapped", Kind::Bool),
    key("volume.snapshots.expiry", Kind::Text),
    key("volume.snapshots.expiry.manual", Kind::Text),
    key("volume.snapshots.pattern", Kind::Text),
    key("volume.snapshots.schedule", Kind::Text),
];

const BTRFS: &[Key] = &[
    key("btrfs.create_options", Kind::Text),
    key("btrfs.mount_options", Kind::MountOptions),
    key("size", Kind::Size),
    key("source.wipe", Kind::Bool),
    key("volume.btrfs.compression", Kind::Text),
];

/// Refuses a key that the driver does not have, or a value of the wrong type, by name.
pub(crate) fn check(pool: &PoolConfig, driver: &'static str) -> Result<(), PoolError> {
    let own: &[Key] = if driver == "btrfs" { BTRFS } else { &[] };
    for (name, value) in &pool.config {
        if name.starts_with("user.") {
            continue;
        }
        let Some(key) = COMMON.iter().chain(own).find(|key| key.name == name) else {
            return Err(PoolError::UnknownKey { pool: pool.name.clone(), driver, key: name.clone() });
        };
        // Incus reads an empty value as "not set".
        if !value.is_empty() {
            check_value(key, value).map_err(|reason| PoolError::InvalidValue {
                pool: pool.name.clone(),
                key: key.name,
                value: value.chars().take(80).collect(),
                reason,
            })?;
        }
    }
    Ok(())
}

fn check_value(key: &Key, value: &str) -> Result<(), String> {
    match key.kind {
        Kind::Text if value.contains(['\0', '\n']) => Err("it must be one line".to_owned()),
        Kind::Text => Ok(()),
        Kind::MountOptions => check_mount_options(value),
        Kind::Size => value.parse::<ByteSize>().map(drop).map_err(|error| error.to_string()),
        Kind::Bool => parse_bool(value).map(drop).ok_or_else(|| "expected true or false".to_owned()),
        Kind::Path if value.starts_with('/') && !value.contains('\0') => Ok(()),
        Kind::Path => Err("expected an absolute path".to_owned()),
        Kind::Number => value.parse::<u32>().map(drop).map_err(|_| "expected a whole number".to_owned()),
        Kind::Mode => match u32::from_str_radix(value, 8) {
            Ok(0..=0o7777) => Ok(()),
            _ => Err("expected an octal mode such as 0711".to_owned()),
        },
    }
}

/// Refuses what would show the pool another file system or none that it can write to.
fn check_mount_options(value: &str) -> Result<(), String> {
    let name = |option: &'_ str| option.split('=').next().unwrap_or_default().trim().to_owned();
    match value.split(',').map(name).find(|name| ["ro", "subvol", "subvolid", "device"].contains(&name.as_str())) {
        Some(name) => Err(format!("a pool cannot be mounted with {name}")),
        None if value.contains(['\0', '\n']) => Err("it must be one line".to_owned()),
        None => Ok(()),
    }
}

/// The words that Incus takes for a truth value.
fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A key's value; an empty one is not set.
pub(crate) fn get<'a>(pool: &'a PoolConfig, name: &str) -> Option<&'a str> {
    pool.config.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

pub(crate) fn get_bool(pool: &PoolConfig, name: &str) -> bool {
    get(pool, name).and_then(parse_bool).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(key: &str, value: &str) -> PoolConfig {
        PoolConfig {
            name: "default".parse().unwrap(),
            driver: "btrfs".to_owned(),
            config: [(key.to_owned(), value.to_owned())].into(),
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = check(&pool("sise", "1GiB"), "btrfs").unwrap_err();
        assert_eq!(error.to_string(), "storage pool default: driver btrfs has no configuration key \"sise\"");
        assert!(check(&pool("size", "1GiB"), "dir").is_err());
    }

    #[test]
    fn an_ill_typed_value_is_refused_by_key() {
        for (key, value) in
            [("size", "much"), ("source.wipe", "perhaps"), ("source", "../x"), ("btrfs.mount_options", "ro")]
        {
            let error = check(&pool(key, value), "btrfs").unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn what_incus_takes_is_taken() {
        for (key, value) in [("size", "10GiB"), ("source", ""), ("user.note", "x"), ("volume.initial.mode", "0711")] {
            check(&pool(key, value), "btrfs").unwrap();
        }
    }
}
