//! The virtual machine driver. Start at [`command`]: what a plan means to QEMU.
#![forbid(unsafe_code)]

pub mod agent;
pub mod command;
pub mod config_drive;
pub mod firmware;
pub mod qmp;
