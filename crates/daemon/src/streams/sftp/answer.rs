//! Answers of SFTP version 3 as bytes.

use stapes_instance::{FileKind, FileMeta};

use super::request::{ATTR_MODE, ATTR_OWNER, ATTR_SIZE, ATTR_TIMES, Code, Handle, MAX_DATA, MAX_PACKET};

/// A packet under construction.
pub struct Packet(Vec<u8>);

impl Packet {
    fn new(kind: u8, id: u32, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 9);
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(kind);
        bytes.extend_from_slice(&id.to_be_bytes());
        Self(bytes)
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn text(mut self, text: &str) -> Self {
        // No text of ours comes near 4 GiB.
        self.0.extend_from_slice(&(text.len() as u32).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn attributes(self, meta: &FileMeta) -> Self {
        // The protocol has unsigned seconds in 32 bits.
        let modified = meta.modified.clamp(0, i64::from(u32::MAX)) as u32;
        self.u32(ATTR_SIZE | ATTR_OWNER | ATTR_MODE | ATTR_TIMES)
            .u64(meta.size)
            .u32(meta.uid)
            .u32(meta.gid)
            .u32(format(meta) | meta.mode)
            .u32(modified)
            .u32(modified)
    }

    /// With its length in front.
    fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

fn format(meta: &FileMeta) -> u32 {
    match (meta.format, meta.kind) {
        (0, FileKind::File) => 0o100_000,
        (0, FileKind::Directory) => 0o040_000,
        (0, FileKind::Symlink) => 0o120_000,
        // From a shim that does not tell which.
        (0, FileKind::Other) => 0o010_000,
        (format, _) => format,
    }
}

pub fn version() -> Vec<u8> {
    let mut packet = Packet(vec![0, 0, 0, 0, 2]).u32(3);
    for (name, version) in [
        ("posix-rename@openssh.com", "1"),
        ("hardlink@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("limits@openssh.com", "1"),
    ] {
        packet = packet.text(name).text(version);
    }
    packet.finish()
}

pub fn status(id: u32, code: Code, message: &str) -> Vec<u8> {
    Packet::new(101, id, message.len() + 16).u32(u32::from(code as u8)).text(message).text("en").finish()
}

pub fn handle(id: u32, handle: Handle) -> Vec<u8> {
    Packet::new(102, id, 8).u32(4).u32(handle).finish()
}

/// DATA; `fill` appends at most `most` bytes. `None`: it appended nothing, which is the end of the file.
pub fn data<E>(id: u32, most: usize, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Option<Vec<u8>>, E> {
    let mut packet = Packet::new(103, id, most + 4).u32(0);
    let start = packet.0.len();
    fill(&mut packet.0)?;
    packet.0.truncate(start + most);
    let length = packet.0.len() - start;
    packet.0[start - 4..start].copy_from_slice(&(length as u32).to_be_bytes());
    Ok((length > 0).then(|| packet.finish()))
}

/// NAME with a single path, as REALPATH and READLINK answer.
pub fn one_name(id: u32, name: &str) -> Vec<u8> {
    Packet::new(104, id, 2 * name.len() + 16).u32(1).text(name).text(name).u32(0).finish()
}

pub fn names<'a>(id: u32, entries: impl ExactSizeIterator<Item = &'a (String, FileMeta)>) -> Vec<u8> {
    let mut packet = Packet::new(104, id, entries.len() * 160).u32(entries.len() as u32);
    for (name, meta) in entries {
        packet = packet.text(name).text(&long_name(name, meta)).attributes(meta);
    }
    packet.finish()
}

pub fn attributes(id: u32, meta: &FileMeta) -> Vec<u8> {
    Packet::new(105, id, 32).attributes(meta).finish()
}

/// Answers `limits@openssh.com`.
pub fn limits(id: u32, handles: u64) -> Vec<u8> {
    let data = MAX_DATA as u64;
    Packet::new(201, id, 32).u64(MAX_PACKET as u64).u64(data).u64(data).u64(handles).finish()
}

/// The line of `ls -l` that clients print as it comes.
fn long_name(name: &str, meta: &FileMeta) -> String {
    let kind = match format(meta) {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut rights: [u8; 9] = *b"rwxrwxrwx";
    for (place, letter) in rights.iter_mut().enumerate() {
        if meta.mode & (0o400 >> place) == 0 {
            *letter = b'-';
        }
    }
    for (bit, place, both, alone) in [(0o4000, 2, b's', b'S'), (0o2000, 5, b's', b'S'), (0o1000, 8, b't', b'T')] {
        if meta.mode & bit != 0 {
            rights[place] = if rights[place] == b'x' { both } else { alone };
        }
    }
    let rights = String::from_utf8_lossy(&rights);
    let time = chrono::DateTime::from_timestamp(meta.modified, 0).unwrap_or_default().format("%b %e  %Y");
    format!("{kind}{rights}    1 {:<8} {:<8} {:>8} {time} {name}", meta.uid, meta.gid, meta.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_ls_prints_it() {
        let meta = FileMeta {
            kind: FileKind::Directory,
            uid: 0,
            gid: 5,
            mode: 0o1777,
            size: 4096,
            modified: 1_700_000_000,
            format: 0,
        };
        assert_eq!(long_name("tmp", &meta), "drwxrwxrwt    1 0        5            4096 Nov 14  2023 tmp");
    }

    #[test]
    fn data_has_its_length_and_no_data_is_the_end() {
        let fill = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(b"abcdef");
            Ok::<(), ()>(())
        };
        let answer = data(7, 3, fill).unwrap().unwrap();
        assert_eq!(answer, [0, 0, 0, 12, 103, 0, 0, 0, 7, 0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(data(7, 3, |_| Ok::<(), ()>(())).unwrap(), None);
    }
}
