//! What a handler answers, and how it becomes HTTP.

use std::{cell::RefCell, collections::BTreeMap, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Response, StatusCode, body::Frame, header};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stapes_engine::{Error, operations::Operation};
use stapes_model::ErrorKind;
use tokio::io::AsyncReadExt;

pub type Body = BoxBody<Bytes, io::Error>;

/// A handler's answer.
pub enum Reply {
    /// 200 with `metadata`; the tag goes into `ETag`.
    Sync { metadata: Value, etag: Option<String> },
    /// 200 with `metadata` that is JSON text already: long lists are written once and not built as a tree first.
    Text(String),
    /// 201 with an empty answer and a `Location`.
    Created { location: String },
    /// 202: the operation goes on.
    Async(Operation),
    /// Bytes without an envelope.
    Raw { headers: BTreeMap<&'static str, String>, body: Body },
    /// 101: the connection is a stream now.
    Upgrade(Response<Body>),
}

/// An error as the client sees it.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

pub type Result<T = Reply> = std::result::Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

/// Each kind has one status.
fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::BadRequest | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorKind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { status: status_of(error.kind()), message: stapes_engine::chain(&error) }
    }
}

impl From<stapes_model::NameError> for ApiError {
    fn from(error: stapes_model::NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl Reply {
    pub fn empty() -> Self {
        Self::Sync { metadata: json!({}), etag: None }
    }

    pub fn sync(value: &impl Serialize) -> Result {
        Ok(Self::Sync { metadata: to_value(value)?, etag: None })
    }

    /// An object with a tag over `editable`, the part that a client may write back.
    pub fn tagged(value: &impl Serialize, editable: &impl Serialize) -> Result {
        Ok(Self::Sync { metadata: to_value(value)?, etag: Some(etag(editable)?) })
    }

    /// A plain text or file answer.
    pub fn raw(content_type: &str, body: Body) -> Self {
        Self::Raw { headers: BTreeMap::from([("content-type", content_type.to_owned())]), body }
    }
}

/// JSON text of a list.
pub fn to_text(value: &impl Serialize) -> Result<Reply> {
    serde_json::to_string(value).map(Reply::Text).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be written: {error}"))
    })
}

/// A JSON array of what an iterator yields: each element is made when it is written, and the list is never whole in
/// memory. Can be written once.
pub struct Each<I>(RefCell<I>);

impl<I: Iterator> Each<I> {
    pub fn of(iterator: I) -> Self {
        Self(RefCell::new(iterator))
    }
}

impl<I: Iterator<Item: Serialize>> Serialize for Each<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.borrow_mut().by_ref())
    }
}

pub fn to_value(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be written: {error}"))
    })
}

/// SHA-256 over the JSON of an object's editable part, as Incus's tags cover only what `PUT` replaces.
pub fn etag(editable: &impl Serialize) -> Result<String> {
    use std::fmt::Write;
    let digest = Sha256::digest(to_value(editable)?.to_string().as_bytes());
    Ok(digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// A body from bytes at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body that streams a file from its present position, in pieces of 256 KiB.
pub fn stream_file(file: std::fs::File) -> Body {
    let stream = futures_util::stream::unfold(tokio::fs::File::from_std(file), |mut file| async move {
        let mut piece = bytes::BytesMut::with_capacity(256 << 10);
        match file.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Frame::data(piece.freeze())), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(stream))))
}

/// `BoxBody` wants `Sync`; a stream is only ever polled by its one owner, behind this lock that is never contended.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

fn envelope(status: StatusCode, value: &Value) -> Response<Body> {
    json_response(status, value.to_string())
}

fn json_response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn with_header(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    // Values come from ids, hashes and escaped paths; one that is no header value is left out.
    if let Ok(value) = header::HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Turns a handler's result into HTTP.
pub fn into_response(result: Result) -> Response<Body> {
    match result {
        Ok(Reply::Sync { metadata, etag }) => {
            let value = json!({
                "type": "sync", "status": "Success", "status_code": 200,
                "operation": "", "error_code": 0, "error": "", "metadata": metadata,
            });
            let mut response = envelope(StatusCode::OK, &value);
            if let Some(etag) = etag {
                with_header(&mut response, header::ETAG, &etag);
            }
            response
        }
        Ok(Reply::Text(metadata)) => {
            let before = concat!(
                r#"{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"#,
                r#""error":"","metadata":"#
            );
            let mut text = String::with_capacity(before.len() + metadata.len() + 1);
            text.push_str(before);
            text.push_str(&metadata);
            text.push('}');
            json_response(StatusCode::OK, text)
        }
        Ok(Reply::Created { location }) => {
            let value = json!({
                "type": "sync", "status": "Success", "status_code": 200,
                "operation": "", "error_code": 0, "error": "", "metadata": {},
            });
            let mut response = envelope(StatusCode::CREATED, &value);
            with_header(&mut response, header::LOCATION, &location);
            response
        }
        Ok(Reply::Async(operation)) => {
            let location = format!("/1.0/operations/{}", operation.id());
            let value = json!({
                "type": "async", "status": "Operation created", "status_code": 100,
                "operation": location, "error_code": 0, "error": "", "metadata": operation.snapshot(),
            });
            let mut response = envelope(StatusCode::ACCEPTED, &value);
            with_header(&mut response, header::LOCATION, &location);
            response
        }
        Ok(Reply::Raw { headers, body }) => {
            let mut response = Response::new(body);
            for (name, value) in headers {
                with_header(&mut response, header::HeaderName::from_static(name), &value);
            }
            response
        }
        Ok(Reply::Upgrade(response)) => response,
        Err(error) => {
            let value = json!({
                "type": "error", "status": "", "status_code": 0, "operation": "",
                "error_code": error.status.as_u16(), "error": error.message, "metadata": null,
            });
            envelope(error.status, &value)
        }
    }
}
