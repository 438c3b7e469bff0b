use serde_json::{Map, Value, json};

use super::{GROUPS, Key, Status, Types};

/// The table as `GET /1.0/metadata/configuration` shows it, in Incus's shape. What Stapes adds to each key: `status`
/// (`stored` or `unsupported`, absent where supported) and `status_reason`.
pub fn metadata_configuration() -> Value {
    let mut configs = Map::new();
    for group in GROUPS {
        let keys: Vec<Value> = group.keys.iter().map(|key| json!({ key.name: describe(key) })).collect();
        let entity = configs.entry(group.entity).or_insert_with(|| json!({}));
        entity[group.name] = json!({ "keys": keys });
    }
    json!({ "configs": configs })
}

fn describe(key: &Key) -> Value {
    let mut row = Map::new();
    let mut put = |name: &str, text: &str| {
        if !text.is_empty() {
            row.insert(name.to_owned(), text.into());
        }
    };
    put("condition", condition(key));
    put("default", key.default.unwrap_or_default());
    put("defaultdesc", key.default.unwrap_or(key.default_text));
    put("liveupdate", if key.live { "yes" } else { "" });
    put("required", key.required);
    put("scope", key.scope);
    put("shortdesc", key.help);
    put("type", key.kind.metadata_type());
    match key.status {
        Status::Supported => {}
        Status::Stored(reason) => {
            put("status", "stored");
            put("status_reason", reason);
        }
        Status::Unsupported(reason) => {
            put("status", "unsupported");
            put("status_reason", reason);
        }
    }
    // Present even when empty: Incus's web UI reads it unasked.
    row.insert("longdesc".to_owned(), key.long.into());
    row.into()
}

fn condition(key: &Key) -> &'static str {
    match (key.condition, key.types) {
        ("", Types::ContainerOnly) => "container",
        ("", Types::VmOnly) => "virtual machine",
        (text, _) => text,
    }
}
