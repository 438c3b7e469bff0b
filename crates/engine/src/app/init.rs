//! Setting a fresh host up: the default pool, network and profile.

use std::{collections::BTreeMap, sync::Arc};

use stapes_model::{ByteSize, NetworkName, PoolName, ProjectName};

use crate::{Engine, Result, records};

/// What a fresh host gets. `default()` is what `admin init --minimal` makes.
#[derive(Debug, Clone)]
pub struct InitPlan {
    pub pool: PoolName,
    /// `None`: the best that the machine offers.
    pub driver: Option<String>,
    pub size: Option<ByteSize>,
    /// `None`: no network.
    pub network: Option<NetworkName>,
}

impl Engine {
    /// Makes what is missing of the plan and lets the default profile use it. May run twice.
    pub async fn init(self: &Arc<Self>, plan: InitPlan) -> Result<()> {
        if self.pool_record(&plan.pool).is_err() {
            self.create_pool(self.default_pool(&plan)).await?;
        }
        if let Some(network) = plan.network.clone()
            && self.network(&network).is_err()
        {
            let record = records::Network {
                name: network,
                kind: "bridge".to_owned(),
                description: String::new(),
                config: BTreeMap::new(),
            };
            let engine = Arc::clone(self);
            self.lanes.slow(move || engine.create_network(record)).await?;
        }
        let stored = self.profile(&ProjectName::default_project(), &"default".parse()?)?;
        let mut profile = (*stored.value).clone();
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let has_root = profile.devices.values().any(|device| device.get("path").is_some_and(|path| path == "/"));
        if !has_root {
            let root = text(&[("type", "disk"), ("path", "/"), ("pool", plan.pool.as_str())]);
            profile.devices.insert("root".to_owned(), root);
        }
        if let Some(network) = &plan.network
            && !profile.devices.contains_key("eth0")
        {
            let nic = text(&[("type", "nic"), ("name", "eth0"), ("network", network.as_str())]);
            profile.devices.insert("eth0".to_owned(), nic);
        }
        if profile != *stored.value {
            self.update_profile(&profile)?;
        }
        Ok(())
    }

    fn default_pool(&self, plan: &InitPlan) -> records::Pool {
        let mut best = stapes_storage::default_config(&self.paths.state);
        if let Some(driver) = &plan.driver {
            best.config.clear();
            best.driver.clone_from(driver);
        }
        if let Some(size) = plan.size {
            best.config.insert("size".to_owned(), size.to_string());
        }
        records::Pool { name: plan.pool.clone(), driver: best.driver, description: String::new(), config: best.config }
    }
}
