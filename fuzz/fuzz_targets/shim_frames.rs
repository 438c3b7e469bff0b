//! Frames of the shim protocol, from a peer of another version: never panic, and survive a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stapes_shim_api::{Reply, Request, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = decode::<Request>(bytes) {
        let again: Request = decode(&encode(&request)).expect("our own writing is read");
        assert_eq!(again, request);
    }
    let _ = decode::<Reply>(bytes);
});
