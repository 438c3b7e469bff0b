//! Events on a websocket, and going on where an earlier connection stood.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use stapes_engine::{Engine, events::Event};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::tungstenite::Message;

use super::{
    pump,
    upgrade::{Sink, Socket},
};
use crate::reply::{ApiError, Result};

/// How long a listener may take to accept one event before it is let go.
const STALLED: Duration = Duration::from_secs(30);

/// Which events a listener wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Empty: all types.
    types: Vec<String>,
    /// `None`: of all projects.
    project: Option<String>,
    /// Go on after this event.
    since: Option<(u64, u64)>,
}

impl Wanted {
    pub fn new(types: &str, project: Option<String>, since: Option<&str>) -> Result<Self> {
        let types: Vec<_> = types.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
        let known = ["lifecycle", "operation", "logging", "network-acl"];
        if let Some(unknown) = types.iter().find(|kind| !known.contains(&kind.as_str())) {
            return Err(ApiError::bad_request(format!("type: {unknown:?} is not a type of events")));
        }
        let position = |text: &str| {
            let (epoch, seq) = text.split_once('.')?;
            Some((epoch.parse().ok()?, seq.parse().ok()?))
        };
        let unreadable = || ApiError::bad_request("since: not of the form <epoch>.<number>");
        let since = since.map(|text| position(text).ok_or_else(unreadable)).transpose()?;
        Ok(Self { types, project, since })
    }

    /// Server-wide events belong to no project and are everyone's.
    fn wants(&self, kind: &str, project: &str) -> bool {
        (self.types.is_empty() || self.types.iter().any(|wanted| wanted == kind))
            && (project.is_empty() || self.project.as_deref().is_none_or(|wanted| wanted == project))
    }
}

/// The event with its position, for listeners who ask for it: others get what Incus would send.
fn placed(text: &str, (epoch, seq): (u64, u64)) -> String {
    format!("{{\"position\":\"{epoch}.{seq}\",{}", text.trim_start_matches('{'))
}

/// Sends events until the listener leaves or is too slow.
pub async fn follow(socket: Socket, events: broadcast::Receiver<Event>, engine: Arc<Engine>, wanted: Wanted) {
    let (mut sink, mut source) = socket.split();
    tokio::select! {
        () = tell(&mut sink, events, &engine, &wanted) => {}
        () = pump::idle(&mut source) => {}
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), sink.close()).await;
}

async fn tell(sink: &mut Sink, mut events: broadcast::Receiver<Event>, engine: &Engine, wanted: &Wanted) {
    let mut last = (0, 0);
    if let Some((epoch, seq)) = wanted.since {
        let (texts, newest) = missed(engine, wanted, epoch, seq);
        last = newest;
        for text in texts {
            if !send(sink, Message::text(text)).await {
                return;
            }
        }
    }
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + pump::PING, pump::PING);
    loop {
        let message = tokio::select! {
            event = events.recv() => match event {
                Ok(event) if event.position <= last || !wanted.wants(event.kind.as_str(), &event.project) => continue,
                Ok(event) if wanted.since.is_some() => Message::text(placed(&event.text, event.position)),
                Ok(event) => Message::text(&*event.text),
                // A listener that lost events must know it: the connection ends.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        if !send(sink, message).await {
            return;
        }
    }
}

async fn send(sink: &mut Sink, message: Message) -> bool {
    matches!(tokio::time::timeout(STALLED, sink.send(message)).await, Ok(Ok(())))
}

/// What happened after a position, or the news that this is not known any more; and how far that goes.
fn missed(engine: &Engine, wanted: &Wanted, epoch: u64, seq: u64) -> (Vec<String>, (u64, u64)) {
    match engine.journal.events_since(epoch, seq, usize::MAX) {
        Ok(events) => {
            let newest = events.last().map_or((epoch, seq), |event| (event.epoch, event.seq));
            let wants = |text: &str| {
                let event: Value = serde_json::from_str(text).unwrap_or_default();
                wanted.wants(event["type"].as_str().unwrap_or_default(), event["project"].as_str().unwrap_or_default())
            };
            let texts = events.iter().filter(|event| wants(&event.json));
            (texts.map(|event| placed(&event.json, (event.epoch, event.seq))).collect(), newest)
        }
        Err(gap) => {
            let metadata = json!({ "epoch": gap.epoch, "oldest": gap.oldest, "newest": gap.newest });
            let now = engine.world.now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
            let event = json!({ "type": "gap", "timestamp": now, "metadata": metadata, "location": "none" });
            let newest = (gap.epoch, gap.newest);
            (vec![placed(&event.to_string(), newest)], newest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_hears_its_types_and_projects() {
        let wanted = Wanted::new("lifecycle,operation", Some("default".to_owned()), Some("3.17")).unwrap();
        assert_eq!(wanted.since, Some((3, 17)));
        assert!(wanted.wants("lifecycle", "default"));
        assert!(wanted.wants("operation", ""));
        assert!(!wanted.wants("logging", "default"));
        assert!(!wanted.wants("lifecycle", "other"));
        assert!(Wanted::new("", None, None).unwrap().wants("logging", "other"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(Wanted::new("livecycle", None, None).is_err());
        for since in ["", "3", "3.", ".4", "-1.2", "a.b"] {
            assert!(Wanted::new("", None, Some(since)).is_err(), "{since:?}");
        }
    }

    #[test]
    fn a_position_leaves_the_event_readable() {
        let event: Value = serde_json::from_str(&placed(r#"{"type":"lifecycle","metadata":{}}"#, (3, 17))).unwrap();
        assert_eq!(event["position"], "3.17");
        assert_eq!(event["type"], "lifecycle");
    }
}
