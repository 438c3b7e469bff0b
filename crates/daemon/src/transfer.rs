//! Bytes between a connection and a file: in pieces, with backpressure, on threads that may block.
//!
//! A file of an instance may lie on a file system that the instance serves itself and that never answers. So only a few
//! of the blocking threads may be busy with files at a time; the rest of the daemon keeps the others.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{StatusCode, body::Frame, body::Incoming};
use stapes_instance::{GuestFile, RemoteFile};
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::reply::{ApiError, Body, Result};

/// Bytes that move at a time; a transfer holds at most three such pieces.
const PIECE: usize = 512 << 10;
/// A piece is also written once it has so many parts: a client's tiny chunks must not pile up buffers.
const MOST_PARTS: usize = 64;
/// Blocking threads that transfers may hold at a time.
static THREADS: Semaphore = Semaphore::const_new(12);

/// Runs one read or write on a blocking thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let place = THREADS.acquire().await.map_err(io::Error::other)?;
    let job = tokio::task::spawn_blocking(move || {
        // Given back when the thread is free again, not when somebody stopped waiting for it.
        let _place = place;
        work()
    });
    job.await.map_err(io::Error::other)?
}

/// The same, at once and beside its caller.
fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> JoinHandle<io::Result<T>> {
    tokio::spawn(blocking(work))
}

async fn joined<T>(job: JoinHandle<io::Result<T>>) -> io::Result<T> {
    job.await.map_err(io::Error::other)?
}

/// An open file and where in it the next byte is.
pub enum Place {
    /// The descriptor knows where.
    Local(Arc<File>),
    Remote {
        file: Arc<dyn RemoteFile>,
        at: u64,
    },
}

impl From<File> for Place {
    fn from(file: File) -> Self {
        Self::Local(Arc::new(file))
    }
}

impl From<GuestFile> for Place {
    fn from(file: GuestFile) -> Self {
        match file {
            GuestFile::Local(file) => Self::Local(file),
            GuestFile::Remote(file) => Self::Remote { file, at: 0 },
        }
    }
}

impl Place {
    /// Appends `most` bytes; fewer are the end of the file.
    fn read(&mut self, piece: &mut Vec<u8>, most: usize) -> io::Result<()> {
        match self {
            Self::Local(file) => (&**file).take(most as u64).read_to_end(piece).map(drop),
            Self::Remote { file, at } => {
                let before = piece.len();
                file.read_piece(piece, most, *at)?;
                *at += (piece.len() - before) as u64;
                Ok(())
            }
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(file) => (&**file).write_all(piece),
            Self::Remote { file, at } => {
                file.write_all_at(piece, *at)?;
                *at += piece.len() as u64;
                Ok(())
            }
        }
    }
}

struct Reading {
    next: JoinHandle<io::Result<(Place, Vec<u8>)>>,
    /// Bytes still to come, `next`'s included.
    left: Option<u64>,
}

impl Reading {
    fn start(mut file: Place, left: Option<u64>) -> Self {
        let most = left.map_or(PIECE as u64, |left| left.min(PIECE as u64)) as usize;
        let next = on_disk(move || {
            let mut piece = Vec::with_capacity(PIECE);
            file.read(&mut piece, most)?;
            Ok((file, piece))
        });
        Self { next, left }
    }
}

/// Streams a file from its present position, one piece ahead of the reader: `length` bytes, or to its end.
///
/// A file that turns out shorter than `length` ends in an error, which breaks the connection: the length was promised.
pub fn read<F: Into<Place>>(
    file: F,
    length: Option<u64>,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync + use<F> {
    let start = (length != Some(0)).then(|| Reading::start(file.into(), length));
    futures_util::stream::unfold(start, |state| async move {
        let Reading { next, left } = state?;
        let (file, piece) = match joined(next).await {
            Ok(read) => read,
            Err(error) => return Some((Err(error), None)),
        };
        let left = left.map(|left| left.saturating_sub(piece.len() as u64));
        if piece.is_empty() {
            let short = left.is_some_and(|left| left > 0);
            return short.then(|| (Err(io::Error::other("the file became shorter while it was read")), None));
        }
        let state = (left != Some(0)).then(|| Reading::start(file, left));
        Some((Ok(Frame::data(Bytes::from(piece))), state))
    })
}

/// A body from a stream of pieces.
pub fn body(stream: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(stream))
}

/// Writes what arrives into a file, one piece behind. Dropped before [`Writer::finish`], it says so in the log.
pub struct Writer {
    what: String,
    idle: Option<Place>,
    flight: Option<JoinHandle<io::Result<Place>>>,
    held: Vec<Bytes>,
    held_bytes: usize,
    bytes: u64,
    finished: bool,
}

impl Writer {
    /// `what` is written, in words for the log and the error: `/etc/hosts of c1`.
    pub fn new(file: impl Into<Place>, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            idle: Some(file.into()),
            flight: None,
            held: Vec::new(),
            held_bytes: 0,
            bytes: 0,
            finished: false,
        }
    }

    pub async fn push(&mut self, piece: Bytes) -> Result<()> {
        self.bytes += piece.len() as u64;
        self.held_bytes += piece.len();
        self.held.push(piece);
        if self.held_bytes >= PIECE || self.held.len() >= MOST_PARTS {
            self.write_held().await?;
        }
        Ok(())
    }

    /// Writes the rest and answers how many bytes there were.
    pub async fn finish(mut self) -> Result<u64> {
        self.write_held().await?;
        self.idle_file().await?;
        self.finished = true;
        Ok(self.bytes)
    }

    async fn write_held(&mut self) -> Result<()> {
        let mut file = self.idle_file().await?;
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        self.flight = Some(on_disk(move || held.iter().try_for_each(|piece| file.write(piece)).map(|()| file)));
        Ok(())
    }

    async fn idle_file(&mut self) -> Result<Place> {
        let file = match (self.idle.take(), self.flight.take()) {
            (Some(file), _) => Ok(file),
            (None, Some(flight)) => joined(flight).await,
            (None, None) => Err(io::Error::other("an earlier write failed")),
        };
        file.map_err(|error| {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let status = if full { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::INTERNAL_SERVER_ERROR };
            ApiError::new(status, format!("failed to write {}: {error}", self.what))
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            tracing::warn!(what = self.what, bytes = self.bytes, "an upload ended before all was written");
        }
    }
}

/// The next bytes of an upload; `None` at its end. One that breaks off is an error, never a short file.
pub async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(ApiError::bad_request(format!("the upload broke off before its end: {error}")));
            }
            Some(Ok(frame)) => {
                // What is no data is a trailer, which nothing here needs.
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use futures_util::StreamExt;

    use super::*;

    async fn read_all(file: File, length: Option<u64>) -> io::Result<Vec<u8>> {
        let mut stream = std::pin::pin!(read(file, length));
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?.into_data().unwrap());
        }
        Ok(all)
    }

    #[tokio::test]
    async fn what_is_written_in_odd_pieces_is_read_back() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..PIECE * 3 + 17).map(|number| (number % 251) as u8).collect();
        let mut writer = Writer::new(file.try_clone().unwrap(), "a test");
        for piece in content.chunks(70_001) {
            writer.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
        for length in [None, Some(content.len() as u64)] {
            file.seek(SeekFrom::Start(0)).unwrap();
            assert_eq!(read_all(file.try_clone().unwrap(), length).await.unwrap(), content);
        }
    }

    #[tokio::test]
    async fn a_file_shorter_than_promised_is_an_error_and_a_longer_one_is_cut() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"12345").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(read_all(file.try_clone().unwrap(), Some(3)).await.unwrap(), b"123");
        assert!(read_all(file, Some(9)).await.unwrap_err().to_string().contains("shorter"));
    }
}
