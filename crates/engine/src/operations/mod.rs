//! Long-running requests: started, watched, waited for, canceled; their results survive a restart.
//!
//! A task's life: noted when it is accepted, before its caller hears of it → `intent` (the whole plan, before the first
//! effect) → `step`s → its outcome, which `run` records when the body returns. What the journal keeps of one that was
//! interrupted is read by `reconcile`.

mod registry;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;

pub use registry::{ACCEPTED, Operations};

use crate::{Error, Result, events::Requestor};

/// Who carries the work: a task of the daemon, or the streams of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Task,
    Websocket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Pending,
    Running,
    Cancelling,
    Success,
    Failure,
    Cancelled,
}

impl Status {
    /// Incus's number for it.
    pub fn code(self) -> u16 {
        match self {
            Self::Pending => 105,
            Self::Running => 103,
            Self::Cancelling => 104,
            Self::Success => 200,
            Self::Failure => 400,
            Self::Cancelled => 401,
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled)
    }
}

/// What an operation is about, known before it starts.
#[derive(Debug, Clone)]
pub struct Spec {
    pub class: Class,
    /// For people: `Creating instance`.
    pub description: &'static str,
    pub project: String,
    /// Kind of object → URLs.
    pub resources: BTreeMap<String, Vec<String>>,
    pub requestor: Option<Requestor>,
    pub may_cancel: bool,
}

/// An operation at one moment, in the form of the API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: String,
    pub class: Class,
    pub description: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub status: Status,
    pub status_code: u16,
    pub resources: BTreeMap<String, Vec<String>>,
    pub metadata: Option<Map<String, Value>>,
    pub may_cancel: bool,
    pub err: String,
    pub location: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<Requestor>,
    /// Not part of Incus's form; harmless to its clients.
    #[serde(default)]
    pub project: String,
}

#[derive(Debug)]
struct State {
    status: Status,
    metadata: Map<String, Value>,
    err: String,
    updated_at: DateTime<Utc>,
}

/// A live operation; cheap to clone.
#[derive(Clone)]
pub struct Operation {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    spec: Spec,
    created_at: DateTime<Utc>,
    state: Mutex<State>,
    finished: watch::Sender<bool>,
    canceled: watch::Sender<bool>,
    /// Whether the journal knows of it: then a plan is a step of it.
    begun: std::sync::atomic::AtomicBool,
    registry: Operations,
}

impl Operation {
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    pub fn spec(&self) -> &Spec {
        &self.inner.spec
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> Status {
        self.state().status
    }

    pub fn snapshot(&self) -> Snapshot {
        let (state, spec) = (self.state(), &self.inner.spec);
        Snapshot {
            id: self.inner.id.clone(),
            class: spec.class,
            description: spec.description.to_owned(),
            created_at: self.inner.created_at,
            updated_at: state.updated_at,
            status: state.status,
            status_code: state.status.code(),
            resources: spec.resources.clone(),
            metadata: (!state.metadata.is_empty()).then(|| state.metadata.clone()),
            may_cancel: spec.may_cancel,
            err: state.err.clone(),
            location: "none".to_owned(),
            requestor: spec.requestor.clone(),
            project: spec.project.clone(),
        }
    }

    /// Adds to the operation's metadata and tells the listeners.
    pub fn set_metadata(&self, key: &str, value: impl Into<Value>) {
        self.state().metadata.insert(key.to_owned(), value.into());
        self.changed();
    }

    /// Progress in Incus's form: `<key>_progress` is a sentence, `progress` has its parts.
    pub fn progress(&self, key: &str, text: &str, percent: Option<u8>) {
        let mut parts = Map::new();
        parts.insert("stage".to_owned(), key.into());
        if let Some(percent) = percent {
            parts.insert("percent".to_owned(), percent.to_string().into());
        }
        let mut state = self.state();
        state.metadata.insert(format!("{key}_progress"), text.into());
        state.metadata.insert("progress".to_owned(), Value::Object(parts));
        drop(state);
        self.changed();
    }

    /// Records the whole plan before the first effect. `durable` flushes it, which is needed when an effect outlives a
    /// reboot.
    pub fn intent(&self, kind: &str, plan: &impl Serialize, durable: bool) -> Result<()> {
        let plan = serde_json::to_value(plan).map_err(|error| Error::failed("failed to write down the plan", error))?;
        if self.inner.begun.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.inner.registry.journal().step(&self.inner.id, kind, plan, durable)?;
            crate::failpoint::reached(kind);
            return Ok(());
        }
        let intent = stapes_journal::Intent { operation: self.inner.id.clone(), kind: kind.to_owned(), plan, durable };
        self.inner.registry.journal().begin(&intent)?;
        crate::failpoint::reached(kind);
        Ok(())
    }

    /// Records that a step of the plan is done.
    pub fn step(&self, name: &str, durable: bool) -> Result<()> {
        self.inner.registry.journal().step(&self.inner.id, name, Value::Null, durable)?;
        crate::failpoint::reached(name);
        Ok(())
    }

    /// Whether somebody asked to cancel it.
    pub fn is_canceled(&self) -> bool {
        *self.inner.canceled.borrow()
    }

    /// Returns once somebody asked to cancel it.
    pub async fn canceled(&self) {
        let mut canceled = self.inner.canceled.subscribe();
        // The sender lives in `self`.
        let _ = canceled.wait_for(|canceled| *canceled).await;
    }

    /// Asks it to stop. Fails when it cannot be canceled; one that ended already is refused too.
    pub fn cancel(&self) -> Result<()> {
        if !self.inner.spec.may_cancel {
            return Err(Error::Refused("This operation can't be cancelled".to_owned()));
        }
        let mut state = self.state();
        if state.status.is_final() {
            return Err(Error::Refused("Only running operations can be cancelled".to_owned()));
        }
        state.status = Status::Cancelling;
        drop(state);
        self.inner.canceled.send_replace(true);
        self.changed();
        Ok(())
    }

    /// Waits for its end.
    pub async fn finished(&self) -> Snapshot {
        let mut finished = self.inner.finished.subscribe();
        let _ = finished.wait_for(|finished| *finished).await;
        self.snapshot()
    }

    fn set_running(&self) {
        let mut state = self.state();
        // It may have been canceled before its work began.
        if state.status == Status::Pending {
            state.status = Status::Running;
        }
        drop(state);
        self.changed();
    }

    fn end(&self, outcome: &Result<()>) {
        let mut state = self.state();
        match outcome {
            Ok(()) => state.status = Status::Success,
            Err(Error::Canceled) => {
                state.status = Status::Cancelled;
                state.err = Error::Canceled.to_string();
            }
            Err(error) => {
                state.status = Status::Failure;
                state.err = crate::chain(error);
            }
        }
        drop(state);
        self.changed();
    }

    fn changed(&self) {
        self.state().updated_at = self.inner.registry.world().now();
        self.inner.registry.events().operation(&self.snapshot());
    }

    /// Runs `body` as this operation's work on the present runtime.
    fn spawn<F>(self, body: impl FnOnce(Operation) -> F + Send + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        tokio::spawn(async move {
            self.set_running();
            // A panic in a workflow ends that workflow, and whoever waits for it is told.
            let work = tokio::spawn(body(self.clone()));
            let outcome = work
                .await
                .unwrap_or_else(|panic| Err(Error::failed("the operation died of a programming error", panic)));
            if let Err(error) = &outcome {
                tracing::debug!(operation = self.id(), error = crate::chain(error), "operation failed");
            }
            self.end(&outcome);
            self.inner.registry.record(&self);
            self.inner.finished.send_replace(true);
        });
    }
}
