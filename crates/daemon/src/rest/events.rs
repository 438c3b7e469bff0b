//! `/1.0/events`: what happens, as it happens.

use crate::{reply::Result, request::Context, route, router::Route, streams};

pub fn routes() -> Vec<Route> {
    vec![route!(GET "/1.0/events" ViewEvents "Follow the events on a websocket" => follow)]
}

async fn follow(context: Context) -> Result {
    streams::events(context).await
}
