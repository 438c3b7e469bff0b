//! Walks a tar archive entry by entry, with bounded memory and without touching any file.
//!
//! The headers are parsed by the `tar` crate; the walk is ours, because limits, cut-short archives, binary PAX values
//! and all four ways to write a sparse file need it.

use std::io::{self, BufRead};

use tar::{EntryType, Header};

use crate::{error::UnpackFault, pax::Pax, unpack::UnpackLimits};

const BLOCK: u64 = 512;
/// Longest extended header: names, links and all extended attributes of one entry (the kernel's limit is 64 KiB each).
const MAX_EXTENDED: u64 = 1 << 20;
const MAX_SEGMENTS: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Fifo,
    Device,
}

/// Offset and length of each part.
pub(crate) type Segments = Vec<(u64, u64)>;

#[derive(Debug)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    /// Bytes the file has once written.
    pub size: u64,
    /// The parts that are stored, in order; `None`: all of it.
    pub segments: Option<Segments>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub acl_access: Option<Vec<u8>>,
    pub acl_default: Option<Vec<u8>>,
}

impl Entry {
    pub(crate) fn name(&self) -> String {
        self.path.escape_ascii().to_string()
    }
}

/// An open archive; `file` is how errors call it.
pub(crate) struct Walker<R> {
    input: R,
    file: String,
    limits: UnpackLimits,
    entries: u64,
    bytes: u64,
    /// Stored bytes of the current entry not yet read, and the padding after them.
    remaining: u64,
    padding: u64,
    ended: bool,
}

impl<R: BufRead> Walker<R> {
    pub(crate) fn new(input: R, file: impl Into<String>, limits: &UnpackLimits) -> Self {
        let file = file.into();
        Self { input, file, limits: *limits, entries: 0, bytes: 0, remaining: 0, padding: 0, ended: false }
    }

    /// The next entry; what is left of the one before is skipped. `None` after the end mark.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackFault> {
        if self.ended {
            return Ok(None);
        }
        self.skip_rest()?;
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|error| self.corrupt(error))?;
            match header.entry_type() {
                EntryType::XHeader => pax = Pax::parse(&self.extended(size)?).map_err(|reason| self.corrupt(reason))?,
                EntryType::XGlobalHeader => drop(self.extended(size)?),
                EntryType::GNULongName => long_name = Some(self.extended_name(size)?),
                EntryType::GNULongLink => long_link = Some(self.extended_name(size)?),
                _ => return self.entry(&header, pax, long_name, long_link).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, UnpackFault> {
        let path = pax.sparse.name.clone().or(pax.path.clone()).or(long_name);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax.link.clone().or(long_link);
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        let name = path.escape_ascii().to_string();
        if path.len() as u64 > self.limits.name_length || link.len() as u64 > self.limits.name_length {
            return Err(self.limit("the length of a name", self.limits.name_length));
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.limit("the number of entries", self.limits.entries));
        }
        let refuse = |reason: String| UnpackFault::Refused { file: self.file.clone(), entry: name.clone(), reason };
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                // Archives older than POSIX mark a directory by its name alone.
                if path.ends_with(b"/") { Kind::Directory } else { Kind::File }
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            other => {
                return Err(refuse(format!("its type {:?} is unknown", other.as_byte().escape_ascii().to_string())));
            }
        };
        let id = |id: u64| {
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| refuse(format!("its owner {id} is no id")))
        };
        let uid = id(pax.uid.or_else(|| header.uid().ok()).unwrap_or(0))?;
        let gid = id(pax.gid.or_else(|| header.gid().ok()).unwrap_or(0))?;
        let stored = match pax.size {
            Some(size) => size,
            None => header.entry_size().map_err(|error| self.corrupt(error))?,
        };
        self.begin_body(stored);
        let (size, segments) = self.sparse(header, &pax, stored)?;
        // A hard link or symlink may carry a size in its header; only files have content of ours.
        if kind == Kind::File {
            self.count(size)?;
        }
        Ok(Entry {
            path,
            link,
            kind,
            mode: header.mode().unwrap_or(0o644) & 0o7777,
            uid,
            gid,
            mtime: pax.mtime.unwrap_or((header.mtime().ok().and_then(|at| i64::try_from(at).ok()).unwrap_or(0), 0)),
            size,
            segments,
            xattrs: pax.xattrs,
            acl_access: pax.acl_access,
            acl_default: pax.acl_default,
        })
    }

    /// Some bytes of the current entry; empty at its end.
    pub(crate) fn chunk(&mut self) -> Result<&[u8], UnpackFault> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        // Borrowed twice: the error arm needs `self` again, so the buffer is asked for a second time.
        match self.input.fill_buf() {
            Ok([]) => return Err(self.truncated("an entry's content is missing")),
            Err(error) => return Err(self.read_fault(error)),
            Ok(_) => {}
        }
        let remaining = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let available = self.input.fill_buf().unwrap_or_default();
        Ok(&available[..available.len().min(remaining)])
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.remaining = self.remaining.saturating_sub(count as u64);
    }

    /// All of the current entry, which must be small.
    pub(crate) fn read_small(&mut self, most: u64) -> Result<Vec<u8>, UnpackFault> {
        if self.remaining > most {
            return Err(self.limit("the size of a file", most));
        }
        let mut bytes = Vec::with_capacity(self.remaining as usize);
        while self.remaining > 0 {
            let chunk = self.chunk()?;
            bytes.extend_from_slice(chunk);
            let count = chunk.len();
            self.consume(count);
        }
        Ok(bytes)
    }

    /// Reads to the end of the stream, so that a compressor's own checksum is verified.
    pub(crate) fn finish(&mut self) -> Result<(), UnpackFault> {
        let mut trailing = 0u64;
        loop {
            let count = match self.input.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(bytes) => bytes.len(),
                Err(error) => return Err(self.read_fault(error)),
            };
            trailing += count as u64;
            if trailing > self.limits.bytes {
                return Err(self.limit("the padding", self.limits.bytes));
            }
            self.input.consume(count);
        }
    }

    fn begin_body(&mut self, stored: u64) {
        self.remaining = stored;
        self.padding = (BLOCK - stored % BLOCK) % BLOCK;
    }

    fn skip_rest(&mut self) -> Result<(), UnpackFault> {
        self.remaining = self.remaining.saturating_add(self.padding);
        self.padding = 0;
        while self.remaining > 0 {
            let count = self.chunk()?.len();
            self.consume(count);
        }
        Ok(())
    }

    /// One 512-byte block into `block`; false at the end of the stream.
    fn block(&mut self, block: &mut [u8; 512]) -> Result<bool, UnpackFault> {
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.truncated("it ends within a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_fault(error)),
            }
        }
        Ok(true)
    }

    fn header(&mut self) -> Result<Option<Header>, UnpackFault> {
        let mut block = [0; 512];
        if !self.block(&mut block)? {
            return Err(self.truncated("it has no end mark"));
        }
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        if !checksum_is_right(&block) {
            return Err(self.corrupt("a tar header has a wrong checksum"));
        }
        Ok(Some(Header::from_byte_slice(&block).clone()))
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, UnpackFault> {
        self.begin_body(size);
        let bytes = self.read_small(MAX_EXTENDED)?;
        self.skip_rest()?;
        self.entries += 1;
        Ok(bytes)
    }

    fn extended_name(&mut self, size: u64) -> Result<Vec<u8>, UnpackFault> {
        let mut name = self.extended(size)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    /// The file's real size and its stored parts.
    fn sparse(&mut self, header: &Header, pax: &Pax, stored: u64) -> Result<(u64, Option<Segments>), UnpackFault> {
        let (real, numbers) = if let (EntryType::GNUSparse, Some(gnu)) = (header.entry_type(), header.as_gnu()) {
            let mut numbers = Vec::new();
            let real = gnu.real_size().map_err(|error| self.corrupt(error))?;
            let mut take = |block: &tar::GnuSparseHeader| -> io::Result<()> {
                if !block.is_empty() {
                    numbers.extend([block.offset()?, block.length()?]);
                }
                Ok(())
            };
            for block in &gnu.sparse {
                take(block).map_err(|error| self.corrupt(error))?;
            }
            let mut more = gnu.is_extended();
            while more {
                let mut bytes = [0; 512];
                if !self.block(&mut bytes)? {
                    return Err(self.truncated("a sparse map is missing"));
                }
                let mut extension = tar::GnuExtSparseHeader::new();
                extension.as_mut_bytes().copy_from_slice(&bytes);
                for block in &extension.sparse {
                    if !block.is_empty() {
                        let pair = block.offset().and_then(|offset| Ok([offset, block.length()?]));
                        numbers.extend(pair.map_err(|error| self.corrupt(error))?);
                    }
                }
                if numbers.len() > 2 * MAX_SEGMENTS {
                    return Err(self.limit("the parts of a sparse file", MAX_SEGMENTS as u64));
                }
                more = extension.is_extended();
            }
            (real, numbers)
        } else if pax.sparse.is_present() {
            let real = pax.sparse.real_size.unwrap_or(stored);
            match pax.sparse.major {
                Some(1) => (real, self.sparse_map_in_content()?),
                _ => (real, pax.sparse.numbers.clone()),
            }
        } else {
            return Ok((stored, None));
        };
        let segments: Segments = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let mut end = 0;
        let mut total = 0u64;
        for (offset, length) in &segments {
            let stop = offset.checked_add(*length).filter(|stop| *offset >= end && *stop <= real);
            end = stop.ok_or_else(|| self.corrupt("a sparse file's parts overlap or leave it"))?;
            total += length;
        }
        if total != self.remaining || segments.len() > MAX_SEGMENTS || numbers.len() % 2 != 0 {
            return Err(self.corrupt("a sparse file's map does not match its content"));
        }
        Ok((real, Some(segments)))
    }

    /// GNU sparse 1.0: decimal numbers, one a line, in whole blocks before the content.
    fn sparse_map_in_content(&mut self) -> Result<Vec<u64>, UnpackFault> {
        let mut text = Vec::new();
        let mut wanted: Option<usize> = None;
        loop {
            let lines: Vec<&[u8]> = text.split(|byte: &u8| *byte == b'\n').collect();
            // The last piece has no newline yet.
            let whole = lines.len() - 1;
            if wanted.is_none() && whole >= 1 {
                let count = crate::pax::number(lines[0]).filter(|count| *count as usize <= MAX_SEGMENTS);
                wanted = Some(count.ok_or_else(|| self.corrupt("a sparse map is malformed"))? as usize);
            }
            if let Some(count) = wanted
                && whole > 2 * count
            {
                let numbers = lines[1..=2 * count].iter().map(|line| crate::pax::number(line)).collect();
                return Option::ok_or_else(numbers, || self.corrupt("a sparse map is malformed"));
            }
            let mut block = [0; 512];
            if self.remaining < BLOCK || text.len() > 4 << 20 || !self.block(&mut block)? {
                return Err(self.corrupt("a sparse map is malformed"));
            }
            self.remaining -= BLOCK;
            text.extend_from_slice(&block);
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), UnpackFault> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes {
            return Err(self.limit("the size of all files", self.limits.bytes));
        }
        Ok(())
    }

    pub(crate) fn limit(&self, what: &str, limit: u64) -> UnpackFault {
        UnpackFault::Limit { file: self.file.clone(), what: what.into(), limit }
    }

    fn corrupt(&self, reason: impl ToString) -> UnpackFault {
        UnpackFault::Corrupt { file: self.file.clone(), reason: reason.to_string() }
    }

    fn truncated(&self, reason: &str) -> UnpackFault {
        UnpackFault::Truncated { file: self.file.clone(), reason: reason.into() }
    }

    fn read_fault(&self, error: io::Error) -> UnpackFault {
        let (file, reason) = (self.file.clone(), error.to_string());
        match error.kind() {
            io::ErrorKind::UnexpectedEof => UnpackFault::Truncated { file, reason },
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                UnpackFault::Corrupt { file, reason }
            }
            _ => UnpackFault::Read { file, reason },
        }
    }
}

/// The sum of a header's bytes, its own field counted as spaces, is what it says.
pub(crate) fn checksum_is_right(block: &[u8]) -> bool {
    let Some(field) = block.get(148..156) else { return false };
    let sum: u32 = block
        .iter()
        .take(512)
        .enumerate()
        .map(|(at, byte)| match at {
            148..156 => 32,
            _ => u32::from(*byte),
        })
        .sum();
    let digits: String = field.iter().map(|byte| *byte as char).filter(|c| ('0'..='7').contains(c)).collect();
    u32::from_str_radix(&digits, 8) == Ok(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(bytes: &[u8]) -> Result<usize, UnpackFault> {
        let limits = UnpackLimits { entries: 1000, bytes: 1 << 30, depth: 10, name_length: 1000 };
        let mut walker = Walker::new(bytes, "x", &limits);
        let mut count = 0;
        while let Some(entry) = walker.next()? {
            let _ = crate::paths::relative(&entry.path);
            count += 1;
        }
        walker.finish()?;
        Ok(count)
    }

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind) in [("a", EntryType::Regular), ("b", EntryType::GNUSparse), ("p", EntryType::XHeader)] {
            let content = b"25 GNU.sparse.realsize=9\n22 GNU.sparse.major=1\n";
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, &content[..]).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_size(3);
        builder.append_data(&mut header, "n".repeat(200), &b"abc"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    /// Checksums are no defence: whoever changes a header can mend them.
    fn mend(bytes: &mut [u8]) {
        for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = walk(&bytes);
        }

        #[test]
        fn no_change_to_an_archive_makes_it_panic_or_loop(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = archive();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            mend(&mut bytes);
            let _ = walk(&bytes);
            let _ = walk(&bytes[..length.index(bytes.len())]);
        }
    }
}
