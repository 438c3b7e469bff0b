//! The configuration drive: a small read-only FAT file system with what a guest is told before anybody can talk to it.

use std::{
    io::{self, Cursor, Write},
    path::Path,
};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// FAT labels have eleven characters.
const LABEL: [u8; 11] = *b"STAPES-CONF";

/// A file of the drive.
pub struct Entry<'a> {
    pub name: &'a str,
    pub content: &'a [u8],
}

/// Writes the drive beside `path` and puts it there whole.
pub fn write(path: &Path, entries: &[Entry<'_>]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let content: usize = entries.iter().map(|entry| entry.content.len() + 4096).sum();
    // Room for the tables and for slack in the clusters; FAT12 ends where 4,085 clusters do, which is no concern.
    let size = (content + content / 8 + (256 << 10)).next_multiple_of(1 << 20);
    // In memory first: the format's small writes would be system calls.
    let mut image = Cursor::new(vec![0; size]);
    fatfs::format_volume(&mut image, FormatVolumeOptions::new().volume_label(LABEL))?;
    let drive = FileSystem::new(&mut image, FsOptions::new())?;
    for entry in entries {
        let mut to = drive.root_dir().create_file(entry.name)?;
        to.truncate()?;
        to.write_all(entry.content)?;
        to.flush()?;
    }
    drive.unmount()?;
    std::fs::write(&beside, image.into_inner())?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.img");
        let agent: Vec<u8> = (0..2_500_000u32).map(|number| (number % 253) as u8).collect();
        for key in ["one", "two"] {
            let entries =
                [Entry { name: "stapes-agent", content: &agent }, Entry { name: "agent.key", content: key.as_bytes() }];
            write(&path, &entries).unwrap();
            let drive = FileSystem::new(File::open(&path).unwrap(), FsOptions::new()).unwrap();
            assert_eq!(drive.volume_label(), "STAPES-CONF");
            let mut text = String::new();
            drive.root_dir().open_file("agent.key").unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, key);
            let mut read = Vec::new();
            drive.root_dir().open_file("stapes-agent").unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, agent);
        }
    }
}
