//! Messages between the daemon and the per-instance shim.
#![forbid(unsafe_code)]
