//! Classic BPF, written backwards.

use std::collections::BTreeMap;

use stapes_sys::privilege::SockFilter;

/// An instruction already written, counted from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(usize);

/// Instructions in reverse order. Source: linux/bpf_common.h, linux/seccomp.h.
#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<SockFilter>,
    /// Where a verdict was last written, to be shared.
    verdicts: BTreeMap<u32, Label>,
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ABI: u32 = 4;
/// The low half of the second argument, on a little-endian machine.
const SECOND_ARGUMENT: u32 = 24;

impl Assembler {
    fn put(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(SockFilter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// A verdict; one already written is shared as long as a jump can reach it.
    pub(super) fn give(&mut self, verdict: u32) -> Label {
        if let Some(&label) = self.verdicts.get(&verdict)
            && self.reversed.len() - label.0 < 200
        {
            return label;
        }
        let label = self.put(RETURN, 0, 0, verdict);
        self.verdicts.insert(verdict, label);
        label
    }

    pub(super) fn load_number(&mut self, then: Label) -> Label {
        self.load(NUMBER, then)
    }

    pub(super) fn load_abi(&mut self, then: Label) -> Label {
        self.load(ABI, then)
    }

    pub(super) fn load_second_argument(&mut self, then: Label) -> Label {
        self.load(SECOND_ARGUMENT, then)
    }

    fn load(&mut self, offset: u32, then: Label) -> Label {
        if then.0 + 1 != self.reversed.len() {
            self.far_jump(then);
        }
        self.put(LOAD, 0, 0, offset)
    }

    pub(super) fn branch_equal(&mut self, k: u32, hit: Label, miss: Label) -> Label {
        self.branch(JUMP_EQUAL, k, hit, miss)
    }

    pub(super) fn branch_at_least(&mut self, k: u32, hit: Label, miss: Label) -> Label {
        self.branch(JUMP_AT_LEAST, k, hit, miss)
    }

    pub(super) fn branch_any_bit(&mut self, k: u32, hit: Label, miss: Label) -> Label {
        self.branch(JUMP_ANY_BIT, k, hit, miss)
    }

    /// A conditional jump reaches 255 instructions; what lies further gets a stepping stone.
    fn branch(&mut self, code: u16, k: u32, mut hit: Label, mut miss: Label) -> Label {
        // Two stones may be put between here and there.
        if self.reversed.len() + 1 - hit.0 > 255 {
            hit = self.far_jump(hit);
        }
        if self.reversed.len() - miss.0 > 255 {
            miss = self.far_jump(miss);
        }
        let distance = |label: Label| (self.reversed.len() - label.0 - 1) as u8;
        let (jt, jf) = (distance(hit), distance(miss));
        self.put(code, jt, jf, k)
    }

    fn far_jump(&mut self, to: Label) -> Label {
        let target = self.reversed[to.0];
        // A verdict is no longer than a jump to it.
        if target.code == RETURN {
            return self.put(RETURN, 0, 0, target.k);
        }
        let distance = (self.reversed.len() - to.0 - 1) as u32;
        self.put(JUMP, 0, 0, distance)
    }

    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }
}
