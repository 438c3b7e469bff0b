//! `image alias`.

use clap::Subcommand;
use stapes_api::{ImageAliasesEntry, ImageAliasesEntryPost, ImageAliasesPost};
use stapes_client::Target;

use super::ListFormat;
use super::image::fingerprint;
use crate::context::Ctx;
use crate::failure::Result;
use crate::table::{self, Columns};

#[derive(Debug, Subcommand)]
pub enum Alias {
    /// Name an image
    #[command(visible_alias = "add")]
    Create {
        alias: String,
        fingerprint: String,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a name; the image stays
    #[command(visible_aliases = ["rm", "remove"])]
    Delete { alias: String },
    /// List the names
    #[command(visible_alias = "ls")]
    List {
        /// Part of a name or fingerprint
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
        /// a alias, f fingerprint, t type, d description
        #[arg(long, short, default_value = "aftd")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Change a name
    #[command(visible_alias = "mv")]
    Rename { alias: String, new: String },
}

const COLUMNS: &Columns<ImageAliasesEntry> = &[
    ('a', "ALIAS", |a| a.name.clone()),
    ('f', "FINGERPRINT", |a| a.target.chars().take(12).collect()),
    ('t', "TYPE", |a| a.kind.to_uppercase()),
    ('d', "DESCRIPTION", |a| a.description.clone()),
];

fn alias_target(ctx: &Ctx, spec: &str) -> Result<Target> {
    let name = ctx.name(spec, "an alias")?;
    ctx.about("/1.0/images/aliases", name);
    Ok(Target::new("/1.0/images/aliases").join(name))
}

impl Alias {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Alias::Create { alias, fingerprint, description } => {
                let post = ImageAliasesPost {
                    name: ctx.name(&alias, "an alias")?.to_owned(),
                    target: fingerprint,
                    description: description.unwrap_or_default(),
                    ..ImageAliasesPost::default()
                };
                Ok(ctx.client.post("/1.0/images/aliases", &post).await?)
            }
            Alias::Delete { alias } => Ok(ctx.client.delete(alias_target(ctx, &alias)?).await?),
            Alias::Rename { alias, new } => {
                let body = ImageAliasesEntryPost { name: ctx.name(&new, "an alias")?.to_owned() };
                Ok(ctx.client.post(alias_target(ctx, &alias)?, &body).await?)
            }
            Alias::List { filters, columns, format } => {
                let filters = filters.iter().map(|f| ctx.local(f)).collect::<Result<Vec<_>>>()?;
                let target = Target::new("/1.0/images/aliases").query("recursion", "1");
                let mut aliases: Vec<ImageAliasesEntry> = ctx.client.get(target).await?;
                aliases.retain(|a| filters.iter().all(|f| a.name.contains(f) || a.target.starts_with(f)));
                table::list(&aliases, COLUMNS, &columns, format.format)
            }
        }
    }
}

/// Names an image; a name that exists is moved only with `reuse`.
pub async fn give(ctx: &Ctx, image: &str, alias: &str, reuse: bool) -> Result<()> {
    if reuse {
        let target = Target::new("/1.0/images/aliases").join(alias);
        match ctx.client.delete(target).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    let target = fingerprint(ctx, image).await?;
    let post = ImageAliasesPost { name: alias.to_owned(), target, ..ImageAliasesPost::default() };
    Ok(ctx.client.post("/1.0/images/aliases", &post).await?)
}
