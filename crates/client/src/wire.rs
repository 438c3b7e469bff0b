//! Connections: HTTP kept alive, and websockets, each on a Unix stream of its own.

use std::path::Path;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
pub use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::{client::IntoClientRequest, protocol::WebSocketConfig};

use crate::{Error, Target, Upload};

/// A websocket to the daemon.
pub type Socket = WebSocketStream<UnixStream>;

async fn dial(socket: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(socket).await.map_err(|cause| Error::unreachable(socket, &cause))
}

/// Opens an HTTP connection; a task of the current runtime drives it until both sides are done.
pub(crate) async fn connect(socket: &Path) -> Result<SendRequest<Upload>, Error> {
    let stream = TokioIo::new(dial(socket).await?);
    let (sender, connection) =
        http1::handshake(stream).await.map_err(|cause| Error::broken("while greeting it", &cause))?;
    tokio::spawn(async move {
        // The request that runs into it reports the error.
        let _ = connection.await;
    });
    Ok(sender)
}

/// The library's own buffer of 128 KiB is zeroed for each websocket, which cost a short command more than all else that it
/// sends; the daemon sends 32 KiB at a time.
const READ_BUFFER: usize = 32 << 10;

/// Opens a websocket.
pub(crate) async fn websocket(socket: &Path, target: &Target) -> Result<Socket, Error> {
    use tokio_tungstenite::tungstenite::Error as Ws;
    let stream = dial(socket).await?;
    let request = format!("ws://localhost{}", target.as_str())
        .into_client_request()
        .map_err(|cause| Error::protocol("cannot form the websocket request").because(&cause))?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((websocket, _)) => Ok(websocket),
        Err(Ws::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err(crate::client::error_of(answer.status().as_u16(), body))
        }
        Err(cause) => Err(Error::broken("while opening a websocket", &cause)),
    }
}
