//! The header of a qcow2 file, read before any program opens it: a disk that names other files or keys is refused.
//!
//! Source: QEMU, docs/interop/qcow2.txt.

use std::{fs::File, io::Read};

/// Bytes of the header that say what a file is and what it needs.
pub(crate) const HEADER_LEN: usize = 104;

/// Its content lies in another file, `data_file`.
const EXTERNAL_DATA: u64 = 1 << 2;
/// Marked corrupt by the QEMU that wrote it.
const CORRUPT: u64 = 1 << 1;
/// Dirty, compression type, subclusters: QEMU reads all of these by itself.
const HARMLESS: u64 = 1 | 1 << 3 | 1 << 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the disk that a machine sees.
    pub virtual_size: u64,
}

impl Header {
    /// Fails with the reason why this file is no disk that stands alone.
    pub(crate) fn parse(head: &[u8]) -> Result<Self, String> {
        let number = |at: usize, len: usize| {
            let bytes = head.get(at..at + len).ok_or("its header is cut short")?;
            Ok::<u64, String>(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        };
        if !head.starts_with(b"QFI\xfb") {
            return Err("it is no qcow2 image".into());
        }
        let version = number(4, 4)?;
        if !(2..=3).contains(&version) {
            return Err(format!("it is a qcow2 image of the unknown version {version}"));
        }
        if number(8, 8)? != 0 || number(16, 4)? != 0 {
            return Err("it has a backing file; an image must stand alone".into());
        }
        if number(32, 4)? != 0 {
            return Err("it is encrypted".into());
        }
        let cluster_bits = number(20, 4)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(format!("its clusters have 2^{cluster_bits} bytes"));
        }
        let features = if version == 3 { number(72, 8)? } else { 0 };
        if features & EXTERNAL_DATA != 0 {
            return Err("its content lies in another file; an image must stand alone".into());
        }
        if features & CORRUPT != 0 {
            return Err("it is marked as corrupt; `qemu-img check -r all` repairs what can be".into());
        }
        if features & !HARMLESS != 0 {
            return Err(format!("it needs features that are not known here ({:#x})", features & !HARMLESS));
        }
        let virtual_size = number(24, 8)?;
        if virtual_size == 0 || virtual_size > 1 << 60 {
            return Err(format!("its disk has {virtual_size} bytes"));
        }
        Ok(Self { virtual_size })
    }

    pub(crate) fn read(file: &mut File) -> Result<Self, String> {
        let mut head = Vec::with_capacity(HEADER_LEN);
        file.take(HEADER_LEN as u64).read_to_end(&mut head).map_err(|error| error.to_string())?;
        Self::parse(&head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut head = vec![0; HEADER_LEN];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        head[23] = 16;
        head[24..32].copy_from_slice(&(2u64 << 30).to_be_bytes());
        head
    }

    #[test]
    fn a_disk_that_stands_alone_is_accepted() {
        assert_eq!(Header::parse(&header()), Ok(Header { virtual_size: 2 << 30 }));
        let mut zstd = header();
        zstd[79] = 1 << 3;
        assert!(Header::parse(&zstd).is_ok());
    }

    #[test]
    fn a_disk_that_leads_elsewhere_is_refused_with_the_reason() {
        for (at, value, reason) in [
            (0, b'X', "no qcow2"),
            (7, 4, "version 4"),
            (15, 112, "backing file"),
            (19, 11, "backing file"),
            (23, 40, "2^40"),
            (35, 2, "encrypted"),
            (79, 1 << 2, "another file"),
            (79, 1 << 1, "corrupt"),
            (72, 1, "not known"),
            (24, 0xff, "its disk has"),
        ] {
            let mut head = header();
            head[at] = value;
            let error = Header::parse(&head).unwrap_err();
            assert!(error.contains(reason), "{at}: {error}");
        }
        for length in 0..80 {
            assert!(Header::parse(&header()[..length]).is_err(), "{length}");
        }
    }
}
