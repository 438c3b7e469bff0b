//! `/internal`: what `admin` commands need: readiness, set-up, shutdown.

use stapes_engine::app::InitPlan;

use crate::{
    daemon::Phase,
    reply::{ApiError, Reply, Result},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/internal/ready" ManageServer "Answer once the daemon is ready" => ready),
        route!(PUT "/internal/ready" ManageServer "Answer once the daemon is ready" => ready),
        route!(POST "/internal/init" ManageServer "Make what a fresh host lacks" => init),
        route!(PUT "/internal/shutdown" ManageServer "Stop the instances and the daemon" => shutdown),
        route!(POST "/internal/shutdown" ManageServer "Stop the instances and the daemon" => shutdown),
    ]
}

async fn ready(context: Context) -> Result {
    context.daemon.reached(Phase::Ready).await;
    Ok(Reply::empty())
}

/// Body: `{"pool": "default", "driver": "btrfs", "size": "10GiB", "network": "stapesbr0"}`; every field may be left out,
/// an empty `network` makes none.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct InitBody {
    pool: Option<String>,
    driver: Option<String>,
    size: Option<String>,
    network: Option<String>,
}

async fn init(mut context: Context) -> Result {
    let body: InitBody = context.json().await?;
    let network = body.network.as_deref().unwrap_or("stapesbr0");
    let size = body.size.as_deref().map(str::parse).transpose();
    let plan = InitPlan {
        pool: body.pool.as_deref().unwrap_or("default").parse()?,
        driver: body.driver,
        size: size.map_err(|error: stapes_model::SizeError| ApiError::bad_request(format!("size: {error}")))?,
        network: if network.is_empty() { None } else { Some(network.parse()?) },
    };
    context.engine.init(plan).await?;
    Ok(Reply::empty())
}

/// Answers when everything is down; the daemon ends after the answer is sent.
async fn shutdown(context: Context) -> Result {
    context.engine.shut_down_host(context.flag("force")).await?;
    context.daemon.phase.send_replace(Phase::Stopping);
    Ok(Reply::empty())
}
