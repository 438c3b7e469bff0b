//! `delete`.

use std::io::Write;

use clap::Args;
use stapes_api::{Instance, InstanceStatePut, StatusCode};

use stapes_client::Method;

use crate::context::Ctx;
use crate::failure::{About, Failure, Result, fail};

#[derive(Args, Debug)]
pub struct Delete {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    names: Vec<String>,
    /// Kill it first if it runs
    #[arg(long, short)]
    force: bool,
    /// Delete it although security.protection.delete is set
    #[arg(long, hide = true)]
    force_protected: bool,
    /// Ask first
    #[arg(long, short)]
    interactive: bool,
}

impl Delete {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        // All must exist before any is touched. One alone says so itself.
        let mut found = Vec::new();
        for spec in &self.names {
            let target = ctx.instance_target(spec)?;
            found.push((spec, ctx.client.get_tagged::<Instance>(target).await?));
        }
        for (spec, (instance, etag)) in found {
            if self.interactive {
                confirm(spec)?;
            }
            self.delete(ctx, spec, instance, &etag).await?;
        }
        Ok(())
    }

    async fn delete(&self, ctx: &Ctx, spec: &str, mut instance: Instance, etag: &str) -> Result<()> {
        let target = ctx.instance_target(spec)?;
        if instance.status_code.0 != 0 && instance.status_code != StatusCode::STOPPED {
            if !self.force {
                return Err(Failure::new(format!("{spec} is running, so it is not deleted"))
                    .hint(format!("stop it first with `stapes stop {spec}`, or use --force")));
            }
            let put =
                InstanceStatePut { action: "stop".to_owned(), timeout: -1, force: true, ..InstanceStatePut::default() };
            let stop = ctx.client.begin(Method::PUT, target.clone().join("state"), Some(&put)).await?;
            ctx.wait(&stop, "").await.map_err(|failure| failure.within(format!("cannot stop {spec}")))?;
            // An ephemeral instance went with its stop.
            if instance.ephemeral {
                return Ok(());
            }
        }
        if self.force_protected
            && instance.expanded_config.get("security.protection.delete").is_some_and(|v| v == "true")
        {
            instance.config.insert("security.protection.delete".to_owned(), "false".to_owned());
            ctx.client.put(target.clone(), &instance.writable(), etag).await?;
        }
        let operation = ctx.client.begin::<()>(Method::DELETE, target, None).await?;
        ctx.wait(&operation, "").await.map(|_| ())
    }
}

fn confirm(spec: &str) -> Result<()> {
    print!("Remove {spec} (yes/no): ");
    std::io::stdout().flush().about(|| "cannot ask".to_owned())?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).about(|| "cannot read the answer".to_owned())?;
    if answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    fail!("{spec} was not deleted")
}
