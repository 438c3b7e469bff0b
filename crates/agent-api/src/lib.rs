//! What the host and the agent inside a virtual machine say to each other, over any byte stream: a virtio-serial port or a
//! vsock connection.
//!
//! The stream carries [`Frame`]s that a zero byte ends, so whoever joins in the middle is in step again at the next zero:
//! a host that was killed leaves half a frame behind, and neither side can see where. A host that connects says
//! [`HostMessage::Hello`]; that ends whatever session there was (commands run on, their streams are closed) and begins a
//! new one, once both sides have proved that they know the instance's key ([`prove`]).
//!
//! A frame is a message, with bytes beside it where the message says so, or the bytes of a command's stream. Streams have
//! windows: no more than [`WINDOW`] bytes are under way in each until the receiver grants more by [`Frame::Credit`].
//!
//! An agent is replaced only when its guest reboots, so an old one must understand a new host and the other way round:
//! unknown fields are ignored, new fields have defaults, and an unknown request is answered
//! [`FailureKind::Unsupported`].
//!
//! Invariant: no I/O, and nothing here trusts the other side: bytes from a guest are hostile.
#![forbid(unsafe_code)]

mod exec;
mod frame;
mod introduction;
mod message;
mod proof;
mod state;

pub use exec::{Exec, ExitStatus, StreamId, StreamKind};
pub use frame::{Decoder, Frame, FrameError, MAX_BYTES, MAX_FRAME, MAX_PAYLOAD, WINDOW};
pub use introduction::{INTRODUCTION_FILE, IntroducedFile, Introduction};
pub use message::{
    Event, Failure, FailureKind, GuestMessage, HostMessage, Mount, MountKind, PowerAction, Reply, Request, decode,
    encode,
};
pub use proof::{KEY_BYTES, Nonce, Proof, Role, prove};
pub use stapes_file_api::{Access, Create, FileAnswer, FileKind, FileMeta, FileOp, WriteMode};
pub use state::{Address, Disk, GuestState, Interface, Memory, OsInfo};

/// Version of this protocol; it grows when a message is added or changes meaning. Both sides speak the lower one.
pub const VERSION: u32 = 1;

/// Name of the virtio-serial port that the agent opens beneath `/dev/virtio-ports`.
pub const PORT_NAME: &str = "org.stapes.agent";

/// File name of the instance's key in the configuration share and drive: [`KEY_BYTES`] bytes in hexadecimal.
pub const KEY_FILE: &str = "agent.key";
