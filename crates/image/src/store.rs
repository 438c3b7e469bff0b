//! Where image files lie: `<images>/<fingerprint>` and, for a split image's root, `<fingerprint>.rootfs`, as in Incus.
//!
//! A file appears under its name only when it is whole, checked and on disk; until then it is a `.tmp-` file beside.
//! What a crash leaves of those, [`ImageStore::sweep`] removes at the next start.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use stapes_model::Fingerprint;
use tempfile::NamedTempFile;

use crate::{Hasher, ImageError, inspect::ImageFiles};

const TEMPORARY: &str = ".tmp-";
const CHUNK: usize = 256 * 1024;

#[derive(Debug, Clone)]
pub struct ImageStore {
    folder: PathBuf,
}

impl ImageStore {
    /// Makes the folder (0700: image files are root's alone) where it is missing.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, ImageError> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = folder.into();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(ImageError::io("create", &folder))?;
        Ok(Self { folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files of an image that is here.
    pub fn files(&self, fingerprint: &Fingerprint) -> Option<ImageFiles> {
        let (meta, rootfs) = self.paths(fingerprint);
        meta.is_file().then(|| ImageFiles { meta, rootfs: rootfs.is_file().then_some(rootfs) })
    }

    fn paths(&self, fingerprint: &Fingerprint) -> (PathBuf, PathBuf) {
        let meta = self.folder.join(fingerprint.as_str());
        let rootfs = self.folder.join(format!("{fingerprint}.rootfs"));
        (meta, rootfs)
    }

    /// Takes in one archive. `wanted`: the fingerprint that it must have. Importing what is here already changes nothing.
    pub fn import_unified(
        &self,
        image: impl Read,
        wanted: Option<&Fingerprint>,
    ) -> Result<(Fingerprint, ImageFiles), ImageError> {
        let mut hasher = Hasher::new();
        let meta = self.receive(image, &mut hasher)?;
        self.register(hasher, meta, None, wanted)
    }

    /// Takes in metadata and root; the fingerprint is that of both, in this order.
    pub fn import_split(
        &self,
        meta: impl Read,
        rootfs: impl Read,
        wanted: Option<&Fingerprint>,
    ) -> Result<(Fingerprint, ImageFiles), ImageError> {
        let mut hasher = Hasher::new();
        let meta = self.receive(meta, &mut hasher)?;
        let rootfs = self.receive(rootfs, &mut hasher)?;
        self.register(hasher, meta, Some(rootfs), wanted)
    }

    /// Removes the files; none is success.
    pub fn delete(&self, fingerprint: &Fingerprint) -> Result<(), ImageError> {
        let (meta, rootfs) = self.paths(fingerprint);
        // The metadata first: without it the image is not here, whatever happens next.
        for path in [meta, rootfs] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ImageError::Io { doing: "remove", path, source: error });
                }
                _ => {}
            }
        }
        self.sync()
    }

    /// Removes what unfinished imports left, and roots without their metadata. Only while no import runs.
    pub fn sweep(&self) -> Result<u64, ImageError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder).map_err(ImageError::io("open", &self.folder))? {
            let entry = entry.map_err(ImageError::io("list", &self.folder))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let orphan = name
                .strip_suffix(".rootfs")
                .is_some_and(|meta| meta.parse::<Fingerprint>().is_ok() && !self.folder.join(meta).exists());
            if name.starts_with(TEMPORARY) || orphan {
                fs::remove_file(entry.path()).map_err(ImageError::io("remove", entry.path()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn receive(&self, mut source: impl Read, hasher: &mut Hasher) -> Result<NamedTempFile, ImageError> {
        let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.folder);
        let mut file = file.map_err(ImageError::io("create a file in", &self.folder))?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(ImageError::Io { doing: "receive the image into", path: self.folder.clone(), source });
                }
            };
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(ImageError::io("write an image in", &self.folder))?;
        }
        file.as_file().sync_all().map_err(ImageError::io("write an image in", &self.folder))?;
        Ok(file)
    }

    fn register(
        &self,
        hasher: Hasher,
        meta: NamedTempFile,
        rootfs: Option<NamedTempFile>,
        wanted: Option<&Fingerprint>,
    ) -> Result<(Fingerprint, ImageFiles), ImageError> {
        let found = hasher.finish();
        if let Some(wanted) = wanted.filter(|wanted| **wanted != found) {
            return Err(ImageError::WrongFingerprint { wanted: wanted.clone(), found });
        }
        let (meta_path, rootfs_path) = self.paths(&found);
        let persist = |file: NamedTempFile, path: &Path| {
            file.persist(path).map(drop).map_err(|error| error.error).map_err(ImageError::io("name", path))
        };
        // The root first: an image is here when its metadata is.
        let has_root = rootfs.is_some();
        if let Some(rootfs) = rootfs {
            persist(rootfs, &rootfs_path)?;
        }
        persist(meta, &meta_path)?;
        self.sync()?;
        Ok((found, ImageFiles { meta: meta_path, rootfs: has_root.then_some(rootfs_path) }))
    }

    fn sync(&self) -> Result<(), ImageError> {
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(ImageError::io("flush", &self.folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("images")).unwrap();
        (folder, store)
    }

    fn names(store: &ImageStore) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(store.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_split_image_is_called_by_the_hash_of_both_files() {
        let (_keep, store) = store();
        let (fingerprint, files) = store.import_split(&b"ab"[..], &b"c"[..], None).unwrap();
        assert_eq!(fingerprint.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(crate::fingerprint(&files).unwrap(), fingerprint);
        assert_eq!(names(&store), [fingerprint.to_string(), format!("{fingerprint}.rootfs")]);
        assert_eq!(store.files(&fingerprint).unwrap(), files);
        store.delete(&fingerprint).unwrap();
        store.delete(&fingerprint).unwrap();
        assert_eq!(names(&store), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_fingerprint_or_a_broken_stream_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("gone"))
            }
        }
        let (_keep, store) = store();
        let wanted: Fingerprint = "0".repeat(64).parse().unwrap();
        let error = store.import_unified(&b"abc"[..], Some(&wanted)).unwrap_err();
        assert!(matches!(error, ImageError::WrongFingerprint { .. }));
        assert!(store.import_split(&b"abc"[..], Broken, None).is_err());
        assert_eq!(names(&store), Vec::<String>::new());
    }

    #[test]
    fn a_sweep_removes_leftovers_and_nothing_else() {
        let (_keep, store) = store();
        let (fingerprint, _) = store.import_split(&b"ab"[..], &b"c"[..], None).unwrap();
        fs::write(store.folder().join(".tmp-x"), "half").unwrap();
        fs::write(store.folder().join(format!("{}.rootfs", "1".repeat(64))), "orphan").unwrap();
        assert_eq!(store.sweep().unwrap(), 2);
        assert!(store.files(&fingerprint).unwrap().rootfs.is_some());
    }
}
