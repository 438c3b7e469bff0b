use std::fmt;

use crate::PoolError;

/// What a volume is for; each kind has a directory of its own in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VolumeKind {
    /// An unpacked image, read-only once sealed.
    Image,
    /// An instance's root and what belongs to it.
    Instance,
    /// A volume that users make and attach.
    Custom,
}

impl VolumeKind {
    pub const ALL: [Self; 3] = [Self::Image, Self::Instance, Self::Custom];

    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Instance => "instances",
            Self::Custom => "custom",
        }
    }
}

/// A volume: its kind and an opaque id, which is an image's fingerprint, an instance's id or a custom volume's.
///
/// The id is 1 to 128 of `a-z 0-9 . _ -` and starts with a letter or digit: no path, and never one of the hidden
/// names of half-made volumes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeRef {
    kind: VolumeKind,
    id: String,
}

impl VolumeRef {
    pub fn new(kind: VolumeKind, id: impl Into<String>) -> Result<Self, PoolError> {
        let id = id.into();
        check_id(&id)?;
        Ok(Self { kind, id })
    }

    pub fn image(fingerprint: &stapes_model::Fingerprint) -> Self {
        Self { kind: VolumeKind::Image, id: fingerprint.as_str().to_owned() }
    }

    pub fn instance(id: &stapes_model::InstanceId) -> Self {
        Self { kind: VolumeKind::Instance, id: id.as_str().to_owned() }
    }

    pub fn kind(&self) -> VolumeKind {
        self.kind
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for VolumeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.directory(), self.id)
    }
}

pub(crate) fn check_id(id: &str) -> Result<(), PoolError> {
    let rule = if id.is_empty() || id.len() > 128 {
        "it must have 1 to 128 characters"
    } else if !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)) {
        "only a-z 0-9 . _ - are allowed"
    } else if !id.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        "it must start with a letter or a digit"
    } else {
        return Ok(());
    };
    Err(PoolError::InvalidId { id: id.chars().take(80).collect(), rule })
}

/// The hidden name of a volume that is being made or removed.
pub(crate) fn unfinished_name(id: &str) -> String {
    format!(".{id}.tmp")
}

/// What a name in a kind's directory stands for: the id, and whether the volume is whole. `None` is not ours.
pub(crate) fn parse_name(name: &str) -> Option<(&str, bool)> {
    let (id, whole) = match name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp")) {
        Some(id) => (id, false),
        None => (name, true),
    };
    check_id(id).is_ok().then_some((id, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_a_hidden_name_is_no_id() {
        for bad in ["", ".", "..", "../x", "a/b", ".a.tmp", "A", "a b", "a\0", "é", &"x".repeat(129)] {
            assert!(VolumeRef::new(VolumeKind::Instance, bad).is_err(), "{bad:?}");
        }
        assert_eq!(VolumeRef::new(VolumeKind::Instance, "abc..2").unwrap().to_string(), "instances/abc..2");
    }

    #[test]
    fn half_made_volumes_are_told_by_their_name() {
        assert_eq!(parse_name(&unfinished_name("abc")), Some(("abc", false)));
        assert_eq!(parse_name("abc"), Some(("abc", true)));
        assert_eq!(parse_name(".stapes-pool"), None);
        assert_eq!(parse_name("...tmp"), None);
    }
}
