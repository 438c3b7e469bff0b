//! Names of the HTTP headers that carry what a body cannot.
//!
//! Every `X-Incus-…` header is also read as `X-LXD-…`, LXD's spelling; header names ignore case.

/// Owner of a file, decimal.
pub const FILE_UID: &str = "X-Incus-uid";
/// Group of a file, decimal.
pub const FILE_GID: &str = "X-Incus-gid";
/// Permission bits, octal with a leading 0.
pub const FILE_MODE: &str = "X-Incus-mode";
/// `file`, `directory` or `symlink`.
pub const FILE_TYPE: &str = "X-Incus-type";
/// `overwrite` or `append`.
pub const FILE_WRITE: &str = "X-Incus-write";
/// Modification time of a file, in an answer.
pub const FILE_MODIFIED: &str = "X-Incus-modified";
/// Deletes a directory with all it holds.
pub const FILE_FORCE: &str = "X-Incus-force";

pub const IMAGE_FILENAME: &str = "X-Incus-filename";
pub const IMAGE_PUBLIC: &str = "X-Incus-public";
/// Properties, URL-encoded.
pub const IMAGE_PROPERTIES: &str = "X-Incus-properties";
/// Aliases, URL-encoded.
pub const IMAGE_ALIASES: &str = "X-Incus-aliases";
/// Profiles, URL-encoded.
pub const IMAGE_PROFILES: &str = "X-Incus-profiles";
pub const IMAGE_FINGERPRINT: &str = "X-Incus-fingerprint";
pub const IMAGE_SECRET: &str = "X-Incus-secret";

/// Who a relayed request came from.
pub const FORWARDED_USERNAME: &str = "X-Incus-forwarded-username";
pub const FORWARDED_PROTOCOL: &str = "X-Incus-forwarded-protocol";
pub const FORWARDED_ADDRESS: &str = "X-Incus-forwarded-address";

/// Whether the server knows the caller, in an answer.
pub const AUTHENTICATED: &str = "X-Incus-authenticated";

/// LXD's name of an `X-Incus-…` header; `None` for any other.
pub fn lxd_header(incus: &str) -> Option<String> {
    let (prefix, rest) = incus.split_at_checked("X-Incus-".len())?;
    prefix.eq_ignore_ascii_case("X-Incus-").then(|| format!("X-LXD-{rest}"))
}
