//! Files that other programs read while they run, under accounts of their own.

use std::{ffi::OsString, fs, io, os::unix::fs::PermissionsExt, path::Path};

use crate::NetworkError;

/// The first of the accounts that this host has.
pub(crate) fn account(wanted: &[&str]) -> Option<String> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let exists = |user: &&&str| accounts.lines().any(|line| line.split(':').next() == Some(user));
    wanted.iter().find(exists).map(|user| (*user).to_owned())
}

pub(crate) fn error(path: &Path) -> impl FnOnce(io::Error) -> NetworkError + '_ {
    move |source| NetworkError::File { path: path.to_owned(), source }
}

/// Writes beside and renames, readable by everybody: who watches the directory never reads half a file. What is so already
/// is left alone.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), NetworkError> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let mut beside = OsString::from(".");
    beside.push(path.file_name().unwrap_or_default());
    let beside = path.with_file_name(beside);
    let write = || {
        fs::write(&beside, text)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o644))?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&beside);
        NetworkError::File { path: path.to_owned(), source }
    })
}

/// Removes a file. True when there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, NetworkError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(NetworkError::File { path: path.to_owned(), source }),
    }
}
