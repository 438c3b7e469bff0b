//! `start`, `stop`, `restart`, `pause`, `resume`.

use clap::Args;
use stapes_api::{Instance, InstanceStatePut, InstancesPut, StatusCode};

use super::console::attach_and_explain;
use stapes_client::Method;

use crate::context::Ctx;
use crate::failure::{Failure, Result, fail};

#[derive(Args, Debug)]
struct Names {
    /// Instances
    #[arg(value_name = "INSTANCE")]
    names: Vec<String>,
    /// All instances of the project
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
pub struct Start {
    #[command(flatten)]
    names: Names,
    /// Forget a stored state
    #[arg(long)]
    stateless: bool,
    /// Attach to the console at once
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "console")]
    console: Option<String>,
}

#[derive(Args, Debug)]
pub struct Stop {
    #[command(flatten)]
    names: Names,
    /// Kill it
    #[arg(long, short)]
    force: bool,
    /// Store its state
    #[arg(long)]
    stateful: bool,
    /// Seconds to wait for a clean shutdown
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    timeout: i64,
    /// Attach to the console meanwhile
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "console")]
    console: Option<String>,
}

#[derive(Args, Debug)]
pub struct Restart {
    #[command(flatten)]
    names: Names,
    /// Kill it instead of shutting it down
    #[arg(long, short)]
    force: bool,
    /// Seconds to wait for a clean shutdown
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    timeout: i64,
    /// Attach to the console at once
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "console")]
    console: Option<String>,
}

#[derive(Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    names: Names,
}

#[derive(Args, Debug)]
pub struct Resume {
    #[command(flatten)]
    names: Names,
}

/// A change of power state, for all names alike.
struct Action {
    verb: &'static str,
    put: InstanceStatePut,
    console: Option<String>,
    /// `start` restores a stored state unless told not to.
    stateless: bool,
}

impl Action {
    fn new(verb: &'static str, action: &str) -> Self {
        let put = InstanceStatePut { action: action.to_owned(), timeout: -1, ..InstanceStatePut::default() };
        Action { verb, put, console: None, stateless: false }
    }

    async fn run(self, ctx: &Ctx, names: Names) -> Result<()> {
        if names.all {
            return self.run_all(ctx, &names.names).await;
        }
        match (&names.names[..], &self.console) {
            ([], _) => fail!("`stapes {}` needs the name of an instance, or --all", self.verb),
            ([_, _, ..], Some(_)) => fail!("--console works with one instance only"),
            ([name], _) => self.run_one(ctx, name).await,
            (several, None) => self.run_several(ctx, several).await,
        }
    }

    async fn run_several(&self, ctx: &Ctx, names: &[String]) -> Result<()> {
        let runs = names.iter().map(|name| Box::pin(self.run_one(ctx, name)));
        let results = futures_util::future::join_all(runs).await;
        let mut failed = Failure::new(format!("some instances failed to {}", self.verb));
        for (name, result) in names.iter().zip(results) {
            if let Err(failure) = result {
                let causes = failure.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
                failed = failed.cause(format!("{name}: {}{causes}", failure.line));
            }
        }
        if failed.causes.is_empty() { Ok(()) } else { Err(failed) }
    }

    async fn run_one(&self, ctx: &Ctx, spec: &str) -> Result<()> {
        let target = ctx.instance_target(spec)?;
        let mut put = self.put.clone();
        if put.action == "start" {
            // Starting a frozen instance lets it go on; starting one with a stored state restores it.
            let now: Instance = ctx.client.get(target.clone()).await?;
            put.stateful = now.stateful && !self.stateless;
            if now.status_code == StatusCode::FROZEN {
                put = InstanceStatePut { action: "unfreeze".to_owned(), timeout: -1, ..InstanceStatePut::default() };
            }
        }
        let operation = ctx.client.begin(Method::PUT, target.join("state"), Some(&put)).await?;
        let name = ctx.local(spec)?;
        if self.put.action == "stop"
            && let Some(kind) = &self.console
        {
            return attach_and_explain(ctx, name, kind).await;
        }
        let done = ctx.wait(&operation, "").await;
        done.map_err(|failure| match failure.hint {
            Some(_) => failure,
            None => failure.hint(format!("see `stapes info {spec} --show-log`")),
        })?;
        match &self.console {
            Some(kind) => attach_and_explain(ctx, name, kind).await,
            None => Ok(()),
        }
    }

    async fn run_all(&self, ctx: &Ctx, names: &[String]) -> Result<()> {
        for name in names {
            if !ctx.local(name)?.is_empty() {
                fail!("--all and the name of an instance exclude each other");
            }
        }
        if self.console.is_some() {
            fail!("--console and --all exclude each other");
        }
        let body = InstancesPut { state: Some(self.put.clone()) };
        let operation = ctx.client.begin(Method::PUT, "/1.0/instances", Some(&body)).await?;
        ctx.wait(&operation, "").await.map(|_| ())
    }
}

impl Start {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let action = Action::new("start", "start");
        Action { console: self.console, stateless: self.stateless, ..action }.run(ctx, self.names).await
    }
}

impl Stop {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        if self.force && self.console.is_some() {
            fail!("--console and --force exclude each other");
        }
        let mut action = Action::new("stop", "stop");
        action.put.force = self.force;
        action.put.stateful = self.stateful;
        action.put.timeout = self.timeout;
        Action { console: self.console, ..action }.run(ctx, self.names).await
    }
}

impl Restart {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let mut action = Action::new("restart", "restart");
        action.put.force = self.force;
        action.put.timeout = self.timeout;
        Action { console: self.console, ..action }.run(ctx, self.names).await
    }
}

impl Pause {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        Action::new("pause", "freeze").run(ctx, self.names).await
    }
}

impl Resume {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        Action::new("resume", "unfreeze").run(ctx, self.names).await
    }
}
