/// A run of host user and group ids that one instance owns; id 0 inside is `base` outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct IdRange {
    /// First host id.
    pub base: u32,
    /// Number of ids: 65,536, or 262,144 with nesting.
    pub size: u32,
}

impl IdRange {
    /// One past the last host id, as a wide number because the range may end at the top of the id space.
    pub fn end(self) -> u64 {
        u64::from(self.base) + u64::from(self.size)
    }

    pub fn overlaps(self, other: IdRange) -> bool {
        u64::from(self.base) < other.end() && u64::from(other.base) < self.end()
    }
}

/// How ids inside an instance appear on the host. Source: user_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMap {
    /// Its own range: the default.
    Range(IdRange),
    /// No user namespace (`security.privileged`): root inside is root outside.
    Privileged,
}

impl IdMap {
    /// The host id of root inside.
    pub fn root(self) -> u32 {
        match self {
            Self::Range(range) => range.base,
            Self::Privileged => 0,
        }
    }
}
