//! `monitor`: the event stream.

use clap::Args;
use serde_json::Value;
use stapes_api::{Event, EventLifecycle, EventLogging, Operation};

use crate::context::Ctx;
use crate::failure::{Failure, Result, fail};
use crate::{out, yaml};

#[derive(Args, Debug)]
pub struct Monitor {
    #[arg(value_name = "REMOTE:")]
    remote: Option<String>,
    /// Of all projects
    #[arg(long)]
    all_projects: bool,
    /// json, pretty or yaml
    #[arg(long, short, default_value = "yaml", value_parser = ["json", "pretty", "yaml"])]
    format: String,
    /// With --pretty: nothing below this level
    #[arg(long, value_parser = ["trace", "debug", "info", "warning", "error"])]
    loglevel: Option<String>,
    /// One line an event
    #[arg(long)]
    pretty: bool,
    /// Only lifecycle, operation, logging or network-acl (again for more)
    #[arg(long = "type", short = 't', value_delimiter = ',')]
    types: Vec<String>,
}

impl Monitor {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        super::one_scope(ctx, self.all_projects)?;
        ctx.local(self.remote.as_deref().unwrap_or_default())?;
        let is_pretty = self.pretty || self.format == "pretty";
        if self.loglevel.is_some() && !is_pretty {
            fail!("--loglevel goes with --pretty only");
        }
        let least = rank(self.loglevel.as_deref().unwrap_or("debug"));
        let mut events = ctx.client.events(&self.types.join(","), self.all_projects).await?;
        while let Some(text) = events.next_text().await? {
            let broken = |cause| Failure::new("the daemon sent an event of unknown form").cause(cause);
            if is_pretty {
                let event: Event = serde_json::from_str(&text).map_err(broken)?;
                let (level, line) = pretty(&event);
                if rank(&level) >= least {
                    out::line(line)?;
                }
            } else if self.format == "json" {
                out::line(text + "\n")?;
            } else {
                let value: Value = serde_json::from_str(&text).map_err(broken)?;
                out::line(yaml::to_text(&value) + "\n")?;
            }
        }
        Ok(())
    }
}

fn rank(level: &str) -> usize {
    let known = ["trace", "debug", "info", "warn", "error", "fatal"];
    known.iter().position(|name| level.starts_with(name)).unwrap_or(if level == "dbug" { 1 } else { 2 })
}

/// Level and line of an event.
fn pretty(event: &Event) -> (String, String) {
    let (level, message, context) = match event.kind.as_str() {
        "lifecycle" => {
            let life: EventLifecycle = serde_json::from_value(event.metadata.clone()).unwrap_or_default();
            let by = life.requestor.map(|r| format!(", Requestor: {}/{} ({})", r.protocol, r.username, r.address));
            let message = format!("Action: {}, Source: {}{}", life.action, life.source, by.unwrap_or_default());
            ("info".to_owned(), message, life.context)
        }
        "operation" => {
            let operation: Operation = serde_json::from_value(event.metadata.clone()).unwrap_or_default();
            let Operation { id, class, description, .. } = &operation;
            let message = format!("ID: {id}, Class: {class}, Description: {description}");
            let context = [("Status", Value::from(operation.status)), ("Err", Value::from(operation.err))];
            let context = context.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            ("info".to_owned(), message, context)
        }
        _ => {
            let log: EventLogging = serde_json::from_value(event.metadata.clone()).unwrap_or_default();
            let context = log.context.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
            (log.level, log.message, context)
        }
    };
    let context = context.iter().map(|(key, value)| match value {
        Value::String(text) if text.contains(' ') || text.is_empty() => format!(" {key}={text:?}"),
        Value::String(text) => format!(" {key}={text}"),
        other => format!(" {key}={other}"),
    });
    let name = level.to_uppercase();
    (level, format!("{name:<7} [{}] {message}{}", event.timestamp, context.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifecycle_event_is_one_line() {
        let event: Event = serde_json::from_str(
            r#"{"type":"lifecycle","timestamp":"2024-01-02T03:04:05Z","metadata":{"action":"instance-started",
            "source":"/1.0/instances/c1","context":{"a":"b c"},"requestor":{"username":"root","protocol":"unix","address":"@"}}}"#,
        )
        .unwrap();
        let wanted = "INFO    [2024-01-02T03:04:05Z] Action: instance-started, Source: /1.0/instances/c1, Requestor: unix/root (@) a=\"b c\"";
        assert_eq!(pretty(&event), ("info".to_owned(), wanted.to_owned()));
    }

    #[test]
    fn levels_are_ordered() {
        assert!(rank("dbug") < rank("info") && rank("info") < rank("warning") && rank("warning") < rank("error"));
    }
}
