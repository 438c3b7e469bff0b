//! Extended attributes as archives carry them, turned into what the kernel takes.

/// `security.capability`, revision 3 with a root id made revision 2.
///
/// A file whose capabilities were read inside some container carries that container's root id and would work nowhere
/// else. Revision 2 means "of whoever is root where the file system is": the kernel shifts it with the idmapped mount.
/// From within our user namespace it stores revision 3 with root 0, which is the same thing (capabilities(7)).
pub(crate) fn capability(value: &[u8]) -> Option<Vec<u8>> {
    const REVISION_MASK: u32 = 0xff00_0000;
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    match (magic & REVISION_MASK, value.len()) {
        (REVISION_2, 20) => Some(value.to_vec()),
        (REVISION_3, 24) => {
            let mut converted = value[..20].to_vec();
            converted[..4].copy_from_slice(&(magic & !REVISION_MASK | REVISION_2).to_le_bytes());
            Some(converted)
        }
        // Revision 1 has 32-bit sets and is refused by today's kernels.
        _ => None,
    }
}

/// A POSIX ACL in the text of `SCHILY.acl.*` as the kernel's binary form (linux/posix_acl_xattr.h).
pub(crate) fn acl(text: &[u8]) -> Option<Vec<u8>> {
    const UNDEFINED: u32 = u32::MAX;
    let text = std::str::from_utf8(text).ok()?;
    let mut entries = Vec::new();
    for line in text.split([',', '\n']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        // `user:name:rwx:1000` (with --numeric-owner or not, star and libarchive add the id) or `mask::r-x`.
        let (tag, who, permissions) = match fields[..] {
            ["mask" | "other", permissions] => (fields[0], "", permissions),
            [tag, who, permissions] => (tag, who, permissions),
            [tag, _, permissions, id] => (tag, id, permissions),
            _ => return None,
        };
        let id = if who.is_empty() { None } else { Some(who.parse::<u32>().ok()?) };
        let tag: u16 = match (tag, id) {
            ("user" | "u", None) => 0x01,
            ("user" | "u", Some(_)) => 0x02,
            ("group" | "g", None) => 0x04,
            ("group" | "g", Some(_)) => 0x08,
            ("mask" | "m", None) => 0x10,
            ("other" | "o", None) => 0x20,
            _ => return None,
        };
        let bits = permissions.bytes().try_fold(0u16, |bits, byte| match byte {
            b'r' => Some(bits | 4),
            b'w' => Some(bits | 2),
            b'x' => Some(bits | 1),
            b'-' => Some(bits),
            _ => None,
        })?;
        entries.push((tag, id.unwrap_or(UNDEFINED), bits));
    }
    // The kernel wants them in this order.
    entries.sort_unstable();
    let mut binary = 2u32.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        binary.extend_from_slice(&tag.to_le_bytes());
        binary.extend_from_slice(&bits.to_le_bytes());
        binary.extend_from_slice(&id.to_le_bytes());
    }
    Some(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_capability_becomes_everybody_s() {
        let three = [&0x0300_0001u32.to_le_bytes()[..], &[7; 16], &1_000_000u32.to_le_bytes()].concat();
        let two = [&0x0200_0001u32.to_le_bytes()[..], &[7; 16]].concat();
        assert_eq!(capability(&three).unwrap(), two);
        assert_eq!(capability(&two).unwrap(), two);
        assert_eq!(capability(b"\0\0\0"), None);
    }

    #[test]
    fn an_acl_of_text_becomes_binary_in_the_kernel_s_order() {
        let binary = acl(b"other::r--\nuser::rw-\nuser:1000:r-x\ngroup::r--\nmask::r-x\n").unwrap();
        assert_eq!(binary.len(), 4 + 5 * 8);
        assert_eq!(binary[4..12], [1, 0, 6, 0, 255, 255, 255, 255]);
        assert_eq!(binary[12..20], [2, 0, 5, 0, 0xe8, 3, 0, 0]);
        assert_eq!(acl(b"user:root:rwx"), None);
        assert_eq!(acl(b"user:bin:rwx:2,other::---").unwrap().len(), 4 + 2 * 8);
    }
}
