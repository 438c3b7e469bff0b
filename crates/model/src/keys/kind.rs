use std::borrow::Cow;

use super::{addresses, schedule};
use crate::ByteSize;

/// The form of a value. An empty value always means "unset" and is checked nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// A truth value, or this word.
    BoolOr(&'static str),
    Int {
        min: i64,
        max: i64,
    },
    Bytes,
    /// Bytes, or a share of the host's memory (`50%`).
    Memory,
    Enum(&'static [&'static str]),
    /// A time to keep something: `1H 2d 3w 4m 5y`.
    Duration,
    /// Five cron fields or aliases such as `@daily`.
    Cron,
    /// A number of CPUs, a set of them (`0-2,5`), or a VM's `sockets=,cores=,threads=`.
    Cpus,
    /// `50%` or `25ms/100ms`.
    CpuAllowance,
    /// NUMA nodes (`0-1`) or `balanced`.
    Nodes,
    /// `soft:hard` or one number for both; `unlimited`.
    Rlimit,
    /// An address or `none`.
    Address {
        v6: bool,
    },
    /// An address, and no word in its place.
    Ip {
        v6: bool,
    },
    /// Addresses of either family, separated by commas.
    Ips,
    /// A router's own address with prefix length, `auto` or `none`.
    Subnet {
        v6: bool,
    },
    /// Subnets, separated by commas.
    Networks {
        v6: bool,
    },
    /// `FIRST-LAST` ranges, separated by commas.
    Ranges {
        v6: bool,
    },
    /// `subnet,gateway,subnet,gateway,…` of IPv4.
    Routes,
    /// A domain name.
    Domain,
    /// Domain names, separated by commas.
    Domains,
    /// The life of a DHCP lease: `1h`, `3600` or `infinite`.
    LeaseTime,
    /// Options for mount(8); none that would show a pool another file system, or one it cannot write to.
    MountOptions,
    Mac,
    /// A name of a network interface: 1 to 15 bytes.
    Interface,
    /// A file mode in octal.
    Mode,
    /// An absolute path without `..`.
    Path,
    Str,
    /// Text of many lines.
    Blob,
}

/// Reads a truth value as Incus does: `true`, `1`, `yes`, `on` and their opposites, in any case.
pub fn parse_bool(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["true", "1", "yes", "on"]) {
        Some(true)
    } else if is(["false", "0", "no", "off"]) {
        Some(false)
    } else {
        None
    }
}

impl Kind {
    /// Says what was expected when `value` has not this form.
    pub fn check(self, value: &str) -> Result<(), Cow<'static, str>> {
        let good = match self {
            Self::Bool => parse_bool(value).is_some(),
            Self::BoolOr(word) => value == word || parse_bool(value).is_some(),
            Self::Int { min, max } => value.parse().is_ok_and(|number: i64| (min..=max).contains(&number)),
            Self::Bytes => value.parse::<ByteSize>().is_ok(),
            Self::Memory => percent(value, 100).is_some() || value.parse::<ByteSize>().is_ok(),
            Self::Enum(words) => words.contains(&value),
            Self::Duration => schedule::is_duration(value),
            Self::Cron => schedule::is_schedule(value),
            Self::Cpus => is_cpus(value),
            Self::CpuAllowance => percent(value, 100).is_some() || quota(value).is_some(),
            Self::Nodes => value == "balanced" || id_set(value).is_some(),
            Self::Rlimit => rlimit(value).is_some(),
            Self::Address { v6 } => value == "none" || addresses::is_ip(value, v6),
            Self::Ip { v6 } => addresses::is_ip(value, v6),
            Self::Ips => addresses::are_ips(value),
            Self::Subnet { v6 } => return addresses::check_subnet(value, v6).map_err(Cow::Borrowed),
            Self::Networks { v6 } => addresses::are_networks(value, v6),
            Self::Ranges { v6 } => addresses::are_ranges(value, v6),
            Self::Routes => addresses::are_routes(value),
            Self::Domain => addresses::is_domain(value),
            Self::Domains => addresses::are_domains(value),
            Self::LeaseTime => addresses::is_lease_time(value),
            Self::MountOptions => return check_mount_options(value),
            Self::Mac => parse_mac(value).is_some(),
            Self::Interface => is_interface(value),
            Self::Mode => {
                !value.is_empty() && value.len() <= 5 && u32::from_str_radix(value, 8).is_ok_and(|m| m <= 0o7777)
            }
            Self::Path => value.starts_with('/') && !value.split('/').any(|part| part == "..") && !value.contains('\0'),
            Self::Str => !value.contains(['\n', '\0']),
            Self::Blob => !value.contains('\0'),
        };
        if good { Ok(()) } else { Err(self.expected()) }
    }

    /// The form in words, to follow "expected".
    pub fn expected(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Bool => "true or false",
            Self::BoolOr(word) => return format!("true, false or {word}").into(),
            Self::Int { min: i64::MIN, max: i64::MAX } => "a whole number",
            Self::Int { min, max: i64::MAX } => return format!("a whole number of at least {min}").into(),
            Self::Int { min, max } => return format!("a whole number from {min} to {max}").into(),
            Self::Bytes => "a size such as 512MiB or 10GB",
            Self::Memory => "a size such as 512MiB, or a percentage of the host's memory such as 50%",
            Self::Enum(words) => return format!("one of {}", words.join(", ")).into(),
            Self::Duration => "a time such as 12H, 3d or 1w 2d (M minutes, H hours, d, w, m months, y)",
            Self::Cron => "five cron fields such as \"0 6 * * *\", or aliases such as @daily",
            Self::Cpus => "a number of CPUs such as 2, or a set of them such as 0-2,5",
            Self::CpuAllowance => "a percentage such as 50%, or time in a period such as 25ms/100ms",
            Self::Nodes => "a set of NUMA nodes such as 0-1, or balanced",
            Self::Rlimit => "a number, unlimited, or two of them as soft:hard",
            Self::Address { v6: false } => "an IPv4 address or none",
            Self::Address { v6: true } => "an IPv6 address or none",
            Self::Ip { v6: false } => "an IPv4 address",
            Self::Ip { v6: true } => "an IPv6 address",
            Self::Ips => "addresses, separated by commas",
            Self::Subnet { v6: false } => addresses::SUBNET4,
            Self::Subnet { v6: true } => addresses::SUBNET6,
            Self::Networks { v6: false } => "IPv4 subnets such as 10.1.3.0/24, separated by commas",
            Self::Networks { v6: true } => "IPv6 subnets such as fd42:2::/64, separated by commas",
            Self::Ranges { v6: false } => "ranges such as 10.1.2.50-10.1.2.99, separated by commas",
            Self::Ranges { v6: true } => "ranges such as fd42::50-fd42::99, separated by commas",
            Self::Routes => "subnet,gateway,subnet,gateway,… such as 10.2.0.0/16,10.1.2.5",
            Self::Domain => "a domain name",
            Self::Domains => "domain names, separated by commas",
            Self::LeaseTime => "a time such as 1h, 30m, 3600 or infinite",
            Self::MountOptions => "mount options, separated by commas",
            Self::Mac => "a unicast MAC address such as 10:66:6a:12:34:56",
            Self::Interface => "an interface name: 1 to 15 characters without spaces, slashes and colons",
            Self::Mode => "an octal mode such as 0660",
            Self::Path => "an absolute path without ..",
            Self::Str => "one line of text",
            Self::Blob => "text",
        })
    }

    /// Incus's word for it in the metadata.
    pub(super) fn metadata_type(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int { .. } => "integer",
            Self::Blob => "blob",
            _ => "string",
        }
    }
}

/// `50%`, from 0 to `most`.
pub(super) fn percent(text: &str, most: u64) -> Option<u64> {
    digits(text.strip_suffix('%')?).filter(|number| *number <= most)
}

/// `25ms/100ms` as microseconds; the kernel takes periods from 1 ms to 1 s and quotas from 1 ms.
pub(super) fn quota(text: &str) -> Option<(u64, u64)> {
    let (quota, period) = text.split_once('/')?;
    let millis = |text: &str| digits(text.trim().strip_suffix("ms")?);
    let (quota, period) = (millis(quota)?, millis(period)?);
    ((1..=1_000_000).contains(&quota) && (1..=1000).contains(&period)).then_some((quota * 1000, period * 1000))
}

/// A number without the signs that Rust's own parser admits.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A set such as `0-2,5` as its members in order; none beyond 8,191, the kernel's own ceiling.
pub(super) fn id_set(text: &str) -> Option<Vec<u32>> {
    const MOST: u64 = 8191;
    let mut ids = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (digits(first.trim())?, digits(last.trim())?);
        if first > last || last > MOST {
            return None;
        }
        ids.extend((first..=last).map(|id| id as u32));
    }
    Some(ids.into_iter().collect())
}

fn is_cpus(text: &str) -> bool {
    if text.contains('=') {
        return text.split(',').all(|part| {
            let known = |(name, number): (&str, &str)| {
                ["sockets", "cores", "threads"].contains(&name) && digits(number).is_some_and(|n| n > 0)
            };
            part.split_once('=').is_some_and(known)
        });
    }
    text != "0" && id_set(text).is_some()
}

/// Soft and hard limit; `None` inside is unlimited.
pub(super) fn rlimit(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let one = |text: &str| if text == "unlimited" { Some(None) } else { digits(text).map(Some) };
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) => (one(soft)?, one(hard)?),
        None => (one(text)?, one(text)?),
    };
    let ordered = soft.unwrap_or(u64::MAX) <= hard.unwrap_or(u64::MAX);
    ordered.then_some((soft, hard))
}

fn check_mount_options(value: &str) -> Result<(), Cow<'static, str>> {
    let name = |option: &str| option.split('=').next().unwrap_or_default().trim().to_owned();
    match value.split(',').map(name).find(|name| ["ro", "subvol", "subvolid", "device"].contains(&name.as_str())) {
        Some(name) => Err(format!("mount options without {name}, which a pool cannot be mounted with").into()),
        None if value.contains(['\0', '\n']) => Err("mount options on one line".into()),
        None => Ok(()),
    }
}

/// Reads a unicast MAC address: six pairs of hexadecimal digits between colons.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    // A group address (lowest bit of the first byte) belongs to no single interface.
    (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(bytes)
}

fn is_interface(text: &str) -> bool {
    // What dev_valid_name() of the kernel refuses, and control characters.
    !text.is_empty()
        && text.len() <= 15
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}
