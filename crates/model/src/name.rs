use std::{fmt, str::FromStr};

/// A name from outside that breaks its rule; says which and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: {rule}")]
pub struct NameError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl NameError {
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        // A hostile name may be megabytes long; an error is for a person.
        Self { what, text: text.chars().take(80).collect(), rule }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(rule) => Err(NameError::new($what, text, rule)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// An instance's name: a host name label (RFC 1123), 1 to 63 characters, not starting with a digit.
    InstanceName, "instance name", check_host_label
);
name_type!(
    /// A project's name.
    ProjectName, "project name", check_object
);
name_type!(
    /// A profile's name.
    ProfileName, "profile name", check_object
);
name_type!(
    /// A storage pool's name.
    PoolName, "storage pool name", check_object
);
name_type!(
    /// A managed network's name: also its bridge's, so 2 to 15 characters.
    NetworkName, "network name", check_interface
);
name_type!(
    /// A device's name within its instance or profile.
    DeviceName, "device name", check_device
);
name_type!(
    /// An image alias such as `debian/12`.
    AliasName, "image alias", check_alias
);
name_type!(
    /// A full image fingerprint: 64 lower-case hexadecimal digits (SHA-256).
    Fingerprint, "image fingerprint", check_fingerprint
);

impl ProjectName {
    /// The project that always exists.
    pub fn default_project() -> Self {
        Self("default".to_owned())
    }
}

fn check_host_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err("only ASCII letters, digits and hyphens are allowed");
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Err("it must not start with a digit or a hyphen");
    }
    if text.ends_with('-') {
        return Err("it must not end with a hyphen");
    }
    Ok(())
}

fn check_object(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    if text == "." || text == ".." {
        return Err("it must not be a path");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+@".contains(&b)) {
        return Err("only ASCII letters, digits and - _ . + @ are allowed");
    }
    Ok(())
}

fn check_interface(text: &str) -> Result<(), &'static str> {
    if text.len() < 2 || text.len() > 15 {
        return Err("it must have 2 to 15 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) || text == ".." {
        return Err("only ASCII letters, digits and - _ . are allowed");
    }
    Ok(())
}

fn check_device(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("it must have 1 to 64 characters");
    }
    if text == "." || text == ".." || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) {
        return Err("only ASCII letters, digits and - _ . : are allowed");
    }
    Ok(())
}

fn check_alias(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 255 {
        return Err("it must have 1 to 255 characters");
    }
    if text.contains(':') || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("colons, spaces and control characters are not allowed");
    }
    Ok(())
}

fn check_fingerprint(text: &str) -> Result<(), &'static str> {
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err("it has 64 lower-case hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_name_is_a_host_label() {
        for good in ["c1", "web-01", "A", &"a".repeat(63)] {
            assert!(good.parse::<InstanceName>().is_ok(), "{good}");
        }
        for bad in ["", "1c", "-a", "a-", "a_b", "a.b", "a/b", "ä", "a b", &"a".repeat(64)] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_name_can_leave_its_directory() {
        for bad in [".", "..", "a/b", "/"] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad}");
            assert!(bad.parse::<PoolName>().is_err(), "{bad}");
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_error_names_the_thing_the_text_and_the_rule() {
        let error = "web 1".parse::<InstanceName>().unwrap_err().to_string();
        assert_eq!(error, "invalid instance name \"web 1\": only ASCII letters, digits and hyphens are allowed");
    }
}
