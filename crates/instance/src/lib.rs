//! What a container and a virtual machine have in common: the [`Driver`] contract, the [`Plan`] as data, and the
//! capability table that says what one type cannot have and why.
//!
//! Invariant: knows no kernel interface, no REST and no store. A driver is blocking code, bounded in time: no call here
//! waits for a guest. Whoever wants to wait watches [`Running::events_fd`].
#![forbid(unsafe_code)]

mod capability;
mod driver;
mod error;
mod files;
mod plan;
mod program;

pub use capability::{CAPABILITIES, Capability, Support, require};
pub use driver::{
    Asked, Driver, Event, ExecHandle, ExecIo, ExecSpec, ExitReason, ExitStatus, GuestLink, GuestReport, Inside,
    Running, SpawnService, Traffic,
};
pub use error::DriverError;
pub use files::{
    Access, Create, FileKind, FileMeta, FileReply, FileRequest, GuestFile, REMOTE_PIECE, RemoteFile, WriteMode,
};
pub use plan::{
    Accelerator, DeviceNode, Disk, DiskBus, DiskFormat, Firmware, Link, Machine, MachineProfile, Mount, Plan, Security,
    TemplateFile, Templates,
};
pub use program::{ProgramPlan, Supervise};
pub use stapes_model::{Limits, Rlimit, Usage};
