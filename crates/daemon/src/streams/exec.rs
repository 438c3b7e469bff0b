//! A command whose streams are websockets.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Weak},
};

use futures_util::StreamExt;
use stapes_engine::{
    Error, Lanes, Result,
    app::{ExecTarget, exec_failed},
    operations::{Class, Operation},
};
use stapes_instance::{ExecHandle, ExecIo};
use tokio::{io::Interest, sync::watch};

use super::{
    control::{self, Control},
    descriptor::{Descriptor, pipe_in, pipe_out},
    pump::{self, End},
    sessions::{Slot, connected, offer},
    upgrade::{Sink, Socket, Source, finish},
};
use crate::{caller::Caller, daemon::Daemon};

const SIGKILL: i32 = 9;

/// What the command's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// One terminal, one websocket.
    Terminal { columns: u16, rows: u16 },
    /// Three pipes, a websocket each.
    Pipes,
}

impl Streams {
    /// The control websocket comes first; it may be connected whenever the client likes, or never: old clients do not.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Terminal { .. } => &["control", "0"],
            Self::Pipes => &["control", "0", "1", "2"],
        }
    }
}

/// Starts the operation that waits for the websockets and then runs the command.
pub fn exec(daemon: &Arc<Daemon>, target: ExecTarget, streams: Streams, caller: &Caller) -> Operation {
    let (engine, requestor) = (&daemon.engine, Some(caller.requestor()));
    let (offer, fds, mut slots) = offer(&*engine.world, caller.uid, streams.names());
    let spec = target.operation_spec(Class::Websocket, requestor.clone());
    let host = Arc::clone(daemon);
    let operation = engine.operations.run(spec, move |operation| async move {
        let control = slots.remove(0);
        let engine = Arc::clone(&host.engine);
        let of_event = (Arc::clone(&engine), target.clone());
        let begun = Box::new(move || of_event.0.told_exec(&of_event.1, requestor.as_ref()));
        let session = Session { lanes: engine.lanes.clone(), target, control, begun };
        let result = async { session.run(streams, connected(slots).await?).await }.await;
        host.sessions.remove(operation.id());
        match result {
            Ok(code) => {
                operation.set_metadata("return", code);
                Ok(())
            }
            Err(error) => Err(exec_failed(&operation, error)),
        }
    });
    daemon.sessions.insert(operation.id(), offer);
    operation.set_metadata("fds", fds);
    operation
}

/// A command whose websockets are connected.
struct Session {
    lanes: Lanes,
    target: ExecTarget,
    control: Slot,
    /// Called once the command runs.
    begun: Box<dyn FnOnce() + Send>,
}

impl Session {
    /// Runs the command to its end; returns its exit code once the client was sent all output.
    async fn run(self, streams: Streams, sockets: Vec<Socket>) -> Result<i32> {
        let mut sockets = sockets.into_iter().map(StreamExt::split);
        match (streams, sockets.next(), sockets.next(), sockets.next()) {
            (Streams::Terminal { columns, rows }, Some(terminal), ..) => self.terminal(columns, rows, terminal).await,
            (Streams::Pipes, Some(stdin), Some(stdout), Some(stderr)) => self.pipes(stdin, stdout, stderr).await,
            _ => Err(Error::Refused("a websocket is missing".to_owned())),
        }
    }

    async fn pipes(self, stdin: (Sink, Source), stdout: (Sink, Source), stderr: (Sink, Source)) -> Result<i32> {
        let Self { lanes, target, control, begun } = self;
        let (handle, [to, out, err]) = match begin_pipes(&target, &lanes).await {
            Ok(running) => running,
            Err(error) => {
                for (sink, source) in [stdin, stdout, stderr] {
                    finish(sink, source).await;
                }
                return Err(error);
            }
        };
        begun();
        let ended = watch::channel(false).0;
        let work = async {
            let (code, ..) = tokio::join!(
                exit_code(&target, &lanes, handle.exec, &ended),
                feed(stdin, to, ended.subscribe()),
                relay(stdout, out, ended.subscribe()),
                relay(stderr, err, ended.subscribe()),
            );
            code
        };
        Ok(until(work, obey(control, &target, &lanes, handle.exec, Weak::new())).await)
    }

    async fn terminal(self, columns: u16, rows: u16, (mut sink, mut source): (Sink, Source)) -> Result<i32> {
        let Self { lanes, target, control, begun } = self;
        let (handle, terminal) = match begin_terminal(&target, &lanes, columns, rows).await {
            Ok(running) => running,
            Err(error) => {
                finish(sink, source).await;
                return Err(error);
            }
        };
        begun();
        let ended = watch::channel(false).0;
        let size_of = Arc::downgrade(&terminal);
        let screen = async {
            let typed = async {
                if pump::input(&mut source, &terminal).await == End::Orderly {
                    pump::idle(&mut source).await;
                }
            };
            tokio::select! {
                biased;
                _ = pump::output(&terminal, &mut sink, ended.subscribe()) => {}
                () = typed => {}
            }
            // With the last master the terminal hangs up: what still runs on it gets SIGHUP.
            drop(terminal);
            finish(sink, source).await;
        };
        let work = async { tokio::join!(exit_code(&target, &lanes, handle.exec, &ended), screen).0 };
        Ok(until(work, obey(control, &target, &lanes, handle.exec, size_of)).await)
    }
}

/// Runs `work` beside what never ends.
async fn until<T>(work: impl Future<Output = T>, beside: impl Future<Output = Infallible>) -> T {
    tokio::select! {
        done = work => done,
        never = beside => match never {},
    }
}

async fn begin_pipes(target: &ExecTarget, lanes: &Lanes) -> Result<(ExecHandle, [Descriptor; 3])> {
    let failed = |error: io::Error| Error::failed("failed to make the pipes of a command", error);
    let ((stdin, to), (stdout, out), (stderr, err)) =
        (pipe_in().map_err(failed)?, pipe_out().map_err(failed)?, pipe_out().map_err(failed)?);
    let handle = target.begin(lanes, ExecIo::Streams { stdin, stdout, stderr }).await?;
    Ok((handle, [to, out, err]))
}

async fn begin_terminal(
    target: &ExecTarget,
    lanes: &Lanes,
    columns: u16,
    rows: u16,
) -> Result<(ExecHandle, Arc<Descriptor>)> {
    let mut handle = target.begin(lanes, ExecIo::Pty { columns, rows }).await?;
    let missing = || Error::Refused("the command has no terminal".to_owned());
    let master: OwnedFd = handle.pty.take().ok_or_else(missing)?;
    let terminal = Descriptor::new(master, Interest::READABLE | Interest::WRITABLE)
        .map_err(|error| Error::failed("failed to take over the command's terminal", error))?;
    Ok((handle, Arc::new(terminal)))
}

/// Waits for the exit and tells the streams.
async fn exit_code(target: &ExecTarget, lanes: &Lanes, exec: u64, ended: &watch::Sender<bool>) -> i32 {
    let code = target.exit_code(lanes, exec).await;
    ended.send_replace(true);
    code
}

/// Carries the client's input until its end, then closes the pipe. The socket stays until the command has ended.
async fn feed((mut sink, mut source): (Sink, Source), to: Descriptor, mut ended: watch::Receiver<bool>) {
    let typed = async {
        let end = pump::input(&mut source, &to).await;
        drop(to);
        if end == End::Orderly {
            pump::idle(&mut source).await;
        }
    };
    tokio::select! {
        () = typed => {}
        () = pump::keep_alive(&mut sink) => {}
        () = pump::over(&mut ended) => {}
    }
    finish(sink, source).await;
}

/// Carries output. When the client leaves, our end of the pipe closes, and the command's next write gets SIGPIPE.
async fn relay((mut sink, mut source): (Sink, Source), from: Descriptor, ended: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = pump::output(&from, &mut sink, ended) => {}
        () = pump::idle(&mut source) => {}
    }
    drop(from);
    finish(sink, source).await;
}

/// Does what the control websocket asks. A client that leaves it takes its command along, as with Incus.
async fn obey(slot: Slot, target: &ExecTarget, lanes: &Lanes, exec: u64, terminal: Weak<Descriptor>) -> Infallible {
    let signal = async |number: i32| {
        let running = Arc::clone(&target.live.running);
        // A command that has just ended is no failure worth a word.
        let _ = lanes.fast(move || Ok(running.exec_signal(exec, number)?)).await;
    };
    let Ok(socket) = slot.await else { return pending().await };
    let (mut sink, mut source) = socket.split();
    let requests = async {
        while let Some(request) = control::next(&mut source).await {
            match request {
                Control::Resize { columns, rows } => {
                    if let Some(terminal) = terminal.upgrade() {
                        let _ = stapes_sys::pty::resize(terminal.as_fd(), columns, rows);
                    }
                }
                Control::Signal(number) => signal(number).await,
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = pump::keep_alive(&mut sink) => {}
    }
    signal(SIGKILL).await;
    pending().await
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
