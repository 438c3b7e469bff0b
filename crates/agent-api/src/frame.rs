//! Frames on a byte stream. On the wire a frame is `kind: u8, stream: u32, payload`, with zero bytes stuffed away
//! (consistent overhead byte stuffing, COBS: Cheshire and Baker, 1999) and a zero byte after it.

use crate::StreamId;

/// Most bytes of one stream under way without a grant.
pub const WINDOW: u32 = 256 * 1024;

/// Most bytes of a stream in one frame.
pub const MAX_PAYLOAD: usize = 32 * 1024;

/// Most bytes beside a message, so that a frame holds both.
pub const MAX_BYTES: usize = 128 * 1024;

/// Longest frame that is taken, unstuffed: a message of this size with its bytes.
pub const MAX_FRAME: usize = 192 * 1024;

const MESSAGE: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const CREDIT: u8 = 4;

/// Kind and stream number.
const HEADER: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A JSON message, and the bytes that belong to it.
    Message {
        json: Vec<u8>,
        bytes: Vec<u8>,
    },
    Data {
        stream: StreamId,
        bytes: Vec<u8>,
    },
    /// No more bytes follow in this stream.
    End {
        stream: StreamId,
    },
    /// So many more bytes may be sent in this stream.
    Credit {
        stream: StreamId,
        bytes: u32,
    },
}

/// Why bytes are no frame. The bytes are gone, the stream is in step again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame is longer than {MAX_FRAME} bytes")]
    TooLong,
    #[error("a frame ends in the middle")]
    Truncated,
    #[error("a frame is of the unknown kind {0}")]
    Kind(u8),
}

impl Frame {
    /// The frame as it goes over the stream, with its zero byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, stream, parts): (u8, u32, [&[u8]; 2]) = match self {
            Self::Message { json, bytes } => (MESSAGE, json.len() as u32, [json, bytes]),
            Self::Data { stream, bytes } => (DATA, stream.0, [bytes, &[]]),
            Self::End { stream } => (END, stream.0, [&[], &[]]),
            Self::Credit { stream, bytes } => {
                return stuff(&[&[CREDIT], &stream.0.to_le_bytes(), &bytes.to_le_bytes()]);
            }
        };
        stuff(&[&[kind], &stream.to_le_bytes(), parts[0], parts[1]])
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, FrameError> {
        let (header, payload) = bytes.split_at_checked(HEADER).ok_or(FrameError::Truncated)?;
        let number = header[1..].try_into().map(u32::from_le_bytes).map_err(|_| FrameError::Truncated)?;
        let stream = StreamId(number);
        Ok(match header[0] {
            MESSAGE => {
                let (json, bytes) = payload.split_at_checked(number as usize).ok_or(FrameError::Truncated)?;
                Self::Message { json: json.to_vec(), bytes: bytes.to_vec() }
            }
            DATA => Self::Data { stream, bytes: payload.to_vec() },
            END => Self::End { stream },
            CREDIT => {
                let bytes = payload.try_into().map_err(|_| FrameError::Truncated)?;
                Self::Credit { stream, bytes: u32::from_le_bytes(bytes) }
            }
            kind => return Err(FrameError::Kind(kind)),
        })
    }
}

/// Stuffs the parts as one frame: each zero becomes the distance to the next one, at most 254 bytes on.
fn stuff(parts: &[&[u8]]) -> Vec<u8> {
    const LONGEST_RUN: usize = 255;
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + length / 254 + 3);
    let mut code_at = 0;
    out.push(0);
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (next, _) = rest.split_at(rest.len().min(LONGEST_RUN - (out.len() - code_at)));
            let zero = next.iter().position(|byte| *byte == 0);
            out.extend_from_slice(&next[..zero.unwrap_or(next.len())]);
            rest = &rest[zero.map_or(next.len(), |zero| zero + 1)..];
            let run = out.len() - code_at;
            if zero.is_some() || run == LONGEST_RUN {
                out[code_at] = run as u8;
                code_at = out.len();
                out.push(0);
            }
        }
    }
    out[code_at] = (out.len() - code_at) as u8;
    out.push(0);
    out
}

/// The reverse of [`stuff`], without the last zero byte.
fn unstuff(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&code, after)) = rest.split_first() {
        let (run, next) = after.split_at_checked(usize::from(code) - 1).ok_or(FrameError::Truncated)?;
        out.extend_from_slice(run);
        if code != 255 && !next.is_empty() {
            out.push(0);
        }
        rest = next;
    }
    Ok(out)
}

/// Bytes as they come, turned into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    /// The frame under way is too long, and what comes of it is dropped.
    overlong: bool,
}

impl Decoder {
    /// Takes what was read and returns the frames that end in it, and what was no frame.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Result<Frame, FrameError>> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            self.keep(&rest[..end]);
            rest = &rest[end + 1..];
            let whole = std::mem::take(&mut self.pending);
            if std::mem::take(&mut self.overlong) {
                frames.push(Err(FrameError::TooLong));
            } else if !whole.is_empty() {
                frames.push(unstuff(&whole).and_then(|frame| Frame::from_bytes(&frame)));
            }
        }
        self.keep(rest);
        frames
    }

    fn keep(&mut self, bytes: &[u8]) {
        const LONGEST: usize = MAX_FRAME + MAX_FRAME / 254 + 2;
        if self.overlong || self.pending.len() + bytes.len() > LONGEST {
            self.overlong = true;
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(bytes: Vec<u8>) -> Frame {
        Frame::Data { stream: StreamId(7), bytes }
    }

    #[test]
    fn frames_read_back_across_the_lengths_where_stuffing_changes() {
        for length in [0, 1, 248, 249, 250, 253, 254, 255, 256, 508, 509, 510, 1000, MAX_PAYLOAD] {
            for byte in [0, 1, 255] {
                let frame = data(vec![byte; length]);
                let wire = frame.to_bytes();
                assert_eq!(wire.iter().filter(|byte| **byte == 0).count(), 1, "one zero byte, at the end");
                assert_eq!(Decoder::default().feed(&wire), [Ok(frame)], "{length} times {byte}");
            }
        }
    }

    #[test]
    fn a_reader_is_in_step_again_after_half_a_frame() {
        let (lost, kept) = (data(vec![3; 100]).to_bytes(), Frame::End { stream: StreamId(1) });
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(&lost[..50]), []);
        let frames = decoder.feed(&[&[0], kept.to_bytes().as_slice()].concat());
        assert_eq!(frames.last(), Some(&Ok(kept)));
    }

    #[test]
    fn an_endless_frame_is_dropped_and_takes_no_memory() {
        let mut decoder = Decoder::default();
        for _ in 0..100 {
            assert_eq!(decoder.feed(&[1; 8192]), []);
        }
        assert!(decoder.pending.capacity() <= MAX_FRAME * 3);
        let frame = Frame::Credit { stream: StreamId(2), bytes: 9 };
        let frames = decoder.feed(&[&[0], frame.to_bytes().as_slice()].concat());
        assert_eq!(frames, [Err(FrameError::TooLong), Ok(frame)]);
    }

    #[test]
    fn a_message_cannot_claim_more_text_than_there_is() {
        let wire = stuff(&[&[MESSAGE], &100u32.to_le_bytes(), b"{}"]);
        assert_eq!(Decoder::default().feed(&wire), [Err(FrameError::Truncated)]);
    }

    proptest! {
        #[test]
        fn any_message_reads_back_in_any_pieces(json: Vec<u8>, bytes: Vec<u8>, cut in 1usize..40) {
            let frame = Frame::Message { json, bytes };
            let mut decoder = Decoder::default();
            let frames: Vec<_> = frame.to_bytes().chunks(cut).flat_map(|piece| decoder.feed(piece)).collect();
            prop_assert_eq!(frames, [Ok(frame)]);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            Decoder::default().feed(&bytes);
        }
    }
}
