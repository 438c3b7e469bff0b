//! Fingerprints: what an image is called everywhere.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use sha2::{Digest, Sha256};
use stapes_model::Fingerprint;

use crate::{ImageError, inspect::ImageFiles};

const CHUNK: usize = 256 * 1024;

/// Streaming SHA-256: feed it the metadata file's bytes and then, for a split image, the root file's.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// 64 lower-case hexadecimal digits.
    pub fn finish_hex(self) -> String {
        use std::fmt::Write as _;
        self.0.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    pub fn finish(self) -> Fingerprint {
        self.finish_hex().parse().expect("a SHA-256 in hexadecimal is a fingerprint")
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The fingerprint of files on disk: of the one file, or of metadata‖rootfs.
pub fn fingerprint(files: &ImageFiles) -> Result<Fingerprint, ImageError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    for path in [Some(&files.meta), files.rootfs.as_ref()].into_iter().flatten() {
        let mut file = File::open(path).map_err(ImageError::io("open", path))?;
        loop {
            match file.read(&mut buffer).map_err(ImageError::io("read", path))? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
    }
    Ok(hasher.finish())
}
