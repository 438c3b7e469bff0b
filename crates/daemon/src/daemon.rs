//! What all handlers share.

use std::sync::Arc;

use stapes_engine::Engine;
use tokio::sync::watch;

use crate::streams::Sessions;

/// The phases of the daemon's life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Starting,
    Ready,
    /// Serving ends; with `Stop` the instances run on.
    Stopping,
}

pub struct Daemon {
    pub engine: Arc<Engine>,
    /// Exec and console sessions that wait for their websockets.
    pub sessions: Sessions,
    pub phase: watch::Sender<Phase>,
}

impl Daemon {
    pub fn new(engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self { engine, sessions: Sessions::default(), phase: watch::channel(Phase::Starting).0 })
    }

    /// Returns once the daemon reached `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives in `self`.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }
}
