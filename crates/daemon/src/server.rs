//! Accepts connections on the socket and serves HTTP/1.1 on each.

use std::{
    fs::Permissions,
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixListener as StdListener},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};

use crate::{
    caller::{Caller, Listener},
    daemon::{Daemon, Phase},
    router::Router,
};

/// How long a stopping daemon waits for requests under way.
const DRAIN: Duration = Duration::from_secs(5);

/// Most connections at a time.
const MOST: u32 = 16_384;

/// Binds `unix.socket` in `dir`: mode 0660, group `stapes` where it exists. The path is bound through a descriptor of the
/// directory, because a socket address holds 107 bytes (unix(7)) and a state directory may be deep.
pub fn bind(dir: &Path, name: &str) -> io::Result<StdListener> {
    let path = dir.join(name);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        let text = format!("another stapesd serves {}; stop it first", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = std::fs::File::open(dir)?;
    let short = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let listener = StdListener::bind(short)?;
    if let Some(group) = group_id("stapes") {
        std::os::unix::fs::chown(&path, None, Some(group))?;
    }
    std::fs::set_permissions(&path, Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn group_id(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Serves until the daemon stops; then finishes what is under way.
pub async fn serve(daemon: Arc<Daemon>, router: Arc<Router>, listener: StdListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let connections = Arc::new(tokio::sync::Semaphore::new(MOST as usize));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = daemon.reached(Phase::Stopping) => break,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: serving must go on once some are free again.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let (daemon, router) = (Arc::clone(&daemon), Arc::clone(&router));
        tokio::spawn(async move {
            let _place = place;
            connection(daemon, router, stream).await;
        });
    }
    let _ = tokio::time::timeout(DRAIN, connections.acquire_many(MOST)).await;
    Ok(())
}

async fn connection(daemon: Arc<Daemon>, router: Arc<Router>, stream: UnixStream) {
    let caller = match stream.peer_cred() {
        Ok(peer) => {
            Caller { uid: peer.uid(), gid: peer.gid(), pid: peer.pid().unwrap_or(0), listener: Listener::Admin }
        }
        Err(error) => {
            tracing::warn!(%error, "a connection without credentials was closed");
            return;
        }
    };
    let stopping = Arc::clone(&daemon);
    let service = service_fn(move |request| {
        let (daemon, router) = (Arc::clone(&daemon), Arc::clone(&router));
        async move { Ok::<_, std::convert::Infallible>(router.serve(daemon, caller, request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.reached(Phase::Stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
