//! Where the daemon listens.

use std::ffi::OsString;
use std::path::PathBuf;

/// The daemon's socket: `STAPES_SOCKET`, else `unix.socket` in `STAPES_DIR`, else in `/var/lib/stapes`.
pub fn default_socket() -> PathBuf {
    socket_for(std::env::var_os("STAPES_SOCKET"), std::env::var_os("STAPES_DIR"))
}

fn socket_for(socket: Option<OsString>, dir: Option<OsString>) -> PathBuf {
    let given = |value: Option<OsString>| value.filter(|v| !v.is_empty()).map(PathBuf::from);
    given(socket).unwrap_or_else(|| given(dir).unwrap_or_else(|| "/var/lib/stapes".into()).join("unix.socket"))
}

#[cfg(test)]
mod tests {
    use super::socket_for;
    use std::path::Path;

    #[test]
    fn the_socket_variable_wins_over_the_directory() {
        assert_eq!(socket_for(Some("/s".into()), Some("/d".into())), Path::new("/s"));
        assert_eq!(socket_for(Some("".into()), Some("/d".into())), Path::new("/d/unix.socket"));
        assert_eq!(socket_for(None, None), Path::new("/var/lib/stapes/unix.socket"));
    }
}
