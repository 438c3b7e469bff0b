//! What is under way on this host, what came of it, and the newest events.
//!
//! An operation writes one [`Intent`] before its first effect, [`Step`]s between, and one [`Outcome`] after the last. The
//! next daemon finishes or undoes what has no outcome. Never behind consensus: it describes this host only.
//!
//! **What "durable" means.** Every write is handed to the kernel before the call returns, so a killed daemon loses
//! nothing. Only `durable` writes are also flushed to the disk, and with them everything written before: a step without
//! the mark may be forgotten by a power cut, and must describe only what a power cut erases too (mounts, links, processes).
//! Outcomes are not flushed: after a power cut an operation that had finished may be open again, so recovery judges by
//! the store and the disk, as it does after a kill between the last effect and the outcome.
//!
//! **Events** live in a bounded ring in memory, and reach the file at a graceful stop. The successor of a killed daemon
//! starts a new epoch, so that a client that asks for the missing ones is told of the [`Gap`] instead of given a false
//! whole.
#![forbid(unsafe_code)]

mod error;
mod events;
mod journal;
#[cfg(test)]
mod tests;

pub use error::JournalError;
pub use events::{Event, Gap};
pub use journal::Journal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an operation is about to do, complete enough to finish or undo it without asking anyone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The operation's UUID.
    pub operation: String,
    pub kind: String,
    pub plan: Value,
    /// Flush before the first effect: for what outlives a reboot or happens on another host.
    pub durable: bool,
}

/// A mark of progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub detail: Value,
}

/// An intent without outcome, with its steps in order.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenIntent {
    pub intent: Intent,
    pub steps: Vec<Step>,
    /// Begun since the host last booted: its mounts, links and processes may still be there.
    pub same_boot: bool,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The status word of the API: `Success`, `Failure`, `Cancelled`.
    pub status: String,
    pub error: Option<String>,
    pub result: Value,
    /// Milliseconds since 1970, by the caller's clock.
    pub at: i64,
}
