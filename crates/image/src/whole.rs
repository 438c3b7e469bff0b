//! Whether an archive came whole, told before it is taken in: its first use may be months away.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{
    Compression, ImageError, ImageFiles,
    compression::{self, Magic},
    error::UnpackFault,
    inspect::{label, magic},
    qcow2::Header,
    tarball::Walker,
    unpack::UnpackLimits,
};

/// Fails with [`UnpackFault::Truncated`] where a file ends before its content does.
///
/// xz, bzip2 and squashfs say at their end or start how far they reach; a plain, gzip or zstd archive is read through
/// (0.2 to 1 s for a Debian root), with its checksums; of a qcow2 disk its tables are. Where the entries lead is not judged here: the
/// confined worker does that.
pub fn check_whole(files: &ImageFiles) -> Result<(), ImageError> {
    std::iter::once(&files.meta).chain(&files.rootfs).try_for_each(|path| check(path))
}

fn check(path: &Path) -> Result<(), ImageError> {
    let cut =
        |reason: &str| Err(ImageError::Unpack(UnpackFault::Truncated { file: label(path), reason: reason.to_owned() }));
    match magic(path)?.0 {
        Magic::Compressed(Compression::Xz) if !ends_as_xz(&tail(path)?) => cut("its xz stream has no end"),
        Magic::Compressed(Compression::Bzip2) if !ends_as_bzip2(&tail(path)?) => cut("its bzip2 stream has no end"),
        Magic::Compressed(Compression::Xz | Compression::Bzip2) | Magic::Unknown => Ok(()),
        Magic::Qcow2 => {
            let mut file = File::open(path).map_err(ImageError::io("open", path))?;
            let header = Header::read(&mut file);
            let header = header.map_err(|reason| ImageError::Format { file: label(path), reason })?;
            header.check_whole(&file).or_else(|reason| cut(&reason))
        }
        Magic::Squashfs => {
            let (wanted, there) = squashfs_size(path)?;
            if there < wanted { cut(&format!("it has {there} of {wanted} bytes")) } else { Ok(()) }
        }
        Magic::Tar => read_through(path, Compression::None),
        Magic::Compressed(compression) => read_through(path, compression),
    }
}

fn read_through(path: &Path, compression: Compression) -> Result<(), ImageError> {
    let file = File::open(path).map_err(ImageError::io("open", path))?;
    let plain = compression::reader(compression, file).map_err(ImageError::io("read", path))?;
    let plain = BufReader::with_capacity(64 * 1024, plain);
    let mut walker = Walker::new(plain, label(path), &UnpackLimits::default());
    while walker.next().map_err(ImageError::Unpack)?.is_some() {}
    walker.finish().map_err(ImageError::Unpack)
}

/// The last bytes, 1 KiB at most.
fn tail(path: &Path) -> Result<Vec<u8>, ImageError> {
    let read = || {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(1024)))?;
        let mut bytes = Vec::new();
        file.take(1024).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(ImageError::io("read", path))
}

/// The footer's magic, before padding of zeros. Source: the .xz file format, 2.1.2.4 and 2.2.
fn ends_as_xz(tail: &[u8]) -> bool {
    let end = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    tail[..end].ends_with(b"YZ")
}

/// The mark of a stream's end and 32 bits of checksum, not aligned to bytes.
fn ends_as_bzip2(tail: &[u8]) -> bool {
    const END: u128 = 0x1772_4538_5090;
    let last = tail.iter().rev().take(12).rev().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..8).any(|padding| last >> (32 + padding) & 0xffff_ffff_ffff == END)
}

/// Bytes that the superblock claims, and those that are there. Source: kernel, fs/squashfs/squashfs_fs.h.
fn squashfs_size(path: &Path) -> Result<(u64, u64), ImageError> {
    let read = || {
        let mut file = File::open(path)?;
        let mut head = [0; 48];
        file.read_exact(&mut head)?;
        let used: [u8; 8] = head[40..].try_into().unwrap_or_default();
        Ok((u64::from_le_bytes(used), file.metadata()?.len()))
    };
    read().map_err(ImageError::io("read", path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tar(content: usize) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content as u64);
        header.set_mode(0o644);
        // Not to be compressed away.
        let noise: Vec<u8> = (0..content as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect();
        archive.append_data(&mut header, "rootfs/noise", &noise[..]).unwrap();
        archive.into_inner().unwrap()
    }

    fn checked(bytes: &[u8]) -> Result<(), ImageError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        check_whole(&ImageFiles { meta: file.path().to_owned(), rootfs: None })
    }

    #[test]
    fn a_whole_archive_passes_and_a_shorter_one_does_not() {
        let tar = tar(300_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&tar).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        let zstd = zstd::stream::encode_all(&tar[..], 1).unwrap();
        let mut squashfs = vec![7; 5000];
        squashfs[..4].copy_from_slice(b"hsqs");
        squashfs[40..48].copy_from_slice(&5000u64.to_le_bytes());
        for (name, bytes) in [
            ("tar", tar.clone()),
            ("gzip", gzip.finish().unwrap()),
            ("bzip2", bzip2.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
            ("zstd", zstd),
            ("squashfs", squashfs),
        ] {
            checked(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            for left in [bytes.len() * 9 / 10, bytes.len() / 2] {
                let error = checked(&bytes[..left]).expect_err(name);
                assert!(matches!(error, ImageError::Unpack(UnpackFault::Truncated { .. })), "{name}: {error:?}");
            }
        }
    }
}
