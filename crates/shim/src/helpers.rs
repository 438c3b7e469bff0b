//! Forked children of the nursery that answer a connection by themselves, and their end when they do not.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::event::Timespec;
use stapes_shim_api::{Failure, FailureKind, IdRange, NurseryReply};
use stapes_sys::{
    namespace::{self, NEWUSER},
    process::{self, CloneSpec, Cloned, Exit},
    socket,
};

use crate::wire;

#[derive(Debug)]
struct Helper {
    pid: i32,
    /// A duplicate: the caller may have gone, and its number may be another's.
    connection: OwnedFd,
    deadline: Instant,
}

#[derive(Debug, Default)]
pub struct Helpers(Vec<Helper>);

impl Helpers {
    /// Does `work` in a child, which sends what it returns; after `patience` the child is killed and its caller told. With
    /// `ids` the child is root of a user namespace of that range.
    pub fn start(
        &mut self,
        connection: BorrowedFd<'_>,
        ids: Option<IdRange>,
        patience: Duration,
        work: impl FnOnce() -> (NurseryReply, Option<OwnedFd>),
    ) -> io::Result<()> {
        let connection = connection.try_clone_to_owned()?;
        let (ours, theirs) = socket::seqpacket_pair()?;
        let flags = if ids.is_some() { NEWUSER } else { 0 };
        match process::clone3(&CloneSpec { flags, cgroup: None })? {
            Cloned::Parent { pid, .. } => {
                self.0.push(Helper { pid, connection, deadline: Instant::now() + patience });
                let Some(ids) = ids else { return Ok(()) };
                // A child that is told nothing leaves, and its caller hears of it.
                drop(theirs);
                namespace::write_id_maps(pid, ids.base, ids.size)
                    .and_then(|()| socket::send(ours.as_fd(), &[0], &[], false))
            }
            Cloned::Child => {
                drop(ours);
                if ids.is_some() {
                    let told = socket::receive(theirs.as_fd(), 1, true);
                    if !matches!(told, Ok(Some(_))) || process::set_ids(0, 0, &[]).is_err() {
                        process::exit_now(1);
                    }
                }
                let (reply, fd) = work();
                let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
                process::exit_now(i32::from(wire::send(&connection, &reply, &fds).is_err()))
            }
        }
    }

    /// How long poll(2) may wait before [`Helpers::expire`] has to look again.
    pub fn timeout(&self) -> Option<Timespec> {
        (!self.0.is_empty()).then_some(Timespec { tv_sec: 1, tv_nsec: 0 })
    }

    /// Kills those whose time is over. One that waits for a disk in the kernel ends when the kernel lets it.
    pub fn expire(&self) {
        let now = Instant::now();
        for helper in self.0.iter().filter(|helper| helper.deadline < now) {
            let _ = process::kill(helper.pid, 9);
        }
    }

    /// A child was reaped; false if it is none of these.
    pub fn ended(&mut self, pid: i32, exit: Exit) -> bool {
        let Some(at) = self.0.iter().position(|helper| helper.pid == pid) else { return false };
        let helper = self.0.swap_remove(at);
        if exit != Exit::Code(0) {
            let failure = Failure::new(FailureKind::TimedOut, "the file request did not end in time");
            let _ = wire::send(&helper.connection, &NurseryReply::Failed(failure), &[]);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use stapes_sys::socket;

    use super::*;

    #[test]
    fn a_request_that_hangs_is_killed_and_its_caller_told() {
        let flags = SocketFlags::CLOEXEC;
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        // Another program in the place of a fork, which a process with threads, as a test is one, does not make.
        let mut hanging = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = hanging.id() as i32;
        let mut helpers = Helpers(vec![Helper { pid, connection: far, deadline: Instant::now() }]);
        assert!(helpers.timeout().is_some());
        helpers.expire();
        let signal = std::os::unix::process::ExitStatusExt::signal(&hanging.wait().unwrap());
        assert!(helpers.ended(pid, Exit::Signal(signal.unwrap())));
        assert!(helpers.timeout().is_none());
        assert!(socket::wait_readable(&near, Duration::from_secs(10)).unwrap());
        let told = socket::receive(near.as_fd(), 4096, false).unwrap().unwrap();
        let NurseryReply::Failed(failure) = stapes_shim_api::decode(&told.bytes).unwrap() else { panic!() };
        assert_eq!(failure.kind, FailureKind::TimedOut);
    }
}
