//! Looking at instances: profiles merged in, validity as a whole, the copy that a client may edit.

use stapes_model::{ByteSize, ProfileName, ProjectName, keys::Host};

use crate::{
    Engine, Error, Result,
    index::{Stored, Tables},
    records::{self, Config, Devices},
    shape,
};

/// An instance's configuration over that of its profiles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    pub config: Config,
    pub devices: Devices,
}

/// What `PUT` may replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceEdit {
    pub description: String,
    pub ephemeral: bool,
    pub profiles: Vec<ProfileName>,
    pub config: Config,
    pub devices: Devices,
}

impl Expanded {
    /// Merges in the order of the profiles, the instance last.
    pub fn merge<'a>(profiles: impl IntoIterator<Item = &'a records::Profile>, instance: &records::Instance) -> Self {
        let layers = profiles.into_iter().map(|profile| (&profile.config, &profile.devices));
        let (config, devices) = stapes_model::expand(layers, (&instance.config, &instance.devices));
        Self { config, devices }
    }

    /// A truth value in any of the spellings that the key table takes; `None` where it is unset or something else.
    pub fn flag(&self, key: &str) -> Option<bool> {
        stapes_model::keys::parse_bool(self.config.get(key)?)
    }

    pub fn is_on(&self, key: &str) -> bool {
        self.flag(key) == Some(true)
    }

    /// The size that the root disk asks for.
    pub fn root_size(&self) -> Result<Option<ByteSize>> {
        let root = self.devices.values().find(|device| device.get("path").is_some_and(|path| path == "/"));
        let size = root.and_then(|device| device.get("size")).filter(|size| !size.is_empty());
        let size = size.map(|text| {
            text.parse().map_err(|error: stapes_model::SizeError| Error::invalid("size", error.to_string()))
        });
        size.transpose()
    }
}

impl Tables {
    /// An instance with its profiles merged in; a profile that is gone counts as empty.
    pub fn expand(&self, instance: &records::Instance) -> Expanded {
        let profiles = instance.profiles.iter().filter_map(|name| self.profile(&instance.project, name));
        Expanded::merge(profiles.map(|profile| &*profile.value), instance)
    }
}

/// What of this host limits refer to.
pub(crate) fn limit_host() -> Host {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Host {
        memory: ByteSize::bytes(super::state::host_memory()),
        cpus: (0..u32::try_from(cpus).unwrap_or(1)).collect(),
        first_cpu: 0,
    }
}

/// What the daemon itself keeps under `volatile.` is not the table's to judge.
fn without_volatile(config: &Config) -> Config {
    config
        .iter()
        .filter(|(key, _)| !key.starts_with("volatile."))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl Engine {
    pub fn expanded(&self, instance: &records::Instance) -> Expanded {
        self.index.read().expand(instance)
    }

    pub(crate) fn profiles_of(&self, instance: &records::Instance) -> Result<Vec<records::Profile>> {
        let tables = self.index.read();
        let find = |name: &ProfileName| {
            let profile = tables.profile(&instance.project, name).ok_or_else(|| Error::missing("profile", name))?;
            Ok((*profile.value).clone())
        };
        instance.profiles.iter().map(find).collect()
    }

    /// Checks configuration and devices as a whole: keys, values, exactly one root disk whose pool exists, networks that
    /// exist, no two devices in one place.
    pub(crate) fn check_expanded(
        &self,
        instance: &records::Instance,
        profiles: &[records::Profile],
    ) -> Result<Expanded> {
        let own = without_volatile(&instance.config);
        stapes_model::keys::validate_instance_config(instance.kind, &own)?;
        let expanded = Expanded::merge(profiles, instance);
        stapes_model::keys::validate_profile_config(&without_volatile(&expanded.config))?;
        let requests = stapes_device::requests(&expanded.devices)?;
        shape::of(instance.kind).check(&own, &expanded, &requests, &limit_host())?;
        self.check_references(&requests)?;
        Ok(expanded)
    }

    /// Instances of a project (of all: `None`), each with its profiles merged in, by name.
    pub fn instances(&self, project: Option<&ProjectName>) -> Vec<(Stored<records::Instance>, Expanded)> {
        let tables = self.index.read();
        let list = tables.instances_of(project);
        list.map(|instance| (instance.clone(), tables.expand(instance))).collect()
    }
}
