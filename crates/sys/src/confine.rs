//! Takes a process's powers over the host away, for workers that read foreign bytes as root.
//!
//! What remains: a user namespace in which every id is itself, so that files can be given to any owner, and no
//! capability outside it. No mount namespace is made: it would hold copies of all mounts until the kernel has torn it
//! down, and make unmounting a volume right afterwards fail with EBUSY; without CAP_SYS_ADMIN over the mount namespace
//! it stays in, a worker cannot mount anything either.

use std::io;

/// Every id there is, mapped to itself: a line for `/proc/<pid>/uid_map` and `gid_map`.
///
/// Only a process with CAP_SETUID in the parent namespace may write it, so the parent does (user_namespaces(7)).
pub const IDENTITY_MAP: &str = "0 0 4294967295";

/// Moves this single-threaded process into a new user namespace and a new IPC namespace.
///
/// Until the parent has written the id maps it is nobody. `EINVAL` with more than one thread, `ENOSPC` where the host
/// forbids user namespaces; unshare(2).
pub fn enter_user_namespace() -> io::Result<()> {
    // SAFETY: unshare takes no pointers; it changes this thread's namespaces and, for a user namespace, fails with
    // EINVAL unless this is the only thread, so that no other thread can be left behind with other credentials.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWIPC) })
}

/// Kills this process when the thread that started it ends; prctl(2), PR_SET_PDEATHSIG.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number by value.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })
}

/// System calls that unpacking needs never, and an attacker first.
const FORBIDDEN: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_fanotify_init,
];

/// Makes the system calls of signals, sockets, mounts, namespaces and kernel administration fail with `EPERM` for this
/// process and all it starts, for ever. Needs `no_new_privs` or CAP_SYS_ADMIN; seccomp(2).
pub fn forbid_dangerous_calls() -> io::Result<()> {
    const ARCH_OFFSET: u32 = 4;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let give = libc::BPF_RET | libc::BPF_K;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    let mut program = vec![statement(load, ARCH_OFFSET)];
    if let Some(arch) = AUDIT_ARCH {
        // Another architecture's calls (i386 on x86-64) have other numbers: none is needed, none is allowed.
        program.push(jump(arch, 1, 0));
        program.push(statement(give, refuse));
    }
    program.push(statement(load, 0));
    #[cfg(target_arch = "x86_64")]
    {
        // x32 has the same architecture and its own numbers above this bit.
        program.push(libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: 0x4000_0000,
        });
        program.push(statement(give, refuse));
    }
    for call in FORBIDDEN {
        program.push(jump(*call as u32, 0, 1));
        program.push(statement(give, refuse));
    }
    program.push(statement(give, libc::SECCOMP_RET_ALLOW));

    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points to `program`, which lives beyond the call with the length given; the kernel copies it.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) })
}

/// From linux/audit.h; `None` where we do not know it, and the filter then trusts the numbers.
const AUDIT_ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else {
    None
};

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` in a forked child and tells whether it returned true.
    fn in_child(body: fn() -> bool) -> bool {
        // SAFETY: the child of this threaded process only makes system calls (no locks, but a small allocation that
        // glibc's fork keeps usable) and leaves by _exit.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::_exit(i32::from(!body()));
            }
            let mut status = 0;
            libc::waitpid(pid, &raw mut status, 0) == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }

    fn refused(result: libc::c_long) -> bool {
        result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    }

    #[test]
    fn signals_sockets_and_namespaces_are_gone_and_files_remain() {
        assert!(in_child(|| {
            // SAFETY: plain system calls with constant arguments; a null path is not read, since each is refused first.
            unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && forbid_dangerous_calls().is_ok()
                    && refused(libc::syscall(libc::SYS_kill, libc::getppid(), 0))
                    && refused(libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0))
                    && refused(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS))
                    && libc::open(c"/".as_ptr(), libc::O_RDONLY) >= 0
            }
        }));
    }

    #[test]
    fn a_process_enters_its_own_user_namespace() {
        if !in_child(|| {
            // SAFETY: geteuid has no arguments and cannot fail.
            unsafe { libc::geteuid() == 0 }
        }) {
            eprintln!("skipped: needs root");
            return;
        }
        // Before its map is written it is nobody: 65534 unless the host says otherwise.
        assert!(in_child(|| {
            let entered = enter_user_namespace().is_ok();
            // SAFETY: geteuid has no arguments and cannot fail.
            entered && unsafe { libc::geteuid() } != 0
        }));
    }
}
