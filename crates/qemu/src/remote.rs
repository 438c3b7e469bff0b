//! Open files of a guest, by the handles that its agent gave them.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use stapes_agent_api::{MAX_BYTES, Reply, Request};
use stapes_instance::{REMOTE_PIECE, RemoteFile};

use crate::agent::{AgentError, Link};

const _: () = assert!(REMOTE_PIECE <= MAX_BYTES);

/// How long a guest may take for one piece.
const PATIENCE: Duration = Duration::from_secs(35);

/// A file that an agent has open, for as long as that agent lives.
#[derive(Debug)]
pub struct OpenFile {
    /// Whoever lets the machine go lets its port go with it.
    link: Weak<Link>,
    session: u64,
    handle: u64,
}

impl OpenFile {
    /// `session` was the link's before the agent was asked to open it: what a later agent may have given the same handle
    /// is never touched.
    pub fn new(link: &Arc<Link>, session: u64, handle: u64) -> Self {
        Self { link: Arc::downgrade(link), session, handle }
    }

    /// The handle and the session that it belongs to, if it is of this guest.
    pub fn on(&self, link: &Arc<Link>) -> Option<(u64, u64)> {
        (self.link.as_ptr() == Arc::as_ptr(link)).then_some((self.session, self.handle))
    }

    fn ask(&self, request: Request, bytes: Vec<u8>) -> io::Result<(Reply, Vec<u8>)> {
        let link = self.link.upgrade().ok_or_else(|| io::Error::other(AgentError::Absent))?;
        link.ask_in(self.session, request, bytes, PATIENCE).map_err(|error| match error {
            AgentError::Failed(failure) if failure.errno != 0 => io::Error::from_raw_os_error(failure.errno),
            error => io::Error::other(error),
        })
    }
}

impl RemoteFile for OpenFile {
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>> {
        let length = length.min(REMOTE_PIECE) as u32;
        match self.ask(Request::FileRead { handle: self.handle, offset, length }, Vec::new())? {
            (Reply::Bytes, bytes) => Ok(bytes),
            _ => Err(io::Error::other(AgentError::Strange)),
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        match self.ask(Request::FileWrite { handle: self.handle, offset }, data.to_vec())? {
            (Reply::Done, _) => Ok(()),
            _ => Err(io::Error::other(AgentError::Strange)),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            link.tell_in(self.session, Request::FileClose { handle: self.handle });
        }
    }
}
