//! Websockets: exec, console, events.

use crate::{
    reply::{ApiError, Result},
    request::Context,
};

/// Exec and console sessions that wait for their websockets.
#[derive(Default)]
pub struct Sessions {}

pub async fn connect(_: Context) -> Result {
    Err(ApiError::bad_request("not yet"))
}

pub async fn events(_: Context) -> Result {
    Err(ApiError::bad_request("not yet"))
}
