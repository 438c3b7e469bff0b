//! A small blocking HTTP/1.1 client over a Unix socket, and the REST conventions on top of it.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// The body is no JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("no JSON in an answer {}: {:?}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A refusal, immediate or by a failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    pub message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.status)
    }
}

impl std::error::Error for ApiError {}

/// One kept connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// # Errors
    /// Nobody listens there.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(180)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is no HTTP.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: stapes\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        let sent = self.stream.get_mut().write_all(&message);
        // A server may answer (and close) before it has read a body it refuses, so an answer is looked for first.
        let answer = read_response(&mut self.stream, method == "HEAD");
        match (sent, answer) {
            (_, Ok(response)) => Ok(response),
            (Err(error), Err(_)) => Err(error).with_context(|| format!("failed to send {method} {path}")),
            (Ok(()), Err(error)) => Err(error.context(format!("no answer to {method} {path}"))),
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        bail!("the connection was closed");
    }
    Ok(line.trim_end().to_owned())
}

fn read_response(stream: &mut impl BufRead, head_only: bool) -> Result<Response> {
    let status_line = read_line(stream)?;
    let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status: u16 = status.with_context(|| format!("no status line: {status_line:?}"))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("no header: {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if status == 100 {
        return read_response(stream, head_only);
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let mut body = Vec::new();
    if head_only || status == 204 || status == 304 {
        // No body follows, whatever the headers announce.
    } else if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        read_chunks(stream, &mut body)?;
    } else if let Some(length) = header("content-length") {
        stream.take(length.parse().context("content-length")?).read_to_end(&mut body)?;
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(Response { status, headers, body })
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let line = read_line(stream)?;
        let size = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).context("chunk size")?;
        if size == 0 {
            while !read_line(stream)?.is_empty() {}
            return Ok(());
        }
        stream.take(size).read_to_end(body)?;
        read_line(stream)?;
    }
}

/// The REST API behind one socket; every call opens a connection of its own.
#[derive(Debug, Clone)]
pub struct Api {
    pub socket: PathBuf,
}

impl Api {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// # Errors
    /// Nobody listens, or the answer is no HTTP; a refusal is an answer.
    pub fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        Connection::open(&self.socket)
            .with_context(|| format!("failed to connect to {}", self.socket.display()))?
            .request(method, path, headers, body)
    }

    /// One request with a JSON body; the whole envelope of the answer.
    ///
    /// # Errors
    /// As [`Api::raw`], and [`ApiError`] for an answer of type `error`.
    pub fn envelope(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let response = self.raw(method, path, &[("Content-Type", "application/json")], &bytes)?;
        let envelope = response.json()?;
        if envelope["type"] == "error" || response.status >= 400 {
            let status = envelope["error_code"].as_u64().and_then(|code| u16::try_from(code).ok());
            let message = envelope["error"].as_str().unwrap_or_default().to_owned();
            let error = ApiError { status: status.unwrap_or(response.status), message };
            return Err(anyhow::Error::new(error).context(format!("{method} {path} was refused")));
        }
        Ok(envelope)
    }

    /// A request that is answered at once; its `metadata`.
    ///
    /// # Errors
    /// As [`Api::envelope`].
    pub fn sync(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        Ok(self.envelope(method, path, body)?["metadata"].take())
    }

    /// # Errors
    /// As [`Api::envelope`].
    pub fn get(&self, path: &str) -> Result<Value> {
        self.sync("GET", path, &Value::Null)
    }

    /// A request answered by an operation, which is waited for; the operation as it ended.
    ///
    /// # Errors
    /// As [`Api::envelope`]; [`ApiError`] with the operation's own text when it failed.
    pub fn operation(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let envelope = self.envelope(method, path, body)?;
        if envelope["type"] != "async" {
            return Ok(envelope["metadata"].clone());
        }
        let url = envelope["operation"].as_str().context("an async answer without an operation")?;
        self.wait(url).with_context(|| format!("{method} {path}"))
    }

    /// Waits for the operation at `url`.
    ///
    /// # Errors
    /// [`ApiError`] with the operation's text when it failed or was cancelled.
    pub fn wait(&self, url: &str) -> Result<Value> {
        let ended = self.get(&format!("{url}/wait?timeout=120"))?;
        match ended["status_code"].as_u64() {
            Some(200) => Ok(ended),
            Some(103) => bail!("{url} is still running after 120 s: {ended}"),
            code => {
                let status = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(400);
                Err(ApiError { status, message: ended["err"].as_str().unwrap_or_default().to_owned() }.into())
            }
        }
    }

    /// What a request that must fail is refused with, at once or by its operation.
    ///
    /// # Panics
    /// It succeeds, or fails otherwise than by a refusal.
    pub fn refusal(&self, method: &str, path: &str, body: &Value) -> ApiError {
        match self.operation(method, path, body) {
            Ok(answer) => panic!("{method} {path} with {body} should have been refused, but: {answer}"),
            Err(error) => match error.chain().find_map(|cause| cause.downcast_ref::<ApiError>()) {
                Some(refusal) => refusal.clone(),
                None => panic!("{method} {path} with {body}: no refusal but {error:#}"),
            },
        }
    }

    /// Runs a program in an instance with its output recorded; exit code, standard output, standard error.
    ///
    /// # Errors
    /// As [`Api::operation`].
    pub fn exec(&self, instance: &str, command: &[&str]) -> Result<(i64, String, String)> {
        let body = json!({ "command": command, "wait-for-websocket": false, "interactive": false,
                           "record-output": true, "environment": {} });
        let started = self.envelope("POST", &format!("/1.0/instances/{instance}/exec"), &body)?;
        let url = started["operation"].as_str().context("an exec without an operation")?;
        // A program that cannot be run fails the operation, and still has an exit code: 126 or 127.
        let waited = self.get(&format!("{url}/wait?timeout=120"));
        let ended = waited.or_else(|_| self.get(url))?;
        let metadata = &ended["metadata"];
        let code = metadata["return"].as_i64().with_context(|| format!("no exit code in {ended}"))?;
        let output = |fd: &str| -> Result<String> {
            let Some(url) = metadata["output"][fd].as_str() else { return Ok(String::new()) };
            let text = self.raw("GET", url, &[], &[])?.text();
            self.raw("DELETE", url, &[], &[])?;
            Ok(text)
        };
        Ok((code, output("1")?, output("2")?))
    }
}
