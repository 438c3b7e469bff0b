//! POSIX extended headers: records of `length key=value\n`, whose values may hold any byte.
//!
//! The `tar` crate splits the records at newlines, which breaks binary attributes; hence our own.

/// What a PAX header says about the entry after it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub acl_access: Option<Vec<u8>>,
    pub acl_default: Option<Vec<u8>>,
    pub sparse: PaxSparse,
}

/// The three generations of GNU's sparse files in PAX headers.
#[derive(Debug, Default, Clone)]
pub(crate) struct PaxSparse {
    pub major: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Offset and length by turns (0.0 and 0.1).
    pub numbers: Vec<u64>,
}

impl PaxSparse {
    pub(crate) fn is_present(&self) -> bool {
        self.major.is_some() || self.real_size.is_some() || !self.numbers.is_empty()
    }
}

impl Pax {
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or("a PAX record has no length")?;
            let length = number(&bytes[..space]).ok_or("a PAX record has no length")? as usize;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err("a PAX record has a wrong length".into());
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("a PAX record has no value")?;
            pax.set(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let need = || number(value).ok_or_else(|| format!("PAX {} is no number", String::from_utf8_lossy(key)));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(need()?),
            b"uid" => self.uid = Some(need()?),
            b"gid" => self.gid = Some(need()?),
            b"mtime" => self.mtime = Some(time(value).ok_or("PAX mtime is no time")?),
            b"SCHILY.acl.access" => self.acl_access = Some(value.to_vec()),
            b"SCHILY.acl.default" => self.acl_default = Some(value.to_vec()),
            b"GNU.sparse.major" => self.sparse.major = Some(need()?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = Some(need()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.push(need()?),
            b"GNU.sparse.map" => {
                for part in value.split(|byte| *byte == b',') {
                    self.sparse.numbers.push(number(part).ok_or("the sparse map is malformed")?);
                }
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    // libarchive writes both spellings; its own has the name in percent and the value in base64.
                    let (name, value) = (percent(name), base64(value).ok_or("LIBARCHIVE.xattr is not base64")?);
                    if !self.xattrs.iter().any(|(known, _)| *known == name) {
                        self.xattrs.push((name, value));
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

fn percent(text: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'%', [high, low, after @ ..]) = (*first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(*first);
        }
    }
    out
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(digit)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_may_hold_newlines_and_zeros() {
        let mut record = b"SCHILY.xattr.user.x=a\n\0b\n".to_vec();
        let length = record.len() + 3;
        record.splice(0..0, format!("{length} ").into_bytes());
        assert_eq!(Pax::parse(&record).unwrap().xattrs, [(b"user.x".to_vec(), b"a\n\0b".to_vec())]);
    }

    #[test]
    fn libarchive_names_and_values_are_decoded() {
        let pax = Pax::parse(b"40 LIBARCHIVE.xattr.user%2Ehi=aGVsbG8=\n").map_err(|error| error.to_string());
        assert_eq!(pax.unwrap_err(), "a PAX record has a wrong length");
        let pax = Pax::parse(b"39 LIBARCHIVE.xattr.user%2Ehi=aGVsbG8=\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.hi".to_vec(), b"hello".to_vec())]);
    }

    #[test]
    fn times_before_1970_have_a_positive_fraction() {
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1700000000.5"), Some((1_700_000_000, 500_000_000)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&bytes);
        }
    }
}
