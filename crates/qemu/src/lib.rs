//! The virtual machine driver. Start at [`command`]: what a plan means to QEMU; then [`qmp`], by which it is asked, and
//! [`agent`], the host's end of the conversation with the guest.
//!
//! Invariant: knows nothing of the store or REST; bytes from QEMU are bounded, bytes from a guest are hostile.
#![forbid(unsafe_code)]

pub mod agent;
pub mod command;
pub mod config_drive;
pub mod firmware;
pub mod qmp;
pub mod remote;
