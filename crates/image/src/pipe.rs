//! A reader on a thread of its own: decompression and writing go on at the same time.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

const CHUNK: usize = 512 * 1024;
/// Chunks on their way; enough to bridge the other side's pauses, 4 MiB of memory.
const DEPTH: usize = 8;

/// The reading end. Dropping it ends the thread.
pub(crate) struct Pipe {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    failed: Option<(io::ErrorKind, String)>,
    ended: bool,
}

impl Pipe {
    pub(crate) fn spawn(mut source: impl Read + Send + 'static) -> Self {
        let (fill, full) = sync_channel::<io::Result<Vec<u8>>>(DEPTH);
        let (empty, spent) = sync_channel::<Vec<u8>>(DEPTH + 2);
        std::thread::spawn(move || {
            loop {
                let mut chunk: Vec<u8> = spent.try_recv().unwrap_or_default();
                chunk.resize(CHUNK, 0);
                let mut filled = 0;
                let mut failure = None;
                while filled < CHUNK {
                    match source.read(&mut chunk[filled..]) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                }
                chunk.truncate(filled);
                let last = filled < CHUNK;
                if fill.send(Ok(chunk)).is_err() {
                    return;
                }
                if let Some(error) = failure {
                    let _ = fill.send(Err(error));
                    return;
                }
                if last {
                    return;
                }
            }
        });
        Self { full, empty, current: Vec::new(), position: 0, failed: None, ended: false }
    }
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.len() && !self.ended {
            if let Some((kind, text)) = &self.failed {
                return Err(io::Error::new(*kind, text.clone()));
            }
            match self.full.recv() {
                Ok(Ok(chunk)) => {
                    // The thread takes spent buffers back; when it is gone they are just dropped.
                    let _ = self.empty.try_send(std::mem::replace(&mut self.current, chunk));
                    self.position = 0;
                }
                Ok(Err(error)) => self.failed = Some((error.kind(), error.to_string())),
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.current.len());
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
