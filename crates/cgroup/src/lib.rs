//! Control groups v2, v1 and hybrid behind one type.
//!
//! Start at [`Cgroups`]: it finds the hierarchies that this host mounts and owns one parent group in each. A
//! [`Group`] is one instance's:
//!
//! ```text
//! <parent>/<id>                   the limits: only the host writes here
//! <parent>/<id>/payload           the guest's init and all it starts; delegated, root of the guest's cgroup namespace
//! <parent>/<id>/payload/.stapes   commands brought in from outside (v2 alone; on v1 they join the payload itself)
//! ```
//!
//! The leaf for commands exists because of v2's "no internal processes" rule: once systemd inside enables controllers,
//! nobody can join `payload` itself. It lies within what the guest sees, since systemd and logind inside never answer for
//! a process that is outside of it (`su -l` waits for two minutes). v1 has no such rule, and there one process parked in
//! `payload` is the parent of both.
//!
//! On v1 joining is dear, so a group whose guest has ended can be kept for the next one: see [`Cgroups::retire`].
//!
//! Invariant: knows no processes but those in its own groups, keeps no descriptor, and never touches a group that is
//! not beneath the parent.
#![forbid(unsafe_code)]

mod cgroups;
mod devices;
mod error;
mod group;
mod knob;
mod layout;
mod limits;
mod reuse;
mod tasks;
mod usage;

pub use cgroups::{Cgroups, Kind};
pub use devices::{DEFAULT_DEVICES, DeviceAccess, DeviceKind, DeviceRule, device_program};
pub use error::CgroupError;
pub use group::{Group, Leaf};
pub use layout::{Hierarchy, Layout, own_group};
pub use usage::Pressure;
