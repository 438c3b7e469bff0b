//! `rename`, and `move` where it is a rename.

use clap::Args;
use stapes_api::InstancePost;

use stapes_client::Method;

use crate::context::Ctx;
use crate::failure::{Failure, Result, fail};

#[derive(Args, Debug)]
pub struct Rename {
    /// Instance (or instance/snapshot)
    #[arg(value_name = "INSTANCE")]
    old: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    new: String,
}

impl Rename {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let (old, new) = (ctx.instance(&self.old)?, ctx.name(&self.new, "an instance")?);
        if old.contains('/') || new.contains('/') {
            fail!("renaming snapshots is not available yet");
        }
        let body = InstancePost { name: new.to_owned(), ..InstancePost::default() };
        let operation = ctx.client.begin(Method::POST, ctx.instance_target(&self.old)?, Some(&body)).await?;
        ctx.wait(&operation, "").await.map(|_| ())
    }
}

#[derive(Args, Debug)]
pub struct Move {
    /// Instance
    #[arg(value_name = "INSTANCE")]
    old: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    new: Option<String>,
    #[arg(long, short, hide = true)]
    config: Vec<String>,
    #[arg(long, short, hide = true)]
    device: Vec<String>,
    #[arg(long, short, hide = true)]
    profile: Vec<String>,
    #[arg(long, hide = true)]
    no_profiles: bool,
    #[arg(long, hide = true)]
    instance_only: bool,
    #[arg(long, hide = true)]
    stateless: bool,
    #[arg(long, hide = true)]
    allow_inconsistent: bool,
    #[arg(long, default_value = "pull", hide = true)]
    mode: String,
    /// Move it to another pool (not available yet)
    #[arg(long, short)]
    storage: Option<String>,
    /// Move it to another project (not available yet)
    #[arg(long)]
    target_project: Option<String>,
    #[command(flatten)]
    target: super::Target,
}

impl Move {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        self.target.refuse()?;
        let changes =
            !self.config.is_empty() || !self.device.is_empty() || !self.profile.is_empty() || self.no_profiles;
        if self.storage.is_some() || self.target_project.is_some() || changes {
            return Err(Failure::new("moving between pools, projects or with changes is not available yet")
                .hint("`stapes move OLD NEW` renames"));
        }
        let Some(new) = self.new else { fail!("`stapes move` needs a new name") };
        Rename { old: self.old, new }.run(ctx).await
    }
}
