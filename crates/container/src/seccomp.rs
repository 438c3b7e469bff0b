//! Which system calls a container may make: a policy, compiled to a short program of classic BPF.
//!
//! The kernel runs the program on every system call of the guest and checks each instruction when it is loaded (about
//! 1 µs each, on the path of every start). So the numbers are searched by a binary tree, and neighbours with one answer
//! are one interval: a call costs at most twelve instructions, and the whole default filter has 53 (22 on aarch64).
//!
//! **Defaults.** What Incus and LXC deny: `umount2` with `MNT_FORCE` (EACCES), loading kernels and modules,
//! `open_by_handle_at` (it reaches files outside the root), all EPERM. On top, what no container needs and what only a
//! capability in the host's user namespace would permit: accounting, swap, port I/O, the module calls of Linux 2.4,
//! virtual-8086 mode; for privileged containers, which have such capabilities, also quotas of the host's file systems.
//! Left alone on purpose, as Incus does: `keyctl` (systemd, Docker), `bpf` (systemd; the kernel's own switch already
//! closes it to the unprivileged), `userfaultfd` (user faults only, by the kernel's own switch), `clone3`, `mount`, `unshare`
//! and `setns` (confined by the user namespace), `reboot` (confined by the pid namespace), and the clock (capabilities).

use std::collections::BTreeMap;

use stapes_instance::Security;
use stapes_model::ErrorKind;
use stapes_sys::privilege::SockFilter;

mod aarch64;
mod assembler;
mod i386;
mod x86_64;

use assembler::{Assembler, Label};

const EPERM: u16 = 1;
const EACCES: u16 = 13;
const ENOSYS: u16 = 38;

/// What the policy depends on besides the instance's own keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeccompContext {
    /// Without a user namespace of its own.
    pub privileged: bool,
}

/// A policy that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    #[error("{key}: there is no system call {name:?}")]
    UnknownCall { key: &'static str, name: String },
    #[error("{key}: {line:?} is not understood: expected a system call, then nothing, \"errno NUMBER\" or \"kill\"")]
    BadLine { key: &'static str, line: String },
    #[error("the system call filter needs {length} instructions, and the kernel takes 4096")]
    TooLong { length: usize },
    #[error("system call filters are not supported on this processor")]
    Architecture,
}

impl SeccompError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownCall { .. } | Self::BadLine { .. } | Self::TooLong { .. } => ErrorKind::BadRequest,
            Self::Architecture => ErrorKind::Unsupported,
        }
    }
}

/// The processor of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// With i386 programs; the x32 ABI is refused (ENOSYS).
    X86_64,
    /// 64-bit only: 32-bit programs of a filtered container are killed.
    Aarch64,
}

impl Machine {
    /// What this program was built for.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    fn abis(self) -> &'static [Abi] {
        match self {
            Self::X86_64 => &[X86_64, I386],
            Self::Aarch64 => &[AARCH64],
        }
    }
}

/// One way of calling the kernel.
struct Abi {
    /// `AUDIT_ARCH_*` of linux/audit.h.
    audit: u32,
    calls: &'static [(&'static str, u32)],
    /// Numbers from here on belong to another ABI that shares `audit`.
    foreign_from: Option<u32>,
}

const X86_64: Abi = Abi { audit: 0xc000_003e, calls: &x86_64::SYSCALLS, foreign_from: Some(0x4000_0000) };
const I386: Abi = Abi { audit: 0x4000_0003, calls: &i386::SYSCALLS, foreign_from: None };
const AARCH64: Abi = Abi { audit: 0xc000_00b7, calls: &aarch64::SYSCALLS, foreign_from: None };

impl Abi {
    fn number(&self, name: &str) -> Option<u32> {
        let at = self.calls.binary_search_by_key(&name, |(name, _)| name).ok()?;
        Some(self.calls[at].1)
    }
}

/// What the filter does to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Allow,
    Errno(u16),
    Kill,
    /// `umount2`: EACCES with `MNT_FORCE`, which would break a network mount shared with others.
    NoForce,
}

const DENIED: [&str; 6] =
    ["delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load", "open_by_handle_at"];
const DENIED_BY_US: [&str; 10] = [
    "acct",
    "create_module",
    "get_kernel_syms",
    "ioperm",
    "iopl",
    "query_module",
    "swapoff",
    "swapon",
    "vm86",
    "vm86old",
];
const DENIED_PRIVILEGED: [&str; 2] = ["quotactl", "quotactl_fd"];

/// Names with their actions, in force for every ABI, and the action of all others.
struct Policy {
    named: BTreeMap<String, Action>,
    rest: Action,
}

impl Policy {
    /// Later words win: defaults, then `allow`, then `deny`.
    fn new(security: &Security, context: SeccompContext) -> Result<Self, SeccompError> {
        let mut named = BTreeMap::new();
        let rest = if security.allow.is_empty() { Action::Allow } else { Action::Errno(EPERM) };
        if !security.no_default_deny && security.allow.is_empty() {
            let privileged: &[&str] = if context.privileged { &DENIED_PRIVILEGED } else { &[] };
            let denied = DENIED.iter().chain(&DENIED_BY_US).chain(privileged);
            named.extend(denied.map(|name| ((*name).to_owned(), Action::Errno(EPERM))));
            named.insert("umount2".to_owned(), Action::NoForce);
        }
        for (key, lines, action) in [
            ("security.syscalls.allow", &security.allow, Action::Allow),
            ("security.syscalls.deny", &security.deny, Action::Errno(EPERM)),
        ] {
            for line in lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (name, action) = parse_line(key, line, action)?;
                named.insert(name, action);
            }
        }
        Ok(Self { named, rest })
    }

    /// The policy as intervals of numbers: each begins where the action changes; the first at 0.
    fn intervals(&self, abi: &Abi) -> Vec<(u32, Action)> {
        let numbered = self.named.iter().filter_map(|(name, &action)| Some((abi.number(name)?, action)));
        let numbered: BTreeMap<u32, Action> = numbered.collect();
        let mut intervals = vec![(0, self.rest)];
        let mut push = |start, action| match intervals.last_mut() {
            Some((last, kept)) if *last == start => *kept = action,
            Some((_, kept)) if *kept == action => {}
            _ => intervals.push((start, action)),
        };
        for (number, action) in numbered {
            push(number, action);
            push(number + 1, self.rest);
        }
        if let Some(start) = abi.foreign_from {
            push(start, Action::Errno(ENOSYS));
        }
        // Setting the first one's action may have made it the second's.
        intervals.dedup_by_key(|(_, action)| *action);
        intervals
    }
}

/// One line of a key as LXC's policies have it: `name`, `name errno 38`, `name kill`.
fn parse_line(key: &'static str, line: &str, default: Action) -> Result<(String, Action), SeccompError> {
    let bad = || SeccompError::BadLine { key, line: line.chars().take(80).collect() };
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, action) = match words[..] {
        [name] => (name, default),
        [name, "kill"] => (name, Action::Kill),
        [name, "allow"] => (name, Action::Allow),
        // The kernel cuts error numbers to 4,095.
        [name, "errno", number] => {
            (name, Action::Errno(number.parse().ok().filter(|number| *number < 4096).ok_or_else(bad)?))
        }
        _ => return Err(bad()),
    };
    let known = [X86_64, I386, AARCH64].iter().any(|abi| abi.number(name).is_some());
    if known { Ok((name.to_owned(), action)) } else { Err(SeccompError::UnknownCall { key, name: name.to_owned() }) }
}

/// The filter of a container on this machine, for `seccomp(2)` in the child that becomes its init and in each exec.
///
/// A name that only other processors know is accepted and without effect.
pub fn compile(security: &Security, context: SeccompContext) -> Result<Vec<SockFilter>, SeccompError> {
    compile_for(Machine::native().ok_or(SeccompError::Architecture)?, security, context)
}

/// Like [`compile`] for a machine of choice.
pub fn compile_for(
    machine: Machine,
    security: &Security,
    context: SeccompContext,
) -> Result<Vec<SockFilter>, SeccompError> {
    let policy = Policy::new(security, context)?;
    let mut program = Assembler::default();
    // The program is written from its end to its beginning, so that every jump knows where it goes. An ABI without a
    // table here could do all that the tables deny.
    let mut other = leaf(&mut program, Action::Kill);
    for abi in machine.abis().iter().rev() {
        let tree = search(&mut program, &policy.intervals(abi));
        let load = program.load_number(tree);
        other = program.branch_equal(abi.audit, load, other);
    }
    program.load_abi(other);
    let program = program.finish();
    if program.len() > 4096 { Err(SeccompError::TooLong { length: program.len() }) } else { Ok(program) }
}

/// The binary decision tree over sorted intervals.
fn search(program: &mut Assembler, intervals: &[(u32, Action)]) -> Label {
    match *intervals {
        [] => leaf(program, Action::Kill),
        [(_, action)] => leaf(program, action),
        // One number in the middle of others: a single question.
        [(_, around), (number, action), (next, after)] if around == after && next == number + 1 => {
            let (hit, miss) = (leaf(program, action), leaf(program, around));
            program.branch_equal(number, hit, miss)
        }
        [.., _] => {
            // Splitting before an even position keeps such triples together.
            let middle = (intervals.len() / 2).next_multiple_of(2).min(intervals.len() - 1);
            let upper = search(program, &intervals[middle..]);
            let lower = search(program, &intervals[..middle]);
            program.branch_at_least(intervals[middle].0, upper, lower)
        }
    }
}

fn leaf(program: &mut Assembler, action: Action) -> Label {
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const MNT_FORCE: u32 = 1;
    match action {
        Action::Allow => program.give(ALLOW),
        Action::Errno(number) => program.give(ERRNO | u32::from(number)),
        Action::Kill => program.give(KILL_PROCESS),
        Action::NoForce => {
            let (denied, allowed) = (program.give(ERRNO | u32::from(EACCES)), program.give(ALLOW));
            let test = program.branch_any_bit(MNT_FORCE, denied, allowed);
            program.load_second_argument(test)
        }
    }
}

#[cfg(test)]
mod tests;
