//! Messages between the daemon, the nursery and the per-instance shims.
//!
//! One message is one datagram on a `SOCK_SEQPACKET` Unix socket: a JSON object, with descriptors beside it where the
//! message says so, in the order it says. A connection carries one request at a time; its reply is the next message the
//! other way. After [`Request::Subscribe`] a connection carries only [`Event`]s.
//!
//! A shim lives for months and must understand next year's daemon, and the other way round. So: unknown fields are
//! ignored, new fields have defaults, a request that a shim does not know is answered [`FailureKind::Unsupported`], and
//! the frames under `tests/frames` were recorded when a version was released and never change.
#![forbid(unsafe_code)]

mod launch;
mod nursery;
mod shim;
mod start;

pub use launch::{Launch, Program};
pub use nursery::{NurseryReply, NurseryRequest};
pub use shim::{
    Event, Exec, ExecStatus, ExitReason, ExitStatus, Failure, FailureKind, Remembered, Reply, Request, Status, Takeover,
};
pub use stapes_file_api::{Access, Create, FileAnswer, FileKind, FileMeta, FileOp, WriteMode};
pub use start::{BindMount, CgroupView, DeviceNode, IdRange, Link, ResourceLimit, Start};

/// Version of this protocol. It grows when a message is added or changes meaning.
pub const VERSION: u32 = 1;

/// Longest message that is taken. Longer content travels in a descriptor.
pub const MAX_FRAME: usize = 192 * 1024;

/// Name of the shim's socket in the instance's run directory.
pub const SHIM_SOCKET: &str = "shim.sock";

/// Name of the nursery's socket in the daemon's run directory.
pub const NURSERY_SOCKET: &str = "nursery.sock";

/// A message as bytes.
pub fn encode<T: serde::Serialize>(message: &T) -> Vec<u8> {
    // Fails only for maps with non-string keys, of which there are none.
    serde_json::to_vec(message).unwrap_or_default()
}

/// A message out of bytes; an error names what was not understood.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// Bytes as hexadecimal text: how a filter program travels inside JSON.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The reverse of [`to_hex`]; `None` for text that is not hexadecimal.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_reads_back() {
        assert_eq!(from_hex(&to_hex(&[0, 9, 10, 255])), Some(vec![0, 9, 10, 255]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
