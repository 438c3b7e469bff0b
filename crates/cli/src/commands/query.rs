//! `query`: any request of the API.

use clap::Args;
use serde_json::Value;
use stapes_api::{Operation, Response, ResponseType};
use stapes_client::{Method, Target, Upload};

use crate::context::Ctx;
use crate::failure::{Failure, Result, fail};
use crate::out;

#[derive(Args, Debug)]
pub struct Query {
    /// Such as /1.0/instances?recursion=1
    #[arg(value_name = "PATH")]
    path: String,
    /// What to send: JSON, or any text
    #[arg(long, short)]
    data: Option<String>,
    /// Print the whole answer with its envelope
    #[arg(long)]
    raw: bool,
    /// GET, PUT, POST, PATCH or DELETE
    #[arg(long, short = 'X', default_value = "GET", value_parser = ["GET", "PUT", "POST", "PATCH", "DELETE"])]
    request: String,
    /// Wait for the operation it starts
    #[arg(long)]
    wait: bool,
}

impl Query {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        if ctx.project_flag.is_some() {
            return Err(Failure::new("--project does not go with query").hint("write ?project=NAME in the path"));
        }
        let path = if self.path.starts_with('/') { self.path.as_str() } else { ctx.local(&self.path)? };
        if !path.starts_with('/') {
            fail!("the path of a query starts with /, unlike {path:?}");
        }
        let method = Method::from_bytes(self.request.as_bytes()).unwrap_or(Method::GET);
        let body = self.data.map(|data| match serde_json::from_str::<Value>(&data) {
            Ok(_) => Upload::bytes(data),
            // As `incus`: what is no JSON is sent as a JSON string.
            Err(_) => Upload::bytes(Value::from(data).to_string()),
        });
        let (status, _, bytes) = ctx.client.raw(method, &Target::new(path), body, &[]).await?;
        let Ok(mut answer) = serde_json::from_slice::<Response>(&bytes) else {
            if status >= 400 {
                fail!("the daemon answered with HTTP status {status}");
            }
            return out::put(bytes);
        };
        if answer.kind == ResponseType::Error && !self.raw {
            fail!("{}", answer.error);
        }
        if self.wait && !answer.operation.is_empty() {
            let target = Target::new(&answer.operation).join("wait");
            let (_, _, bytes) = ctx.client.raw(Method::GET, &target, None, &[]).await?;
            answer = serde_json::from_slice(&bytes).map_err(|cause| Failure::new("the wait failed").cause(cause))?;
            let operation: Operation = serde_json::from_value(answer.metadata.clone()).unwrap_or_default();
            if !operation.err.is_empty() {
                fail!("{}", operation.err);
            }
        }
        let shown = if self.raw { serde_json::to_value(&answer).unwrap_or_default() } else { answer.metadata };
        if shown.is_null() || shown == Value::Object(serde_json::Map::new()) {
            return Ok(());
        }
        out::line(pretty(&shown))
    }
}

/// JSON indented by tabs, keys sorted, as `incus query` prints it.
fn pretty(value: &Value) -> String {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    // A value always serializes into memory.
    _ = serde::Serialize::serialize(&sorted, &mut serializer);
    String::from_utf8(text).unwrap_or_default()
}
