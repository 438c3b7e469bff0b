//! The `stapes` binary against a daemon of a page, over a real Unix socket: what it sends, prints and returns.

use std::convert::Infallible;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// What the daemon saw, and whether the command it plays has ended.
#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    input: Mutex<Vec<u8>>,
    input_ended: Notify,
    exited: Notify,
}

struct Daemon {
    dir: tempfile::TempDir,
    seen: Arc<Seen>,
    _runtime: tokio::runtime::Runtime,
}

fn daemon() -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(async { UnixListener::bind(dir.path().join("unix.socket")).unwrap() });
    let shared = seen.clone();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            let service = service_fn(move |request| answer(request, shared.clone()));
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    Daemon { dir, seen, _runtime: runtime }
}

impl Daemon {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stapes"));
        command.args(line.split(' ')).env("STAPES_DIR", self.dir.path()).env("STAPES_CONF", self.dir.path());
        command.env_remove("STAPES_SOCKET").env_remove("STAPES_PROJECT").env_remove("TERM").stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn run_with_input(&self, line: &str, input: &[u8]) -> Output {
        let mut command = self.command(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn answer(mut request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    if request.headers().contains_key(UPGRADE) {
        let key = derive_accept_key(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(upgrade.await.unwrap());
            play(WebSocketStream::from_raw_socket(stream, Role::Server, None).await, &line, seen).await;
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(UPGRADE, "websocket");
        let response = response.header(CONNECTION, "Upgrade").header(SEC_WEBSOCKET_ACCEPT, key);
        return Ok(response.body(Full::default()).unwrap());
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    seen.requests.lock().unwrap().push(format!("{line} {}", String::from_utf8_lossy(&body)));
    let sync = |metadata: &str| (200, format!(r#"{{"type":"sync","status_code":200,"metadata":{metadata}}}"#));
    let started = |id: &str, metadata: &str| {
        (
            202,
            format!(
                r#"{{"type":"async","operation":"/1.0/operations/{id}","metadata":{{"id":"{id}","metadata":{metadata}}}}}"#
            ),
        )
    };
    let (status, text) = match line.as_str() {
        "GET /1.0/instances" => sync(r#"["/1.0/instances/web1","/1.0/instances/db"]"#),
        "GET /1.0/instances?recursion=2" => sync(
            r#"[{"name":"web1","status":"Running","status_code":103,"type":"container","config":{},"snapshots":null,
            "state":{"network":{"eth0":{"type":"broadcast","addresses":[{"family":"inet","address":"10.0.0.2","scope":"global"}]}}}}]"#,
        ),
        "GET /1.0/instances/web1" => sync(
            r#"{"name":"web1","config":{"limits.cpu":"2","user.a":"b"},"devices":{},"profiles":["default"],"architecture":"x86_64",
            "status_code":102,"expanded_devices":{"eth0":{"type":"nic"}}}"#,
        ),
        "PUT /1.0/instances/web1" => started("put", "null"),
        "GET /1.0/operations/put/wait?timeout=-1" => sync(r#"{"id":"put","status_code":200}"#),
        "POST /1.0/instances/web1/exec" if body.windows(18).any(|w| w == br#""interactive":true"#) => {
            started("tty", r#"{"fds":{"0":"s0","control":"sc"}}"#)
        }
        "POST /1.0/instances/web1/exec" => started("run", r#"{"fds":{"0":"s0","1":"s1","2":"s2","control":"sc"}}"#),
        "GET /1.0/operations/run/wait?timeout=-1" => {
            seen.exited.notified().await;
            sync(r#"{"id":"run","status_code":200,"metadata":{"return":7}}"#)
        }
        "POST /1.0/instances" => started("new", "null"),
        "GET /1.0/operations/new/wait?timeout=-1" => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sync(r#"{"id":"new","status_code":200,"resources":{"instances":["/1.0/instances/web1"]}}"#)
        }
        _ => (404, r#"{"type":"error","error":"Instance not found","error_code":404,"metadata":null}"#.to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("ETag", "tag".parse().unwrap());
    Ok(response)
}

/// Plays `tr a-z A-Z` on the streams, with a word on stderr, and exits when its input ends.
async fn play<S>(mut socket: WebSocketStream<S>, line: &str, seen: Arc<Seen>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    match line.rsplit('=').next().unwrap() {
        "s0" => {
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Binary(bytes) => seen.input.lock().unwrap().extend_from_slice(&bytes),
                    Message::Text(text) if text.is_empty() => break,
                    _ => {}
                }
            }
            seen.input_ended.notify_one();
            while let Some(Ok(_)) = socket.next().await {}
        }
        "s1" => {
            seen.input_ended.notified().await;
            let upper = seen.input.lock().unwrap().to_ascii_uppercase();
            for chunk in upper.chunks(50_000) {
                socket.send(Message::binary(chunk.to_vec())).await.unwrap();
            }
            socket.send(Message::text("")).await.unwrap();
            seen.exited.notify_one();
            while let Some(Ok(_)) = socket.next().await {}
        }
        "s2" => {
            socket.send(Message::binary(b"warned\n".to_vec())).await.unwrap();
            socket.send(Message::text("")).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        }
        _ => while let Some(Ok(_)) = socket.next().await {},
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exec_passes_both_streams_and_the_exit_code() {
    let daemon = daemon();
    let input = b"hello ".repeat(100_000);
    let output = daemon.run_with_input("exec web1 --user 5 --env A=b -- tr a-z A-Z", &input);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stderr), "warned\n");
    assert!(output.stdout == input.to_ascii_uppercase(), "{} bytes came back", output.stdout.len());
    let request = &daemon.requests()[0];
    for wanted in [r#""command":["tr","a-z","A-Z"]"#, r#""user":5"#, r#""A":"b""#, r#""wait-for-websocket":true"#] {
        assert!(request.contains(wanted), "{wanted} in {request}");
    }
}

#[test]
fn exec_without_input_ends_by_itself() {
    let daemon = daemon();
    let output = daemon.run("exec web1 -- true");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(7), String::new()));
}

#[test]
fn list_prints_what_incus_prints() {
    let output = daemon().run("list");
    let wanted = "\
+------+---------+-----------------+------+-----------+-----------+
| NAME |  STATE  |      IPV4       | IPV6 |   TYPE    | SNAPSHOTS |
+------+---------+-----------------+------+-----------+-----------+
| web1 | RUNNING | 10.0.0.2 (eth0) |      | CONTAINER | 0         |
+------+---------+-----------------+------+-----------+-----------+
";
    assert_eq!(text(&output.stdout), wanted);
}

#[test]
fn an_unknown_instance_is_answered_with_a_guess() {
    let output = daemon().run("info wbe1");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error: Instance not found\nhint: did you mean `web1`?\n");
}

#[test]
fn setting_a_key_keeps_the_others_and_guards_against_races() {
    let daemon = daemon();
    let output = daemon.run("config set web1 limits.cpu=4");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let requests = daemon.requests();
    let put = requests.iter().find(|r| r.starts_with("PUT")).unwrap();
    assert!(put.contains(r#""config":{"limits.cpu":"4","user.a":"b"}"#) && !put.contains("expanded"), "{put}");
    assert_eq!(text(&daemon.run("config get web1 limits.cpu").stdout), "2\n");
}

#[test]
fn launch_names_the_source_and_says_what_it_does() {
    let daemon = daemon();
    let output = daemon.run("launch debian:12 web1 -c limits.cpu=1");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert_eq!(text(&output.stdout), "Launching web1\n");
    let request = &daemon.requests()[0];
    for wanted in [r#""alias":"12""#, r#""protocol":"debian""#, r#""profiles":null"#, r#""start":true"#] {
        assert!(request.contains(wanted), "{wanted} in {request}");
    }
}

#[test]
fn image_servers_are_known_but_not_spoken_to() {
    let output = daemon().run("launch images:debian/12 web1");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("remote image servers are not available yet") && said.contains("hint: use `debian:12`"),
        "{said}"
    );
}

#[test]
fn without_a_daemon_the_remedy_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stapes")).arg("list").env("STAPES_DIR", dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: cannot reach stapesd at "), "{}", text(&output.stderr));
}
