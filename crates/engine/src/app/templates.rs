//! Files that an image's templates and cloud-init put into an instance.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use stapes_image::{
    ImageMetadata,
    metadata::Trigger,
    templates::{self, RenderedFile},
};
use stapes_instance::{FileReply, FileRequest, TemplateFile, Templates};
use stapes_storage::VolumeRef;

use crate::{Engine, Error, Result, records, shape};

/// Most that metadata.yaml of a volume may have.
const METADATA_LIMIT: u64 = 1 << 20;

impl Engine {
    /// Renders the templates that ask for `trigger` and writes them beneath the root of the stopped instance. Where only the
    /// guest can write, this finds out that they can be rendered.
    pub(crate) fn apply_templates(&self, instance: &records::Instance, trigger: Trigger) -> Result<()> {
        let rendered = self.render_templates(instance, trigger)?;
        let shape = shape::of(instance.kind);
        if !shape.is_written_by_host() {
            return Ok(());
        }
        let driver = self.driver(instance.kind)?;
        let root = shape.root(&self.volume_of(instance)?);
        for file in rendered {
            if file.create_only && matches!(stat(&*driver, &root, &file), Ok(FileReply::Meta(_))) {
                continue;
            }
            let TemplateFile { path, content, uid, gid, mode, .. } = template_file(file);
            let request = FileRequest::Replace { path: path.clone(), content: content.into_bytes(), uid, gid, mode };
            driver.files_offline(&root, &request).map_err(|error| {
                Error::failed(format!("failed to write {path} from its template into {}", instance.name), error)
            })?;
        }
        Ok(())
    }

    /// What a guest is given that writes its files itself. Whether it has done so before, only its disk knows.
    pub(crate) fn guest_templates(&self, instance: &records::Instance) -> Result<Templates> {
        let of = |trigger| {
            let rendered = self.render_templates(instance, trigger)?;
            Ok::<_, Error>(rendered.into_iter().map(template_file).collect())
        };
        Ok(Templates { create: of(Trigger::Create)?, rename: of(Trigger::Rename)?, start: of(Trigger::Start)? })
    }

    fn render_templates(&self, instance: &records::Instance, trigger: Trigger) -> Result<Vec<RenderedFile>> {
        let volume = self.volume_of(instance)?;
        let Some(metadata) = self.metadata.read(&volume)? else { return Ok(Vec::new()) };
        if !metadata.templates.values().any(|template| template.when.contains(&trigger)) {
            return Ok(Vec::new());
        }
        Ok(templates::render_volume(&volume, &metadata, trigger, &self.template_context(instance, &metadata))?)
    }

    fn template_context(&self, instance: &records::Instance, metadata: &ImageMetadata) -> templates::TemplateContext {
        let expanded = self.expanded(instance);
        templates::TemplateContext {
            name: instance.name.to_string(),
            instance_type: instance.kind.as_str().to_owned(),
            architecture: instance.architecture.clone(),
            privileged: expanded.is_on("security.privileged"),
            ephemeral: instance.ephemeral,
            config: expanded.config,
            devices: expanded.devices,
            properties: metadata.properties.clone(),
        }
    }
}

impl Engine {
    fn volume_of(&self, instance: &records::Instance) -> Result<PathBuf> {
        Ok(self.pool(&instance.pool)?.volume_path(&VolumeRef::instance(&instance.id)))
    }

    /// What the image of an instance said about itself, as it is in the instance's volume now; `None` for an instance
    /// made empty. Blocking.
    pub fn instance_metadata(&self, instance: &records::Instance) -> Result<Option<ImageMetadata>> {
        let metadata = self.metadata.read(&self.volume_of(instance)?)?;
        Ok(metadata.map(Arc::unwrap_or_clone))
    }

    /// Replaces it. A reader sees the old file or the new one. Blocking.
    pub fn set_instance_metadata(&self, instance: &records::Instance, metadata: &ImageMetadata) -> Result<()> {
        let volume = self.volume_of(instance)?;
        let (path, beside) = (volume.join("metadata.yaml"), volume.join(".metadata.yaml.new"));
        let write = || {
            let mut file = std::fs::File::create(&beside)?;
            file.write_all(metadata.to_yaml().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(|error| Error::failed(format!("failed to write {}", path.display()), error))
    }

    /// Names of the template files that came with an instance's image. Blocking.
    pub fn instance_templates(&self, instance: &records::Instance) -> Result<Vec<String>> {
        let directory = self.volume_of(instance)?.join("templates");
        let wrong = |error| Error::failed(format!("failed to list {}", directory.display()), error);
        // The directory came with the image, so it may be anything, even a link that leads elsewhere.
        match std::fs::symlink_metadata(&directory) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(wrong(error)),
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(wrong)? {
            names.extend(entry.map_err(wrong)?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The text of one of them. Blocking.
    pub fn instance_template(&self, instance: &records::Instance, name: &str) -> Result<Vec<u8>> {
        if name.is_empty() || name.contains(['/', '\0']) || matches!(name, "." | "..") {
            return Err(Error::invalid("path", format!("{name:?} is no name of a template")));
        }
        let volume = self.volume_of(instance)?;
        let missing = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::missing("template", name),
            _ => Error::failed(format!("failed to read the template {name:?} of {}", instance.name), error),
        };
        let file = open_template(&volume, name).map_err(missing)?;
        let mut text = Vec::new();
        file.take(METADATA_LIMIT).read_to_end(&mut text).map_err(missing)?;
        Ok(text)
    }
}

/// Opens a regular file beneath the volume's `templates`, through no symlink: what is there came with an image.
fn open_template(volume: &Path, name: &str) -> std::io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let volume = std::fs::File::open(volume)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::fs::openat2(&volume, Path::new("templates").join(name), flags, Mode::empty(), resolve)?;
    let file = std::fs::File::from(opened);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

/// With what a template leaves open.
fn template_file(file: RenderedFile) -> TemplateFile {
    TemplateFile {
        path: file.path.to_string_lossy().into_owned(),
        // A template is text, and so is what it renders.
        content: String::from_utf8_lossy(&file.content).into_owned(),
        uid: file.uid.unwrap_or(0),
        gid: file.gid.unwrap_or(0),
        mode: file.mode.unwrap_or(0o644),
        create_only: file.create_only,
    }
}

fn stat(driver: &dyn stapes_instance::Driver, root: &Path, file: &RenderedFile) -> Result<FileReply> {
    Ok(driver.files_offline(root, &FileRequest::Stat { path: file.path.to_string_lossy().into_owned() })?)
}

/// The metadata that was asked for last, by its text. Every instance of an image has a copy of the same, and to
/// understand it takes longer than all else before a start.
#[derive(Default)]
pub(crate) struct KnownMetadata(Mutex<VecDeque<(String, Arc<ImageMetadata>)>>);

impl KnownMetadata {
    const MOST: usize = 16;
    /// A longer text is not kept.
    const LONGEST: usize = 16 << 10;

    /// The metadata that came with the image; `None` for an instance made empty.
    fn read(&self, volume: &Path) -> Result<Option<Arc<ImageMetadata>>> {
        let path = volume.join("metadata.yaml");
        let wrong = |error: std::io::Error| Error::failed(format!("failed to read {}", path.display()), error);
        // Beside the root and not in it: only the daemon and the unpacking child write here.
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(wrong)?,
        };
        let mut text = String::new();
        file.take(METADATA_LIMIT).read_to_string(&mut text).map_err(wrong)?;
        self.parse(text).map(Some)
    }

    fn parse(&self, text: String) -> Result<Arc<ImageMetadata>> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metadata)) = known().iter().find(|(one, _)| *one == text) {
            return Ok(Arc::clone(metadata));
        }
        let metadata = Arc::new(ImageMetadata::parse(&text)?);
        if text.len() <= Self::LONGEST {
            let mut known = known();
            known.truncate(Self::MOST - 1);
            known.push_front((text, Arc::clone(&metadata)));
        }
        Ok(metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_understood_once_and_again_when_it_changed() {
        let known = KnownMetadata::default();
        let text =
            |release: usize| format!("architecture: x86_64\ncreation_date: 1\nproperties:\n  release: \"{release}\"\n");
        let first = known.parse(text(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &known.parse(text(0)).unwrap()));
        assert_eq!(known.parse(text(1)).unwrap().properties["release"], "1");
        for release in 2..100 {
            known.parse(text(release)).unwrap();
        }
        assert_eq!(known.0.lock().unwrap().len(), KnownMetadata::MOST);
        assert_eq!(*known.parse(text(0)).unwrap(), *first);
    }
}
