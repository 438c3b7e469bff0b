//! `remote`: where images and daemons are.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::Serialize;

use super::ListFormat;
use crate::context::{Ctx, IMAGE_SERVERS};
use crate::failure::{Failure, Result, fail};
use crate::out;
use crate::table::{self, Columns};

#[derive(Debug, Subcommand)]
pub enum Remote {
    /// Print the default remote
    GetDefault,
    /// List remotes
    #[command(visible_alias = "ls")]
    List {
        /// n name, u URL, p protocol, a authentication, P public, s static, g global
        #[arg(long, short, default_value = "nupaPsg")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Choose the default remote
    #[command(visible_alias = "set-default")]
    Switch { remote: String },
    /// Add a remote (not available yet)
    #[command(hide = true)]
    Add {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    #[serde(skip)]
    name: String,
    addr: String,
    protocol: String,
    public: bool,
    #[serde(skip)]
    is_static: bool,
}

const COLUMNS: &Columns<Entry> = &[
    ('n', "NAME", |r| r.name.clone()),
    ('u', "URL", |r| r.addr.clone()),
    ('p', "PROTOCOL", |r| r.protocol.clone()),
    ('a', "AUTH TYPE", |r| if r.public { "none" } else { "file access" }.to_owned()),
    ('P', "PUBLIC", |r| super::yes_no(r.public)),
    ('s', "STATIC", |r| super::yes_no(r.is_static)),
    ('g', "GLOBAL", |_| super::yes_no(false)),
];

fn entries() -> Vec<Entry> {
    let entry = |name: &str, addr: &str, protocol: &str, public, is_static| Entry {
        name: name.to_owned(),
        addr: addr.to_owned(),
        protocol: protocol.to_owned(),
        public,
        is_static,
    };
    let servers = IMAGE_SERVERS.iter().map(|(name, url)| entry(name, url, "simplestreams", true, false));
    let own =
        [entry("debian", "built on this host", "debian", true, true), entry("local", "unix://", "incus", false, true)];
    servers.chain(own).collect()
}

impl Remote {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let default = ctx.settings.default_remote.as_deref().unwrap_or("local");
        match self {
            Remote::GetDefault => out::line(default),
            Remote::List { columns, format } => {
                let mut remotes = entries();
                let raw: BTreeMap<_, _> = remotes.iter().map(|r| (r.name.clone(), r.clone())).collect();
                for remote in remotes.iter_mut().filter(|r| r.name == default) {
                    remote.name += " (current)";
                }
                let columns = table::pick(COLUMNS, &columns)?;
                let rows = remotes.iter().map(|r| columns.iter().map(|(_, cell)| cell(r)).collect()).collect();
                let headers: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
                out::put(table::render(format.format, &headers, rows, &raw)?)
            }
            Remote::Switch { remote } => {
                let name = remote.trim_end_matches(':');
                if !entries().iter().any(|entry| entry.name == name) {
                    fail!("there is no remote {name:?}");
                }
                ctx.remote(&format!("{name}:"))?;
                let mut settings = ctx.settings.clone();
                settings.default_remote = (name != "local").then(|| name.to_owned());
                settings.save()
            }
            Remote::Add { .. } => {
                Err(Failure::new("adding remotes is not available yet: this client speaks to its own host")
                    .hint("over SSH: `ssh HOST stapes …`"))
            }
        }
    }
}
