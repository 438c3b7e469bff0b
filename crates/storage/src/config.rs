//! A pool's configuration, checked against the one table, [`stapes_model::keys`], and read.

use stapes_model::keys::{parse_bool, validate_pool_config};

use crate::{PoolConfig, PoolError};

/// Refuses a key that the driver does not have, or a value of the wrong type, by name.
pub(crate) fn check(pool: &PoolConfig, driver: &'static str) -> Result<(), PoolError> {
    validate_pool_config(driver, &pool.config).map_err(|error| PoolError::Key {
        pool: pool.name.clone(),
        driver,
        error,
    })
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
        assert_eq!(
            error.to_string(),
            "storage pool default (btrfs): invalid configuration key \"sise\": unknown key; did you mean \"size\"?"
        );
        assert!(check(&pool("size", "1GiB"), "dir").is_err());
    }

    #[test]
    fn an_ill_typed_value_is_refused_by_key() {
        for (key, value) in [
            ("size", "much"),
            ("source.wipe", "perhaps"),
            ("source", "../x"),
            ("btrfs.mount_options", "ro"),
            ("volume.initial.mode", "rwx"),
        ] {
            let error = check(&pool(key, value), "btrfs").unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn what_incus_takes_is_taken() {
        for (key, value) in [
            ("size", "10GiB"),
            ("source", ""),
            ("source.wipe", "true"),
            ("user.note", "x"),
            ("volume.initial.mode", "0711"),
            ("volatile.initial_source", "/dev/sdb"),
        ] {
            check(&pool(key, value), "btrfs").unwrap();
        }
        for (key, value) in [("volume.size", "1GiB"), ("source", "/srv/pool"), ("rsync.compression", "false")] {
            check(&pool(key, value), "dir").unwrap();
        }
    }
}
