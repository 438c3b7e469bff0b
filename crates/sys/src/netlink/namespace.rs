use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Netlink, codec};

const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;

const NETNSA_NSID: u16 = 1;
const NETNSA_PID: u16 = 2;
const NETNSA_FD: u16 = 3;

/// `struct rtgenmsg`, padded.
const GENERIC: [u8; 4] = [0; 4];

impl Netlink {
    /// Gives `netns` a number in this socket's namespace, or finds the one it has.
    ///
    /// Do it before the veth pair is made: making one whose peer lies there assigns a number too.
    pub fn assign_netns_id(&mut self, netns: BorrowedFd<'_>) -> io::Result<i32> {
        let fd = netns.as_raw_fd();
        self.begin(RTM_NEWNSID, 0, &GENERIC).attr_i32(NETNSA_NSID, -1).attr_i32(NETNSA_FD, fd);
        if let Err(error) = self.acknowledge("RTM_NEWNSID", fd)
            && super::errno(&error) != Some(libc::EEXIST)
        {
            return Err(error);
        }
        self.netns_id(netns)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// The number of `netns` in this socket's namespace; `None` when it has none.
    pub fn netns_id(&mut self, netns: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let fd = netns.as_raw_fd();
        self.begin(RTM_GETNSID, 0, &GENERIC).attr_i32(NETNSA_FD, fd);
        self.query("RTM_GETNSID", fd, read_nsid)
    }

    /// The number of the network namespace in which task `pid` lives; `None` when it has none.
    pub fn netns_id_of_pid(&mut self, pid: u32) -> io::Result<Option<i32>> {
        self.begin(RTM_GETNSID, 0, &GENERIC).attr_u32(NETNSA_PID, pid);
        self.query("RTM_GETNSID", format_args!("pid {pid}"), read_nsid)
    }
}

fn read_nsid(payload: &[u8]) -> Option<Option<i32>> {
    let (_, value) = codec::attributes(payload.get(GENERIC.len()..)?).find(|(kind, _)| *kind == NETNSA_NSID)?;
    let id = codec::i32_at(value, 0)?;
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    Some((id >= 0).then_some(id))
}
