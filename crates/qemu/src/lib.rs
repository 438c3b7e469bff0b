//! The virtual machine driver. Start at [`QemuDriver`]; [`command`] says what a plan means to QEMU, [`qmp`] is how it is
//! asked, and [`agent`] is the host's end of the conversation with the guest.
//!
//! QEMU is born, held and ended by whoever implements [`stapes_instance::Supervise`]; this crate runs no process.
//!
//! Invariant: knows nothing of the store or REST; bytes from QEMU are bounded, bytes from a guest are hostile. No call
//! waits for a guest longer than its named patience.
#![forbid(unsafe_code)]

pub mod agent;
pub mod command;
pub mod config_drive;
pub mod firmware;
pub mod qmp;
pub mod taps;

mod accelerator;
mod birth;
mod channels;
mod driver;
mod files;
mod inbox;
mod remote;
mod report;
mod running;
mod view;

pub use driver::{QemuDriver, Settings};
