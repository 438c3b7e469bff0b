//! QEMU's machine protocol: one JSON object a line. Source: QEMU's `docs/interop/qmp-spec.rst` and `query-qmp-schema`.
//!
//! [`Codec`] does no I/O; [`Monitor`] asks one command at a time with a deadline; [`Events`] only listens. They are two
//! connections to two monitors of one QEMU, so that an answer is never looked for among events.

mod codec;
mod monitor;

pub use codec::{Codec, Incoming, QmpError};
pub use monitor::{Event, Events, Monitor, MonitorError};
