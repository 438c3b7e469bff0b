//! `list`.

use clap::Args;
use stapes_api::InstanceFull;
use stapes_client::Target;

use super::list_columns::{self, Needs};
use super::list_filter;
use crate::context::Ctx;
use crate::failure::{Failure, Result, fail};
use crate::table::{self, Format};
use crate::{natural, out};

#[derive(Args, Debug)]
#[command(after_help = list_columns::HELP)]
pub struct List {
    /// Names, or key=value such as status=running, type=container, ipv4=10.0.0.0/8, user.role=web
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Of all projects
    #[arg(long)]
    all_projects: bool,
    /// What to show (see below)
    #[arg(long, short, default_value = list_columns::DEFAULT)]
    columns: String,
    /// Only what needs no look into the instances: -c nsacPt
    #[arg(long)]
    fast: bool,
    /// table, compact, csv, json, yaml or markdown; add ",noheader" or ",header"
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    format: Format,
}

impl List {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        super::one_scope(ctx, self.all_projects)?;
        let columns = list_columns::parse(&self.letters()?)?;
        let filters = self.filters(ctx)?;
        let needs_state = columns.iter().any(|column| column.needs == Needs::State)
            || filters.iter().any(|filter| list_filter::needs_state(filter));
        let recursion = if needs_state { "2" } else { "1" };
        let mut target = Target::new("/1.0/instances").query("recursion", recursion);
        if self.all_projects {
            target = target.query("all-projects", "true");
        }
        let mut instances: Vec<InstanceFull> = ctx.client.get(target).await?;
        instances.retain(|instance| list_filter::matches(instance, &filters));
        instances.sort_by(|a, b| natural::compare(&a.name, &b.name));
        let rows = instances.iter().map(|i| columns.iter().map(|column| column.cell(i)).collect()).collect();
        let headers: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        out::put(table::render(self.format, &headers, rows, &instances)?)
    }

    fn letters(&self) -> Result<String> {
        let is_default = self.columns == list_columns::DEFAULT;
        if self.fast && !is_default {
            fail!("--fast and --columns exclude each other");
        }
        let letters = match (self.fast, is_default) {
            (true, _) => "nsacPt",
            (false, true) => "ns46tS",
            (false, false) => &self.columns,
        };
        let project = if self.all_projects && is_default { "e" } else { "" };
        Ok(format!("{project}{letters}"))
    }

    fn filters(&self, ctx: &Ctx) -> Result<Vec<String>> {
        let mut filters = self.filters.clone();
        if let Some(first) = filters.first_mut()
            && !first.contains('=')
        {
            *first = ctx.local(first)?.to_owned();
        }
        filters.retain(|filter| !filter.is_empty());
        if let Some(bad) = filters.iter().find(|f| f.starts_with('=')) {
            return Err(Failure::new(format!("the filter {bad:?} has no key")));
        }
        Ok(filters)
    }
}
