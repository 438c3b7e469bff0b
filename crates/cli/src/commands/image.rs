//! `image`: what instances are made from.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::Value;
use stapes_api::{Image as ApiImage, ImageAliasesEntry, ImagePut};
use stapes_client::{Method, Target};

use super::image_alias::Alias;
use super::image_transfer::{Copy, Export, Import};
use super::{ListFormat, one_scope};
use crate::context::Ctx;
use crate::failure::{Failure, Result};
use crate::object::Object;
use crate::table::{self, Columns};
use crate::{out, units, yaml};

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Names of images
    #[command(subcommand)]
    Alias(Alias),
    /// Copy an image into the local store
    #[command(visible_alias = "cp")]
    Copy(Copy),
    /// Delete images
    #[command(visible_aliases = ["rm", "remove"])]
    Delete {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Edit the properties as YAML
    Edit { image: String },
    /// Write an image to files
    Export(Export),
    /// Print one property
    GetProperty { image: String, key: String },
    /// Import an image from files
    Import(Import),
    /// Show an image
    Info {
        image: String,
        #[arg(long, hide = true)]
        vm: bool,
    },
    /// List images
    #[command(visible_alias = "ls")]
    List(List),
    /// Ask the source for a newer version
    Refresh {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Set a property
    SetProperty { image: String, key: String, value: String },
    /// Print the properties as YAML
    Show {
        image: String,
        #[arg(long, hide = true)]
        vm: bool,
    },
    /// Unset a property
    UnsetProperty { image: String, key: String },
}

#[derive(Args, Debug)]
pub struct List {
    /// Part of an alias or fingerprint, or key=value
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    #[arg(long)]
    all_projects: bool,
    /// l shortest alias, L aliases, f fingerprint, F whole fingerprint, p public, d description, a architecture, t type,
    /// s size, u upload date, e project
    #[arg(long, short, default_value = "lfpdatsu")]
    columns: String,
    #[command(flatten)]
    format: ListFormat,
}

const COLUMNS: &Columns<ApiImage> = &[
    ('a', "ARCHITECTURE", |i| i.architecture.clone()),
    ('d', "DESCRIPTION", |i| i.properties.get("description").cloned().unwrap_or_default()),
    ('e', "PROJECT", |i| i.project.clone()),
    ('f', "FINGERPRINT", |i| i.fingerprint.chars().take(12).collect()),
    ('F', "FINGERPRINT", |i| i.fingerprint.clone()),
    ('l', "ALIAS", shortest_alias),
    ('L', "ALIASES", |i| {
        let mut names: Vec<_> = i.aliases.iter().map(|alias| alias.name.as_str()).collect();
        names.sort_unstable();
        names.join("\n")
    }),
    ('p', "PUBLIC", |i| if i.public { "yes" } else { "no" }.to_owned()),
    ('s', "SIZE", |i| format!("{:.2}MiB", i.size as f64 / 1_048_576.0)),
    ('t', "TYPE", |i| if i.kind.is_empty() { "CONTAINER".to_owned() } else { i.kind.to_uppercase() }),
    ('u', "UPLOAD DATE", |i| units::moment(&i.uploaded_at)),
];

fn shortest_alias(image: &ApiImage) -> String {
    let shortest = image.aliases.iter().map(|alias| alias.name.as_str()).min_by_key(|name| name.len());
    match (shortest, image.aliases.len()) {
        (None, _) => String::new(),
        (Some(name), 1) => name.to_owned(),
        (Some(name), count) => format!("{name} ({} more)", count - 1),
    }
}

/// The fingerprint behind an alias; other text is taken for (the start of) a fingerprint.
pub async fn fingerprint(ctx: &Ctx, spec: &str) -> Result<String> {
    let name = ctx.name(spec, "an image")?;
    ctx.about("/1.0/images/aliases", name);
    match ctx.client.get::<ImageAliasesEntry>(Target::new("/1.0/images/aliases").join(name)).await {
        Ok(alias) => Ok(alias.target),
        Err(error) if error.is_not_found() => Ok(name.to_owned()),
        Err(error) => Err(error.into()),
    }
}

async fn image_target(ctx: &Ctx, spec: &str) -> Result<Target> {
    Ok(Target::new("/1.0/images").join(&fingerprint(ctx, spec).await?))
}

async fn object(ctx: &Ctx, spec: &str) -> Result<Object> {
    Ok(Object::new::<ImagePut>(format!("image {spec}"), image_target(ctx, spec).await?))
}

impl Image {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Image::Alias(alias) => alias.run(ctx).await,
            Image::Copy(copy) => copy.run(ctx).await,
            Image::Export(export) => export.run(ctx).await,
            Image::Import(import) => import.run(ctx).await,
            Image::List(list) => list.run(ctx).await,
            Image::Edit { image } => {
                let help = "The properties of an image as YAML. Lines that start with # are ignored.";
                let object = object(ctx, &image).await?;
                let keep = ["auto_update", "properties", "public", "expires_at", "profiles"];
                object.edit(ctx, help, |fields| fields.retain(|key, _| keep.contains(&key.as_str()))).await
            }
            Image::Show { image, .. } => {
                let object = object(ctx, &image).await?;
                let (value, _) = object.load(ctx).await?;
                out::put(yaml::to_text(&object.writable(&value)?))
            }
            Image::Info { image, .. } => {
                let image: ApiImage = ctx.client.get(image_target(ctx, &image).await?).await?;
                out::put(page(&image))
            }
            Image::GetProperty { image, key } => object(ctx, &image).await?.get(ctx, &key, false, "properties").await,
            Image::SetProperty { image, key, value } => {
                object(ctx, &image).await?.set(ctx, &[(key, value)], false, "properties").await
            }
            Image::UnsetProperty { image, key } => {
                object(ctx, &image).await?.unset(ctx, &key, false, "properties").await
            }
            Image::Delete { images } => {
                for image in &images {
                    let target = image_target(ctx, image).await?;
                    let operation = ctx.client.begin::<()>(Method::DELETE, target, None).await?;
                    ctx.wait(&operation, "").await?;
                }
                Ok(())
            }
            Image::Refresh { images } => {
                for image in &images {
                    refresh(ctx, image).await?;
                }
                Ok(())
            }
        }
    }
}

async fn refresh(ctx: &Ctx, image: &str) -> Result<()> {
    let target = image_target(ctx, image).await?.join("refresh");
    let operation = ctx.client.begin::<()>(Method::POST, target, None).await?;
    let done = ctx.wait(&operation, "Refreshing the image").await?;
    let refreshed = done.metadata.as_ref().and_then(|m| m.get("refreshed")).and_then(Value::as_bool);
    match refreshed {
        Some(true) => ctx.say("Image refreshed successfully!"),
        _ => ctx.say("Image already up to date."),
    }
}

impl List {
    async fn run(self, ctx: &Ctx) -> Result<()> {
        one_scope(ctx, self.all_projects)?;
        let mut filters = self.filters;
        if let Some(first) = filters.first_mut()
            && !first.contains('=')
        {
            if first.starts_with("debian:") {
                return Err(Failure::new("debian: has no list; it builds what Debian's archive offers")
                    .hint("for example `stapes launch debian:12 c1`"));
            }
            *first = ctx.local(first)?.to_owned();
        }
        filters.retain(|filter| !filter.is_empty());
        let mut target = Target::new("/1.0/images").query("recursion", "1");
        if self.all_projects {
            target = target.query("all-projects", "true");
        }
        let mut images: Vec<ApiImage> = ctx.client.get(target).await?;
        images.retain(|image| filters.iter().all(|filter| is_match(image, filter)));
        let columns = match self.columns.as_str() {
            "lfpdatsu" if self.all_projects => "elfpdatsu",
            columns => columns,
        };
        table::list(&images, COLUMNS, columns, self.format.format)
    }
}

fn is_match(image: &ApiImage, filter: &str) -> bool {
    match filter.split_once('=') {
        Some(("type", value)) => image.kind.eq_ignore_ascii_case(value),
        Some(("architecture" | "arch", value)) => image.architecture == value,
        Some(("public", value)) => image.public.to_string() == value,
        Some((key, value)) => {
            let key = key.strip_prefix("properties.").unwrap_or(key);
            image.properties.iter().any(|(name, text)| name.starts_with(key) && text == value)
        }
        None => image.fingerprint.starts_with(filter) || image.aliases.iter().any(|alias| alias.name.contains(filter)),
    }
}

/// All about an image.
fn page(image: &ApiImage) -> String {
    let mut text = String::new();
    let kind = if image.kind.is_empty() { "container" } else { &image.kind };
    let yes = |value: bool| if value { "yes" } else { "no" };
    let or_never = |time| match units::moment(time) {
        text if text.is_empty() => "never".to_owned(),
        text => text,
    };
    _ = writeln!(text, "Fingerprint: {}", image.fingerprint);
    _ = writeln!(text, "Size: {:.2}MiB\nArchitecture: {}", image.size as f64 / 1_048_576.0, image.architecture);
    _ = writeln!(text, "Type: {kind}\nPublic: {}\nTimestamps:", yes(image.public));
    if !image.created_at.is_unset() {
        _ = writeln!(text, "    Created: {}", units::moment(&image.created_at));
    }
    _ = writeln!(text, "    Uploaded: {}", units::moment(&image.uploaded_at));
    _ = writeln!(text, "    Expires: {}", or_never(&image.expires_at));
    _ = writeln!(text, "    Last used: {}\nProperties:", or_never(&image.last_used_at));
    for (key, value) in &image.properties {
        _ = writeln!(text, "    {key}: {value}");
    }
    _ = writeln!(text, "Aliases:");
    for alias in &image.aliases {
        let description =
            if alias.description.is_empty() { String::new() } else { format!(" ({})", alias.description) };
        _ = writeln!(text, "    - {}{description}", alias.name);
    }
    let update = if image.auto_update { "enabled" } else { "disabled" };
    _ = writeln!(text, "Cached: {}\nAuto update: {update}", yes(image.cached));
    if let Some(source) = &image.update_source {
        _ = writeln!(text, "Source:\n    Server: {}", source.server);
        _ = writeln!(text, "    Protocol: {}\n    Alias: {}", source.protocol, source.alias);
    }
    if image.profiles.is_empty() {
        _ = writeln!(text, "Profiles: []");
    } else {
        _ = writeln!(text, "Profiles:\n    - {}", image.profiles.join("\n    - "));
    }
    text
}
