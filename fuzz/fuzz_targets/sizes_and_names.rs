//! Sizes and names from API clients: never panic, and what is accepted prints as something that is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stapes_model::{ByteSize, InstanceName};

fuzz_target!(|text: &str| {
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse::<ByteSize>().expect("our own writing is read"), size);
    }
    if let Ok(name) = text.parse::<InstanceName>() {
        assert_eq!(name.as_str(), text);
    }
});
