//! One file a group of commands.

pub mod action;
pub mod admin;
pub mod completion;
pub mod config;
pub mod console;
pub mod delete;
pub mod device;
pub mod exec;
pub mod file;
pub mod image;
pub mod image_alias;
pub mod image_transfer;
pub mod info;
pub mod launch;
pub mod list;
pub mod list_columns;
pub mod list_filter;
pub mod monitor;
pub mod network;
pub mod network_attach;
pub mod operation;
pub mod profile;
pub mod project;
pub mod query;
pub mod remote;
pub mod rename;
pub mod resources;
pub mod storage;
pub mod storage_volume;
pub mod template;
pub mod version;
pub mod warning;

use clap::Args;

use crate::context::Ctx;
use crate::failure::{Result, fail};
use crate::table::Format;

/// `--format` of every list.
#[derive(Args, Debug)]
pub struct ListFormat {
    /// table, compact, csv, json, yaml or markdown; add ",noheader" or ",header"
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub format: Format,
}

/// `--target` of clusters: accepted by the parser, refused where it is used.
#[derive(Args, Debug, Default)]
pub struct Target {
    #[arg(long, hide = true, value_name = "MEMBER")]
    target: Option<String>,
}

impl Target {
    pub fn refuse(&self) -> Result<()> {
        if self.target.is_some() {
            fail!("--target names a cluster member, and this server is not clustered");
        }
        Ok(())
    }
}

/// `--all-projects` and `--project` exclude each other.
pub fn one_scope(ctx: &Ctx, all_projects: bool) -> Result<()> {
    if all_projects && ctx.project_flag.is_some() {
        fail!("--project and --all-projects exclude each other");
    }
    Ok(())
}

pub fn yes_no(value: bool) -> String {
    if value { "YES" } else { "NO" }.to_owned()
}
