//! Whether `/dev/kvm` runs guests. See Documentation/virt/kvm/api.rst.
//!
//! A device node that opens proves nothing: there are hosts where a virtual machine is made, and real-mode code runs, and
//! the first 64-bit kernel dies in an instruction that the hypervisor beneath cannot do. So a small 64-bit guest is run
//! that uses what kernels and firmware use early.

use std::{io, sync::mpsc, time::Duration};

/// Why this host's KVM is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    #[error("/dev/kvm cannot be opened")]
    Open(#[source] io::Error),
    #[error("/dev/kvm cannot {doing}")]
    Setup {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// The guest began and did not come to its end.
    #[error("a 64-bit test guest does not run on it: {0}")]
    Guest(String),
}

/// How long the test guest may take: it has thirteen instructions.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs the test guest; `Ok` means that KVM runs 64-bit guests. Takes a few milliseconds where it does.
///
/// It runs on a thread of its own, which stays behind if the kernel never returns from the guest.
pub fn probe() -> Result<(), KvmError> {
    let (tell, told) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("kvm probe".to_owned()).spawn(move || tell.send(guest::run()));
    spawned.map_err(|source| KvmError::Setup { doing: "be tried on a thread", source })?;
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(KvmError::Guest("it does not end".to_owned())))
}

/// Only x86-64 has a test guest; elsewhere a node that opens is believed.
#[cfg(not(target_arch = "x86_64"))]
mod guest {
    pub fn run() -> Result<(), super::KvmError> {
        std::fs::File::options().read(true).write(true).open("/dev/kvm").map(drop).map_err(super::KvmError::Open)
    }
}

#[cfg(target_arch = "x86_64")]
mod guest {
    use std::{io, ptr};

    use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
    use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

    use super::KvmError;

    const GUEST_BYTES: usize = 0x8000;
    /// Tables of pages: levels 4, 3 and 2, which map the first 2 MiB to itself.
    const TABLES: [usize; 3] = [0x1000, 0x2000, 0x3000];
    const CODE: usize = 0x4000;
    const STACK: u64 = 0x7ff0;
    const PORT: u16 = 0x10;
    /// What the guest finds in memory when everything worked.
    const ANSWER: u8 = 0x2a;

    /// What kernels and firmware do early. The operand of cmpxchg16b lies at 0x5000, all zero: it is exchanged.
    #[rustfmt::skip]
    const PROGRAM: &[u8] = &[
        0xdb, 0xe3,                                     // fninit
        0x9b,                                           // fwait
        0x48, 0xc7, 0xc7, 0x00, 0x50, 0x00, 0x00,       // mov  $0x5000, %rdi
        0x31, 0xc0,                                     // xor  %eax, %eax
        0x31, 0xd2,                                     // xor  %edx, %edx
        0xbb, ANSWER, 0x00, 0x00, 0x00,                 // mov  $ANSWER, %ebx
        0x31, 0xc9,                                     // xor  %ecx, %ecx
        0xf0, 0x48, 0x0f, 0xc7, 0x0f,                   // lock cmpxchg16b (%rdi)
        0x8b, 0x07,                                     // mov  (%rdi), %eax
        0xc4, 0xe2, 0x71, 0xf7, 0xc0,                   // shlx %ecx, %eax, %eax
        0xe6, PORT as u8,                               // out  %al, $PORT
        0xf4,                                           // hlt
    ];

    struct Memory(*mut libc::c_void);

    impl Memory {
        fn new() -> io::Result<Self> {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS | libc::MAP_PRIVATE);
            // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing of ours.
            let address = unsafe { libc::mmap(ptr::null_mut(), GUEST_BYTES, protection, flags, -1, 0) };
            if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(address)) }
        }

        fn write(&mut self, at: usize, bytes: &[u8]) {
            assert!(at + bytes.len() <= GUEST_BYTES);
            // SAFETY: the range lies in the mapping, which is ours alone until the guest runs.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast::<u8>().add(at), bytes.len()) }
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: made by `new` with this length, and the machine that used it is gone before it.
            unsafe { libc::munmap(self.0, GUEST_BYTES) };
        }
    }

    pub fn run() -> Result<(), KvmError> {
        let setup = |doing| move |error: kvm_ioctls::Error| KvmError::Setup { doing, source: error.into() };
        let kvm = Kvm::new().map_err(|error| KvmError::Open(error.into()))?;
        let mut memory = Memory::new().map_err(|source| KvmError::Setup { doing: "be given memory", source })?;
        fill(&mut memory);
        let machine = kvm.create_vm().map_err(setup("make a machine"))?;
        give(&machine, &memory).map_err(setup("take memory"))?;
        let mut processor = machine.create_vcpu(0).map_err(setup("make a processor"))?;
        let ids = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(setup("name its features"))?;
        processor.set_cpuid2(&ids).map_err(setup("take features"))?;
        set_registers(&processor).map_err(setup("take registers"))?;
        let result = match processor.run() {
            Ok(VcpuExit::IoOut(PORT, [ANSWER])) => Ok(()),
            Ok(exit) => Err(KvmError::Guest(format!("{exit:?}"))),
            Err(error) => Err(KvmError::Guest(io::Error::from(error).to_string())),
        };
        drop((processor, machine));
        drop(memory);
        result
    }

    fn fill(memory: &mut Memory) {
        const PRESENT_WRITABLE: u64 = 3;
        const LARGE: u64 = 0x80;
        let [level4, level3, level2] = TABLES;
        memory.write(level4, &(level3 as u64 | PRESENT_WRITABLE).to_le_bytes());
        memory.write(level3, &(level2 as u64 | PRESENT_WRITABLE).to_le_bytes());
        memory.write(level2, &(PRESENT_WRITABLE | LARGE).to_le_bytes());
        memory.write(CODE, PROGRAM);
    }

    fn give(machine: &VmFd, memory: &Memory) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: 0,
            memory_size: GUEST_BYTES as u64,
            userspace_addr: memory.0 as u64,
            flags: 0,
        };
        // SAFETY: the mapping is that large and outlives the machine, which `run` drops first.
        unsafe { machine.set_user_memory_region(region) }
    }

    /// Long mode with paging and SSE, as a kernel would have set it up. Source: Intel SDM volume 3, chapters 2 and 4.
    fn set_registers(processor: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        const CR0_PROTECTED_MONITOR_EXTENSION_PAGED: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 31;
        const CR4_PAE_FXSR: u64 = 1 << 5 | 1 << 9;
        const EFER_LONG_ENABLED_ACTIVE: u64 = 1 << 8 | 1 << 10;
        let mut special = processor.get_sregs()?;
        special.cr0 = CR0_PROTECTED_MONITOR_EXTENSION_PAGED;
        special.cr3 = TABLES[0] as u64;
        special.cr4 = CR4_PAE_FXSR;
        special.efer = EFER_LONG_ENABLED_ACTIVE;
        let data = kvm_segment {
            limit: u32::MAX,
            selector: 16,
            type_: 3,
            present: 1,
            s: 1,
            g: 1,
            db: 1,
            ..Default::default()
        };
        special.cs = kvm_segment { selector: 8, type_: 11, db: 0, l: 1, ..data };
        (special.ds, special.es, special.ss) = (data, data, data);
        processor.set_sregs(&special)?;
        let mut registers = processor.get_regs()?;
        (registers.rip, registers.rsp, registers.rflags) = (CODE as u64, STACK, 2);
        processor.set_regs(&registers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_given_at_once_and_says_what_is_wrong() {
        let begun = std::time::Instant::now();
        let answer = probe();
        println!("KVM here: {answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        if let Err(error) = answer {
            assert!(!error.to_string().is_empty());
        }
    }
}
