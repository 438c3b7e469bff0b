use super::*;

/// What one call meets: the verdict, and how many instructions it took.
fn run(program: &[SockFilter], abi: u32, number: u32, second_argument: u32) -> (u32, usize) {
    let (mut at, mut steps, mut accumulator) = (0, 0, 0);
    loop {
        let one = program[at];
        at += 1;
        steps += 1;
        let hit = match one.code {
            0x20 => {
                accumulator = match one.k {
                    0 => number,
                    4 => abi,
                    24 => second_argument,
                    other => panic!("load from {other}"),
                };
                continue;
            }
            0x05 => {
                at += one.k as usize;
                continue;
            }
            0x06 => return (one.k, steps),
            0x15 => accumulator == one.k,
            0x35 => accumulator >= one.k,
            0x45 => accumulator & one.k != 0,
            code => panic!("unknown instruction {code:#x}"),
        };
        at += usize::from(if hit { one.jt } else { one.jf });
    }
}

fn verdict(action: Action, second_argument: u32) -> u32 {
    match action {
        Action::NoForce if second_argument & 1 == 1 => 0x5_000d,
        Action::Allow | Action::NoForce => 0x7fff_0000,
        Action::Errno(number) => 0x5_0000 | u32::from(number),
        Action::Kill => 0x8000_0000,
    }
}

/// The policy by names, without intervals or trees.
fn expected(policy: &Policy, abi: &Abi, number: u32, second_argument: u32) -> u32 {
    if abi.foreign_from.is_some_and(|from| number >= from) {
        return verdict(Action::Errno(ENOSYS), 0);
    }
    let action = policy.named.get(abi_name(abi, number)).copied().unwrap_or(policy.rest);
    verdict(action, second_argument)
}

fn abi_name(abi: &Abi, number: u32) -> &'static str {
    abi.calls.iter().find(|(_, one)| *one == number).map_or("", |(name, _)| name)
}

/// Compares program and policy for every number there is, and returns length and longest path.
fn check(machine: Machine, security: &Security, context: SeccompContext) -> (usize, usize) {
    let policy = Policy::new(security, context).unwrap();
    let program = compile_for(machine, security, context).unwrap();
    let mut longest = 0;
    for abi in machine.abis() {
        let numbers = (0..1100).chain([0x3fff_ffff, 0x4000_0000, 0x4000_003b, 0x7fff_ffff, u32::MAX]);
        for number in numbers {
            for argument in [0, 1, 2, 3] {
                let (got, steps) = run(&program, abi.audit, number, argument);
                let wanted = expected(&policy, abi, number, argument);
                assert_eq!(got, wanted, "{} ({number}) of {:#x}", abi_name(abi, number), abi.audit);
                longest = longest.max(steps);
            }
        }
    }
    for abi in [0, 0x4000_0028, 0xc000_00f3] {
        assert_eq!(run(&program, abi, 1, 0).0, 0x8000_0000, "a foreign ABI");
    }
    (program.len(), longest)
}

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

#[test]
fn tables_are_sorted_and_without_doubles() {
    for abi in [X86_64, I386, AARCH64] {
        assert!(abi.calls.is_sorted_by(|a, b| a.0 < b.0));
        let numbers: std::collections::BTreeSet<u32> = abi.calls.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), abi.calls.len());
        assert!(numbers.iter().all(|number| *number < 1000));
    }
    let of = |name| [X86_64, I386, AARCH64].map(|abi| abi.number(name));
    assert_eq!(of("umount2"), [Some(166), Some(52), Some(39)]);
    assert_eq!(of("kexec_load"), [Some(246), Some(283), Some(104)]);
    assert_eq!(of("kexec_file_load"), [Some(320), None, Some(294)]);
    assert_eq!(of("open_by_handle_at"), [Some(304), Some(342), Some(265)]);
    assert_eq!(of("finit_module"), [Some(313), Some(350), Some(273)]);
}

#[test]
fn every_default_denial_names_a_real_call() {
    for name in DENIED.iter().chain(&DENIED_BY_US).chain(&DENIED_PRIVILEGED) {
        assert!([X86_64, I386, AARCH64].iter().any(|abi| abi.number(name).is_some()), "{name}");
    }
}

#[test]
fn the_default_filter_is_the_policy_and_short() {
    for privileged in [false, true] {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let (length, longest) = check(machine, &Security::default(), SeccompContext { privileged });
            eprintln!("{machine:?} privileged={privileged}: {length} instructions, at most {longest} a call");
            assert!(length <= 80, "{length} instructions");
            assert!(longest <= 14, "{longest} instructions a call");
        }
    }
}

#[test]
fn deny_adds_and_deny_default_takes_away() {
    let security = Security { deny: words("keyctl,bpf errno 38,getpid kill, # none,read"), ..Security::default() };
    check(Machine::X86_64, &security, SeccompContext::default());
    check(Machine::Aarch64, &security, SeccompContext::default());
    let open = Security { no_default_deny: true, ..Security::default() };
    let (length, _) = check(Machine::X86_64, &open, SeccompContext::default());
    assert!(length <= 10, "{length} instructions for nothing");
}

#[test]
fn allow_denies_all_else() {
    let security =
        Security { allow: words("read,write,exit_group,umount2"), deny: words("write errno 5"), ..Security::default() };
    check(Machine::X86_64, &security, SeccompContext::default());
    let program = compile_for(Machine::X86_64, &security, SeccompContext::default()).unwrap();
    assert_eq!(run(&program, X86_64.audit, 0, 0).0, 0x7fff_0000);
    assert_eq!(run(&program, X86_64.audit, 1, 0).0, 0x5_0005);
    assert_eq!(run(&program, X86_64.audit, 2, 0).0, 0x5_0001);
    assert_eq!(run(&program, X86_64.audit, 900, 0).0, 0x5_0001);
}

#[test]
fn hundreds_of_scattered_rules_still_reach_their_targets() {
    let mut deny: Vec<String> = Vec::new();
    for (at, (name, _)) in X86_64.calls.iter().chain(I386.calls).enumerate() {
        if at % 3 != 0 {
            deny.push(format!("{name} errno {}", at % 7 + 1));
        }
    }
    let (length, longest) =
        check(Machine::X86_64, &Security { deny, ..Security::default() }, SeccompContext::default());
    assert!(length > 500 && longest < 40, "{length} instructions, at most {longest} a call");
}

#[test]
fn what_is_not_understood_is_refused_by_key() {
    let refused = |line: &str| {
        let security = Security { deny: vec![line.to_owned()], ..Security::default() };
        compile(&security, SeccompContext::default()).unwrap_err().to_string()
    };
    assert_eq!(refused("opne"), "security.syscalls.deny: there is no system call \"opne\"");
    for line in ["[x86_64]", "open errno x", "open errno 4096", "open please", "open errno 1 2"] {
        assert!(refused(line).starts_with("security.syscalls.deny: "), "{line}");
    }
    // Another processor's call is no mistake.
    let foreign = Security { deny: vec!["vm86".to_owned()], ..Security::default() };
    assert!(compile_for(Machine::Aarch64, &foreign, SeccompContext::default()).is_ok());
}

#[test]
fn the_kernel_takes_the_filter_and_obeys_it() {
    use stapes_sys::privilege::try_filter;
    let Ok(program) = compile(&Security::default(), SeccompContext::default()) else {
        eprintln!("SKIP seccomp: no table for this processor");
        return;
    };
    let abi = if Machine::native() == Some(Machine::X86_64) { X86_64 } else { AARCH64 };
    let errno = |name: &str, arguments| {
        let number = i64::from(abi.number(name).unwrap());
        try_filter(&program, number, arguments).unwrap()
    };
    // No address is at !0, and without the filter these fail as well, but otherwise.
    for name in DENIED {
        assert_eq!(errno(name, [!0; 4]), Some(1), "{name}");
    }
    assert_eq!(errno("umount2", [0, 1, 0, 0]), Some(13));
    assert_eq!(errno("umount2", [0, 0, 0, 0]), Some(14));
    assert_eq!(errno("getppid", [0; 4]), Some(0));
}

/// Prints what the filter adds to a fork, its load and a call; `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_the_filter_costs() {
    use stapes_sys::privilege::try_filter;
    let program = compile(&Security::default(), SeccompContext::default()).unwrap();
    let allow = [SockFilter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
    let p50 = |program: &[SockFilter]| {
        let mut all: Vec<u128> = (0..300)
            .map(|_| {
                let start = std::time::Instant::now();
                try_filter(program, 39, [0; 4]).unwrap();
                start.elapsed().as_micros()
            })
            .collect();
        all.sort_unstable();
        all[150]
    };
    let start = std::time::Instant::now();
    for _ in 0..100 {
        compile(&Security::default(), SeccompContext::default()).unwrap();
    }
    let compiling = start.elapsed().as_micros() / 100;
    let (short, long) = (p50(&allow), p50(&program));
    eprintln!("compiled in {compiling} µs; fork with 1 instruction {short} µs, with {} {long} µs", program.len());
}
