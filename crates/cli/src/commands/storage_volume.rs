//! `storage volume`.

use std::fmt::Write;

use clap::Subcommand;
use serde_json::Value;
use stapes_api::{StorageVolume, StorageVolumePost, StorageVolumePut, StorageVolumeState, StorageVolumesPost};
use stapes_client::Target;

use super::ListFormat;
use super::config::instance_object;
use super::device::Owner;
use super::launch::text_map;
use super::profile::profile_object;
use super::storage::pool_target;
use crate::context::{Ctx, pairs, piped_input, settings_of};
use crate::failure::{Result, fail};
use crate::object::{Object, config_of};
use crate::table::{self, Columns};
use crate::{out, units, yaml};

#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Attach a volume to an instance
    Attach { pool: String, volume: String, owner: String, device: Option<String>, path: Option<String> },
    /// Attach a volume to a profile
    AttachProfile { pool: String, volume: String, owner: String, device: Option<String>, path: Option<String> },
    /// Create a volume; YAML is read from a pipe
    #[command(visible_alias = "add")]
    Create {
        pool: String,
        volume: String,
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long)]
        description: Option<String>,
        /// filesystem or block
        #[arg(long = "type", default_value = "filesystem", value_parser = ["filesystem", "block"])]
        content: String,
        #[command(flatten)]
        target: super::Target,
    },
    /// Delete a volume
    #[command(visible_aliases = ["rm", "remove"])]
    Delete { pool: String, volume: String },
    /// Detach a volume from an instance
    Detach { pool: String, volume: String, owner: String, device: Option<String> },
    /// Detach a volume from a profile
    DetachProfile { pool: String, volume: String, owner: String, device: Option<String> },
    /// Edit as YAML
    Edit { pool: String, volume: String },
    /// Print one key
    Get {
        pool: String,
        volume: String,
        key: String,
        #[arg(long, short)]
        property: bool,
    },
    /// Show a volume and the space it takes
    Info { pool: String, volume: String },
    /// List volumes
    #[command(visible_alias = "ls")]
    List {
        pool: String,
        /// Part of a name, or key=value
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
        #[arg(long)]
        all_projects: bool,
        /// e project, t type, n name, d description, c content type, u used by, U usage, L location
        #[arg(long, short, default_value = "etndcuL")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Rename a volume
    Rename { pool: String, volume: String, new: String },
    /// Set keys
    Set {
        pool: String,
        volume: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long, short)]
        property: bool,
    },
    /// Print all
    Show { pool: String, volume: String },
    /// Unset a key
    Unset {
        pool: String,
        volume: String,
        key: String,
        #[arg(long, short)]
        property: bool,
    },
}

const COLUMNS: &Columns<StorageVolume> = &[
    ('e', "PROJECT", |v| v.project.clone()),
    ('t', "TYPE", |v| if v.name.contains('/') { format!("{} (snapshot)", v.kind) } else { v.kind.clone() }),
    ('n', "NAME", |v| v.name.clone()),
    ('d', "DESCRIPTION", |v| v.description.clone()),
    ('c', "CONTENT-TYPE", |v| if v.content_type.is_empty() { "filesystem".to_owned() } else { v.content_type.clone() }),
    ('u', "USED BY", |v| v.used_by.len().to_string()),
    ('L', "LOCATION", |v| v.location.clone()),
];

/// `[TYPE/]VOLUME`; without a type it is a custom volume.
fn split_kind(volume: &str) -> (&str, &str) {
    match volume.split_once('/') {
        Some((kind @ ("custom" | "container" | "virtual-machine" | "image"), name)) => (kind, name),
        _ => ("custom", volume),
    }
}

fn target(ctx: &Ctx, pool: &str, volume: &str) -> Result<Target> {
    let (kind, name) = split_kind(volume);
    Ok(pool_target(ctx, pool)?.join("volumes").join(kind).join(name))
}

fn object(ctx: &Ctx, pool: &str, volume: &str) -> Result<Object> {
    Ok(Object::new::<StorageVolumePut>(format!("volume {volume}"), target(ctx, pool, volume)?))
}

impl Volume {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Volume::Attach { pool, volume, owner, device, path } => {
                attach(ctx, Owner::Instance, &owner, &pool, &volume, (device, path)).await
            }
            Volume::AttachProfile { pool, volume, owner, device, path } => {
                attach(ctx, Owner::Profile, &owner, &pool, &volume, (device, path)).await
            }
            Volume::Detach { pool, volume, owner, device } => {
                detach(ctx, Owner::Instance, &owner, &pool, &volume, device).await
            }
            Volume::DetachProfile { pool, volume, owner, device } => {
                detach(ctx, Owner::Profile, &owner, &pool, &volume, device).await
            }
            Volume::Create { pool, volume, settings, description, content, target } => {
                target.refuse()?;
                let mut put: StorageVolumePut = yaml::parse(piped_input()?.as_deref().unwrap_or_default())?;
                put.config.extend(pairs(&settings)?);
                let post = StorageVolumesPost {
                    name: split_kind(&volume).1.to_owned(),
                    kind: "custom".to_owned(),
                    content_type: content,
                    config: put.config,
                    description: description.unwrap_or(put.description),
                    ..StorageVolumesPost::default()
                };
                ctx.client.post(pool_target(ctx, &pool)?.join("volumes").join("custom"), &post).await?;
                ctx.say(format!("Storage volume {volume} created"))
            }
            Volume::Delete { pool, volume } => {
                ctx.client.delete(target(ctx, &pool, &volume)?).await?;
                ctx.say(format!("Storage volume {volume} deleted"))
            }
            Volume::Rename { pool, volume, new } => {
                let post = StorageVolumePost { name: new.clone(), ..StorageVolumePost::default() };
                ctx.client.post(target(ctx, &pool, &volume)?, &post).await?;
                ctx.say(format!("Renamed storage volume from \"{volume}\" to \"{new}\""))
            }
            Volume::Edit { pool, volume } => {
                let help = "A volume as YAML. Lines that start with # are ignored.";
                object(ctx, &pool, &volume)?.edit(ctx, help, |_| ()).await
            }
            Volume::Get { pool, volume, key, property } => {
                object(ctx, &pool, &volume)?.get(ctx, &key, property, "config").await
            }
            Volume::Set { pool, volume, settings, property } => {
                object(ctx, &pool, &volume)?.set(ctx, &settings_of(&settings)?, property, "config").await
            }
            Volume::Unset { pool, volume, key, property } => {
                object(ctx, &pool, &volume)?.unset(ctx, &key, property, "config").await
            }
            Volume::Show { pool, volume } => object(ctx, &pool, &volume)?.show(ctx).await,
            Volume::Info { pool, volume } => info(ctx, &pool, &volume).await,
            Volume::List { pool, filters, all_projects, columns, format } => {
                list(ctx, &pool, &filters, all_projects, &columns, format).await
            }
        }
    }
}

async fn list(
    ctx: &Ctx,
    pool: &str,
    filters: &[String],
    all_projects: bool,
    columns: &str,
    format: ListFormat,
) -> Result<()> {
    super::one_scope(ctx, all_projects)?;
    let mut target = pool_target(ctx, pool)?.join("volumes").query("recursion", "1");
    if all_projects {
        target = target.query("all-projects", "true");
    }
    let mut volumes: Vec<StorageVolume> = ctx.client.get(target).await?;
    let fits = |volume: &StorageVolume, filter: &String| match filter.split_once('=') {
        Some(("type", value)) => volume.kind == value,
        Some(("name", value)) => volume.name == value,
        Some(("content_type", value)) => volume.content_type == value,
        Some((key, value)) => volume.config.get(key.strip_prefix("config.").unwrap_or(key)).is_some_and(|v| v == value),
        None => volume.name.starts_with(filter.as_str()),
    };
    volumes.retain(|volume| filters.iter().all(|filter| fits(volume, filter)));
    // As `incus`: the project is a column only where several are shown, the location only in a cluster.
    let columns = match columns {
        "etndcuL" if all_projects => "etndcu",
        "etndcuL" => "tndcu",
        columns => columns,
    };
    table::list(&volumes, COLUMNS, columns, format.format)
}

async fn info(ctx: &Ctx, pool: &str, spec: &str) -> Result<()> {
    let target = target(ctx, pool, spec)?;
    let volume: StorageVolume = ctx.client.get(target.clone()).await?;
    let state: StorageVolumeState = ctx.client.get(target.join("state")).await.unwrap_or_default();
    let mut text = format!("Name: {}\n", volume.name);
    if !volume.description.is_empty() {
        _ = writeln!(text, "Description: {}", volume.description);
    }
    let content = if volume.content_type.is_empty() { "filesystem" } else { &volume.content_type };
    _ = writeln!(text, "Type: {}\nContent type: {content}", volume.kind);
    if let Some(usage) = &state.usage {
        _ = writeln!(text, "Usage: {}", units::iec(usage.used as i64));
        if usage.total > 0 {
            _ = writeln!(text, "Total: {}", units::iec(usage.total));
        }
    }
    if !volume.created_at.is_unset() {
        _ = writeln!(text, "Created: {}", units::moment(&volume.created_at));
    }
    out::put(text)
}

fn owner_object(ctx: &Ctx, owner: &str, kind: Owner) -> Result<Object> {
    match kind {
        Owner::Instance => instance_object(ctx, owner),
        Owner::Profile => profile_object(ctx, owner),
    }
}

/// `place` is the device's name and path. A single word that starts with a slash is the path.
async fn attach(
    ctx: &Ctx,
    kind: Owner,
    owner: &str,
    pool: &str,
    volume: &str,
    place: (Option<String>, Option<String>),
) -> Result<()> {
    let pool = ctx.name(pool, "a storage pool")?;
    let (volume_kind, name) = split_kind(volume);
    if volume_kind != "custom" {
        fail!("only custom volumes can be attached, and {volume} is of type {volume_kind}");
    }
    let (device, path) = match place {
        (Some(path), None) if path.starts_with('/') => (name.to_owned(), Some(path)),
        (device, path) => (device.unwrap_or_else(|| name.to_owned()), path),
    };
    let mut disk = text_map(&[("type", "disk"), ("pool", pool), ("source", name)]);
    disk.extend(path.map(|path| ("path".to_owned(), path)));
    let object = owner_object(ctx, owner, kind)?;
    let (mut value, etag) = object.load(ctx).await?;
    let devices = config_of(&mut value, "devices");
    if devices.contains_key(&device) {
        fail!("{} already has a device {device}", object.label);
    }
    devices.insert(device, disk.into_iter().map(|(key, value)| (key, Value::from(value))).collect());
    object.store(ctx, &value, &etag).await
}

async fn detach(ctx: &Ctx, kind: Owner, owner: &str, pool: &str, volume: &str, device: Option<String>) -> Result<()> {
    let pool = ctx.name(pool, "a storage pool")?;
    let (_, name) = split_kind(volume);
    let object = owner_object(ctx, owner, kind)?;
    let (mut value, etag) = object.load(ctx).await?;
    let devices = config_of(&mut value, "devices");
    let is_it = |d: &Value| d["type"] == "disk" && d["pool"] == pool && d["source"] == name;
    let found: Vec<_> = devices.iter().filter(|(_, d)| is_it(d)).map(|(name, _)| name.clone()).collect();
    let device = match (device, found.as_slice()) {
        (Some(device), found) if found.contains(&device) => device,
        (None, [one]) => one.clone(),
        (None, [_, _, ..]) => {
            fail!("{} has several devices of {volume}: name one of {}", object.label, found.join(", "))
        }
        _ => fail!("{} has no such device of {volume}", object.label),
    };
    devices.shift_remove(&device);
    object.store(ctx, &value, &etag).await
}
