//! Requests that a file system can stall are done in a process of their own, one a session: a hung mount then stops
//! nothing else, and what the session had open is closed by that process's end.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use stapes_agent_api::{Failure, FailureKind, Frame, MAX_FRAME, Request};
use stapes_sys::{
    process::{self, Forked},
    socket,
};

use crate::{outbox::Outbox, worker};

/// Most requests that are being done, each on a thread.
pub const THREADS: usize = 8;
/// Most requests that wait for their turn.
const WAITING: usize = 64;
/// Most processes of earlier sessions that something still holds up; then the oldest is killed.
const RETIRED: usize = 4;
/// Longest message to the process and back: what a frame holds, and our own number.
pub const LONGEST: usize = MAX_FRAME + 64;

/// A request or its answer between the two processes.
#[derive(Debug)]
pub struct Parcel {
    pub number: u64,
    pub json: Vec<u8>,
    pub bytes: Vec<u8>,
}

impl Parcel {
    pub fn pack(&self) -> Vec<u8> {
        let length = (self.json.len() as u32).to_le_bytes();
        [&self.number.to_le_bytes(), &length[..], &self.json, &self.bytes].concat()
    }

    /// `None`: it was not packed by [`pack`](Self::pack).
    pub fn unpack(packed: &[u8]) -> Option<Self> {
        let (number, rest) = packed.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (json, bytes) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self { number: u64::from_le_bytes(*number), json: json.to_vec(), bytes: bytes.to_vec() })
    }
}

#[derive(Debug)]
struct Job {
    number: u64,
    id: u64,
    /// Requests on one open file are done one after the other.
    handle: Option<u64>,
    packed: Vec<u8>,
}

#[derive(Debug)]
struct Live {
    /// 0 once it has ended.
    pid: i32,
    socket: OwnedFd,
}

#[derive(Debug, Default)]
pub struct Helper {
    live: Option<Live>,
    /// What is being done: our own number (the host may use one of its twice), the host's, the open file.
    doing: BTreeMap<u64, (u64, Option<u64>)>,
    waiting: VecDeque<Job>,
    last: u64,
    retired: VecDeque<i32>,
}

impl Helper {
    pub fn submit(&mut self, id: u64, request: &Request, bytes: Vec<u8>, out: &mut Outbox) {
        if self.waiting.len() >= WAITING {
            let message = "too many requests are under way (is a file system stalled?)";
            return out.fail(id, Failure { errno: 11, ..Failure::new(FailureKind::Other, message) });
        }
        let handle = match request {
            Request::FileRead { handle, .. } | Request::FileWrite { handle, .. } | Request::FileClose { handle } => {
                Some(*handle)
            }
            Request::File { handle, .. } => *handle,
            _ => None,
        };
        self.last += 1;
        let json = serde_json::to_vec(&(id, request)).unwrap_or_default();
        let packed = Parcel { number: self.last, json, bytes }.pack();
        if packed.len() > LONGEST {
            return out.fail(id, Failure { errno: 90, ..Failure::new(FailureKind::Other, "the request is too long") });
        }
        self.waiting.push_back(Job { number: self.last, id, handle, packed });
        self.dispatch(out);
    }

    fn dispatch(&mut self, out: &mut Outbox) {
        while self.doing.len() < THREADS
            && let Some(at) = self.next()
            && let Some(job) = self.waiting.remove(at)
        {
            let sent = self.live().and_then(|live| socket::send(live.socket.as_fd(), &job.packed, &[], false));
            match sent {
                Ok(()) => {
                    self.doing.insert(job.number, (job.id, job.handle));
                }
                // The next answer makes room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.doing.is_empty() => {
                    self.waiting.insert(at, job);
                    return;
                }
                Err(error) => {
                    out.fail(job.id, Failure::new(FailureKind::Other, format!("failed to hand over: {error}")));
                }
            }
        }
    }

    /// The oldest request whose open file is in nobody's hands.
    fn next(&self) -> Option<usize> {
        let mut busy: Vec<u64> = self.doing.values().filter_map(|(_, handle)| *handle).collect();
        self.waiting.iter().position(|job| match job.handle {
            Some(handle) if busy.contains(&handle) => false,
            Some(handle) => {
                busy.push(handle);
                true
            }
            None => true,
        })
    }

    fn live(&mut self) -> io::Result<&Live> {
        if self.live.is_none() {
            let (ours, theirs) = socket::seqpacket_pair()?;
            let pid = match process::fork()? {
                Forked::Child => worker::run(theirs),
                Forked::Parent { pid } => pid,
            };
            self.live = Some(Live { pid, socket: ours });
        }
        self.live.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.live.as_ref().map(|live| live.socket.as_fd())
    }

    pub fn ready(&mut self, out: &mut Outbox) {
        while let Some(live) = &self.live
            && !out.is_full()
        {
            match socket::receive(live.socket.as_fd(), LONGEST, false) {
                Ok(Some(message)) => {
                    let Some(parcel) = Parcel::unpack(&message.bytes) else { continue };
                    if self.doing.remove(&parcel.number).is_some() {
                        out.send(&Frame::Message { json: parcel.json, bytes: parcel.bytes });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(None) | Err(_) => self.died(out),
            }
        }
        self.dispatch(out);
    }

    fn died(&mut self, out: &mut Outbox) {
        if let Some(live) = self.live.take() {
            self.retire(live.pid);
        }
        for (id, _) in std::mem::take(&mut self.doing).into_values() {
            out.fail(id, Failure::new(FailureKind::Other, "the process that did this died; open files are closed"));
        }
    }

    /// The session is over: what is being done is done to its end, nobody is told.
    pub fn release(&mut self) {
        if let Some(live) = self.live.take() {
            self.retire(live.pid);
        }
        self.doing.clear();
        self.waiting.clear();
    }

    fn retire(&mut self, pid: i32) {
        if pid == 0 {
            return;
        }
        self.retired.push_back(pid);
        if self.retired.len() > RETIRED
            && let Some(oldest) = self.retired.front()
        {
            let _ = process::kill(*oldest, 9);
        }
    }

    /// A child of the agent has ended.
    pub fn ended(&mut self, pid: i32, out: &mut Outbox) {
        self.retired.retain(|retired| *retired != pid);
        if let Some(live) = self.live.as_mut().filter(|live| live.pid == pid) {
            // Its number is the kernel's again.
            live.pid = 0;
            // What it had said is still in the socket, and its end after it.
            self.ready(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_nothing_else() {
        let packed = Parcel { number: 7, json: b"{}".to_vec(), bytes: vec![0, 1] }.pack();
        let parcel = Parcel::unpack(&packed).unwrap();
        assert_eq!((parcel.number, &parcel.json[..], &parcel.bytes[..]), (7, &b"{}"[..], &[0, 1][..]));
        assert!(Parcel::unpack(&packed[..13]).is_none());
    }

    #[test]
    fn requests_on_one_open_file_wait_for_each_other_and_for_nobody_else() {
        let job = |number, handle| Job { number, id: number, handle, packed: Vec::new() };
        let mut helper =
            Helper { waiting: [job(2, Some(9)), job(3, Some(8)), job(4, None)].into(), ..Helper::default() };
        assert_eq!(helper.next(), Some(0));
        helper.doing.insert(1, (1, Some(9)));
        assert_eq!(helper.next(), Some(1));
        helper.doing.insert(3, (3, Some(8)));
        assert_eq!(helper.next(), Some(2));
    }
}
