use std::{fmt, str::FromStr};

use crate::NameError;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The immutable identity of an instance: eight lower-case base32 characters (40 bits).
///
/// Every host object (cgroup, volume, network interface, socket directory) is named by it and never by the instance's
/// name, so a rename is one row. Short because an interface name holds 15 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId([u8; 8]);

impl InstanceId {
    /// Makes an id of the low 40 bits; the caller supplies the randomness and checks that the id is free.
    pub fn from_bits(bits: u64) -> Self {
        let mut text = [0; 8];
        for (place, byte) in text.iter_mut().enumerate() {
            *byte = ALPHABET[(bits >> (place * 5)) as usize & 31];
        }
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        // The constructor and the parser only admit the ASCII alphabet above.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for InstanceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes: [u8; 8] =
            text.as_bytes().try_into().map_err(|_| NameError::new("instance id", text, "it has 8 characters"))?;
        if bytes.iter().any(|b| !ALPHABET.contains(b)) {
            return Err(NameError::new("instance id", text, "only a-z and 2-7 are allowed"));
        }
        Ok(Self(bytes))
    }
}

impl serde::Serialize for InstanceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for InstanceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_a_round_trip_through_text() {
        for bits in [0, 1, 0xff_ffff_ffff, 0x12_3456_789a] {
            let id = InstanceId::from_bits(bits);
            assert_eq!(id.to_string().parse::<InstanceId>().unwrap(), id);
            assert_eq!(id.as_str().len(), 8);
        }
        assert_ne!(InstanceId::from_bits(1), InstanceId::from_bits(2));
    }

    #[test]
    fn a_path_is_no_id() {
        for text in ["", "../../..", "ABCDEFGH", "abcdefg", "abcdefgh1"] {
            assert!(text.parse::<InstanceId>().is_err(), "{text}");
        }
    }
}
