//! Events on their way to the daemon: nothing is lost because nobody listens.

use std::collections::VecDeque;

use stapes_shim_api::{Event, ExitStatus};

/// Newest exec results that can still be asked for, and longest queue of unheard events.
const KEPT: usize = 1024;

/// Results of exec'd commands, oldest first.
#[derive(Debug, Default)]
pub struct Results(VecDeque<(u64, ExitStatus)>);

impl Results {
    pub fn add(&mut self, exec: u64, status: ExitStatus) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((exec, status));
    }

    pub fn get(&self, exec: u64) -> Option<ExitStatus> {
        self.0.iter().rev().find(|(id, _)| *id == exec).map(|(_, status)| *status)
    }
}

/// Encoded events that one listener (or nobody yet) has still to hear.
#[derive(Debug, Default)]
pub struct Queue(VecDeque<Vec<u8>>);

impl Queue {
    /// A full queue loses its oldest: an exit of the container, which is the last event there is, is never lost.
    pub fn push(&mut self, event: &Event) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(stapes_shim_api::encode(event));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands events to `send` until it refuses one, which stays first.
    pub fn flush<E>(&mut self, mut send: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while let Some(first) = self.0.front() {
            send(first)?;
            self.0.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_results_are_kept() {
        let mut results = Results::default();
        for exec in 0..=KEPT as u64 {
            results.add(exec, ExitStatus::Code(exec as i32 % 256));
        }
        assert_eq!(results.get(0), None);
        assert_eq!(results.get(1024), Some(ExitStatus::Code(0)));
    }

    #[test]
    fn an_event_that_could_not_be_sent_stays_first() {
        let mut queue = Queue::default();
        queue.push(&Event::ExecExited { exec: 1, status: ExitStatus::Code(0) });
        assert!(queue.flush(|_| Err(())).is_err());
        assert!(!queue.is_empty());
        queue.flush(|_| Ok::<(), ()>(())).unwrap();
        assert!(queue.is_empty());
    }
}
