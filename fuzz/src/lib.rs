//! What the fuzz targets run. `tests/tests/fuzz_smoke.rs` runs the same on a stable compiler with every test run.
#![forbid(unsafe_code)]

pub mod targets;
