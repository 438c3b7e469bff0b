//! Loop devices: a file as a block device. Source: loop(4), linux/loop.h.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_GET_STATUS64: u32 = 0x4c05;
const LOOP_SET_CAPACITY: u32 = 0x4c07;
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

const LOOP_MAJOR: u32 = 7;

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo64 {
    fn empty() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// How a file is attached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub read_only: bool,
    /// Bypass the page cache of the backing file, so that data is not cached twice. The kernel silently goes on with
    /// buffered I/O where the backing file system cannot; [`LoopDevice::direct_io`] tells.
    pub direct_io: bool,
    /// Detach when the last user, a descriptor or a mount, is gone: nothing leaks when the process dies between
    /// attaching and mounting.
    pub autoclear: bool,
    /// Logical sector size; 0 leaves the kernel's choice.
    pub block_size: u32,
}

/// An attached loop device, held open.
#[derive(Debug)]
pub struct LoopDevice {
    fd: OwnedFd,
    path: PathBuf,
}

impl LoopDevice {
    /// Its node, such as `/dev/loop7`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it really bypasses the page cache.
    pub fn direct_io(&self) -> io::Result<bool> {
        Ok(status(self.fd.as_fd())?.flags & LO_FLAGS_DIRECT_IO != 0)
    }

    /// Lets the device grow to the present size of its file.
    pub fn set_capacity(&self) -> io::Result<()> {
        // SAFETY: LOOP_SET_CAPACITY takes no argument.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), LOOP_SET_CAPACITY as libc::Ioctl, 0) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Detaches the file; where something still uses the device, as soon as that ends.
    pub fn detach(self) -> io::Result<()> {
        // SAFETY: LOOP_CLR_FD takes no argument.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), LOOP_CLR_FD as libc::Ioctl, 0) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The file behind a loop device, as `stat` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backing {
    pub device: u64,
    pub inode: u64,
}

fn status(device: BorrowedFd<'_>) -> io::Result<LoopInfo64> {
    let mut info = LoopInfo64::empty();
    let pointer = std::ptr::from_mut(&mut info);
    // SAFETY: the kernel writes one loop_info64 to `info`, whose layout is that struct's.
    let ret = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as libc::Ioctl, pointer) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
}

/// Which file is behind the open loop device; `ENXIO` where none is.
pub fn backing(device: impl AsFd) -> io::Result<Backing> {
    status(device.as_fd()).map(|info| Backing { device: info.device, inode: info.inode })
}

/// Attaches `file` to a free loop device, made where the kernel or a bare /dev lacks one.
///
/// Attaching one file twice corrupts what is in it: ask [`find`] first. Linux 5.8 (LOOP_CONFIGURE).
pub fn attach(file: &File, options: Options) -> io::Result<LoopDevice> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut info = LoopInfo64::empty();
    info.flags = [
        (options.read_only, LO_FLAGS_READ_ONLY),
        (options.autoclear, LO_FLAGS_AUTOCLEAR),
        (options.direct_io, LO_FLAGS_DIRECT_IO),
    ]
    .into_iter()
    .filter_map(|(wanted, flag)| wanted.then_some(flag))
    .sum();
    // Between asking for a free device and taking it another process may be faster: then ask again.
    for _ in 0..64 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as libc::Ioctl, 0) };
        let number = u32::try_from(number).map_err(|_| io::Error::last_os_error())?;
        let (fd, path) = open_device(number, options.read_only)?;
        let mut config =
            LoopConfig { fd: file.as_raw_fd() as u32, block_size: options.block_size, info, reserved: [0; 8] };
        let pointer = std::ptr::from_mut(&mut config);
        // SAFETY: the kernel reads one loop_config from `config`, whose layout is that struct's.
        let ret = unsafe { libc::ioctl(fd.as_raw_fd(), LOOP_CONFIGURE as libc::Ioctl, pointer) };
        if ret == 0 {
            return Ok(LoopDevice { fd, path });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// The loop device that `file` is attached to, found by device and inode, so under whatever name; `None` for none.
pub fn find(file: &File) -> io::Result<Option<LoopDevice>> {
    let metadata = file.metadata()?;
    let wanted = Backing { device: metadata.dev(), inode: metadata.ino() };
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse::<u32>().ok()) else {
            continue;
        };
        if !entry.path().join("loop").exists() {
            continue;
        }
        // A device may be detached while we look; that one is not ours.
        let Ok((fd, path)) = open_device(number, false) else { continue };
        if backing(&fd).is_ok_and(|backing| backing == wanted) {
            return Ok(Some(LoopDevice { fd, path }));
        }
    }
    Ok(None)
}

fn open_device(number: u32, read_only: bool) -> io::Result<(OwnedFd, PathBuf)> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let open = || OpenOptions::new().read(true).write(!read_only).open(&path);
    let file = match open() {
        // A container's or a minimal /dev is no devtmpfs, and the kernel cannot make the node there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let device = rustix::fs::makedev(LOOP_MAJOR, number);
            let mode = rustix::fs::Mode::from_raw_mode(0o660);
            match rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::BlockDevice, mode, device) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => open()?,
                Err(errno) => return Err(errno.into()),
            }
        }
        other => other?,
    };
    Ok((file.into(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
