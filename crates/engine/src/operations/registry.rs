use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Class, Inner, Operation, Snapshot, Spec, State, Status};
use crate::{Error, Result, World, events::Events};

/// How long an ended operation can be asked for in memory; afterwards the journal answers.
const KEPT: Duration = Duration::from_secs(30);

/// The journal's word for an operation that was accepted and has not said what it will do; its plan is a [`Snapshot`].
pub const ACCEPTED: &str = "accepted";

/// All live operations.
#[derive(Clone)]
pub struct Operations {
    shared: Arc<Shared>,
}

struct Shared {
    world: Arc<dyn World>,
    events: Arc<Events>,
    journal: Arc<stapes_journal::Journal>,
    live: Mutex<HashMap<String, Operation>>,
}

impl Operations {
    pub fn new(world: Arc<dyn World>, events: Arc<Events>, journal: Arc<stapes_journal::Journal>) -> Self {
        Self { shared: Arc::new(Shared { world, events, journal, live: Mutex::default() }) }
    }

    pub(super) fn journal(&self) -> &stapes_journal::Journal {
        &self.shared.journal
    }

    pub(super) fn events(&self) -> &Events {
        &self.shared.events
    }

    pub(super) fn world(&self) -> &dyn World {
        &*self.shared.world
    }

    /// Starts an operation; it runs on even when nobody waits for it.
    pub fn run<F>(&self, spec: Spec, body: impl FnOnce(Operation) -> F + Send + 'static) -> Operation
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let operation = self.register(spec);
        operation.clone().spawn(body);
        operation
    }

    fn register(&self, spec: Spec) -> Operation {
        let operation = self.make(self.shared.world.uuid(), spec, self.shared.world.now());
        if operation.spec().class == Class::Task {
            self.note(&operation);
        }
        self.live().insert(operation.id().to_owned(), operation.clone());
        operation
    }

    /// Goes on, under its old id, with an operation that an earlier daemon accepted.
    pub(crate) fn resume<F>(
        &self,
        accepted: Snapshot,
        description: &'static str,
        body: impl FnOnce(Operation) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let spec = Spec {
            class: accepted.class,
            description,
            project: accepted.project,
            resources: accepted.resources,
            requestor: accepted.requestor,
            may_cancel: false,
        };
        let operation = self.make(accepted.id, spec, accepted.created_at);
        operation.inner.begun.store(true, std::sync::atomic::Ordering::Relaxed);
        self.live().insert(operation.id().to_owned(), operation.clone());
        operation.spawn(body);
    }

    fn make(&self, id: String, spec: Spec, created_at: chrono::DateTime<chrono::Utc>) -> Operation {
        let state = State {
            status: Status::Pending,
            metadata: serde_json::Map::new(),
            err: String::new(),
            updated_at: created_at,
        };
        let inner = Inner {
            id,
            spec,
            created_at,
            state: Mutex::new(state),
            finished: watch::channel(false).0,
            canceled: watch::channel(false).0,
            begun: std::sync::atomic::AtomicBool::new(false),
            registry: self.clone(),
        };
        Operation { inner: Arc::new(inner) }
    }

    /// Lets an accepted operation be asked for even if nothing more is heard of it. Not flushed: a power cut takes the
    /// client's connection along.
    fn note(&self, operation: &Operation) {
        let plan = serde_json::to_value(operation.snapshot()).unwrap_or_default();
        let intent = stapes_journal::Intent {
            operation: operation.id().to_owned(),
            kind: ACCEPTED.to_owned(),
            plan,
            durable: false,
        };
        match self.journal().begin(&intent) {
            Ok(()) => operation.inner.begun.store(true, std::sync::atomic::Ordering::Relaxed),
            Err(error) => tracing::warn!(operation = operation.id(), %error, "an operation was not noted"),
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<String, Operation>> {
        self.shared.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the result in the journal, and the operation itself in memory for a moment.
    pub(super) fn record(&self, operation: &Operation) {
        let snapshot = operation.snapshot();
        let outcome = stapes_journal::Outcome {
            status: format!("{:?}", snapshot.status),
            error: (!snapshot.err.is_empty()).then(|| snapshot.err.clone()),
            result: serde_json::to_value(&snapshot).unwrap_or_default(),
            at: snapshot.updated_at.timestamp(),
        };
        crate::failpoint::reached("before the outcome");
        if let Err(error) = self.journal().finish(&snapshot.id, &outcome) {
            tracing::error!(operation = snapshot.id, %error, "the result of an operation could not be kept");
        }
        crate::failpoint::reached("after the outcome");
        let (this, id) = (self.clone(), snapshot.id);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            this.live().remove(&id);
        });
    }

    /// A live operation.
    pub fn get(&self, id: &str) -> Result<Operation> {
        self.live().get(id).cloned().ok_or_else(|| Error::missing("operation", id))
    }

    /// An operation's state, live or as the journal remembers it.
    pub fn snapshot(&self, id: &str) -> Result<Snapshot> {
        if let Ok(operation) = self.get(id) {
            return Ok(operation.snapshot());
        }
        let outcome = self.journal().outcome(id)?.ok_or_else(|| Error::missing("operation", id))?;
        serde_json::from_value(outcome.result)
            .map_err(|error| Error::failed(format!("failed to read the result of operation {id}"), error))
    }

    /// Operations that have not ended, oldest first.
    pub fn list(&self) -> Vec<Snapshot> {
        let mut list: Vec<_> =
            self.live().values().map(Operation::snapshot).filter(|operation| !operation.status.is_final()).collect();
        list.sort_by_key(|operation| operation.created_at);
        list
    }
}
