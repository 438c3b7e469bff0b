//! What a process may do to the kernel: seccomp filters, capabilities, securebits, and the device program of cgroup v2.
//!
//! All but the bpf(2) calls act on the calling *thread* only: they belong into a single-threaded child on its way to
//! execve, never on a thread of the daemon's. None of them allocates.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// A failed call with its arguments, as strace would print it.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {{len={length}}})")]
    Seccomp {
        flags: u32,
        length: usize,
        #[source]
        source: io::Error,
    },
    #[error("prctl({option}, {argument:#x})")]
    Prctl {
        option: &'static str,
        argument: u64,
        #[source]
        source: io::Error,
    },
    #[error("{call}(pid=0, eff={effective:#x}, prm={permitted:#x}, inh={inheritable:#x})")]
    Capabilities {
        call: &'static str,
        effective: u64,
        permitted: u64,
        inheritable: u64,
        #[source]
        source: io::Error,
    },
    #[error("bpf({command}, {{{arguments}}})")]
    Bpf {
        command: &'static str,
        arguments: String,
        #[source]
        source: io::Error,
    },
}

impl PrivilegeError {
    /// The kernel's reason.
    pub fn source_error(&self) -> &io::Error {
        match self {
            Self::Seccomp { source, .. }
            | Self::Prctl { source, .. }
            | Self::Capabilities { source, .. }
            | Self::Bpf { source, .. } => source,
        }
    }
}

/// One instruction of classic BPF, as seccomp takes it (`struct sock_filter`, linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// The filter as bytes for another process on this machine; each instruction is eight, little-endian.
pub fn filter_to_bytes(filter: &[SockFilter]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(filter.len() * 8);
    for one in filter {
        bytes.extend_from_slice(&one.code.to_le_bytes());
        bytes.extend_from_slice(&[one.jt, one.jf]);
        bytes.extend_from_slice(&one.k.to_le_bytes());
    }
    bytes
}

/// What [`filter_to_bytes`] wrote; `None` when the length is no whole number of instructions.
pub fn filter_from_bytes(bytes: &[u8]) -> Option<Vec<SockFilter>> {
    let (words, rest) = bytes.as_chunks::<8>();
    let read = |&[a, b, jt, jf, k @ ..]: &[u8; 8]| SockFilter {
        code: u16::from_le_bytes([a, b]),
        jt,
        jf,
        k: u32::from_le_bytes(k),
    };
    rest.is_empty().then(|| words.iter().map(read).collect())
}

/// Puts a filter on the calling thread, for good, and on all that it starts.
///
/// Needs CAP_SYS_ADMIN in the thread's user namespace or no_new_privs, else EACCES. `flags` as in seccomp(2);
/// with `SECCOMP_FILTER_FLAG_NEW_LISTENER` use a wrapper of its own, since that returns a descriptor.
pub fn install_filter(filter: &[SockFilter], flags: u32) -> Result<(), PrivilegeError> {
    let failed = |source| PrivilegeError::Seccomp { flags, length: filter.len(), source };
    let Ok(len) = u16::try_from(filter.len()) else {
        return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
    };
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `SockFilter` has the layout of `sock_filter`; the kernel reads `len` of them, no more than the slice
    // holds, copies them and keeps no pointer.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if ret == 0 { Ok(()) } else { Err(failed(io::Error::last_os_error())) }
}

fn prctl(option: &'static str, number: libc::c_int, argument: u64) -> Result<(), PrivilegeError> {
    let zero: libc::c_ulong = 0;
    // SAFETY: only options whose arguments are plain numbers are passed here (below); none reads or writes memory.
    let ret = unsafe { libc::prctl(number, argument as libc::c_ulong, zero, zero, zero) };
    if ret == 0 { Ok(()) } else { Err(PrivilegeError::Prctl { option, argument, source: io::Error::last_os_error() }) }
}

/// From now on no execve gives this thread or its children more than it has (PR_SET_NO_NEW_PRIVS).
pub fn set_no_new_privs() -> Result<(), PrivilegeError> {
    prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Sets the thread's securebits (capabilities(7)); needs CAP_SETPCAP.
pub fn set_securebits(bits: u32) -> Result<(), PrivilegeError> {
    prctl("PR_SET_SECUREBITS", libc::PR_SET_SECUREBITS, u64::from(bits))
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<(), PrivilegeError> {
    prctl("PR_CAP_AMBIENT", libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64)
}

/// Drops every capability whose bit is not in `keep` from the bounding set, up to the last that this kernel knows.
pub fn drop_bounding(keep: u64) -> Result<(), PrivilegeError> {
    for capability in 0..64_u64 {
        if keep >> capability & 1 == 1 {
            continue;
        }
        match prctl("PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // The kernel's capabilities are numbered without gaps: the first unknown one is the end.
            Err(error) if error.source_error().raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A thread's capability sets, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadCaps {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn caps_error(call: &'static str, caps: ThreadCaps) -> PrivilegeError {
    let ThreadCaps { effective, permitted, inheritable } = caps;
    let source = io::Error::last_os_error();
    PrivilegeError::Capabilities { call, effective, permitted, inheritable, source }
}

/// Sets the calling thread's capabilities; see capset(2).
pub fn set_thread_caps(effective: u64, permitted: u64, inheritable: u64) -> Result<(), PrivilegeError> {
    let header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 makes the kernel read exactly two `CapData`, and both outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    let caps = ThreadCaps { effective, permitted, inheritable };
    if ret == 0 { Ok(()) } else { Err(caps_error("capset", caps)) }
}

/// The calling thread's capabilities; see capget(2).
pub fn get_thread_caps() -> Result<ThreadCaps, PrivilegeError> {
    let mut header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 makes the kernel write exactly two `CapData` into `data`; the header is writable too.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if ret != 0 {
        return Err(caps_error("capget", ThreadCaps::default()));
    }
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(ThreadCaps {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// One instruction of extended BPF in the kernel's own layout (`struct bpf_insn`, linux/bpf.h): code, registers
/// (source in the high half), offset, immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInsn {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
/// The kernel's own limit of programs of one kind in one group.
const BPF_CGROUP_MAX_PROGS: usize = 64;

/// The head of `union bpf_attr` for loading; the rest is zero, as bpf(2) allows.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetIdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// # Safety
/// `attr` must be laid out as bpf(2) says for `command`, and what it points to must outlive the call.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller vouches for `attr`; its size is passed along, so the kernel reads no further.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr), size_of::<T>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as libc::c_int) }
}

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE; the descriptor is close-on-exec. Needs CAP_BPF.
pub fn bpf_device_prog_load(program: &[BpfInsn]) -> Result<OwnedFd, PrivilegeError> {
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..LoadAttr::default()
    };
    // SAFETY: `LoadAttr` is the kernel's layout, and `program` and `license` outlive the call.
    let loaded = unsafe { bpf(BPF_PROG_LOAD, &mut attr) };
    let arguments = || format!("BPF_PROG_TYPE_CGROUP_DEVICE, insn_cnt={}", program.len());
    let fd =
        loaded.map_err(|source| PrivilegeError::Bpf { command: "BPF_PROG_LOAD", arguments: arguments(), source })?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows of it. It sets close-on-exec itself.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach_or_detach(
    command: (libc::c_int, &'static str),
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
) -> Result<(), PrivilegeError> {
    let (target, prog) = (cgroup.as_raw_fd(), program.as_raw_fd());
    let mut attr = AttachAttr {
        target_fd: target as u32,
        attach_bpf_fd: prog as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: flags,
        ..AttachAttr::default()
    };
    // SAFETY: `AttachAttr` is the kernel's layout and holds no pointers; both descriptors are borrowed for the call.
    let done = unsafe { bpf(command.0, &mut attr) };
    let arguments = || format!("BPF_CGROUP_DEVICE, cgroup={target}, prog={prog}");
    done.map(drop).map_err(|source| PrivilegeError::Bpf { command: command.1, arguments: arguments(), source })
}

/// Attaches a device program to a v2 group, beside those that are there: a device must pass them all.
pub fn bpf_device_attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), PrivilegeError> {
    attach_or_detach((BPF_PROG_ATTACH, "BPF_PROG_ATTACH"), cgroup, program, BPF_F_ALLOW_MULTI)
}

/// Takes a device program off a v2 group.
pub fn bpf_device_detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), PrivilegeError> {
    attach_or_detach((BPF_PROG_DETACH, "BPF_PROG_DETACH"), cgroup, program, 0)
}

/// The device programs attached to a v2 group itself (not those above it), for replacing them.
pub fn bpf_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, PrivilegeError> {
    let target = cgroup.as_raw_fd();
    let mut ids = [0_u32; BPF_CGROUP_MAX_PROGS];
    let mut attr = QueryAttr {
        target_fd: target as u32,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: BPF_CGROUP_MAX_PROGS as u32,
        ..QueryAttr::default()
    };
    // SAFETY: `QueryAttr` is the kernel's layout; it writes at most `prog_cnt` ids into `ids`, which outlives the call.
    let queried = unsafe { bpf(BPF_PROG_QUERY, &mut attr) };
    queried.map_err(|source| PrivilegeError::Bpf {
        command: "BPF_PROG_QUERY",
        arguments: format!("BPF_CGROUP_DEVICE, cgroup={target}"),
        source,
    })?;
    let count = (attr.prog_cnt as usize).min(ids.len());
    ids[..count].iter().map(|&id| program_by_id(id)).collect()
}

fn program_by_id(id: u32) -> Result<OwnedFd, PrivilegeError> {
    let mut attr = GetIdAttr { id, ..GetIdAttr::default() };
    // SAFETY: `GetIdAttr` is the kernel's layout and holds no pointers.
    let found = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) };
    let fd = found.map_err(|source| PrivilegeError::Bpf {
        command: "BPF_PROG_GET_FD_BY_ID",
        arguments: format!("prog_id={id}"),
        source,
    })?;
    // SAFETY: the kernel has just returned this descriptor, close-on-exec, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces a v2 group's device programs by one: at no moment is the group without any. One program may serve many
/// groups: loading costs ten times what attaching does.
pub fn bpf_device_replace(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), PrivilegeError> {
    let old = bpf_device_programs(cgroup)?;
    match bpf_device_attach(cgroup, program) {
        Ok(()) => {}
        // The group has this very program: the kernel calls that EINVAL, and only the others have to go.
        Err(_) if attached_alone(&old, program) => return Ok(()),
        Err(error) => return Err(error),
    }
    old.iter().try_for_each(|program| bpf_device_detach(cgroup, program.as_fd()))
}

/// Whether the only program of a list is `program`, by the id that the kernel shows of each descriptor.
fn attached_alone(list: &[OwnedFd], program: BorrowedFd<'_>) -> bool {
    let id = |fd: BorrowedFd<'_>| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
        info.lines().find_map(|line| line.strip_prefix("prog_id:")).map(|id| id.trim().to_owned())
    };
    matches!(list, [one] if id(one.as_fd()).is_some() && id(one.as_fd()) == id(program))
}

/// Makes one system call in a forked child under `filter`, to see what the filter does to it.
///
/// Returns its error number, 0 for none, 255 when the filter could not be installed, and `None` when a signal ended the
/// child. The call is really made: give it arguments that do no harm if the filter lets it through.
pub fn try_filter(filter: &[SockFilter], number: i64, arguments: [u64; 4]) -> io::Result<Option<u8>> {
    let [a, b, c, d] = arguments;
    // SAFETY: the child makes async-signal-safe calls only and then ends: neither `set_no_new_privs` nor
    // `install_filter` allocates unless it fails, and then it ends all the same.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let mut status = 255;
            if set_no_new_privs().is_ok() && install_filter(filter, 0).is_ok() {
                // SAFETY: whatever the call does to memory, it does to this child's, which only ends after it.
                let ret = unsafe { libc::syscall(number as libc::c_long, a, b, c, d, 0_u64, 0_u64) };
                // SAFETY: errno is this thread's own.
                status = if ret >= 0 { 0 } else { unsafe { *libc::__errno_location() } };
            }
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is writable for the call, and `child` is ours and not yet reaped.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            Ok(libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status) as u8))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_way_to_another_process() {
        let filter = [SockFilter { code: 0x20, jt: 0, jf: 0, k: 4 }, SockFilter { code: 0x15, jt: 1, jf: 2, k: !0 }];
        let bytes = filter_to_bytes(&filter);
        assert_eq!(filter_from_bytes(&bytes).unwrap(), filter);
        assert_eq!(filter_from_bytes(&bytes[..15]), None);
    }

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<SockFilter>(), size_of::<libc::sock_filter>());
        assert_eq!(size_of::<BpfInsn>(), 8);
        assert_eq!(size_of::<LoadAttr>(), 48);
        assert_eq!(size_of::<QueryAttr>(), 32);
    }

    #[test]
    fn capabilities_are_those_that_proc_shows() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let caps = get_thread_caps().unwrap();
        assert_eq!((caps.effective, caps.permitted), (field("CapEff:"), field("CapPrm:")));
    }

    #[test]
    fn dropped_capabilities_are_gone() {
        // A thread of its own: the change cannot be undone.
        let done = std::thread::spawn(|| {
            let before = get_thread_caps().unwrap();
            clear_ambient().unwrap();
            set_thread_caps(0, before.permitted, 0).unwrap();
            assert_eq!(get_thread_caps().unwrap().effective, 0);
            set_thread_caps(before.effective, before.permitted, 0).unwrap();
            if before.effective >> 8 & 1 == 1 {
                drop_bounding(!(1 << 22)).unwrap();
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
                assert_eq!(u64::from_str_radix(line.trim(), 16).unwrap() >> 22 & 1, 0);
            } else {
                eprintln!("SKIP bounding set: needs CAP_SETPCAP");
            }
            set_no_new_privs().unwrap();
            assert!(set_thread_caps(0, 0, 0).is_ok());
            assert!(set_thread_caps(1, 1, 0).unwrap_err().to_string().starts_with("capset(pid=0, eff=0x1"));
        });
        done.join().unwrap();
    }
}
