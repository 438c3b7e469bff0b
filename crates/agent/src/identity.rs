//! Who this agent is: its key, its build, its boot; and telling init that it runs.

use std::{
    env,
    fs::File,
    io::{self, Read},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
};

use stapes_agent_api::{KEY_BYTES, KEY_FILE, Nonce};

use crate::session::Identity;

/// The instance's key: of the file named, or beside this program, or in the working directory.
pub fn key(named: Option<PathBuf>) -> io::Result<[u8; KEY_BYTES]> {
    let path = named.unwrap_or_else(|| brought(KEY_FILE));
    let failed = |error: io::Error| {
        io::Error::other(format!("failed to read the instance's key from {}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    parse_key(&text).ok_or_else(|| failed(io::Error::other(format!("it is not {} hexadecimal digits", KEY_BYTES * 2))))
}

/// Where a file is that the host brought: beside this program, else in the working directory.
pub fn brought(name: &str) -> PathBuf {
    let beside = env::current_exe().ok().and_then(|program| Some(program.parent()?.join(name)));
    beside.filter(|path| path.exists()).unwrap_or_else(|| name.into())
}

fn parse_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let text = text.trim();
    if text.len() != KEY_BYTES * 2 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(key)
}

pub fn identity() -> Identity {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Identity { build: build(), boot: boot.trim().to_owned() }
}

/// The version, and the linker's number for this very program (the note `NT_GNU_BUILD_ID` of elf(5)).
fn build() -> String {
    const NOTE: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    const DIGEST: usize = 20;
    let mut head = Vec::new();
    let read = File::open("/proc/self/exe").and_then(|program| program.take(4096).read_to_end(&mut head));
    let note = head.windows(NOTE.len() + DIGEST).find(|window| window.starts_with(NOTE) && read.is_ok());
    let digest: String = note.iter().flat_map(|note| &note[NOTE.len()..]).map(|byte| format!("{byte:02x}")).collect();
    format!("{} {digest}", env!("CARGO_PKG_VERSION")).trim_end().to_owned()
}

/// 32 digits of the kernel's random numbers.
pub fn nonce() -> Nonce {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    // Without randomness no proof is worth anything.
    assert!(read.is_ok(), "/dev/urandom cannot be read");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Units of type `notify` wait for this, those of Incus's and LXD's images too; see sd_notify(3).
pub fn notify_ready() {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let name = name.into_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&*String::from_utf8_lossy(&name))),
    };
    // Whoever asked for this sees that it did not come.
    let _ = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_digits() {
        assert_eq!(parse_key(&format!("{}\n", "0f".repeat(32))), Some([15; KEY_BYTES]));
        assert_eq!(parse_key(&"0f".repeat(31)), None);
        assert_eq!(parse_key(&"é".repeat(32)), None);
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 32);
    }
}
