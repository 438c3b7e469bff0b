//! Processes: fork and clone3 for single-threaded programs, execve, signals, exits and ids.
//!
//! Linux; see clone(2), close_range(2), signalfd(2), execve(2), user_namespaces(7).

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use rustix::process::{Pid, WaitOptions};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    Child,
    Parent { pid: i32 },
}

/// What [`clone3`] is asked for.
#[derive(Debug, Default)]
pub struct CloneSpec<'a> {
    /// `CLONE_*` of clone(2). `CLONE_VM` and `CLONE_THREAD` are refused: the child is always a copy.
    pub flags: u64,
    /// Directory of a cgroup v2 group that the child is born in (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

#[derive(Debug)]
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Wider than the constant of the libc crate, which overflows its type.
const INTO_CGROUP: u64 = 0x2_0000_0000;

fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Fails with `EBUSY` when the process has a second thread: its locks would stay locked in the child for ever.
fn require_single_thread() -> io::Result<()> {
    let tasks = std::fs::metadata("/proc/self/task")?;
    // A directory's link count is two and one for each subdirectory: here one a thread.
    if std::os::unix::fs::MetadataExt::nlink(&tasks) > 3 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Ok(())
}

/// Forks. Only for a single-threaded program (`EBUSY` otherwise): the child goes on in the same Rust code.
///
/// By the system call and not by the C library, whose own work for the child (locks, lists of threads) would make
/// several of its pages the child's own for ever.
pub fn fork() -> io::Result<Forked> {
    match clone3(&CloneSpec::default())? {
        Cloned::Child => Ok(Forked::Child),
        Cloned::Parent { pid, .. } => Ok(Forked::Parent { pid }),
    }
}

/// Forks with namespaces, a cgroup and a pidfd. The child's end is reported as `SIGCHLD` unless `CLONE_PARENT` is
/// asked for, where it takes over what the caller's own end is reported as. Only for a single-threaded program.
pub fn clone3(spec: &CloneSpec<'_>) -> io::Result<Cloned> {
    let copies_memory = spec.flags & (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_VFORK) as u64 == 0;
    if !copies_memory {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    require_single_thread()?;
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = spec.flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // The kernel refuses an exit signal beside CLONE_PARENT.
    args.exit_signal = if spec.flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(group) = spec.cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child is a copy on its own copy of this stack, as after fork; one thread only.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel stored a new descriptor there that nobody else owns.
    Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends this process at once: no destructors, no flushing. For forked children.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(code) }
}

/// Replaces the program; returns only the error. `program` is a path, not looked up in `PATH`.
pub fn execve(program: &CStr, argv: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, environment) = (pointers(argv), pointers(environment));
    // SAFETY: both arrays end in null, and all strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks every descriptor from 3 on close-on-exec, so that none of ours leaks into a guest's program.
pub fn close_on_exec_all() -> io::Result<()> {
    // SAFETY: only changes a flag of descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every descriptor from 3 on but those named. For a forked child that never returns into its parent's code:
/// owned descriptors up the stack are closed behind their owners' backs.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter(|fd| **fd >= 3).map(|fd| *fd as u32).collect();
    keep.sort_unstable();
    let mut from = 3u32;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            let last = if fd == u32::MAX { u32::MAX } else { fd - 1 };
            // SAFETY: see above; no Rust object that owns one of these runs again in this process.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0u32) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Makes `fds` the descriptors `first`, `first + 1`, … that survive execve, and marks all others but 0, 1 and 2
/// close-on-exec. `keep` may be renumbered; it is returned.
pub fn place_descriptors(fds: Vec<OwnedFd>, first: RawFd, keep: OwnedFd) -> io::Result<OwnedFd> {
    // Out of the way of the places first.
    let above = first + fds.len() as RawFd;
    let raise = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(&fd, above).map_err(io::Error::from);
    let keep = raise(keep)?;
    let raised = fds.into_iter().map(raise).collect::<io::Result<Vec<_>>>()?;
    close_on_exec_all()?;
    for (place, fd) in (first..).zip(&raised) {
        // SAFETY: whatever was open as `place` was raised above and its owner is gone, or is nobody's in this program.
        check(unsafe { libc::dup2(fd.as_raw_fd(), place) }.into())?;
    }
    Ok(keep)
}

/// Sets all three user and group ids and the supplementary groups.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe a live slice. The bare calls concern this thread, which is the only one.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Sets the effective user id alone.
pub fn set_effective_uid(uid: u32) -> io::Result<()> {
    // SAFETY: plain integers; -1 leaves an id as it is.
    check(unsafe { libc::syscall(libc::SYS_setresuid, -1i32, uid, -1i32) }).map(drop)
}

/// Blocks `signals` and returns a descriptor that reads them (non-blocking, close-on-exec).
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data that sigemptyset fills; the calls read and write only it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(libc::c_long::from(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut())))?;
        let fd = check(libc::c_long::from(libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// `signals` at their default action and none blocked: what a program expects to be started with. Handlers go with
/// `execve` anyway; what was ignored stays so unless it is named.
pub fn reset_signals(signals: impl IntoIterator<Item = i32>) {
    // SAFETY: SIG_DFL runs no code of ours; the set is filled before it is read. Refusals (SIGKILL) do not matter.
    unsafe {
        for signal in signals {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Ignores one signal, such as `SIGPIPE`.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Reaps one ended child, if there is one.
pub fn reap_any() -> Option<(i32, Exit)> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    let exit = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(0),
    };
    Some((pid.as_raw_nonzero().get(), exit))
}

/// Waits for one child to end.
pub fn reap(pid: i32) -> io::Result<Exit> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                return Ok(match status.terminating_signal() {
                    Some(signal) => Exit::Signal(signal),
                    None => Exit::Code(status.exit_status().unwrap_or(0)),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends `signal` to the process behind `pidfd`; `ESRCH` once it was reaped. Linux 5.1.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: `pidfd` outlives the call, and with a null siginfo the kernel reads none of our memory.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) }).map(drop)
}

/// Sends `signal` to a process by id: only for children that the caller has not reaped.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(libc::c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// Whether a process does anything of its own with `signal`: catches it, waits for it blocked, or ignores it on purpose.
/// The kernel drops a signal that the init of a pid namespace leaves at its default (pid_namespaces(7)), so a signal
/// that is sent before the program has set itself up is lost. Source: the masks of proc_pid_status(5), and whether it is
/// in sigtimedwait(2), during which the kernel shows what it waits for as not blocked. False may be wrong.
pub fn heeds_signal(pid: u32, signal: i32) -> io::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    // Not every kernel has this file.
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|word| word.parse().ok());
    Ok(heeds(&status, signal) || number == Some(libc::SYS_rt_sigtimedwait))
}

fn heeds(status: &str, signal: i32) -> bool {
    let bit = 1u64 << (signal - 1);
    let masks = status.lines().filter_map(|line| {
        let (name, mask) = line.split_once(':')?;
        matches!(name, "SigBlk" | "SigIgn" | "SigCgt").then(|| u64::from_str_radix(mask.trim(), 16).unwrap_or(0))
    });
    masks.fold(0, |all, mask| all | mask) & bit != 0
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
    coredump: [u32; 2],
}

/// How the process behind `pidfd` ended, asked by someone who is not its parent. `None`: not known, because it runs,
/// was not reaped yet, or the kernel is older than 6.15. Source: linux/pidfd.h, `PIDFD_GET_INFO`.
pub fn pidfd_exit(pidfd: BorrowedFd<'_>) -> Option<Exit> {
    // _IOWR(0xFF, 11, struct pidfd_info) with the size that the kernel versions by.
    let request = (3u64 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xff << 8) | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request number carries the size of `info`, so the kernel writes no more than that.
    let ret = unsafe { libc::ioctl(pidfd.as_raw_fd(), request as libc::Ioctl, &raw mut info) };
    if ret < 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    let status = info.exit_code;
    Some(if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    })
}

/// Whether the kernel knows `PIDFD_GET_INFO` (6.13), and so [`pidfd_exit`] with 6.15.
pub fn has_pidfd_info() -> bool {
    let own = rustix::process::getpid();
    let Ok(pidfd) = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()) else { return false };
    let request = (3u64 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xff << 8) | 11;
    let mut info = PidfdInfo::default();
    // SAFETY: the request number carries the size of `info`, so the kernel writes no more than that.
    unsafe { libc::ioctl(pidfd.as_raw_fd(), request as libc::Ioctl, &raw mut info) == 0 }
}

/// Whether [`clone3`] can put a new process into a version 2 group (Linux 5.7). Makes none: the kernel that knows the flag
/// looks for the group first.
pub fn has_clone_into_cgroup() -> bool {
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    // No descriptor has this number.
    args.cgroup = libc::c_int::MAX as u64;
    // SAFETY: with this descriptor the call fails: EBADF where the flag is known, EINVAL, E2BIG or ENOSYS elsewhere.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    ret < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
}

/// The resource of a `limits.kernel.*` name (`nofile`, `memlock`, …), or `None` for a name the kernel does not have.
pub fn rlimit_by_name(name: &str) -> Option<u32> {
    let resource = match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    };
    Some(resource)
}

/// Sets a resource limit of another process (or of this one with pid 0); `None` is unlimited.
pub fn set_rlimit(pid: i32, resource: u32, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft.unwrap_or(u64::MAX), rlim_max: hard.unwrap_or(u64::MAX) };
    // SAFETY: `limit` is read by the kernel during the call; the old value is not asked for.
    let ret = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, ptr::null_mut::<libc::rlimit64>())
    };
    check(ret).map(drop)
}

/// Keeps the C library's heap of a program with many mostly idle threads small: few arenas, and freed memory given back
/// early. Call it first, while there is one thread. See mallopt(3).
pub fn keep_heap_small() {
    // SAFETY: mallopt takes two integers and touches only the allocator's own state; no other thread allocates yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
    }
}

/// Gives every allocation of a page or more a mapping of its own, so that a message that was read once leaves no hole in
/// the heap. For small programs with few of them. See mallopt(3).
pub fn map_large_allocations() {
    // SAFETY: as above.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4096);
    }
}

/// Gives memory that is free back to the kernel: for a process that parks for long after some work. Heap that nobody
/// uses, and the stack beneath this call.
pub fn give_memory_back() {
    const PAGE: usize = 4096;
    const DEPTH: usize = 1 << 20;
    let here = 0_u8;
    // One whole page beneath this frame is left alone: the calls below use it.
    let end = (&raw const here as usize & !(PAGE - 1)) - PAGE;
    // SAFETY: malloc_trim concerns free memory only. Nothing lives on the stack beneath the frames of this function
    // and of what it calls, and what is touched there later is filled with zeroes first. That the stack is mapped only
    // in part makes madvise answer ENOMEM, after it has done what there was to do; guards and threads' stacks are not
    // near, since this is called in single-threaded programs on the first stack.
    unsafe {
        #[cfg(target_env = "gnu")]
        libc::malloc_trim(0);
        libc::madvise((end - DEPTH) as *mut libc::c_void, DEPTH, libc::MADV_DONTNEED);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_kernel_limit_of_the_configuration_has_a_number() {
        assert_eq!(rlimit_by_name("nofile"), Some(7));
        assert_eq!(rlimit_by_name("nofiles"), None);
    }

    #[test]
    fn a_signal_is_heeded_that_is_caught_blocked_or_ignored() {
        let status = |blocked, ignored, caught| format!("SigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
        let none = "0000000000000000";
        let power_failure = "0000000020000000";
        assert!(!heeds(&status(none, none, none), 30));
        assert!(!heeds(&status(none, none, power_failure), 12));
        for masks in [[power_failure, none, none], [none, power_failure, none], [none, none, power_failure]] {
            assert!(heeds(&status(masks[0], masks[1], masks[2]), 30));
        }
        assert!(heeds(&status("7be3c0fe28014a03", none, none), 37), "systemd's own mask, its SIGRTMIN+3");
    }

    #[test]
    fn asking_for_a_group_that_is_none_makes_no_process() {
        assert_eq!(has_clone_into_cgroup(), Path::new("/sys/kernel/cgroup").exists());
        assert!(reap_any().is_none());
    }

    #[test]
    fn a_program_with_threads_cannot_fork() {
        let other = std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(50)));
        assert_eq!(fork().unwrap_err().raw_os_error(), Some(libc::EBUSY));
        other.join().unwrap();
    }
}
