//! The client against a daemon of a few lines, over a real Unix socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use stapes_api::Operation;
use stapes_client::{Client, ErrorKind, FileAttributes, FileKind, Target, Upload};
use tokio::net::UnixListener;

struct Daemon {
    client: Client,
    connections: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

fn answer(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    let sync = |metadata: &str| {
        answer(200, format!(r#"{{"type":"sync","status":"Success","status_code":200,"metadata":{metadata}}}"#))
    };
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/1.0/instances/c1?project=blue") => {
            let mut response = sync(r#"{"name":"c1","config":null}"#);
            response.headers_mut().insert("ETag", "abc".parse().unwrap());
            response
        }
        (&Method::DELETE, "/1.0/instances/c1") => {
            answer(202, r#"{"type":"async","operation":"/1.0/operations/7","metadata":{"id":"7"}}"#.to_owned())
        }
        (&Method::GET, "/1.0/operations/7/wait?timeout=-1") => sync(
            r#"{"id":"7","status_code":400,"err":"cannot delete c1","metadata":{"stapes_error":{"causes":["pool is offline"],"hint":"bring it back"}}}"#,
        ),
        (&Method::GET, "/1.0/operations/8/wait?timeout=-1") => {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            sync(r#"{"id":"8","status_code":200}"#)
        }
        (&Method::GET, "/1.0/instances/c1/files?path=%2Fetc%2Fhostname") => {
            let mut response = answer(200, "c1\n".to_owned());
            for (name, value) in [("X-LXD-mode", "0640"), ("X-Incus-uid", "7"), ("X-Incus-type", "file")] {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        (&Method::POST, "/1.0/instances/c1/files?path=%2Fbig") => {
            let length = request.headers()["content-length"].to_str().unwrap().to_owned();
            let mode = request.headers()["X-Incus-mode"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!((length.as_str(), mode.as_str(), body.len()), ("3000000", "0600", 3_000_000));
            sync("null")
        }
        _ => {
            answer(404, r#"{"type":"error","error":"Instance not found","error_code":404,"metadata":null}"#.to_owned())
        }
    })
}

fn daemon() -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("unix.socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), hyper::service::service_fn(serve)));
        }
    });
    Daemon { client: Client::new(socket), connections, _dir: dir }
}

#[tokio::test]
async fn an_absent_daemon_is_named_with_a_remedy() {
    let error = Client::new("/nonexistent/unix.socket").get::<()>("/1.0").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(error.message, "cannot reach stapesd at /nonexistent/unix.socket");
    assert!(error.hint.unwrap().contains("stapesd"));
}

#[tokio::test]
async fn an_object_comes_with_its_etag_and_in_its_project() {
    let daemon = daemon();
    let client = daemon.client.in_project(Some("blue".to_owned()));
    let (instance, etag) = client.get_tagged::<stapes_api::Instance>("/1.0/instances/c1").await.unwrap();
    assert_eq!((instance.name.as_str(), etag.as_str()), ("c1", "abc"));
}

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let daemon = daemon();
    for _ in 0..5 {
        let error = daemon.client.get::<()>("/1.0/nothing").await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    assert_eq!(daemon.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_download_in_hand_does_not_block_another_request() {
    let daemon = daemon();
    let path = Target::new("/1.0/instances/c1/files?path=%2Fetc%2Fhostname");
    let download = daemon.client.download(path).await.unwrap();
    assert!(daemon.client.get::<()>("/1.0/nothing").await.unwrap_err().is_not_found());
    assert_eq!(download.bytes().await.unwrap(), "c1\n");
}

#[tokio::test]
async fn a_failed_operation_carries_causes_and_hint() {
    let daemon = daemon();
    let error = daemon.client.delete("/1.0/instances/c1").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Operation);
    assert_eq!(error.message, "cannot delete c1");
    assert_eq!((error.causes, error.hint), (vec!["pool is offline".to_owned()], Some("bring it back".to_owned())));
}

#[tokio::test]
async fn following_an_operation_needs_no_event_stream() {
    let daemon = daemon();
    let done: Operation = daemon.client.follow("8", |_| ()).await.unwrap();
    assert_eq!(done.id, "8");
}

#[tokio::test]
async fn files_keep_their_attributes_and_stream() {
    let daemon = daemon();
    let file = daemon.client.pull_file("c1", "/etc/hostname").await.unwrap();
    assert_eq!(file.kind, FileKind::File);
    assert_eq!(file.attributes, FileAttributes { uid: Some(7), gid: None, mode: Some(0o640) });
    let attributes = FileAttributes { mode: Some(0o600), ..FileAttributes::default() };
    let content = Upload::reader(tokio::io::repeat(7), Some(3_000_000));
    daemon.client.push_file("c1", "/big", FileKind::File, attributes, content).await.unwrap();
}
