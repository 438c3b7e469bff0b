//! `storage`: pools. Volumes are in `storage_volume`.

use std::collections::BTreeMap;

use clap::Subcommand;
use stapes_api::{ResourcesStoragePool, StoragePool, StoragePoolPut, StoragePoolsPost};
use stapes_client::Target;

use super::ListFormat;
use super::storage_volume::Volume;
use crate::context::{Ctx, pairs, piped_input, settings_of};
use crate::failure::Result;
use crate::object::Object;
use crate::table::{self, Columns};
use crate::{out, units, yaml};

#[derive(Debug, Subcommand)]
pub enum Storage {
    /// Create a pool; YAML is read from a pipe
    #[command(visible_alias = "add")]
    Create {
        pool: String,
        /// btrfs or dir
        driver: String,
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        target: super::Target,
    },
    /// Delete a pool
    #[command(visible_aliases = ["rm", "remove"])]
    Delete { pool: String },
    /// Edit as YAML
    Edit { pool: String },
    /// Print one key
    Get {
        pool: String,
        key: String,
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Show space and users of a pool
    Info {
        pool: String,
        /// In bytes
        #[arg(long)]
        bytes: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// List pools
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        remote: Option<String>,
        /// n name, D driver, d description, S source, u used by, s state
        #[arg(long, short, default_value = "nDdus")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Set keys
    Set {
        pool: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Print all
    Show {
        pool: String,
        /// The space it has
        #[arg(long)]
        resources: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Unset a key
    Unset {
        pool: String,
        key: String,
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Volumes of a pool
    #[command(subcommand)]
    Volume(Volume),
}

const COLUMNS: &Columns<StoragePool> = &[
    ('n', "NAME", |p| p.name.clone()),
    ('D', "DRIVER", |p| p.driver.clone()),
    ('d', "DESCRIPTION", |p| p.description.clone()),
    ('S', "SOURCE", |p| p.config.get("source").cloned().unwrap_or_default()),
    ('u', "USED BY", |p| p.used_by.len().to_string()),
    ('s', "STATE", |p| p.status.to_uppercase()),
];

pub fn pool_target(ctx: &Ctx, spec: &str) -> Result<Target> {
    let name = ctx.name(spec, "a storage pool")?;
    ctx.about("/1.0/storage-pools", name);
    Ok(Target::new("/1.0/storage-pools").join(name))
}

fn object(ctx: &Ctx, spec: &str) -> Result<Object> {
    Ok(Object::new::<StoragePoolPut>(format!("storage pool {}", ctx.local(spec)?), pool_target(ctx, spec)?))
}

impl Storage {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Storage::Volume(volume) => volume.run(ctx).await,
            Storage::Create { pool, driver, settings, description, target } => {
                target.refuse()?;
                create(ctx, &pool, &driver, &settings, description).await
            }
            Storage::Delete { pool } => {
                ctx.client.delete(pool_target(ctx, &pool)?).await?;
                ctx.say(format!("Storage pool {} deleted", ctx.local(&pool)?))
            }
            Storage::Edit { pool } => {
                object(ctx, &pool)?
                    .edit(ctx, "A storage pool as YAML. Lines that start with # are ignored.", |_| ())
                    .await
            }
            Storage::Get { pool, key, property, target } => {
                target.refuse()?;
                object(ctx, &pool)?.get(ctx, &key, property, "config").await
            }
            Storage::Set { pool, settings, property, target } => {
                target.refuse()?;
                object(ctx, &pool)?.set(ctx, &settings_of(&settings)?, property, "config").await
            }
            Storage::Unset { pool, key, property, target } => {
                target.refuse()?;
                object(ctx, &pool)?.unset(ctx, &key, property, "config").await
            }
            Storage::Show { pool, resources, target } => {
                target.refuse()?;
                if resources {
                    let found: serde_json::Value = ctx.client.get(pool_target(ctx, &pool)?.join("resources")).await?;
                    return out::put(yaml::to_text(&found));
                }
                object(ctx, &pool)?.show(ctx).await
            }
            Storage::Info { pool, bytes, target } => {
                target.refuse()?;
                info(ctx, &pool, bytes).await
            }
            Storage::List { remote, columns, format } => {
                ctx.local(remote.as_deref().unwrap_or_default())?;
                let target = Target::new("/1.0/storage-pools").query("recursion", "1");
                table::list(&ctx.client.get::<Vec<StoragePool>>(target).await?, COLUMNS, &columns, format.format)
            }
        }
    }
}

async fn create(ctx: &Ctx, spec: &str, driver: &str, settings: &[String], description: Option<String>) -> Result<()> {
    let mut put: StoragePoolPut = yaml::parse(piped_input()?.as_deref().unwrap_or_default())?;
    put.config.extend(pairs(settings)?);
    let name = ctx.name(spec, "a storage pool")?;
    let post = StoragePoolsPost {
        name: name.to_owned(),
        driver: driver.to_owned(),
        config: put.config,
        description: description.unwrap_or(put.description),
    };
    ctx.client.post("/1.0/storage-pools", &post).await?;
    ctx.say(format!("Storage pool {name} created"))
}

async fn info(ctx: &Ctx, spec: &str, in_bytes: bool) -> Result<()> {
    let target = pool_target(ctx, spec)?;
    let pool: StoragePool = ctx.client.get(target.clone()).await?;
    let space = ctx.client.get::<ResourcesStoragePool>(target.join("resources")).await?.space;
    let size = |bytes: u64| if in_bytes { bytes.to_string() } else { units::iec(bytes as i64) };
    let info: BTreeMap<&str, String> = [
        ("name", pool.name),
        ("driver", pool.driver),
        ("description", pool.description),
        ("total space", size(space.total)),
        ("space used", size(space.used)),
    ]
    .into();
    let mut users = BTreeMap::<String, Vec<String>>::new();
    for (kind, name) in pool.used_by.iter().filter_map(|path| user_of(path)) {
        users.entry(kind).or_default().push(name);
    }
    let page = |title: &str, body: serde_json::Value| yaml::to_text(&serde_json::json!({ title: body }));
    let mut text = page("info", serde_json::json!(info)) + &page("used by", serde_json::json!(users));
    if !pool.stapes_shortcomings.is_empty() {
        text += &page("does without", serde_json::json!(pool.stapes_shortcomings));
    }
    out::put(text)
}

/// Kind and name of what uses a pool, from its path; snapshots are left to what they are of.
fn user_of(path: &str) -> Option<(String, String)> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<_> = path.trim_start_matches("/1.0/").split('/').collect();
    if parts.len() < 2 {
        return Some(("unrecognized".to_owned(), path.to_owned()));
    }
    if parts[parts.len() - 2] == "snapshots" {
        return None;
    }
    let (kind, name) = match parts.as_slice() {
        ["storage-pools", _, "volumes", _, name, ..] => ("volumes", *name),
        ["storage-pools", _, kind, name, ..] => (*kind, *name),
        [kind, name, ..] => (*kind, *name),
        _ => return None,
    };
    let project = query.split('&').find_map(|pair| pair.strip_prefix("project="));
    let project = project.map(|project| format!(" (project \"{project}\")")).unwrap_or_default();
    Some((kind.to_owned(), format!("{name}{project}")))
}

#[cfg(test)]
mod tests {
    use super::user_of;

    #[test]
    fn users_of_a_pool_are_told_by_kind() {
        let found = |path| user_of(path).map(|(kind, name)| format!("{kind} {name}"));
        assert_eq!(found("/1.0/instances/c1").as_deref(), Some("instances c1"));
        assert_eq!(found("/1.0/instances/c1?project=blue").as_deref(), Some("instances c1 (project \"blue\")"));
        assert_eq!(found("/1.0/storage-pools/p/volumes/custom/v").as_deref(), Some("volumes v"));
        assert_eq!(found("/1.0/instances/c1/snapshots/s0"), None);
    }
}
