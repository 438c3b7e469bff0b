//! Reading JSON and YAML as leniently as Go's decoders do.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Configuration: key to value, always text on the wire.
pub type ConfigMap = BTreeMap<String, String>;

/// Devices: name to the device's own configuration.
pub type DevicesMap = BTreeMap<String, ConfigMap>;

/// For `skip_serializing_if`: Go's `omitempty`.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads `null` as the zero value.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a map of text whose values may be written as numbers or booleans (`limits.cpu: 2` in YAML).
pub(crate) fn config_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ConfigMap, D::Error> {
    Ok(Option::<Config>::deserialize(deserializer)?.unwrap_or_default().0)
}

/// Reads devices; as lenient as [`config_map`].
pub(crate) fn devices_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DevicesMap, D::Error> {
    let devices = Option::<BTreeMap<String, Option<Config>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(devices.into_iter().map(|(name, config)| (name, config.unwrap_or_default().0)).collect())
}

#[derive(Default)]
struct Config(ConfigMap);

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of keys to text")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
                let mut config = ConfigMap::new();
                while let Some((key, Scalar(value))) = map.next_entry()? {
                    config.insert(key, value);
                }
                Ok(Config(config))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Text, or what has an obvious text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("text, a number or a boolean")
            }
            fn visit_str<E>(self, v: &str) -> Result<Scalar, E> {
                Ok(Scalar(v.to_owned()))
            }
            fn visit_string<E>(self, v: String) -> Result<Scalar, E> {
                Ok(Scalar(v))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar(String::new()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}
