//! Tap interfaces: Ethernet frames through a descriptor. Source: Documentation/networking/tuntap.rst.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags};

/// `ifreq` of netdevice(7) as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Makes the interface `name` in this process's network namespace. It is gone when the last duplicate of the descriptor
/// is closed. `EBUSY`: an interface of that name is in use. Each frame is led by a `virtio_net_hdr`, so that checksums
/// and large segments can be left to the host.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
        padding: [0; 22],
    };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: `request` is an ifreq of the size that the kernel copies, and outlives the call.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "sixteen-letters-"] {
            assert_eq!(create(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
