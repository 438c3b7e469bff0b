//! Bytes of netlink messages: building requests and taking answers apart. Every reader tolerates any input.

use std::net::IpAddr;

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// A request under construction, in a buffer that is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts over: `body` is the fixed structure behind the header (ifinfomsg, ifaddrmsg, …).
    pub(super) fn begin(&mut self, kind: u16, flags: u16, body: &[u8]) -> &mut Self {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.raw(body)
    }

    /// Bytes without an attribute header, padded to four.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value)
    }

    pub(super) fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    pub(super) fn attr_i32(&mut self, kind: u16, value: i32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A string with its terminating NUL. One inside would silently cut the name, so the callers check names first.
    pub(super) fn attr_str(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes.extend_from_slice(&(5 + value.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.raw(&[0])
    }

    pub(super) fn attr_ip(&mut self, kind: u16, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => self.attr(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attr(kind, &v6.octets()),
        }
    }

    /// An attribute that holds what `fill` adds.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Fills in length and sequence number and hands the datagram out.
    pub(super) fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

/// One message of a received datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram; ends at the first that is cut short.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER {
            return None;
        }
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes` as (type, value), the nesting and byte-order bits of the type removed.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(|value| value as i32)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(super) fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// The kernel's own words in an error answer (NLMSGERR_ATTR_MSG). With NETLINK_CAP_ACK the refused request is cut to
/// its header, so the attributes follow that; without the option (NLM_F_CAPPED absent) they follow the whole request.
pub(super) fn extended_ack(message: &Message<'_>) -> Option<String> {
    const NLM_F_CAPPED: u16 = 0x100;
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = match message.flags & NLM_F_CAPPED {
        0 => u32_at(message.payload, 4)? as usize,
        _ => HEADER,
    };
    let rest = message.payload.get(align(echoed.checked_add(4)?)..)?;
    attributes(rest).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG).map(|(_, value)| text(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_can_be_read_back() {
        let mut request = Request::default();
        request.begin(16, 5, &[0; 16]).attr_str(3, "br0").nest(18, |inner| {
            inner.attr_str(1, "bridge").attr_u32(2, 7);
        });
        let bytes = request.finish(9).to_vec();
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (16, 5, 9));
        let found: Vec<_> = attributes(&message.payload[16..]).collect();
        assert_eq!(found[0], (3, &b"br0\0"[..]));
        let inner: Vec<_> = attributes(found[1].1).collect();
        assert_eq!(inner, [(1, &b"bridge\0"[..]), (2, &7u32.to_ne_bytes()[..])]);
        assert_eq!(messages(&bytes).count(), 1);
    }

    #[test]
    fn no_truncation_and_no_length_panics() {
        let mut request = Request::default();
        request.begin(2, 0x200, &[0xff; 40]).attr(1, b"text").attr(2, &[]);
        let whole = request.finish(1).to_vec();
        for end in 0..=whole.len() {
            for poison in [None, Some(0u8), Some(1), Some(3), Some(0x10), Some(0xff)] {
                for at in 0..end {
                    let mut bytes = whole[..end].to_vec();
                    if let Some(poison) = poison {
                        bytes[at] = poison;
                    }
                    for message in messages(&bytes) {
                        let _ = extended_ack(&message);
                        attributes(message.payload).for_each(drop);
                    }
                }
            }
        }
    }
}
