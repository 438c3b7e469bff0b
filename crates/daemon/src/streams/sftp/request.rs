//! Requests of SFTP version 3. See draft-ietf-secsh-filexfer-02. Pure: the fuzz targets include this file.

use bytes::{Buf, Bytes, BytesMut};

/// Longest packet that is taken, as in OpenSSH.
pub const MAX_PACKET: usize = 256 << 10;
/// Most bytes that one READ answers or one WRITE brings.
pub const MAX_DATA: usize = MAX_PACKET - 1024;

/// What cannot be answered: the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client does not speak SFTP: {0}")]
pub struct Broken(&'static str);

/// Codes of section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

/// Attributes as a client gives them; the rest is left as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Access and modification.
    pub times: Option<(u32, u32)>,
}

pub const ATTR_SIZE: u32 = 1;
pub const ATTR_OWNER: u32 = 2;
pub const ATTR_MODE: u32 = 4;
pub const ATTR_TIMES: u32 = 8;
const ATTR_EXTENDED: u32 = 1 << 31;

/// Flags of OPEN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const APPEND: u32 = 4;
    pub const CREATE: u32 = 8;
    pub const TRUNCATE: u32 = 16;
    pub const EXCLUSIVE: u32 = 32;

    pub fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// Names a handle; what is no number of ours names none.
pub type Handle = u32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Open {
        path: String,
        flags: Flags,
        attributes: Attributes,
    },
    Close {
        handle: Handle,
    },
    Read {
        handle: Handle,
        offset: u64,
        length: u32,
    },
    Write {
        handle: Handle,
        offset: u64,
        data: Bytes,
    },
    Lstat {
        path: String,
    },
    Fstat {
        handle: Handle,
    },
    SetStat {
        path: String,
        attributes: Attributes,
    },
    FsetStat {
        handle: Handle,
        attributes: Attributes,
    },
    OpenDir {
        path: String,
    },
    ReadDir {
        handle: Handle,
    },
    Remove {
        path: String,
    },
    MakeDir {
        path: String,
        attributes: Attributes,
    },
    RemoveDir {
        path: String,
    },
    RealPath {
        path: String,
    },
    Stat {
        path: String,
    },
    Rename {
        path: String,
        to: String,
        replace: bool,
    },
    ReadLink {
        path: String,
    },
    /// In the order of OpenSSH, which is not the draft's: every client there is sends the target first.
    Symlink {
        target: String,
        path: String,
    },
    HardLink {
        path: String,
        to: String,
    },
    Sync {
        handle: Handle,
    },
    Limits,
}

/// Takes the next whole packet, without its length, out of what has arrived.
pub fn next_packet(arrived: &mut BytesMut) -> Result<Option<Bytes>, Broken> {
    let Some(length) = arrived.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > MAX_PACKET {
        return Err(Broken("a packet of an impossible length"));
    }
    if arrived.len() < 4 + length {
        arrived.reserve(4 + length - arrived.len());
        return Ok(None);
    }
    arrived.advance(4);
    Ok(Some(arrived.split_to(length).freeze()))
}

/// The version of the INIT that a session begins with.
pub fn parse_init(packet: &[u8]) -> Result<u32, Broken> {
    match packet {
        [1, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(Broken("it does not begin with INIT")),
    }
}

/// The request's id, and the request or why it is refused.
pub fn parse(mut packet: Bytes) -> Result<(u32, Result<Request, Code>), Broken> {
    if packet.len() < 5 {
        return Err(Broken("a packet without an id"));
    }
    let (kind, id) = (packet.get_u8(), packet.get_u32());
    Ok((id, Fields(packet).request(kind)))
}

struct Fields(Bytes);

impl Fields {
    fn u32(&mut self) -> Result<u32, Code> {
        self.0.try_get_u32().map_err(|_| Code::BadMessage)
    }

    fn u64(&mut self) -> Result<u64, Code> {
        self.0.try_get_u64().map_err(|_| Code::BadMessage)
    }

    fn bytes(&mut self) -> Result<Bytes, Code> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(Code::BadMessage);
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Result<String, Code> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| Code::BadMessage)
    }

    /// From the instance's root; a session's working directory is `/`.
    fn path(&mut self) -> Result<String, Code> {
        let text = self.text()?;
        if text.contains('\0') {
            return Err(Code::BadMessage);
        }
        Ok(if text.starts_with('/') { text } else { format!("/{text}") })
    }

    fn handle(&mut self) -> Result<Handle, Code> {
        let bytes: [u8; 4] = self.bytes()?.as_ref().try_into().map_err(|_| Code::Failure)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn attributes(&mut self) -> Result<Attributes, Code> {
        let flags = self.u32()?;
        let has = |flag| flags & flag != 0;
        let size = if has(ATTR_SIZE) { Some(self.u64()?) } else { None };
        let owner = if has(ATTR_OWNER) { Some((self.u32()?, self.u32()?)) } else { None };
        let mode = if has(ATTR_MODE) { Some(self.u32()? & 0o7777) } else { None };
        let times = if has(ATTR_TIMES) { Some((self.u32()?, self.u32()?)) } else { None };
        if has(ATTR_EXTENDED) {
            for _ in 0..self.u32()? {
                self.bytes()?;
                self.bytes()?;
            }
        }
        Ok(Attributes { size, owner, mode, times })
    }

    fn request(&mut self, kind: u8) -> Result<Request, Code> {
        use Request as R;
        Ok(match kind {
            3 => R::Open { path: self.path()?, flags: Flags(self.u32()?), attributes: self.attributes()? },
            4 => R::Close { handle: self.handle()? },
            5 => R::Read { handle: self.handle()?, offset: self.u64()?, length: self.u32()? },
            6 => R::Write { handle: self.handle()?, offset: self.u64()?, data: self.bytes()? },
            7 => R::Lstat { path: self.path()? },
            8 => R::Fstat { handle: self.handle()? },
            9 => R::SetStat { path: self.path()?, attributes: self.attributes()? },
            10 => R::FsetStat { handle: self.handle()?, attributes: self.attributes()? },
            11 => R::OpenDir { path: self.path()? },
            12 => R::ReadDir { handle: self.handle()? },
            13 => R::Remove { path: self.path()? },
            14 => R::MakeDir { path: self.path()?, attributes: self.attributes()? },
            15 => R::RemoveDir { path: self.path()? },
            16 => R::RealPath { path: self.path()? },
            17 => R::Stat { path: self.path()? },
            18 => R::Rename { path: self.path()?, to: self.path()?, replace: false },
            19 => R::ReadLink { path: self.path()? },
            20 => R::Symlink { target: self.text()?, path: self.path()? },
            200 => match self.bytes()?.as_ref() {
                b"posix-rename@openssh.com" => R::Rename { path: self.path()?, to: self.path()?, replace: true },
                b"hardlink@openssh.com" => R::HardLink { path: self.path()?, to: self.path()? },
                b"fsync@openssh.com" => R::Sync { handle: self.handle()? },
                b"limits@openssh.com" => R::Limits,
                _ => return Err(Code::OpUnsupported),
            },
            _ => return Err(Code::OpUnsupported),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![kind, 0, 0, 0, 7];
        for field in fields {
            body.extend_from_slice(field);
        }
        [(body.len() as u32).to_be_bytes().as_slice(), &body].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [(text.len() as u32).to_be_bytes().as_slice(), text.as_bytes()].concat()
    }

    fn some_packets() -> Vec<(Vec<u8>, Request)> {
        let attributes = Attributes { mode: Some(0o600), times: Some((1, 2)), ..Attributes::default() };
        let raw = [0, 0, 0, 12, 0, 0, 0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 2];
        let handle = [0, 0, 0, 4, 0, 0, 0, 9];
        let offset = 5_u64.to_be_bytes();
        vec![
            (
                packet(3, &[&text("etc/hosts"), &[0, 0, 0, 26], &raw]),
                Request::Open { path: "/etc/hosts".to_owned(), flags: Flags(26), attributes },
            ),
            (
                packet(6, &[&handle, &offset, &text("data")]),
                Request::Write { handle: 9, offset: 5, data: Bytes::from_static(b"data") },
            ),
            (
                packet(20, &[&text("../target"), &text("/link")]),
                Request::Symlink { target: "../target".to_owned(), path: "/link".to_owned() },
            ),
            (
                packet(200, &[&text("posix-rename@openssh.com"), &text("/a"), &text("/b")]),
                Request::Rename { path: "/a".to_owned(), to: "/b".to_owned(), replace: true },
            ),
        ]
    }

    #[test]
    fn packets_are_read_wherever_they_are_split() {
        let expected: Vec<Request> = some_packets().into_iter().map(|(_, request)| request).collect();
        let all: Vec<u8> = some_packets().into_iter().flat_map(|(bytes, _)| bytes).collect();
        for split in 0..=all.len() {
            let (mut arrived, mut found) = (BytesMut::new(), Vec::new());
            for part in [&all[..split], &all[split..]] {
                arrived.extend_from_slice(part);
                while let Some(packet) = next_packet(&mut arrived).unwrap() {
                    let (id, request) = parse(packet).unwrap();
                    assert_eq!(id, 7);
                    found.push(request.unwrap());
                }
            }
            assert_eq!(found, expected, "split at {split}");
        }
    }

    #[test]
    fn a_packet_cut_short_is_a_bad_message() {
        for (bytes, _) in some_packets() {
            for length in 5..bytes.len() - 4 {
                let (id, request) = parse(Bytes::copy_from_slice(&bytes[4..4 + length])).unwrap();
                assert_eq!(id, 7);
                assert!(request.is_err(), "{length} bytes of {bytes:?}");
            }
        }
    }

    #[test]
    fn impossible_lengths_break_the_session() {
        for length in [0, MAX_PACKET as u32 + 1, u32::MAX] {
            assert!(next_packet(&mut BytesMut::from(length.to_be_bytes().as_slice())).is_err());
        }
        assert!(parse(Bytes::from_static(&[3, 0, 0])).is_err());
        assert!(parse_init(&[3, 0, 0, 0, 3]).is_err());
        assert_eq!(parse_init(&[1, 0, 0, 0, 6, 9, 9]).unwrap(), 6);
    }

    #[test]
    fn garbage_never_panics() {
        // A linear congruential generator: the same garbage every time.
        let mut seed = 1_u32;
        let mut byte = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for round in 0..20_000 {
            let mut bytes: Vec<u8> = (0..round % 60).map(|_| byte()).collect();
            if let Some(kind) = bytes.first_mut() {
                *kind %= 24;
            }
            let _ = parse(Bytes::from(bytes));
        }
    }
}
