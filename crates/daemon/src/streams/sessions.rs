//! Sessions that wait for their websockets: each is known by a secret, each may be taken once, by whoever asked for it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::StatusCode;
use serde_json::{Map, Value};
use stapes_engine::{Error, World};
use stapes_model::InstanceId;
use tokio::sync::{oneshot, watch};

use super::upgrade::Socket;
use crate::reply::{ApiError, Result};

/// How long a session waits for its websockets.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Exec and console sessions that wait for their websockets.
#[derive(Default)]
pub struct Sessions {
    /// By operation.
    open: Mutex<HashMap<String, Offer>>,
    /// Consoles in use, with a way to make their user leave.
    consoles: Mutex<HashMap<InstanceId, watch::Sender<bool>>>,
}

/// The daemon's side of a session's websockets.
pub struct Offer {
    uid: u32,
    by_secret: HashMap<String, Option<oneshot::Sender<Socket>>>,
}

/// A websocket that will be connected.
pub type Slot = oneshot::Receiver<Socket>;

/// New websockets: what to register, what the client is told, and what the session waits for.
pub fn offer(world: &(dyn World + 'static), uid: u32, names: &[&str]) -> (Offer, Map<String, Value>, Vec<Slot>) {
    let (mut by_secret, mut told) = (HashMap::new(), Map::new());
    let places = names.iter().map(|&name| {
        let (sender, slot) = oneshot::channel();
        let secret = world.secret();
        told.insert(name.to_owned(), secret.clone().into());
        by_secret.insert(secret, Some(sender));
        slot
    });
    let slots = places.collect();
    (Offer { uid, by_secret }, told, slots)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    pub fn insert(&self, operation: &str, offer: Offer) {
        lock(&self.open).insert(operation.to_owned(), offer);
    }

    pub fn remove(&self, operation: &str) {
        lock(&self.open).remove(operation);
    }

    /// Takes the place behind a secret.
    pub fn take(&self, operation: &str, secret: &str, uid: u32) -> Result<oneshot::Sender<Socket>> {
        let refused = |status, text: &str| Err(ApiError::new(status, text));
        let mut open = lock(&self.open);
        let Some(offer) = open.get_mut(operation) else {
            return refused(StatusCode::BAD_REQUEST, "this operation has no websockets (any more)");
        };
        if offer.uid != uid {
            return refused(StatusCode::FORBIDDEN, "the operation was started by another user");
        }
        let Some(place) = offer.by_secret.get_mut(secret) else {
            return refused(StatusCode::FORBIDDEN, "no websocket of this operation has that secret");
        };
        place.take().ok_or_else(|| ApiError::bad_request("this websocket is connected already"))
    }

    /// Takes a console for one session. `force` makes an earlier one leave.
    pub fn take_console(&self, id: InstanceId, force: bool) -> Result<watch::Sender<bool>> {
        let mut consoles = lock(&self.consoles);
        if let Some(earlier) = consoles.get(&id) {
            if !force {
                let text = "This console is already connected. Force is required to take it over.";
                return Err(ApiError::new(StatusCode::CONFLICT, text));
            }
            earlier.send_replace(true);
        }
        let mine = watch::channel(false).0;
        consoles.insert(id, mine.clone());
        Ok(mine)
    }

    /// Gives a console back, unless somebody took it over.
    pub fn give_console(&self, id: InstanceId, mine: &watch::Sender<bool>) {
        let mut consoles = lock(&self.consoles);
        if consoles.get(&id).is_some_and(|holder| holder.same_channel(mine)) {
            consoles.remove(&id);
        }
    }
}

/// Waits for all of `slots`; their websockets in the same order.
pub async fn connected(slots: Vec<Slot>) -> stapes_engine::Result<Vec<Socket>> {
    let all = async {
        let mut sockets = Vec::with_capacity(slots.len());
        for slot in slots {
            let gone = |_| Error::Refused("a client left before its websocket was connected".to_owned());
            sockets.push(slot.await.map_err(gone)?);
        }
        Ok(sockets)
    };
    let late = || Error::Refused(format!("the websockets were not connected within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, all).await.map_err(|_| late())?
}
