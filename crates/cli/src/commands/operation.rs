//! `operation`.

use clap::Subcommand;
use stapes_api::Operation as ApiOperation;
use stapes_client::Target;

use super::{ListFormat, one_scope, yes_no};
use crate::context::Ctx;
use crate::failure::Result;
use crate::table::{self, Columns};
use crate::{out, units, yaml};

#[derive(Debug, Subcommand)]
pub enum Operation {
    /// Cancel an operation
    #[command(visible_aliases = ["cancel", "rm", "remove"])]
    Delete { id: String },
    /// List operations
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        remote: Option<String>,
        #[arg(long)]
        all_projects: bool,
        /// i id, t type, d description, s state, c can be cancelled, C creation, L location
        #[arg(long, short, default_value = "itdscCL")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Print an operation
    Show { id: String },
}

const COLUMNS: &Columns<ApiOperation> = &[
    ('i', "ID", |o| o.id.clone()),
    ('t', "TYPE", |o| o.class.to_uppercase()),
    ('d', "DESCRIPTION", |o| o.description.clone()),
    ('s', "STATE", |o| o.status.to_uppercase()),
    ('c', "CANCELABLE", |o| yes_no(o.may_cancel)),
    ('C', "CREATED", |o| units::moment(&o.created_at)),
    ('L', "LOCATION", |o| o.location.clone()),
];

impl Operation {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Operation::Delete { id } => {
                ctx.client.cancel(ctx.name(&id, "an operation")?).await?;
                ctx.say(format!("Operation {id} deleted"))
            }
            Operation::Show { id } => {
                let target = Target::new("/1.0/operations").join(ctx.name(&id, "an operation")?);
                let found: ApiOperation = ctx.client.get(target).await?;
                out::put(yaml::of(&found)?)
            }
            Operation::List { remote, all_projects, columns, format } => {
                one_scope(ctx, all_projects)?;
                ctx.local(remote.as_deref().unwrap_or_default())?;
                let mut target = Target::new("/1.0/operations").query("recursion", "1");
                if all_projects {
                    target = target.query("all-projects", "true");
                }
                let found = operations(ctx, target).await?;
                let columns = if columns == "itdscCL" { "itdscC" } else { &columns };
                table::list(&found, COLUMNS, columns, format.format)
            }
        }
    }
}

/// The API groups operations by their status.
async fn operations(ctx: &Ctx, target: Target) -> Result<Vec<ApiOperation>> {
    let groups: std::collections::BTreeMap<String, Vec<ApiOperation>> = ctx.client.get(target).await?;
    Ok(groups.into_values().flatten().collect())
}
