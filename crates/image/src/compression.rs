//! Compression, told by magic bytes: names lie.

use std::io::{self, BufReader, Read};

/// Memory an xz or lzma stream may ask for; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 192 << 20;
/// zstd's largest window, as a power of two: 128 MiB, what `zstd --long` makes.
const ZSTD_WINDOW_LOG: u32 = 27;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Zstd,
}

/// What the first bytes of a file say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Magic {
    Compressed(Compression),
    Tar,
    Squashfs,
    Qcow2,
    Unknown,
}

/// Bytes that [`Magic::of`] wants to see.
pub(crate) const MAGIC_LEN: usize = 512;

impl Magic {
    pub(crate) fn of(head: &[u8]) -> Self {
        let starts = |magic: &[u8]| head.starts_with(magic);
        if starts(&[0x1f, 0x8b]) {
            Self::Compressed(Compression::Gzip)
        } else if starts(b"BZh") {
            Self::Compressed(Compression::Bzip2)
        } else if starts(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Self::Compressed(Compression::Xz)
        } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Compressed(Compression::Zstd)
        } else if starts(b"hsqs") {
            Self::Squashfs
        } else if starts(b"QFI\xfb") {
            Self::Qcow2
        } else if head.get(257..262) == Some(b"ustar") || is_old_tar(head) {
            Self::Tar
        } else if starts(&[0x5d, 0, 0]) {
            Self::Compressed(Compression::Lzma)
        } else {
            Self::Unknown
        }
    }
}

/// The ending of a file's name that its first bytes (512 are enough) call for; empty where they say nothing.
pub fn file_extension(head: &[u8]) -> &'static str {
    match Magic::of(head) {
        Magic::Tar | Magic::Compressed(Compression::None) => ".tar",
        Magic::Compressed(Compression::Gzip) => ".tar.gz",
        Magic::Compressed(Compression::Bzip2) => ".tar.bz2",
        Magic::Compressed(Compression::Xz) => ".tar.xz",
        Magic::Compressed(Compression::Lzma) => ".tar.lzma",
        Magic::Compressed(Compression::Zstd) => ".tar.zst",
        Magic::Squashfs => ".squashfs",
        Magic::Qcow2 => ".qcow2",
        Magic::Unknown => "",
    }
}

/// A header without "ustar" (v7) is a tar header when its checksum is right and it has a name.
fn is_old_tar(head: &[u8]) -> bool {
    head.len() >= 512 && head[0] != 0 && crate::tarball::checksum_is_right(&head[..512])
}

/// The plain bytes behind a compressed stream; memory is bounded whatever its header asks for.
pub(crate) fn reader(compression: Compression, inner: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let inner = BufReader::with_capacity(128 * 1024, inner);
    Ok(match compression {
        Compression::None => Box::new(inner),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(inner)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(inner)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(inner, stream))
        }
        Compression::Lzma => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(inner, stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(inner)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}
