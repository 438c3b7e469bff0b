#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stapes_fuzz::targets::agent_session(bytes));
