//! The container driver: plans into mounts and instructions for the shim.
#![forbid(unsafe_code)]

pub mod capabilities;
pub mod lsm;
pub mod masks;
pub mod seccomp;
