//! Commands and consoles: operations whose streams are websockets.

use futures_util::future::try_join_all;
use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use serde::Serialize;
use serde_json::Value;
use stapes_api::{InstanceConsolePost, InstanceExecPost, Operation};

use crate::{Client, Error, ErrorKind, Message, Socket, Target};

/// A command (or console) whose websockets are open.
#[derive(Debug)]
pub struct ExecSession {
    /// Id of the operation; `wait` for it to learn the exit code.
    pub operation: String,
    pub streams: ExecStreams,
}

/// The websockets of a session. With a terminal, `stdin` carries both directions.
#[derive(Debug)]
pub struct ExecStreams {
    pub stdin: Socket,
    pub stdout: Option<Socket>,
    pub stderr: Option<Socket>,
    pub control: Option<Socket>,
}

/// What a command came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Client {
    /// Starts a command and opens its websockets. `wait-for-websocket` is set for you.
    pub async fn exec(&self, instance: &str, post: &InstanceExecPost) -> Result<ExecSession, Error> {
        let post = InstanceExecPost { wait_for_websocket: true, ..post.clone() };
        self.session(Target::new("/1.0/instances").join(instance).join("exec"), &post).await
    }

    /// Attaches to the console.
    pub async fn console(&self, instance: &str, post: &InstanceConsolePost) -> Result<ExecSession, Error> {
        self.session(Target::new("/1.0/instances").join(instance).join("console"), post).await
    }

    async fn session<B: Serialize>(&self, target: Target, post: &B) -> Result<ExecSession, Error> {
        let operation = self.begin(Method::POST, target, Some(post)).await?;
        let fds = operation.metadata.as_ref().and_then(|m| m.get("fds")).and_then(Value::as_object);
        let fds = fds.ok_or_else(|| Error::protocol("stapesd started a session without websockets"))?;
        let order = ["0", "1", "2", "control"];
        let wanted = order.iter().filter_map(|name| Some((*name, fds.get(*name)?.as_str()?)));
        // Side by side: the command starts when the last of them is connected.
        let open = wanted.map(async |(name, secret)| {
            let target = Target::new("/1.0/operations").join(&operation.id).join("websocket").query("secret", secret);
            match self.websocket(target).await {
                Ok(socket) => Ok(Some((name, socket))),
                // The command may have ended before its control could be connected; the others tell how.
                Err(_) if name == "control" => Ok(None),
                Err(error) => Err::<_, Error>(error),
            }
        });
        let mut sockets: Vec<_> = try_join_all(open.map(Box::pin)).await?.into_iter().flatten().collect();
        let mut take = |name| {
            let at = sockets.iter().position(|(n, _)| *n == name)?;
            Some(sockets.swap_remove(at).1)
        };
        let stdin = take("0").ok_or_else(|| Error::protocol("stapesd started a session without standard input"))?;
        let streams = ExecStreams { stdin, stdout: take("1"), stderr: take("2"), control: take("control") };
        Ok(ExecSession { operation: operation.id.clone(), streams })
    }

    /// Waits for the command of a session and returns its exit code. A command that could not be executed has one too
    /// (127 not found, 126 not executable), with the error that says why.
    pub async fn exit_code(&self, operation: &str) -> Result<(i32, Option<Error>), Error> {
        let ended = self.ended(operation).await?;
        match (exit_code_of(&ended), Error::of_operation(&ended)) {
            (Ok(code), why) => Ok((code, why)),
            (Err(_), Some(error)) | (Err(error), None) => Err(error),
        }
    }

    /// Runs a command without input and keeps its output in memory: for tests and small programs.
    pub async fn capture(&self, instance: &str, command: &[&str]) -> Result<Captured, Error> {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let session = self.exec(instance, &InstanceExecPost { command, ..Default::default() }).await?;
        let ExecStreams { mut stdin, stdout, stderr, control } = session.streams;
        // An empty text frame ends standard input; a lost connection shows in the wait.
        let _ = stdin.send(Message::text("")).await;
        let (stdout, stderr, code) =
            tokio::join!(read_all(stdout), read_all(stderr), self.exit_code(&session.operation));
        drop((control, stdin));
        Ok(Captured { code: code?.0, stdout, stderr })
    }
}

async fn read_all(socket: Option<Socket>) -> Vec<u8> {
    let mut all = Vec::new();
    let Some(mut socket) = socket else { return all };
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => all.extend_from_slice(&bytes),
            Message::Text(text) if text.is_empty() => break,
            Message::Text(text) => all.extend_from_slice(text.as_bytes()),
            Message::Close(_) => break,
            _ => {}
        }
    }
    all
}

fn exit_code_of(operation: &Operation) -> Result<i32, Error> {
    let code = operation.metadata.as_ref().and_then(|m| m.get("return")).and_then(Value::as_i64);
    code.and_then(|code| i32::try_from(code).ok())
        .ok_or_else(|| Error::new(ErrorKind::Protocol, "stapesd did not say how the command ended"))
}
