use std::{collections::VecDeque, sync::Arc};

/// Events kept, in number and in bytes: the memory budget of the whole daemon is 15 MiB.
const NUMBER: usize = 2048;
const BYTES: usize = 1 << 20;

/// One event; `(epoch, seq)` orders it within its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub epoch: u64,
    pub seq: u64,
    pub json: Arc<str>,
}

/// The ring cannot continue from where the client stands: it must read the state anew, then go on from `newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events were missed; the journal holds {oldest} to {newest} of epoch {epoch}")]
pub struct Gap {
    pub epoch: u64,
    pub oldest: u64,
    pub newest: u64,
}

/// The newest events in memory.
pub(crate) struct Ring {
    epoch: u64,
    newest: u64,
    bytes: usize,
    events: VecDeque<Arc<str>>,
}

impl Ring {
    pub(crate) fn new(epoch: u64, newest: u64) -> Self {
        Self { epoch, newest, bytes: 0, events: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, json: Arc<str>) -> (u64, u64) {
        self.newest += 1;
        self.bytes += json.len();
        self.events.push_back(json);
        while self.events.len() > NUMBER || (self.bytes > BYTES && self.events.len() > 1) {
            self.bytes -= self.events.pop_front().map_or(0, |json| json.len());
        }
        (self.epoch, self.newest)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.newest + 1 - self.events.len() as u64
    }

    /// The events after `seq` that are still here, whoever asks.
    pub(crate) fn after(&self, seq: u64) -> impl Iterator<Item = (u64, &Arc<str>)> {
        let oldest = self.oldest();
        let skip = (seq + 1).saturating_sub(oldest) as usize;
        self.events.iter().enumerate().skip(skip).map(move |(place, json)| (oldest + place as u64, json))
    }

    pub(crate) fn since(&self, epoch: u64, seq: u64, limit: usize) -> Result<Vec<Event>, Gap> {
        if epoch != self.epoch || seq > self.newest || seq + 1 < self.oldest() {
            return Err(Gap { epoch: self.epoch, oldest: self.oldest(), newest: self.newest });
        }
        Ok(self.after(seq).take(limit).map(|(seq, json)| Event { epoch, seq, json: Arc::clone(json) }).collect())
    }
}
