//! cloud-init's NoCloud seed from configuration keys: text → text.

use std::collections::BTreeMap;

/// The four files of a NoCloud seed; `None` where nothing was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    pub meta_data: String,
    pub user_data: String,
    pub vendor_data: String,
    pub network_config: Option<String>,
}

impl Seed {
    /// File names as cloud-init looks for them, with their content.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let network = self.network_config.as_deref().map(|text| ("network-config", text));
        let fixed =
            [("meta-data", &self.meta_data), ("user-data", &self.user_data), ("vendor-data", &self.vendor_data)];
        fixed.into_iter().map(|(name, text)| (name, text.as_str())).chain(network).collect()
    }
}

/// Builds the seed. `instance_id` changes when cloud-init shall run as if on a fresh machine
/// (`volatile.cloud-init.instance-id`); `cloud-init.*` keys win over the older `user.*` names.
pub fn seed(name: &str, instance_id: &str, config: &BTreeMap<String, String>) -> Seed {
    let key = |new: &str, old: &str| config.get(new).or_else(|| config.get(old)).filter(|text| !text.trim().is_empty());
    let data = |new, old| key(new, old).cloned().unwrap_or_else(|| "#cloud-config\n{}\n".to_owned());
    let mut meta_data = format!("instance-id: {}\nlocal-hostname: {}\n", quoted(instance_id), quoted(name));
    if let Some(more) = config.get("user.meta-data") {
        meta_data.push_str(more);
        if !more.ends_with('\n') {
            meta_data.push('\n');
        }
    }
    Seed {
        meta_data,
        user_data: with_keys(data("cloud-init.user-data", "user.user-data"), config),
        vendor_data: data("cloud-init.vendor-data", "user.vendor-data"),
        network_config: key("cloud-init.network-config", "user.network-config").cloned(),
    }
}

/// Adds `cloud-init.ssh-keys.*` (`user:key`) to a user-data that says nothing else; cloud-init merges no two documents.
fn with_keys(user_data: String, config: &BTreeMap<String, String>) -> String {
    let keys: Vec<(&str, &str)> = config
        .iter()
        .filter(|(key, _)| key.starts_with("cloud-init.ssh-keys."))
        .filter_map(|(_, value)| value.split_once(':'))
        .filter(|(user, key)| !user.is_empty() && !key.is_empty())
        .collect();
    if keys.is_empty() || user_data.trim() != "#cloud-config\n{}" {
        return user_data;
    }
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (user, key) in keys {
        users.entry(user).or_default().push(key.trim());
    }
    let mut text = String::from("#cloud-config\nusers:\n- default\n");
    for (user, keys) in users {
        text.push_str(&format!("- name: {}\n  ssh_authorized_keys:\n", quoted(user)));
        for key in keys {
            text.push_str(&format!("  - {}\n", quoted(key)));
        }
    }
    text
}

/// JSON's quotes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_new_names_win_and_the_old_ones_still_work() {
        let seed = seed(
            "c1",
            "id-1",
            &config(&[
                ("cloud-init.user-data", "#cloud-config\na: 1\n"),
                ("user.user-data", "old"),
                ("user.vendor-data", "vendor"),
                ("user.network-config", "version: 2\n"),
            ]),
        );
        assert_eq!(seed.meta_data, "instance-id: \"id-1\"\nlocal-hostname: \"c1\"\n");
        assert_eq!((seed.user_data.as_str(), seed.vendor_data.as_str()), ("#cloud-config\na: 1\n", "vendor"));
        assert_eq!(seed.files().len(), 4);
    }

    #[test]
    fn nothing_configured_is_an_empty_document() {
        let seed = seed("c1", "1", &config(&[("cloud-init.ssh-keys.me", "root:ssh-ed25519 AAAA me")]));
        assert!(seed.user_data.contains("- name: \"root\"\n  ssh_authorized_keys:\n  - \"ssh-ed25519 AAAA me\"\n"));
        assert_eq!(seed.vendor_data, "#cloud-config\n{}\n");
        assert_eq!(seed.network_config, None);
    }
}
