//! The console on a websocket: a terminal of our own that mirrors it, one client at a time.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use stapes_engine::{Error, app, operations::Class, operations::Operation};
use stapes_model::{InstanceName, ProjectName};
use tokio::{io::Interest, sync::watch};
use tokio_tungstenite::tungstenite::Message;

use super::{
    control::{self, Control},
    descriptor::Descriptor,
    pump,
    sessions::{Slot, connected, offer},
    upgrade::{Socket, finish},
};
use crate::{
    caller::Caller,
    daemon::Daemon,
    reply::{ApiError, Result},
};

/// What a client reads whose console another one took over.
const TAKEN: &[u8] = b"\r\nThe console was taken over by another client.\r\n";

/// Columns and rows of the client's terminal, where it told.
pub type Size = Option<(u16, u16)>;

/// Starts the operation that waits for the websocket and then shows the console.
pub fn console(
    daemon: &Arc<Daemon>,
    project: &ProjectName,
    name: &InstanceName,
    size: Size,
    force: bool,
    caller: &Caller,
) -> Result<Operation> {
    let engine = &daemon.engine;
    let instance = engine.instance(project, name)?;
    if engine.live.get(&instance.id).is_none() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "Instance is not running"));
    }
    let place = daemon.sessions.take_console(instance.id, force)?;
    let (offer, fds, mut slots) = offer(&*engine.world, caller.uid, &["control", "0"]);
    let spec = app::task("Showing console", project, name, Some(caller.requestor()));
    let spec = stapes_engine::operations::Spec { class: Class::Websocket, ..spec };
    let (host, project, name) = (Arc::clone(daemon), project.clone(), name.clone());
    let operation = engine.operations.run(spec, move |operation| async move {
        let control = slots.remove(0);
        let shown = async {
            let socket = connected(slots).await?.pop();
            let master = host.engine.console(&project, &name).await?;
            let terminal = Descriptor::new(master, Interest::READABLE | Interest::WRITABLE)
                .map_err(|error| Error::failed("failed to take over the console's terminal", error))?;
            if let Some((columns, rows)) = size {
                let _ = stapes_sys::pty::resize(terminal.as_fd(), columns, rows);
            }
            if let Some(socket) = socket {
                show(socket, terminal, control, place.subscribe()).await;
            }
            Ok(())
        };
        let result = shown.await;
        host.sessions.remove(operation.id());
        host.sessions.give_console(instance.id, &place);
        result
    });
    daemon.sessions.insert(operation.id(), offer);
    operation.set_metadata("fds", fds);
    Ok(operation)
}

/// Shows the console until the instance stops, the client leaves, or another one takes over.
async fn show(socket: Socket, terminal: Descriptor, control: Slot, mut taken: watch::Receiver<bool>) {
    let (mut sink, mut source) = socket.split();
    let terminal = Arc::new(terminal);
    // Nothing ends before the terminal does.
    let never = watch::channel(false).0;
    let taken = tokio::select! {
        _ = pump::output(&terminal, &mut sink, never.subscribe()) => false,
        _ = pump::input(&mut source, &terminal) => false,
        () = resize(control, Arc::downgrade(&terminal)) => false,
        () = pump::over(&mut taken) => true,
    };
    drop(terminal);
    if taken {
        let _ = sink.send(Message::Binary(Bytes::from_static(TAKEN))).await;
    }
    finish(sink, source).await;
}

/// Follows the size of the client's terminal; returns when the client leaves.
async fn resize(slot: Slot, terminal: Weak<Descriptor>) {
    let Ok(socket) = slot.await else { return std::future::pending().await };
    let (mut sink, mut source) = socket.split();
    let requests = async {
        while let Some(request) = control::next(&mut source).await {
            if let (Control::Resize { columns, rows }, Some(terminal)) = (request, terminal.upgrade()) {
                let _ = stapes_sys::pty::resize(terminal.as_fd(), columns, rows);
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = pump::keep_alive(&mut sink) => {}
    }
}
