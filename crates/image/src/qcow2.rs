//! The header of a qcow2 file, read before any program opens it: a disk that names other files or keys is refused.
//!
//! Source: QEMU, docs/interop/qcow2.txt.

use std::{fs::File, io::Read, os::unix::fs::FileExt};

/// Bytes of the header that say what a file is and what it needs.
pub(crate) const HEADER_LEN: usize = 104;

/// Its content lies in another file, `data_file`.
const EXTERNAL_DATA: u64 = 1 << 2;
/// Marked corrupt by the QEMU that wrote it.
const CORRUPT: u64 = 1 << 1;
/// Dirty, compression type, subclusters: QEMU reads all of these by itself.
const HARMLESS: u64 = 1 | 1 << 3 | SUBCLUSTERS;
const SUBCLUSTERS: u64 = 1 << 4;
/// Where in the file a table or a cluster is, in an entry of either table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// More than QEMU itself reads.
const MOST_TABLES: u64 = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the disk that a machine sees.
    pub virtual_size: u64,
    cluster_bits: u32,
    /// Where the first table of tables is, and how many entries it has.
    tables: u64,
    table_count: u64,
    /// Bytes of an entry in the second tables.
    entry: u64,
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
        let entry = if features & SUBCLUSTERS != 0 { 16 } else { 8 };
        let (table_count, tables) = (number(36, 4)?, number(40, 8)?);
        Ok(Self { virtual_size, cluster_bits: cluster_bits as u32, tables, table_count, entry })
    }

    /// Fails where a table or a cluster begins behind the file's end: QEMU would read zeros there, without a word.
    pub(crate) fn check_whole(&self, file: &File) -> Result<(), String> {
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        let cut = |at: u64| format!("it has {length} bytes, and content at {at}");
        let cluster = 1u64 << self.cluster_bits;
        if self.table_count > MOST_TABLES {
            return Err(format!("its disk has {} tables", self.table_count));
        }
        let tables = numbers(file, self.tables, self.table_count * 8, 8).ok_or_else(|| cut(self.tables))?;
        let mut used = 0;
        for table in tables.map(|entry| entry & OFFSET).filter(|table| *table != 0) {
            used += cluster;
            if used > length {
                // Each has a cluster of its own, so there cannot be more of them.
                return Err("its tables overlap".into());
            }
            for entry in numbers(file, table, cluster, self.entry).ok_or_else(|| cut(table))? {
                let compressed = (1u64 << (62 - (self.cluster_bits - 8))) - 1;
                let at = entry & if entry & COMPRESSED != 0 { compressed } else { OFFSET };
                if at >= length {
                    return Err(cut(at));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn read(file: &mut File) -> Result<Self, String> {
        let mut head = Vec::with_capacity(HEADER_LEN);
        file.take(HEADER_LEN as u64).read_to_end(&mut head).map_err(|error| error.to_string())?;
        Self::parse(&head)
    }
}

/// Big-endian numbers at the start of entries of `step` bytes; `None` where the file ends before them.
fn numbers(file: &File, at: u64, length: u64, step: u64) -> Option<impl Iterator<Item = u64>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, at).ok()?;
    let count = bytes.len() / step as usize;
    Some((0..count).map(move |number| {
        let start = number * step as usize;
        bytes[start..start + 8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }))
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
        assert_eq!(Header::parse(&header()).map(|header| header.virtual_size), Ok(2 << 30));
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
