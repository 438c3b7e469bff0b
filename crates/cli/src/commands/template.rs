//! `config template`: the templates an instance renders at start.

use clap::Subcommand;
use stapes_client::{FileKind, Method, Target, Upload};

use super::ListFormat;
use crate::context::{Ctx, piped_input};
use crate::failure::Result;
use crate::table::{self, Columns};
use crate::{editor, out};

#[derive(Debug, Subcommand)]
pub enum Template {
    /// Create an empty template
    #[command(visible_alias = "add")]
    Create { name: String, template: String },
    /// Delete a template
    #[command(visible_aliases = ["rm", "remove"])]
    Delete { name: String, template: String },
    /// Edit a template
    Edit { name: String, template: String },
    /// List the templates
    #[command(visible_alias = "ls")]
    List {
        name: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Print a template
    Show { name: String, template: String },
}

const COLUMNS: &Columns<String> = &[('n', "FILENAME", |name| name.clone())];

impl Template {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let templates = |name: &str| {
            Ok::<Target, crate::failure::Failure>(ctx.instance_target(name)?.join("metadata").join("templates"))
        };
        match self {
            Template::List { name, format } => {
                let names: Vec<String> = ctx.client.get(templates(&name)?).await?;
                table::list(&names, COLUMNS, "n", format.format)
            }
            Template::Create { name, template } => upload(ctx, templates(&name)?, &template, String::new()).await,
            Template::Delete { name, template } => {
                Ok(ctx.client.delete(templates(&name)?.query("path", &template)).await?)
            }
            Template::Show { name, template } => {
                out::put(ctx.client.download(templates(&name)?.query("path", &template)).await?.bytes().await?)
            }
            Template::Edit { name, template } => {
                if let Some(text) = piped_input()? {
                    return upload(ctx, templates(&name)?, &template, text).await;
                }
                let now = ctx.client.download(templates(&name)?.query("path", &template)).await?.bytes().await?;
                let text = String::from_utf8_lossy(&now).into_owned();
                editor::until(text, async |text| upload(ctx, templates(&name)?, &template, text.to_owned()).await).await
            }
        }
    }
}

async fn upload(ctx: &Ctx, templates: Target, template: &str, text: String) -> Result<()> {
    let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-type", FileKind::File.name())];
    let target = templates.query("path", template);
    ctx.client.upload(Method::POST, target, Upload::bytes(text), &headers).await?;
    Ok(())
}
