//! Bytes between a websocket and a descriptor, in Incus's form: binary messages, and an empty text message as the end.
//!
//! Each direction holds one piece at a time, so whoever is slow slows the other side down, and nothing piles up here.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    descriptor::Descriptor,
    upgrade::{Sink, Source},
};

/// Proxies close connections that look idle; Incus's interval.
pub const PING: Duration = Duration::from_secs(10);

/// How long a terminal is silent before it counts as read empty: its bytes pass through a queue of the kernel's, so they
/// may come a moment after their writer is gone.
const SETTLE: Duration = Duration::from_millis(50);

/// How a direction came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should: the end of the bytes, or of the command.
    Orderly,
    /// The client left.
    Lost,
}

/// Sends what `from` yields until its end. When the command has `ended`, what it left is sent, and no more is waited for:
/// a process that it left behind may hold the other end for ever.
pub async fn output(from: &Descriptor, sink: &mut Sink, mut ended: watch::Receiver<bool>) -> End {
    let mut ping = interval_at(Instant::now() + PING, PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            biased;
            () = over(&mut ended) => return drain(from, sink).await,
            piece = from.read() => match piece {
                Ok(piece) if !piece.is_empty() => sink.send(Message::Binary(piece)).await,
                _ => return End::Orderly,
            },
            _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await,
        };
        if sent.is_err() {
            return End::Lost;
        }
    }
}

/// Returns once the flag is set, or can never be.
pub async fn over(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

/// Sends what an ended command left.
async fn drain(from: &Descriptor, sink: &mut Sink) -> End {
    let mut left = from.capacity();
    while left > 0 {
        let piece = match from.is_terminal() {
            true => timeout(SETTLE, from.read()).await.unwrap_or_else(|_| Ok(Bytes::new())),
            false => from.read_now(),
        };
        let Ok(piece) = piece else { break };
        if piece.is_empty() {
            break;
        }
        left = left.saturating_sub(piece.len());
        if sink.send(Message::Binary(piece)).await.is_err() {
            return End::Lost;
        }
    }
    End::Orderly
}

/// Writes what the client sends until it says that this was all, or leaves. Returns early when nobody reads any more.
pub async fn input(source: &mut Source, to: &Descriptor) -> End {
    loop {
        let message = match source.next().await {
            Some(Ok(message)) => message,
            _ => return End::Lost,
        };
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(_) => return End::Orderly,
            Message::Close(_) => return End::Lost,
            _ => continue,
        };
        if to.write_all(&bytes).await.is_err() {
            return End::Orderly;
        }
    }
}

/// Reads and forgets until the client leaves: pings are answered only by a socket that is read.
pub async fn idle(source: &mut Source) {
    while let Some(Ok(message)) = source.next().await {
        if message.is_close() {
            return;
        }
    }
}

/// Keeps an otherwise silent socket alive until it breaks.
pub async fn keep_alive(sink: &mut Sink) {
    let mut ping = interval_at(Instant::now() + PING, PING);
    loop {
        ping.tick().await;
        if sink.send(Message::Ping(Bytes::new())).await.is_err() {
            return;
        }
    }
}
