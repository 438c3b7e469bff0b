//! The server's own configuration.

use stapes_store::{Check, Revision};

use crate::{
    Engine, Result,
    records::{self, Config, Record},
};

impl Engine {
    pub fn server_config(&self) -> Config {
        self.index.read().server.as_ref().map(|server| server.config.clone()).unwrap_or_default()
    }

    /// Replaces the server's configuration; an empty value unsets its key.
    pub fn update_server(&self, mut config: Config) -> Result<()> {
        config.retain(|_, value| !value.is_empty());
        stapes_model::keys::validate_config(stapes_model::keys::Tables::SERVER, &config)?;
        let revision: Option<Revision> = self.index.read().server.as_ref().map(|server| server.revision);
        let record = records::Server { config };
        let check = match revision {
            Some(revision) => Check::Unchanged { key: record.key(), revision },
            None => Check::Absent(record.key()),
        };
        self.put(&record, check)?;
        self.events.lifecycle("default", "config-updated", "/1.0", None, serde_json::Value::Null);
        Ok(())
    }
}
