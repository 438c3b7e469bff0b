use std::collections::BTreeMap;

/// Configuration: key to value.
pub type Config = BTreeMap<String, String>;
/// Devices: name to configuration, in which `type` says what it is.
pub type Devices = BTreeMap<String, Config>;

/// Merges what an instance inherits with its own: profiles in order, the instance last, as Incus does.
///
/// A later value replaces an earlier one; an empty value unsets what was inherited, as an unset key has no value. A device
/// is replaced as a whole, never mixed; one of type `none` masks the inherited device and appears as such in the
/// result; the device crate makes nothing of it.
pub fn expand<'a>(
    profiles: impl IntoIterator<Item = (&'a Config, &'a Devices)>,
    own: (&'a Config, &'a Devices),
) -> (Config, Devices) {
    let (mut config, mut devices) = (Config::new(), Devices::new());
    for (layer_config, layer_devices) in profiles.into_iter().chain([own]) {
        config.extend(layer_config.iter().map(|(key, value)| (key.clone(), value.clone())));
        devices.extend(layer_devices.iter().map(|(name, device)| (name.clone(), device.clone())));
    }
    config.retain(|_, value| !value.is_empty());
    (config, devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn later_profiles_win_and_the_instance_wins_over_all() {
        let first = config(&[("limits.cpu", "1"), ("limits.memory", "1GiB"), ("user.a", "first")]);
        let second = config(&[("limits.cpu", "2"), ("user.a", "second")]);
        let own = config(&[("limits.memory", ""), ("user.a", "own")]);
        let none = Devices::new();
        let (merged, _) = expand([(&first, &none), (&second, &none)], (&own, &none));
        assert_eq!(merged, config(&[("limits.cpu", "2"), ("user.a", "own")]));
    }

    #[test]
    fn a_device_is_replaced_as_a_whole_or_masked() {
        let inherited: Devices = [
            ("root".to_owned(), config(&[("type", "disk"), ("path", "/"), ("pool", "a"), ("size", "1GiB")])),
            ("eth0".to_owned(), config(&[("type", "nic"), ("network", "stbr0")])),
        ]
        .into();
        let own: Devices = [
            ("root".to_owned(), config(&[("type", "disk"), ("path", "/"), ("pool", "b")])),
            ("eth0".to_owned(), config(&[("type", "none")])),
        ]
        .into();
        let nothing = Config::new();
        let (_, devices) = expand([(&nothing, &inherited)], (&nothing, &own));
        assert_eq!(devices, own);
    }
}
