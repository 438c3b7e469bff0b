//! The container driver: plans into mounts and instructions for the shim.
#![forbid(unsafe_code)]
