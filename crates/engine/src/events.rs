//! What happens, told to whoever listens: lifecycle, operation and logging events, each with `(epoch, seq)`.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::{World, operations::Snapshot};

/// How many events a listener may lag behind before it is told that it lost some.
const BACKLOG: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Lifecycle,
    Operation,
    Logging,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Operation => "operation",
            Self::Logging => "logging",
        }
    }
}

/// One event as it goes over the wire; `text` is the JSON that clients read.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    pub project: String,
    pub text: Arc<str>,
    /// Epoch and number in the journal: what a listener names to go on after it.
    pub position: (u64, u64),
}

/// Who asked for what caused an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Requestor {
    pub username: String,
    /// `unix` or `tls`.
    pub protocol: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
}

pub struct Events {
    world: Arc<dyn World>,
    journal: Arc<stapes_journal::Journal>,
    location: String,
    sender: broadcast::Sender<Event>,
}

impl Events {
    pub fn new(world: Arc<dyn World>, journal: Arc<stapes_journal::Journal>) -> Self {
        Self { world, journal, location: "none".to_owned(), sender: broadcast::channel(BACKLOG).0 }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Tells everyone that `action` (such as `instance-started`) happened to `source` (a URL of the API).
    pub fn lifecycle(&self, project: &str, action: &str, source: &str, requestor: Option<&Requestor>, context: Value) {
        let name = source.rsplit('/').next().unwrap_or_default();
        self.send(EventKind::Lifecycle, project, &Lifecycle { action, source, context, requestor, name, project });
    }

    /// Tells everyone the present state of an operation.
    pub fn operation(&self, operation: &Snapshot) {
        self.send(EventKind::Operation, &operation.project, operation);
    }

    fn send(&self, kind: EventKind, project: &str, metadata: &impl Serialize) {
        let timestamp = self.world.now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
        let envelope =
            Envelope { kind: kind.as_str(), timestamp: &timestamp, metadata, location: &self.location, project };
        let text: Arc<str> = match serde_json::to_string(&envelope) {
            Ok(text) => text.into(),
            Err(error) => {
                tracing::error!(kind = kind.as_str(), %error, "an event could not be written");
                return;
            }
        };
        let position = self.journal.append_event(&text);
        // Nobody listening is no error.
        let _ = self.sender.send(Event { kind, project: project.to_owned(), text, position });
    }
}

/// An event as Incus writes it.
#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: &'a str,
    metadata: &'a T,
    location: &'a str,
    project: &'a str,
}

#[derive(Serialize)]
struct Lifecycle<'a> {
    action: &'a str,
    source: &'a str,
    context: Value,
    requestor: Option<&'a Requestor>,
    name: &'a str,
    project: &'a str,
}
