//! What is to be sent to the host.

use std::collections::VecDeque;

use stapes_agent_api::{Failure, Frame, GuestMessage, Reply, encode};

/// Beyond this nothing is read that would have to be sent.
const FULL: usize = 512 * 1024;

/// Names that the host chose come back in messages, which must fit a frame.
pub fn shortened(message: &str) -> String {
    message.chars().take(1000).collect()
}

#[derive(Debug, Default)]
pub struct Outbox {
    bytes: VecDeque<u8>,
    is_open: bool,
}

impl Outbox {
    /// Forgets what was not sent; from here on, only a session that is open is told anything.
    pub fn begin(&mut self, is_open: bool) {
        if !is_open {
            self.bytes = VecDeque::new();
        }
        self.is_open = is_open;
    }

    /// As it is, also outside a session.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    pub fn send(&mut self, frame: &Frame) {
        if self.is_open {
            self.raw(&frame.to_bytes());
        }
    }

    pub fn reply(&mut self, id: u64, reply: Reply) {
        self.send(&encode(&GuestMessage::Reply { id, reply }, Vec::new()));
    }

    pub fn fail(&mut self, id: u64, failure: Failure) {
        self.reply(id, Reply::Failed(Failure { message: shortened(&failure.message), ..failure }));
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Hands bytes to `write`, which says how many it took, until it takes no more.
    pub fn flush(&mut self, mut write: impl FnMut(&[u8]) -> usize) {
        while !self.bytes.is_empty() {
            let taken = write(self.bytes.as_slices().0);
            if taken == 0 {
                return;
            }
            self.bytes.drain(..taken);
        }
    }
}
