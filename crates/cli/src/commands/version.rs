//! `version`.

use clap::Args;
use stapes_api::Server;

use crate::context::Ctx;
use crate::failure::Result;
use crate::out;

#[derive(Args, Debug)]
pub struct Version {
    #[arg(value_name = "REMOTE:")]
    remote: Option<String>,
}

impl Version {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        ctx.local(self.remote.as_deref().unwrap_or_default())?;
        let server = match ctx.client.get::<Server>("/1.0").await {
            Ok(server) => server.environment.server_version,
            Err(_) => "unreachable".to_owned(),
        };
        out::put(format!("Client version: {}\nServer version: {server}\n", env!("CARGO_PKG_VERSION")))
    }
}
