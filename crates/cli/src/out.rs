//! Data to stdout. Talk goes to stderr.

use std::io::{self, ErrorKind, Write};

use crate::failure::{About, Result};

/// Writes all of it. A reader that has gone (`stapes list | head -1`) ends the program quietly.
pub fn put(text: impl AsRef<[u8]>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.about(|| "cannot write to stdout".to_owned()),
    }
}

pub fn line(text: impl AsRef<str>) -> Result<()> {
    put(format!("{}\n", text.as_ref()))
}
