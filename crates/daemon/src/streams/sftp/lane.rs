//! Keeps requests in order where their order matters.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// What happens one after the other, in the order in which turns were taken.
#[derive(Default)]
pub struct Lane(Mutex<Option<oneshot::Receiver<()>>>);

/// A place in a lane. Dropped, it is the next one's turn.
pub struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

impl Lane {
    pub fn turn(&self) -> Turn {
        let (done, over) = oneshot::channel();
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(over);
        Turn { before, _done: done }
    }
}

impl Turn {
    pub async fn comes(&mut self) {
        if let Some(before) = self.before.take() {
            // An error is the usual way: nothing is ever sent, the sender goes.
            let _ = before.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_the_order_in_which_they_were_taken() {
        let lane = Lane::default();
        let (mut first, mut second) = (lane.turn(), lane.turn());
        first.comes().await;
        let mut waiting = Box::pin(async move { second.comes().await });
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err());
        drop(first);
        waiting.await;
    }
}
