//! `warning`.

use clap::Subcommand;
use stapes_api::{Warning as ApiWarning, WarningPut};
use stapes_client::Target;

use super::ListFormat;
use crate::context::Ctx;
use crate::failure::{Result, fail};
use crate::table::{self, Columns};
use crate::{out, units, yaml};

#[derive(Debug, Subcommand)]
pub enum Warning {
    /// Mark a warning as seen
    #[command(visible_alias = "ack")]
    Acknowledge { uuid: String },
    /// Delete a warning
    #[command(visible_aliases = ["rm", "remove"])]
    Delete {
        uuid: Option<String>,
        /// All of them
        #[arg(long, short)]
        all: bool,
    },
    /// List warnings
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        remote: Option<String>,
        /// Those that were seen or are over too
        #[arg(long, short)]
        all: bool,
        /// u UUID, t type, S state, s severity, c count, f first seen, l last seen, p project
        #[arg(long, short, default_value = "utSscpLl")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Print a warning
    Show { uuid: String },
}

const COLUMNS: &Columns<ApiWarning> = &[
    ('c', "COUNT", |w| w.count.to_string()),
    ('f', "FIRST SEEN", |w| units::moment(&w.first_seen_at)),
    ('l', "LAST SEEN", |w| units::moment(&w.last_seen_at)),
    ('p', "PROJECT", |w| w.project.clone()),
    ('s', "SEVERITY", |w| w.severity.to_uppercase()),
    ('S', "STATUS", |w| w.status.to_uppercase()),
    ('t', "TYPE", |w| w.kind.clone()),
    ('u', "UUID", |w| w.uuid.clone()),
];

fn target(ctx: &Ctx, uuid: &str) -> Result<Target> {
    Ok(Target::new("/1.0/warnings").join(ctx.name(uuid, "a warning")?))
}

async fn warnings(ctx: &Ctx) -> Result<Vec<ApiWarning>> {
    Ok(ctx.client.get("/1.0/warnings?recursion=1").await?)
}

impl Warning {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Warning::Acknowledge { uuid } => {
                let put = WarningPut { status: "acknowledged".to_owned() };
                Ok(ctx.client.put(target(ctx, &uuid)?, &put, "").await?)
            }
            Warning::Delete { uuid: Some(uuid), all: false } => Ok(ctx.client.delete(target(ctx, &uuid)?).await?),
            Warning::Delete { uuid: None, all: true } => {
                for warning in warnings(ctx).await? {
                    ctx.client.delete(target(ctx, &warning.uuid)?).await?;
                }
                Ok(())
            }
            Warning::Delete { .. } => fail!("`stapes warning delete` takes a UUID or --all"),
            Warning::Show { uuid } => {
                let warning: ApiWarning = ctx.client.get(target(ctx, &uuid)?).await?;
                out::put(yaml::of(&warning)?)
            }
            Warning::List { remote, all, columns, format } => {
                ctx.local(remote.as_deref().unwrap_or_default())?;
                let mut found = warnings(ctx).await?;
                found.retain(|warning| all || warning.status.eq_ignore_ascii_case("new"));
                let columns: String = columns.chars().filter(|c| *c != 'L').collect();
                table::list(&found, COLUMNS, &columns, format.format)
            }
        }
    }
}
