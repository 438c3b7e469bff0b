//! Client of the REST API over a Unix socket.
//!
//! [`Client`] keeps its connections and speaks JSON envelopes: `get`, `put`, `begin` (for what starts an operation). On it
//! build [`Client::wait`] and [`Client::follow`] for operations, [`Client::events`], `exec`, and the streams of files and
//! images, which never hold a file in memory. Failures are an [`Error`] whose [`ErrorKind`] a caller may act on.
//!
//! Nothing here needs more than a current-thread runtime: one request costs one connect, one write and one read.
#![forbid(unsafe_code)]

mod address;
mod body;
mod client;
mod error;
mod exec;
mod files;
mod images;
mod operations;
mod target;
mod wire;

pub use address::default_socket;
pub use body::Upload;
pub use client::{Client, Download, Outcome};
pub use error::{Error, ErrorKind};
pub use exec::{Captured, ExecSession, ExecStreams};
pub use files::{FileAttributes, FileKind, PulledFile};
pub use hyper::Method;
pub use images::ImageUpload;
pub use operations::{Events, Progress};
pub use target::Target;
pub use wire::{Message, Socket};
