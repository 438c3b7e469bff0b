#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stapes_container::fuzzing::read_links(bytes));
