//! The configuration keys: **one table** with name, type, range, default, instance types, whether a change takes effect
//! at once, and help. Validation, docs, `GET /1.0/metadata/configuration`, completion and UI read it.
//!
//! Nothing is silently ignored: a key whose feature does not exist yet is either refused with the reason, or, where
//! having no effect is harmless, accepted and marked as [`Status::Stored`].

mod addresses;
mod kind;
mod limits;
mod machine;
mod metadata;
mod schedule;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod validate;

pub use addresses::{list_parts, parse_range};
pub use kind::{Kind, parse_bool, parse_mac};
pub use limits::{Host, limits_from_config};
pub use machine::{HARDWARE_KEYS, Hardware, hardware_from_config, machine_limits_from_config};
pub use metadata::metadata_configuration;
pub use suggest::did_you_mean;
pub use tables::GROUPS;
pub use validate::{
    KeyError, Tables, changes_live, may_change_running, validate_config, validate_instance_config,
    validate_pool_config, validate_profile_config,
};

/// Which instances a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    Both,
    ContainerOnly,
    VmOnly,
}

/// Whether setting the key has an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Supported,
    /// Accepted and kept, without an effect today; why.
    Stored(&'static str),
    /// Refused, except for a value that equals the default; why.
    Unsupported(&'static str),
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key, or a pattern: `user.*`, `volatile.<name>.hwaddr`, `tunnel.NAME.id`.
    pub name: &'static str,
    pub kind: Kind,
    /// The value that being unset means.
    pub default: Option<&'static str>,
    /// What being unset means where no value says it.
    pub default_text: &'static str,
    pub types: Types,
    /// A change takes effect while the instance runs.
    pub live: bool,
    pub status: Status,
    /// When the key matters, in words.
    pub condition: &'static str,
    pub required: &'static str,
    /// `global` or `local` to a cluster member.
    pub scope: &'static str,
    pub help: &'static str,
    pub long: &'static str,
}

/// Keys that are documented together: entity `instance`, name `boot`.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    pub entity: &'static str,
    pub name: &'static str,
    pub keys: &'static [Key],
}

const ANY_INT: Kind = Kind::Int { min: i64::MIN, max: i64::MAX };
/// A user or group id.
const ID: Kind = Kind::Int { min: 0, max: u32::MAX as i64 - 1 };

impl Key {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            default: None,
            default_text: "",
            types: Types::Both,
            live: false,
            status: Status::Supported,
            condition: "",
            required: "",
            scope: "",
            help,
            long: "",
        }
    }

    const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    const fn default_text(mut self, text: &'static str) -> Self {
        self.default_text = text;
        self
    }

    const fn container(mut self) -> Self {
        self.types = Types::ContainerOnly;
        self
    }

    const fn vm(mut self) -> Self {
        self.types = Types::VmOnly;
        self
    }

    const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    const fn condition(mut self, text: &'static str) -> Self {
        self.condition = text;
        self
    }

    const fn required(mut self, text: &'static str) -> Self {
        self.required = text;
        self
    }

    const fn scope(mut self, text: &'static str) -> Self {
        self.scope = text;
        self
    }

    const fn stored(mut self, reason: &'static str) -> Self {
        self.status = Status::Stored(reason);
        self
    }

    const fn refused(mut self, reason: &'static str) -> Self {
        self.status = Status::Unsupported(reason);
        self
    }

    const fn long(mut self, text: &'static str) -> Self {
        self.long = text;
        self
    }

    /// Whether this row describes `key`: the same text, or it fits the pattern with something in the open place.
    pub fn describes(&self, key: &str) -> bool {
        match self.pattern() {
            None => self.name == key,
            Some((start, end)) => key.len() > start.len() + end.len() && key.starts_with(start) && key.ends_with(end),
        }
    }

    /// What is before and after the open place of a pattern.
    pub fn pattern(&self) -> Option<(&'static str, &'static str)> {
        if let Some(start) = self.name.strip_suffix('*') {
            return Some((start, ""));
        }
        ["<name>", "POOL_NAME", "NAME"].iter().find_map(|place| self.name.split_once(place))
    }
}
