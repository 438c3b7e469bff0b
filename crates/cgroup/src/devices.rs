//! Which device nodes a group may make and open: the v1 `devices` controller, or on v2 a small program in the kernel.
//!
//! Rules only allow; what no rule allows is denied. For an unprivileged container this is a second fence (its nodes are
//! bind mounts that it cannot make itself), for a privileged one it is the only one.

use std::{
    fmt,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use stapes_sys::privilege::{self, BpfInsn};

use crate::{CgroupError, Group, knob, limits::Home};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    Block,
    Char,
}

/// What a rule allows: `m`, `r`, `w` in any combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    pub const MKNOD: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const WRITE: Self = Self(4);
    pub const ALL: Self = Self(7);

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Devices that a group may use; `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceRule {
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

impl DeviceRule {
    pub const fn char(major: u32, minor: u32) -> Self {
        Self { kind: DeviceKind::Char, major: Some(major), minor: Some(minor), access: DeviceAccess::ALL }
    }

    pub const fn block(major: u32, minor: u32) -> Self {
        Self { kind: DeviceKind::Block, major: Some(major), minor: Some(minor), access: DeviceAccess::ALL }
    }

    /// Making nodes is harmless as long as opening them is not allowed, and archives and packages do it.
    const fn mknod(kind: DeviceKind) -> Self {
        Self { kind, major: None, minor: None, access: DeviceAccess::MKNOD }
    }
}

impl fmt::Display for DeviceRule {
    /// As v1's files have it: `c 1:3 rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = if self.kind == DeviceKind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (bit, letter) in [(DeviceAccess::READ, "r"), (DeviceAccess::WRITE, "w"), (DeviceAccess::MKNOD, "m")] {
            if self.access.0 & bit.0 != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// What every container may use, the same as LXC's and Incus's list. Devices of a plan are added to it.
pub const DEFAULT_DEVICES: [DeviceRule; 13] = [
    DeviceRule::mknod(DeviceKind::Char),
    DeviceRule::mknod(DeviceKind::Block),
    DeviceRule::char(1, 3),    // null
    DeviceRule::char(1, 5),    // zero
    DeviceRule::char(1, 7),    // full
    DeviceRule::char(1, 8),    // random
    DeviceRule::char(1, 9),    // urandom
    DeviceRule::char(5, 0),    // tty
    DeviceRule::char(5, 1),    // console
    DeviceRule::char(5, 2),    // ptmx
    DeviceRule::char(10, 200), // net/tun
    DeviceRule::char(10, 229), // fuse
    DeviceRule { kind: DeviceKind::Char, major: Some(136), minor: None, access: DeviceAccess::ALL }, // pts/*
];

/// The device program that was loaded last. Most instances have the same rules, and the kernel takes 0.3 ms to verify
/// and translate a program, but little to attach one that it knows. One descriptor a process.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<Option<(Vec<DeviceRule>, Arc<OwnedFd>)>>);

impl Programs {
    fn load(&self, rules: &[DeviceRule]) -> Result<Arc<OwnedFd>, privilege::PrivilegeError> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, program)) = last.as_ref().filter(|(known, _)| known == rules) {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(privilege::bpf_device_prog_load(&device_program(rules))?);
        *last = Some((rules.to_vec(), Arc::clone(&program)));
        Ok(program)
    }
}

impl Group {
    /// Makes `rules` all that the group may do with devices. May be repeated with other rules while the guest runs.
    ///
    /// On v2 needs CAP_BPF and CONFIG_CGROUP_BPF; programs that another tool attached to the group itself are replaced.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        match self.home("devices") {
            Some(Home::V1(base)) => self.allow_v1(&base, rules),
            _ => self.allow_v2(rules),
        }
    }

    fn allow_v2(&self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        let missing = CgroupError::ControllerMissing { controller: "devices", key: "devices", knob: "devices.allow" };
        let base = self.v2_base().ok_or(missing)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(&base, flags, Mode::empty()).map_err(|errno| CgroupError::call("open", &base, errno))?;
        let failed = |source: privilege::PrivilegeError| {
            let source = source.into();
            CgroupError::Devices { group: self.name().to_owned(), source }
        };
        let program = self.homes.programs.load(rules).map_err(failed)?;
        privilege::bpf_device_replace(dir.as_fd(), program.as_fd()).map_err(failed)
    }

    fn allow_v1(&self, base: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        let listed = knob::read(&base.join("devices.list"))?;
        if listed.starts_with("a ") {
            // Made beneath a parent that could not be closed: possible only while nothing is beneath it.
            knob::write(&base.join("devices.deny"), "a")?;
        }
        let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with("a ")).collect();
        let wanted: Vec<String> = rules.iter().map(ToString::to_string).collect();
        let new: Vec<&str> = wanted.iter().map(String::as_str).filter(|rule| !listed.contains(rule)).collect();
        let old: Vec<String> = listed.into_iter().filter_map(|line| surplus(line, &wanted)).collect();
        let old: Vec<&str> = old.iter().map(String::as_str).collect();
        if !new.is_empty() {
            // A group may have only what is allowed above it, and gets nothing by itself: from the top down.
            let mut groups = vec![base.to_owned()];
            while let Some(group) = groups.pop() {
                match write_rules(&group.join("devices.allow"), &new) {
                    Err(error) if error.errno() == Some(Errno::NOENT) && group != base => {}
                    result => result?,
                }
                groups.extend(knob::child_groups(&group)?);
            }
        }
        // The kernel takes a rule from all groups beneath as well.
        if old.is_empty() { Ok(()) } else { write_rules(&base.join("devices.deny"), &old) }
    }
}

/// What of a listed rule nobody wants. The kernel keeps one entry for a device and takes single letters from it: to deny
/// `c *:* rwm` where `c *:* m` is wanted would take both.
fn surplus(line: &str, wanted: &[String]) -> Option<String> {
    let (device, access) = line.rsplit_once(' ')?;
    let kept = wanted.iter().find_map(|rule| rule.rsplit_once(' ').filter(|(one, _)| *one == device));
    let kept = kept.map_or("", |(_, access)| access);
    let left: String = access.chars().filter(|letter| !kept.contains(*letter)).collect();
    (!left.is_empty()).then(|| format!("{device} {left}"))
}

/// Turns the parent group from "all but" to "none but, and all is allowed", which every group made in it inherits.
///
/// The kernel makes that turn only while a group has no group beneath it, and one that was removed counts for another
/// RCU grace period. An instance's group has its payload from the start, so the parent is turned, when it is made.
pub(crate) fn close_v1_parent(dir: &Path) -> Result<(), CgroupError> {
    let open = knob::read(&dir.join("devices.list"))?.starts_with("a ");
    if open && knob::write(&dir.join("devices.deny"), "a").is_ok() {
        write_rules(&dir.join("devices.allow"), &["c *:* rwm", "b *:* rwm"])?;
    }
    Ok(())
}

/// One rule a write; the file is opened once.
fn write_rules(file: &Path, rules: &[&str]) -> Result<(), CgroupError> {
    let failed = |errno| CgroupError::call("write", file, errno);
    let open = rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    for rule in rules {
        rustix::io::write(&open, rule.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

// Extended BPF, as far as it is needed here. Source: kernel, bpf/standardization/instruction-set.
const LOAD_WORD: u8 = 0x61; // dst = *(u32 *)(src + offset)
const COPY: u8 = 0xbc; // dst = src, 32 bits
const SET: u8 = 0xb7; // dst = immediate
const AND: u8 = 0x54; // dst &= immediate, 32 bits
const SHIFT_RIGHT: u8 = 0x74; // dst >>= immediate, 32 bits
const JUMP_UNEQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
/// Registers of the program: the context, then what is taken from it.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The rules as a program for `BPF_PROG_TYPE_CGROUP_DEVICE`: 1 allows, 0 denies. Rules are tried in order; each is at
/// most eight instructions. Source: kernel, `struct bpf_cgroup_dev_ctx` (access in the high half, kind in the low).
pub fn device_program(rules: &[DeviceRule]) -> Vec<BpfInsn> {
    let op = |code, destination: u8, source: u8, offset, immediate| BpfInsn {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    };
    let mut program = vec![
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(COPY, ACCESS, KIND, 0, 0),
        op(AND, KIND, 0, 0, 0xffff),
        op(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules {
        let kind = if rule.kind == DeviceKind::Block { 1 } else { 2 };
        // Each test that fails jumps to the next rule: its offset is known when the rule is complete.
        let mut tests = vec![op(JUMP_UNEQUAL, KIND, 0, 0, kind)];
        if rule.access != DeviceAccess::ALL {
            tests.push(op(COPY, SCRATCH, ACCESS, 0, 0));
            tests.push(op(AND, SCRATCH, 0, 0, i32::from(!rule.access.0 & DeviceAccess::ALL.0)));
            tests.push(op(JUMP_UNEQUAL, SCRATCH, 0, 0, 0));
        }
        // A number beyond 31 bits would be sign-extended; the kernel's device numbers end at 20 bits.
        let numbers = [(MAJOR, rule.major), (MINOR, rule.minor)];
        tests.extend(numbers.iter().filter_map(|&(register, number)| {
            Some(op(JUMP_UNEQUAL, register, 0, 0, i32::try_from(number?).unwrap_or(-1)))
        }));
        let length = tests.len() + 2;
        for (at, test) in tests.iter_mut().enumerate().filter(|(_, test)| test.code == JUMP_UNEQUAL) {
            test.offset = (length - at - 1) as i16;
        }
        program.extend(tests);
        program.extend([op(SET, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    }
    program.extend([op(SET, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_letters_that_nobody_wants_are_denied() {
        let wanted = ["c *:* m".to_owned(), "c 1:3 rwm".to_owned()];
        assert_eq!(surplus("c *:* rwm", &wanted).as_deref(), Some("c *:* rw"));
        assert_eq!(surplus("b *:* rwm", &wanted).as_deref(), Some("b *:* rwm"));
        assert_eq!(surplus("c 1:3 rwm", &wanted), None);
    }

    /// Runs a device program as the kernel would, for the six instructions that it is made of.
    fn allows(program: &[BpfInsn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let one = program[at];
            let (to, from) = (usize::from(one.registers & 15), usize::from(one.registers >> 4));
            at += 1;
            match one.code {
                LOAD_WORD => registers[to] = u64::from(context[one.offset as usize / 4]),
                COPY => registers[to] = registers[from] & 0xffff_ffff,
                SET => registers[to] = one.immediate as u64,
                AND => registers[to] &= one.immediate as u32 as u64,
                SHIFT_RIGHT => registers[to] = (registers[to] & 0xffff_ffff) >> one.immediate,
                JUMP_UNEQUAL if registers[to] != one.immediate as i64 as u64 => at += one.offset as usize,
                JUMP_UNEQUAL => {}
                EXIT => return registers[0] == 1,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    fn expected(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        rules.iter().any(|rule| {
            (rule.kind == DeviceKind::Block) == (kind == 1)
                && access & !u32::from(rule.access.0) == 0
                && rule.major.is_none_or(|number| number == major)
                && rule.minor.is_none_or(|number| number == minor)
        })
    }

    #[test]
    fn the_program_decides_as_the_rules_do() {
        let mut rules = DEFAULT_DEVICES.to_vec();
        rules.push(DeviceRule { access: DeviceAccess::READ, ..DeviceRule::block(8, 1) });
        rules.push(DeviceRule {
            access: DeviceAccess::READ.and(DeviceAccess::WRITE),
            minor: None,
            ..DeviceRule::char(7, 0)
        });
        rules.push(DeviceRule { major: None, ..DeviceRule::char(0, 77) });
        for rules in [&rules[..], &DEFAULT_DEVICES, &[]] {
            let program = device_program(rules);
            for kind in [1, 2] {
                for access in 1..8 {
                    for major in [0, 1, 5, 7, 8, 10, 136, 4095] {
                        for minor in [0, 1, 2, 3, 5, 77, 200, 229, 0xf_ffff] {
                            let (got, wanted) = (
                                allows(&program, kind, access, major, minor),
                                expected(rules, kind, access, major, minor),
                            );
                            assert_eq!(got, wanted, "{kind} {access} {major}:{minor}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rules_read_as_the_kernel_writes_them() {
        assert_eq!(DeviceRule::char(1, 3).to_string(), "c 1:3 rwm");
        assert_eq!(DEFAULT_DEVICES[1].to_string(), "b *:* m");
        assert_eq!(DEFAULT_DEVICES[12].to_string(), "c 136:* rwm");
    }
}
