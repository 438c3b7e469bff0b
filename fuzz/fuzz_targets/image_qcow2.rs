#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stapes_image::fuzzing::qcow2(bytes));
