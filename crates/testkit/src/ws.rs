//! Websockets over the API's Unix socket, blocking.

use std::{
    io,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

use crate::Api;

/// One websocket.
#[derive(Debug)]
pub struct Socket(WebSocket<UnixStream>);

impl Socket {
    /// # Errors
    /// Nobody listens, or the server refuses the upgrade.
    pub fn open(api: &Api, path: &str) -> Result<Self> {
        let stream = UnixStream::connect(&api.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (socket, _) = tungstenite::client(format!("ws://stapes{path}"), stream)
            .map_err(|e| anyhow::anyhow!("failed to open the websocket {path}: {e}"))?;
        Ok(Self(socket))
    }

    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.send(Message::binary(bytes.to_vec()))?)
    }

    /// # Errors
    /// The connection broke.
    pub fn send_text(&mut self, text: &str) -> Result<()> {
        Ok(self.0.send(Message::text(text.to_owned()))?)
    }

    /// The mark at the end of a stream: an empty text frame.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send_end(&mut self) -> Result<()> {
        self.send_text("")
    }

    /// The next JSON message; `None` when nothing comes within `patience`.
    ///
    /// # Errors
    /// The connection broke, or the message is no JSON.
    pub fn next_json(&mut self, patience: Duration) -> Result<Option<Value>> {
        self.0.get_ref().set_read_timeout(Some(patience))?;
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(Some(serde_json::from_str(text.as_str())?)),
                Ok(Message::Binary(bytes)) => return Ok(Some(serde_json::from_slice(&bytes)?)),
                Ok(Message::Close(_)) => bail!("the server closed the websocket"),
                Ok(_) => {}
                Err(Error::Io(e)) if is_timeout(&e) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Reads data until `wanted` has appeared, the stream's end, or `patience` is over; everything read.
    ///
    /// # Errors
    /// The connection broke otherwise than by closing.
    pub fn read_until(&mut self, wanted: &str, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(wanted) || wanted.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.0.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.0.read() {
                Ok(Message::Binary(bytes)) => seen.extend_from_slice(&bytes),
                Ok(Message::Text(text)) if text.is_empty() => break,
                Ok(Message::Text(text)) => seen.extend_from_slice(text.as_bytes()),
                Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                    break;
                }
                Ok(_) => {}
                Err(Error::Io(e)) if is_timeout(&e) || e.kind() == io::ErrorKind::ConnectionReset => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(String::from_utf8_lossy(&seen).into_owned())
    }

    /// Everything up to the end of the stream.
    ///
    /// # Errors
    /// As [`Socket::read_until`].
    pub fn read_to_end(&mut self) -> Result<String> {
        self.read_until("", Duration::from_secs(30))
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// An exec or console session with its websockets open.
#[derive(Debug)]
pub struct Session {
    pub operation: String,
    pub control: Option<Socket>,
    /// By descriptor number: an interactive session has only the first.
    pub streams: Vec<Socket>,
}

impl Session {
    /// Starts `command` in `instance`, with a terminal of 80 by 25 when `interactive`.
    ///
    /// # Errors
    /// The request or a websocket is refused.
    pub fn exec(api: &Api, instance: &str, command: &[&str], interactive: bool) -> Result<Self> {
        let body = json!({ "command": command, "wait-for-websocket": true, "interactive": interactive,
                           "environment": {"TERM": "xterm"}, "width": 80, "height": 25 });
        let names: &[&str] = if interactive { &["0"] } else { &["0", "1", "2"] };
        Self::start(api, &format!("/1.0/instances/{instance}/exec"), &body, names)
    }

    /// The console of `instance`, at 80 by 25; `force` takes it from whoever has it.
    ///
    /// # Errors
    /// The request or a websocket is refused.
    pub fn console(api: &Api, instance: &str, force: bool) -> Result<Self> {
        let body = json!({ "type": "console", "width": 80, "height": 25, "force": force });
        Self::start(api, &format!("/1.0/instances/{instance}/console"), &body, &["0"])
    }

    fn start(api: &Api, path: &str, body: &Value, names: &[&str]) -> Result<Self> {
        let envelope = api.envelope("POST", path, body)?;
        let operation = envelope["operation"].as_str().context("no operation")?.to_owned();
        let secrets = &envelope["metadata"]["metadata"]["fds"];
        let open = |name: &str| -> Result<Socket> {
            let secret = secrets[name].as_str().with_context(|| format!("no secret for {name} in {secrets}"))?;
            Socket::open(api, &format!("{operation}/websocket?secret={secret}"))
        };
        let control = if secrets["control"].is_string() { Some(open("control")?) } else { None };
        let streams = names.iter().map(|name| open(name)).collect::<Result<_>>()?;
        Ok(Self { operation, control, streams })
    }

    /// Sends a command over the control socket.
    ///
    /// # Errors
    /// There is none, or it broke.
    pub fn control(&mut self, message: &Value) -> Result<()> {
        self.control.as_mut().context("no control socket")?.send_text(&message.to_string())
    }

    /// The exit code, once the program has ended.
    ///
    /// # Errors
    /// The operation failed or has no exit code.
    pub fn exit_code(&mut self, api: &Api) -> Result<i64> {
        // A server may hold the end back until its client has read everything.
        let outputs = if self.streams.len() == 1 { &mut self.streams[..] } else { &mut self.streams[1..] };
        for output in outputs {
            output.read_to_end()?;
        }
        self.streams.clear();
        let ended = api.wait(&self.operation)?;
        ended["metadata"]["return"].as_i64().with_context(|| format!("no exit code in {ended}"))
    }
}
