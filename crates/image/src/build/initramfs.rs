//! A small initramfs: a cpio archive in the "new ASCII" form that the kernel unpacks before it starts `/init`.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_600;

/// The archive in the making; everything is root's, everything of the time 0.
#[derive(Debug, Default)]
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, 0, &[]);
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, FILE | mode, 0, content);
    }

    /// What init's standard streams are before it has mounted anything: 5, 1.
    pub(super) fn console(&mut self) {
        self.entry("dev/console", DEVICE, 5 << 8 | 1, &[]);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: u32, content: &[u8]) {
        self.entries += 1;
        // inode, mode, owner, group, links, time, size, device of the file (2), device that it is (2), name, checksum
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            device >> 8,
            device & 0xff,
            path.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents_begin_at_multiples_of_four() {
        let mut archive = Initramfs::default();
        archive.directory("dev");
        archive.console();
        archive.file("init", 0o755, b"#!/x\n");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        // The mode of init, after magic and inode; its size; its name behind thirteen fields of eight digits.
        let init = &text[starts[2]..];
        assert_eq!((&init[14..22], &init[54..62], &init[110..115]), ("000081ed", "00000005", "init\0"));
        assert!(init[116..].starts_with("#!/x\n"));
        assert_eq!(&text[starts[1] + 78..starts[1] + 94], "0000000500000001");
    }
}
