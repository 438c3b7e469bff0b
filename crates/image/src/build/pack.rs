//! Writes small archives whose bytes depend on their content alone.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use tar::{EntryType, Header};
use tempfile::NamedTempFile;

use crate::{ImageError, ImageMetadata, TemplateSpec, metadata::Trigger};

/// A tar archive in the making: everything root's, everything of one time.
pub(super) struct Archive<W: Write> {
    tar: tar::Builder<W>,
    time: u64,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(output: W, time: u64) -> Self {
        Self { tar: tar::Builder::new(output), time }
    }

    fn header(&self, kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header
    }

    pub(super) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        let mut header = self.header(EntryType::Directory, mode, 0);
        self.tar.append_data(&mut header, format!("{path}/"), io::empty())
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = self.header(EntryType::Regular, mode, content.len() as u64);
        self.tar.append_data(&mut header, path, content)
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = self.header(EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, path, target)
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }
}

/// Metadata with the two templates that every image of ours has.
pub(super) fn metadata(architecture: &str, time: u64, properties: &[(&str, &str)]) -> ImageMetadata {
    let template = |name: &str| TemplateSpec {
        when: vec![Trigger::Create, Trigger::Copy, Trigger::Rename],
        create_only: false,
        template: name.into(),
        properties: BTreeMap::new(),
        uid: None,
        gid: None,
        mode: None,
    };
    ImageMetadata {
        architecture: architecture.into(),
        creation_date: time as i64,
        expiry_date: 0,
        properties: properties.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        templates: BTreeMap::from([
            ("/etc/hostname".into(), template("hostname.tpl")),
            ("/etc/hosts".into(), template("hosts.tpl")),
        ]),
    }
}

/// Writes `meta.tar.xz` under its name, whole or not at all.
pub(super) fn write_meta(path: &Path, metadata: &ImageMetadata) -> Result<(), ImageError> {
    let hosts = "127.0.0.1\tlocalhost\n127.0.1.1\t{{ instance.name }}\n\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                 ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
    let pack = || -> io::Result<Vec<u8>> {
        let mut archive = Archive::new(liblzma::write::XzEncoder::new(Vec::new(), 6), metadata.creation_date as u64);
        archive.file("metadata.yaml", 0o644, metadata.to_yaml().as_bytes())?;
        archive.directory("templates", 0o755)?;
        archive.file("templates/hostname.tpl", 0o644, b"{{ instance.name }}\n")?;
        archive.file("templates/hosts.tpl", 0o644, hosts.as_bytes())?;
        archive.finish()?.finish()
    };
    let bytes = pack().map_err(ImageError::io("pack", path))?;
    let mut file = temporary(path)?;
    file.write_all(&bytes).map_err(ImageError::io("write", path))?;
    persist(file, path)
}

/// A file beside `path` that vanishes unless it is persisted.
pub(super) fn temporary(path: &Path) -> Result<NamedTempFile, ImageError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder).map_err(ImageError::io("create a file in", folder))
}

pub(super) fn persist(file: NamedTempFile, path: &Path) -> Result<(), ImageError> {
    file.as_file().sync_all().map_err(ImageError::io("flush", path))?;
    file.persist(path).map(drop).map_err(|error| ImageError::io("name", path)(error.error))
}
