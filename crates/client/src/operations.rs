//! Following operations to their end, and the event stream.

use std::time::Duration;

use futures_util::StreamExt;
use stapes_api::{Event, Operation};

use crate::{Client, Error, Message, Socket, Target};

/// How long an operation may take before its progress is asked for. Most are done by then, and cost one request.
const QUIET: Duration = Duration::from_millis(120);

/// What an operation says about itself under way: the text of its first `…_progress` key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub text: String,
}

impl Progress {
    /// From the metadata of an operation, as Incus's client reads it.
    pub fn of(operation: &Operation) -> Option<Progress> {
        let metadata = operation.metadata.as_ref()?;
        let (_, value) = metadata.iter().find(|(key, _)| key.ends_with("_progress"))?;
        Some(Progress { text: value.as_str()?.to_owned() })
    }
}

/// The event stream.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
}

impl Events {
    /// The next event; `None` when the daemon closed the stream.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        Ok(match self.next_text().await? {
            Some(text) => Some(
                serde_json::from_str(&text)
                    .map_err(|cause| Error::protocol("stapesd sent an event of unknown form").because(&cause))?,
            ),
            None => None,
        })
    }

    /// The next event as it came.
    pub async fn next_text(&mut self) -> Result<Option<String>, Error> {
        loop {
            return match self.socket.next().await {
                None | Some(Ok(Message::Close(_))) => Ok(None),
                Some(Ok(Message::Text(text))) => Ok(Some(text.to_string())),
                Some(Ok(Message::Binary(bytes))) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                Some(Ok(_)) => continue,
                Some(Err(cause)) => Err(Error::broken("while listening to events", &cause)),
            };
        }
    }
}

impl Client {
    /// Opens the event stream. `types` is a list such as `operation,lifecycle`; empty means all.
    pub async fn events(&self, types: &str, all_projects: bool) -> Result<Events, Error> {
        let mut target = Target::new("/1.0/events").query_some("type", Some(types));
        if all_projects {
            target = target.query("all-projects", "true");
        }
        Ok(Events { socket: self.websocket(target).await? })
    }

    /// Waits for the end of an operation, however long that takes; its failure is the error.
    pub async fn wait(&self, id: &str) -> Result<Operation, Error> {
        let operation = self.ended(id).await?;
        match Error::of_operation(&operation) {
            None => Ok(operation),
            Some(error) => Err(error),
        }
    }

    /// Waits for the end of an operation and returns it, failed or not.
    pub(crate) async fn ended(&self, id: &str) -> Result<Operation, Error> {
        self.get(Target::new("/1.0/operations").join(id).join("wait").query("timeout", "-1")).await
    }

    /// Waits as [`Client::wait`] does, and reports progress meanwhile.
    pub async fn follow(&self, id: &str, mut report: impl FnMut(&Progress)) -> Result<Operation, Error> {
        let wait = self.wait(id);
        let watch = async {
            tokio::time::sleep(QUIET).await;
            // Progress is a courtesy: when it cannot be had, the end of the operation still can.
            let Ok(mut events) = self.events("operation", false).await else { return };
            let target = Target::new("/1.0/operations").join(id);
            if let Ok(now) = self.get::<Operation>(target).await
                && let Some(progress) = Progress::of(&now)
            {
                report(&progress);
            }
            while let Ok(Some(event)) = events.next().await {
                let Ok(operation) = serde_json::from_value::<Operation>(event.metadata) else { continue };
                if operation.id == id
                    && let Some(progress) = Progress::of(&operation)
                {
                    report(&progress);
                }
            }
        };
        let forever = async {
            watch.await;
            std::future::pending::<()>().await
        };
        tokio::select! {
            done = wait => done,
            () = forever => Err(Error::protocol("the wait for an operation ended by itself")),
        }
    }

    /// Asks the daemon to cancel an operation.
    pub async fn cancel(&self, id: &str) -> Result<(), Error> {
        self.delete(Target::new("/1.0/operations").join(id)).await
    }
}
