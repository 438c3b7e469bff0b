//! What happens, told to whoever listens: lifecycle, operation and logging events, each with `(epoch, seq)`.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::World;

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
        let metadata = json!({
            "action": action, "source": source, "context": context, "requestor": requestor,
            "name": name, "project": project,
        });
        self.send(EventKind::Lifecycle, project, metadata);
    }

    /// Tells everyone the present state of an operation.
    pub fn operation(&self, project: &str, operation: Value) {
        self.send(EventKind::Operation, project, operation);
    }

    fn send(&self, kind: EventKind, project: &str, metadata: Value) {
        let event = json!({
            "type": kind.as_str(),
            "timestamp": self.world.now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
            "metadata": metadata,
            "location": self.location,
            "project": project,
        });
        let text: Arc<str> = event.to_string().into();
        let position = self.journal.append_event(&text);
        // Nobody listening is no error.
        let _ = self.sender.send(Event { kind, project: project.to_owned(), text, position });
    }
}
