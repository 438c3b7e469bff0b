//! `config`: configuration of instances and of the server.

use clap::{Args, Subcommand};
use serde_json::Value;
use stapes_api::{ImageMetadata, InstancePut, InstanceSnapshotPut, ServerPut};
use stapes_client::Target;

use super::device::{Device, Owner};
use super::template::Template;
use crate::context::{Ctx, settings_of};
use crate::failure::{Failure, Result, fail};
use crate::object::Object;
use crate::{out, yaml};

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Devices of an instance
    #[command(subcommand)]
    Device(Device),
    /// Edit as YAML
    Edit {
        /// Instance; without one, the server
        #[arg(value_name = "INSTANCE")]
        name: Option<String>,
        #[command(flatten)]
        target: super::Target,
    },
    /// Print one key
    Get(Get),
    /// The image metadata an instance was made from
    #[command(subcommand)]
    Metadata(Metadata),
    /// Set keys
    Set {
        /// An instance, or nothing for the server, and KEY=VALUE pairs
        #[arg(required = true, num_args = 1.., value_name = "INSTANCE> <KEY=VALUE")]
        words: Vec<String>,
        /// Set fields such as description instead of configuration keys
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Print all
    Show {
        /// Instance; without one, the server
        #[arg(value_name = "INSTANCE")]
        name: Option<String>,
        /// With what the profiles add
        #[arg(long, short)]
        expanded: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Templates of an instance
    #[command(subcommand)]
    Template(Template),
    /// Unset a key
    Unset {
        /// An instance, or nothing for the server, and a key
        #[arg(required = true, num_args = 1..=2, value_name = "INSTANCE> <KEY")]
        words: Vec<String>,
        /// Unset a field such as description instead of a configuration key
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
}

#[derive(Args, Debug)]
pub struct Get {
    /// An instance, or nothing for the server, and a key
    #[arg(required = true, num_args = 1..=2, value_name = "INSTANCE> <KEY")]
    words: Vec<String>,
    /// With what the profiles add
    #[arg(long, short)]
    expanded: bool,
    /// A field such as description instead of a configuration key
    #[arg(long, short)]
    property: bool,
    #[command(flatten)]
    target: super::Target,
}

#[derive(Debug, Subcommand)]
pub enum Metadata {
    /// Edit as YAML
    Edit { name: String },
    /// Print all
    Show { name: String },
}

/// An instance, or with `name/snapshot` a snapshot.
pub fn instance_object(ctx: &Ctx, spec: &str) -> Result<Object> {
    let name = ctx.instance(spec)?;
    let instances = Target::new("/1.0/instances");
    Ok(match name.split_once('/') {
        None => Object::new::<InstancePut>(format!("instance {name}"), instances.join(name)),
        Some((instance, snapshot)) => Object::new::<InstanceSnapshotPut>(
            format!("snapshot {name}"),
            instances.join(instance).join("snapshots").join(snapshot),
        ),
    })
}

fn server_object() -> Object {
    Object::new::<ServerPut>("the server".to_owned(), Target::new("/1.0"))
}

/// The instance that `spec` names, or the server where it names none.
fn object(ctx: &Ctx, spec: &str) -> Result<Object> {
    if ctx.local(spec)?.is_empty() { Ok(server_object()) } else { instance_object(ctx, spec) }
}

const INSTANCE_HELP: &str = "\
The configuration of this instance as YAML. Lines that start with # are ignored.
config, devices, profiles, ephemeral and description can be changed; the rest is shown for your information.";

impl Config {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Config::Device(device) => device.run(ctx, Owner::Instance).await,
            Config::Template(template) => template.run(ctx).await,
            Config::Metadata(metadata) => metadata.run(ctx).await,
            Config::Get(get) => get.run(ctx).await,
            Config::Edit { name, target } => {
                target.refuse()?;
                let spec = name.unwrap_or_default();
                let help =
                    if ctx.local(&spec)?.is_empty() { "The server's configuration as YAML." } else { INSTANCE_HELP };
                let is_server = ctx.local(&spec)?.is_empty();
                let trim = |fields: &mut serde_json::Map<String, Value>| {
                    if is_server {
                        fields.retain(|key, _| key == "config");
                    }
                    fields.retain(|key, _| !key.starts_with("expanded_"));
                };
                object(ctx, &spec)?.edit(ctx, help, trim).await
            }
            Config::Show { name, expanded, target } => {
                target.refuse()?;
                show(ctx, &name.unwrap_or_default(), expanded).await
            }
            Config::Set { words, property, target } => {
                target.refuse()?;
                let (spec, settings) = split_set(&words);
                if settings.is_empty() {
                    return Err(Failure::new(format!("no key and value were given for {spec}"))
                        .hint(format!("for example `stapes config set {spec} limits.memory=1GiB`")));
                }
                let settings = settings_of(settings)?;
                object(ctx, spec)?.set(ctx, &settings, property, "config").await
            }
            Config::Unset { words, property, target } => {
                target.refuse()?;
                let (spec, key) = split_key(&words)?;
                object(ctx, spec)?.unset(ctx, key, property, "config").await
            }
        }
    }
}

/// Tells the instance from the settings, as Incus does: the first word is a setting if it holds a `=` or a dot, or if
/// there are just two words, `key value`.
fn split_set(words: &[String]) -> (&str, &[String]) {
    let all_pairs = words.iter().all(|word| word.contains('='));
    let is_key = |word: &str| word.split_once(':').map_or(word, |(_, name)| name).contains('.');
    let two_words = words.len() == 2 && !words.iter().any(|word| word.contains('='));
    let first = words.first().map_or("", String::as_str);
    if all_pairs || is_key(first) || two_words { ("", words) } else { (first, &words[1..]) }
}

fn split_key(words: &[String]) -> Result<(&str, &str)> {
    match words {
        [key] => Ok(("", key)),
        [spec, key] => Ok((spec, key)),
        _ => fail!("a key must be named"),
    }
}

impl Get {
    async fn run(self, ctx: &Ctx) -> Result<()> {
        self.target.refuse()?;
        let (spec, key) = split_key(&self.words)?;
        let object = object(ctx, spec)?;
        if self.expanded && ctx.local(spec)?.is_empty() {
            fail!("--expanded is about instances; the server has no profiles");
        }
        let map = if self.expanded { "expanded_config" } else { "config" };
        object.get(ctx, key, self.property, map).await
    }
}

async fn show(ctx: &Ctx, spec: &str, expanded: bool) -> Result<()> {
    let object = object(ctx, spec)?;
    let is_server = ctx.local(spec)?.is_empty();
    if expanded && is_server {
        fail!("--expanded is about instances; the server has no profiles");
    }
    let (mut value, _) = object.load(ctx).await?;
    if expanded {
        value["config"] = value["expanded_config"].clone();
        value["devices"] = value["expanded_devices"].clone();
    }
    // A snapshot is shown whole, as Incus does.
    let is_snapshot = !is_server && spec.contains('/');
    let shown = if is_snapshot { value } else { object.writable(&value)? };
    out::put(yaml::to_text(&shown))
}

impl Metadata {
    async fn run(self, ctx: &Ctx) -> Result<()> {
        let (Metadata::Edit { name } | Metadata::Show { name }) = &self;
        let target = ctx.instance_target(name)?.join("metadata");
        let object = Object::new::<ImageMetadata>(format!("the metadata of {name}"), target);
        match self {
            Metadata::Show { .. } => object.show(ctx).await,
            Metadata::Edit { .. } => object.edit(ctx, "The image metadata of this instance as YAML.", |_| ()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split_set;

    fn split(line: &str) -> (String, Vec<String>) {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let (spec, rest) = split_set(&words);
        (spec.to_owned(), rest.to_vec())
    }

    #[test]
    fn the_instance_is_told_from_the_settings() {
        let to =
            |spec: &str, rest: &[&str]| (spec.to_owned(), rest.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(split("c1 limits.cpu=2 limits.memory=1GiB"), to("c1", &["limits.cpu=2", "limits.memory=1GiB"]));
        assert_eq!(split("c1 limits.cpu 2"), to("c1", &["limits.cpu", "2"]));
        assert_eq!(split("core.https_address=:8443"), to("", &["core.https_address=:8443"]));
        assert_eq!(split("core.https_address :8443"), to("", &["core.https_address", ":8443"]));
        assert_eq!(split("local:c1 user.a=b"), to("local:c1", &["user.a=b"]));
    }
}
