//! From an HTTP request to a websocket. See RFC 6455 §4.2.

use std::{future::Future, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::reply::{ApiError, Body, Result, full};

/// Longest message that is taken from a client. Incus's clients send 32 KiB at a time.
const LONGEST: usize = 16 << 20;

/// How long a closed websocket waits for the other side's farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes both ways, whatever carries them.
pub trait Bidirectional: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bidirectional for T {}

pub type Socket = WebSocketStream<Box<dyn Bidirectional>>;
pub type Sink = SplitSink<Socket, Message>;
pub type Source = SplitStream<Socket>;

/// A websocket of ours over a connection that was upgraded already.
pub async fn serve_socket(stream: impl Bidirectional + 'static) -> Socket {
    let stream: Box<dyn Bidirectional> = Box::new(stream);
    let config = WebSocketConfig::default()
        .read_buffer_size(32 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

fn has(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Accepts the upgrade: the answer to send, and the websocket that there is once it was sent (`None`: the client left).
pub fn upgrade<B>(
    mut request: Request<B>,
) -> Result<(Response<Body>, impl Future<Output = Option<Socket>> + Send + 'static)> {
    let headers = request.headers();
    let asked = has(headers, header::UPGRADE, "websocket") && has(headers, header::CONNECTION, "upgrade");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asked);
    let key = key.ok_or_else(|| ApiError::bad_request("this is a websocket; connect with an upgrade request"))?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(full(""))
        .map_err(|error| ApiError::bad_request(format!("the upgrade cannot be answered: {error}")))?;
    let upgraded = hyper::upgrade::on(&mut request);
    let socket = async move {
        match upgraded.await {
            Ok(stream) => Some(serve_socket(TokioIo::new(stream)).await),
            Err(error) => {
                tracing::debug!(%error, "a websocket was not taken up");
                None
            }
        }
    };
    Ok((answer, socket))
}

/// Accepts the upgrade to `protocol`: the answer to send, and the bytes that there are once it was sent (`None`: the
/// client left). See RFC 9110 §7.8.
pub fn upgrade_to<B>(
    mut request: Request<B>,
    protocol: &'static str,
) -> Result<(Response<Body>, impl Future<Output = Option<impl Bidirectional + use<B>>> + Send + 'static + use<B>)> {
    let headers = request.headers();
    if !(has(headers, header::UPGRADE, protocol) && has(headers, header::CONNECTION, "upgrade")) {
        return Err(ApiError::bad_request(format!(
            "Missing or invalid upgrade header: this needs Upgrade: {protocol}"
        )));
    }
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, protocol)
        .body(full(""))
        .map_err(|error| ApiError::bad_request(format!("the upgrade cannot be answered: {error}")))?;
    let upgraded = hyper::upgrade::on(&mut request);
    let stream = async move {
        let taken =
            upgraded.await.inspect_err(|error| tracing::debug!(%error, protocol, "an upgrade was not taken up"));
        taken.ok().map(TokioIo::new)
    };
    Ok((answer, stream))
}

/// Ends a data stream as Incus's clients expect it, an empty text message and then the closing handshake, without
/// making the caller wait for the latter.
pub async fn finish(mut sink: Sink, mut source: Source) {
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let ended = async {
        sink.feed(Message::text("")).await?;
        sink.send(Message::Close(Some(normal))).await
    };
    if ended.await.is_err() {
        return;
    }
    tokio::spawn(async move {
        let _sink = sink;
        let farewell = async { while let Some(Ok(_)) = source.next().await {} };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_handshake_is_accepted() {
        let request = |connection: &str, key: bool| {
            let mut builder = Request::builder().header("upgrade", "WebSocket").header("connection", connection);
            if key {
                builder = builder.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            }
            upgrade(builder.body(()).unwrap()).map(|(answer, _)| answer)
        };
        let answer = request("keep-alive, Upgrade", true).unwrap();
        // The example of RFC 6455 §1.3.
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(request("keep-alive", true).is_err());
        assert!(request("Upgrade", false).is_err());
    }
}
