//! Request bodies: a buffer, or readers one after the other.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

const CHUNK: usize = 256 * 1024;

enum Part {
    Bytes(Bytes),
    /// What is read, and how many bytes are to come; `None` where only the end tells.
    Reader(Pin<Box<dyn AsyncRead + Send + Sync>>, Option<u64>),
}

/// A request body in parts. Its length is announced when every part's is known.
#[derive(Default)]
pub struct Upload {
    parts: VecDeque<Part>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload of {} parts", self.parts.len())
    }
}

impl Upload {
    pub fn empty() -> Self {
        Upload::default()
    }

    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Upload::default().then_bytes(bytes)
    }

    /// Streams `reader`; `length` is what it will yield, where that is known.
    pub fn reader(reader: impl AsyncRead + Send + Sync + 'static, length: Option<u64>) -> Self {
        Upload::default().then_reader(reader, length)
    }

    pub fn then_bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.parts.push_back(Part::Bytes(bytes));
        }
        self
    }

    pub fn then_reader(mut self, reader: impl AsyncRead + Send + Sync + 'static, length: Option<u64>) -> Self {
        self.parts.push_back(Part::Reader(Box::pin(reader), length));
        self
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let (reader, left) = match self.parts.front_mut() {
                None => return Poll::Ready(None),
                Some(Part::Bytes(bytes)) => {
                    let bytes = std::mem::take(bytes);
                    self.parts.pop_front();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Part::Reader(reader, left)) => (reader, left),
            };
            let limit = left.map_or(CHUNK, |left| left.min(CHUNK as u64) as usize);
            let mut chunk = BytesMut::zeroed(limit);
            let mut buf = ReadBuf::new(&mut chunk);
            if limit > 0 {
                ready!(reader.as_mut().poll_read(cx, &mut buf))?;
            }
            let read = buf.filled().len();
            if let Some(left) = left {
                *left -= read as u64;
                if read == 0 && *left > 0 {
                    let what = "the file shrank while it was being sent";
                    return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))));
                }
            }
            if read == 0 {
                self.parts.pop_front();
                continue;
            }
            chunk.truncate(read);
            return Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let known = self.parts.iter().try_fold(0u64, |sum, part| match part {
            Part::Bytes(bytes) => Some(sum + bytes.len() as u64),
            Part::Reader(_, left) => left.map(|left| sum + left),
        });
        known.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
