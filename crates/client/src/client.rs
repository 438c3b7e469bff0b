//! Requests and their envelopes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, ETAG, HOST, HeaderMap, IF_MATCH, USER_AGENT};
use hyper::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use stapes_api::{ErrorDetails, Operation, ResponseType};

use crate::{Error, ErrorKind, Socket, Target, Upload, wire};

/// A client of one daemon, in one project. Requests may run side by side; each takes an idle connection or a new one.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    project: Option<String>,
    idle: Mutex<Vec<SendRequest<Upload>>>,
}

/// What a request that may start an operation came to.
#[derive(Debug)]
pub enum Outcome {
    /// Done at once.
    Done(serde_json::Value),
    /// Under way.
    Started(Operation),
}

/// An answer that is no envelope: a file, a log, an image.
#[derive(Debug)]
pub struct Download {
    pub headers: HeaderMap,
    body: Incoming,
}

impl Download {
    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|cause| Error::broken("in the middle of a download", &cause))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Writes all of it and returns how many bytes that were.
    pub async fn copy_to(&mut self, out: &mut (impl AsyncWrite + Unpin)) -> Result<u64, Error> {
        let mut total = 0;
        while let Some(chunk) = self.chunk().await? {
            out.write_all(&chunk).await.map_err(|cause| Error::local("cannot write the download", &cause))?;
            total += chunk.len() as u64;
        }
        out.flush().await.map_err(|cause| Error::local("cannot write the download", &cause))?;
        Ok(total)
    }

    /// All of it in memory; only for what is known to be small.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// Length as announced.
    pub fn length(&self) -> Option<u64> {
        hyper::body::Body::size_hint(&self.body).exact()
    }

    /// A header as text; reads LXD's spelling where Incus's is absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lxd = stapes_api::lxd_header(name);
        let value = self.headers.get(name).or_else(|| self.headers.get(lxd.as_deref()?))?;
        value.to_str().ok()
    }
}

impl Client {
    /// A client of the daemon that listens at `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client { socket: socket.into(), project: None, idle: Mutex::new(Vec::new()) }
    }

    /// A client of this host's daemon; see [`crate::default_socket`].
    pub fn from_env() -> Self {
        Client::new(crate::default_socket())
    }

    /// Names `project` in every request that does not name one itself; `None` leaves it to the daemon's default.
    pub fn in_project(mut self, project: Option<String>) -> Self {
        self.project = project.filter(|p| !p.is_empty() && p != "default");
        self
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn project(&self) -> &str {
        self.project.as_deref().unwrap_or("default")
    }

    /// Reads an object.
    pub async fn get<T: DeserializeOwned>(&self, target: impl Into<Target>) -> Result<T, Error> {
        Ok(self.get_tagged(target).await?.0)
    }

    /// Reads an object together with its `ETag`, empty where it has none.
    pub async fn get_tagged<T: DeserializeOwned>(&self, target: impl Into<Target>) -> Result<(T, String), Error> {
        let answer = self.exchange(Method::GET, &target.into(), None, &[]).await?;
        let etag = answer.headers().get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let envelope = self.envelope(answer).await?;
        Ok((envelope.metadata()?, etag))
    }

    /// Sends JSON (or nothing) and returns what came of it. A non-empty `etag` makes the daemon refuse when the object
    /// has changed meanwhile.
    pub async fn send<B: Serialize + ?Sized>(
        &self,
        method: Method,
        target: impl Into<Target>,
        body: Option<&B>,
        etag: &str,
    ) -> Result<Outcome, Error> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|cause| Error::protocol("cannot encode the request").because(&cause))?;
        let headers: &[(&str, &str)] = if etag.is_empty() { &[] } else { &[(IF_MATCH.as_str(), etag)] };
        let answer = self.exchange(method, &target.into(), body.map(Upload::bytes), headers).await?;
        self.envelope(answer).await?.outcome()
    }

    /// Replaces an object; waits where that takes an operation.
    pub async fn put<B: Serialize + ?Sized>(&self, t: impl Into<Target>, body: &B, etag: &str) -> Result<(), Error> {
        self.finish(self.send(Method::PUT, t, Some(body), etag).await?).await
    }

    /// Changes parts of an object; waits where that takes an operation.
    pub async fn patch<B: Serialize + ?Sized>(&self, t: impl Into<Target>, body: &B) -> Result<(), Error> {
        self.finish(self.send(Method::PATCH, t, Some(body), "").await?).await
    }

    /// Creates or renames; waits where that takes an operation.
    pub async fn post<B: Serialize + ?Sized>(&self, t: impl Into<Target>, body: &B) -> Result<(), Error> {
        self.finish(self.send(Method::POST, t, Some(body), "").await?).await
    }

    /// Deletes; waits where that takes an operation.
    pub async fn delete(&self, t: impl Into<Target>) -> Result<(), Error> {
        self.finish(self.send::<()>(Method::DELETE, t, None, "").await?).await
    }

    /// Starts an operation and returns without waiting for it.
    pub async fn begin<B: Serialize + ?Sized>(
        &self,
        method: Method,
        target: impl Into<Target>,
        body: Option<&B>,
    ) -> Result<Operation, Error> {
        match self.send(method, target, body, "").await? {
            Outcome::Started(operation) => Ok(operation),
            Outcome::Done(_) => Err(Error::protocol("stapesd answered at once where it should start an operation")),
        }
    }

    /// Opens a websocket.
    pub async fn websocket(&self, target: impl Into<Target>) -> Result<Socket, Error> {
        wire::websocket(&self.socket, &self.scoped(&target.into())).await
    }

    /// Reads an answer that is no envelope.
    pub async fn download(&self, target: impl Into<Target>) -> Result<Download, Error> {
        let answer = self.exchange(Method::GET, &target.into(), None, &[]).await?;
        let (parts, body) = answer.into_parts();
        Ok(Download { headers: parts.headers, body })
    }

    /// Sends `body` as it is, with `headers`.
    pub async fn upload(
        &self,
        method: Method,
        target: impl Into<Target>,
        body: Upload,
        headers: &[(&str, &str)],
    ) -> Result<Outcome, Error> {
        let answer = self.exchange(method, &target.into(), Some(body), headers).await?;
        self.envelope(answer).await?.outcome()
    }

    /// Any request: the status, the headers and the whole body as they come, errors included. For `query`.
    pub async fn raw(
        &self,
        method: Method,
        target: &Target,
        body: Option<Upload>,
        headers: &[(&str, &str)],
    ) -> Result<(u16, HeaderMap, Bytes), Error> {
        let answer = self.dispatch(method, target, body, headers).await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok((status, headers, collect(answer).await?))
    }

    /// Sends a request; an error status becomes an [`Error`].
    pub(crate) async fn exchange(
        &self,
        method: Method,
        target: &Target,
        body: Option<Upload>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, Error> {
        let answer = self.dispatch(method, &self.scoped(target), body, headers).await?;
        let status = answer.status().as_u16();
        if status < 400 {
            return Ok(answer);
        }
        Err(error_of(status, &collect(answer).await?))
    }

    async fn dispatch(
        &self,
        method: Method,
        target: &Target,
        body: Option<Upload>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder().method(method).uri(target.as_str()).header(HOST, "stapes");
        request = request.header(USER_AGENT, concat!("stapes/", env!("CARGO_PKG_VERSION")));
        if body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str())) {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request
            .body(body.unwrap_or_default())
            .map_err(|cause| Error::new(ErrorKind::BadRequest, "cannot form the request").because(&cause))?;
        loop {
            let kept = self.idle_connection().await;
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => wire::connect(&self.socket).await?,
            };
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    self.keep(sender);
                    return Ok(answer);
                }
                Err(mut failed) => match failed.take_message() {
                    // A kept connection that the daemon closed meanwhile: nothing was sent, so a new one may be tried.
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(Error::broken("before it answered", failed.error())),
                },
            }
        }
    }

    /// A kept connection that is free now. One whose answer is still being read is left alone: waiting for it could
    /// wait for the caller itself.
    async fn idle_connection(&self) -> Option<SendRequest<Upload>> {
        let free = || {
            let mut idle = self.idle.lock().ok()?;
            idle.retain(|sender| !sender.is_closed());
            let at = idle.iter().position(SendRequest::is_ready)?;
            Some(idle.swap_remove(at))
        };
        match free() {
            Some(sender) => Some(sender),
            None if self.idle.lock().is_ok_and(|idle| idle.is_empty()) => None,
            None => {
                // The connection's task may not have run since the last answer was read.
                tokio::task::yield_now().await;
                free()
            }
        }
    }

    /// Keeps a connection for the next request. It is free once this answer's body was read, and closes if that is dropped.
    fn keep(&self, sender: SendRequest<Upload>) {
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(sender);
        }
    }

    async fn envelope(&self, answer: Response<Incoming>) -> Result<Envelope, Error> {
        Ok(Envelope { body: collect(answer).await? })
    }

    async fn finish(&self, outcome: Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Done(_) => Ok(()),
            Outcome::Started(operation) => self.wait(&operation.id).await.map(|_| ()),
        }
    }

    fn scoped(&self, target: &Target) -> Target {
        match &self.project {
            Some(project) if !target.names("project") && !target.names("all-projects") => {
                target.clone().query("project", project)
            }
            _ => target.clone(),
        }
    }
}

async fn collect(answer: Response<Incoming>) -> Result<Bytes, Error> {
    let body = answer.into_body().collect().await;
    Ok(body.map_err(|cause| Error::broken("in the middle of its answer", &cause))?.to_bytes())
}

/// An envelope whose metadata is decoded only once its type is known.
struct Envelope {
    body: Bytes,
}

#[derive(serde::Deserialize)]
struct RawEnvelope<'a> {
    #[serde(rename = "type", default)]
    kind: ResponseType,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_code: Option<u16>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl Envelope {
    fn parse(&self) -> Result<RawEnvelope<'_>, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|cause| Error::protocol("stapesd answered what is no JSON envelope").because(&cause))
    }

    fn metadata<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let metadata = self.parse()?.metadata.map_or("null", RawValue::get);
        serde_json::from_str(metadata)
            .map_err(|cause| Error::protocol("stapesd's answer is not of the expected form").because(&cause))
    }

    fn outcome(&self) -> Result<Outcome, Error> {
        // An upload's answer may be empty.
        if self.body.is_empty() {
            return Ok(Outcome::Done(serde_json::Value::Null));
        }
        match self.parse()?.kind {
            ResponseType::Sync => Ok(Outcome::Done(self.metadata()?)),
            ResponseType::Async => Ok(Outcome::Started(self.metadata()?)),
            ResponseType::Error => Err(error_of(500, &self.body)),
        }
    }
}

/// The error in the body of an answer with an error status.
pub(crate) fn error_of(status: u16, body: &[u8]) -> Error {
    let Ok(envelope) = serde_json::from_slice::<RawEnvelope<'_>>(body) else {
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
        return Error::answered(status, format!("stapesd answered with HTTP status {status}"), ErrorDetails::default())
            .with_cause(text.trim());
    };
    let code = envelope.error_code.filter(|code| *code != 0).unwrap_or(status);
    let details = envelope.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let message = envelope.error.filter(|e| !e.is_empty());
    Error::answered(code, message.unwrap_or_else(|| format!("stapesd answered with HTTP status {code}")), details)
}

impl Error {
    fn with_cause(mut self, text: &str) -> Self {
        if !text.is_empty() {
            self.causes.push(text.to_owned());
        }
        self
    }
}
