//! Projects, as far as they exist: the default one, and reading.

use stapes_model::ProjectName;
use stapes_store::Check;

use crate::{
    Engine, Error, Result,
    index::Stored,
    records::{self, Config, Record},
};

/// Features that the default project has, as in Incus.
const FEATURES: [&str; 6] = ["images", "networks", "networks.zones", "profiles", "storage.buckets", "storage.volumes"];

impl Engine {
    pub fn project(&self, name: &ProjectName) -> Result<Stored<records::Project>> {
        let tables = self.index.read();
        tables.projects.get(&format!("project/{name}")).cloned().ok_or_else(|| Error::missing("project", name))
    }

    /// Makes sure that the default project and its default profile exist. May run twice.
    pub(crate) fn ensure_default_project(&self) -> Result<()> {
        let name = ProjectName::default_project();
        if self.project(&name).is_err() {
            let config: Config =
                FEATURES.iter().map(|feature| (format!("features.{feature}"), "true".to_owned())).collect();
            let description = "Default Stapes project".to_owned();
            let project = records::Project { name: name.clone(), description, config };
            self.put(&project, Check::Absent(project.key()))?;
        }
        let profile = "default".parse()?;
        if self.profile(&name, &profile).is_err() {
            let description = "Default Stapes profile".to_owned();
            let (config, devices) = Default::default();
            let profile = records::Profile { project: name, name: profile, description, config, devices };
            self.put(&profile, Check::Absent(profile.key()))?;
        }
        Ok(())
    }
}
