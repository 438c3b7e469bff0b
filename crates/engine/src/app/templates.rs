//! Files that an image's templates and cloud-init put into an instance.

use std::path::Path;

use stapes_image::{
    ImageMetadata,
    metadata::Trigger,
    templates::{self, RenderedFile},
};
use stapes_instance::{FileReply, FileRequest};
use stapes_storage::VolumeRef;

use crate::{Engine, Error, Result, records};

/// Most that metadata.yaml of a volume may have.
const METADATA_LIMIT: u64 = 1 << 20;

impl Engine {
    /// Renders the templates that ask for `trigger` and writes them beneath the root of the stopped instance.
    pub(crate) fn apply_templates(&self, instance: &records::Instance, trigger: Trigger) -> Result<()> {
        let pool = self.pool(&instance.pool)?;
        let volume = pool.volume_path(&VolumeRef::instance(&instance.id));
        let Some(metadata) = read_metadata(&volume)? else { return Ok(()) };
        if !metadata.templates.values().any(|template| template.when.contains(&trigger)) {
            return Ok(());
        }
        let rendered = templates::render_volume(&volume, &metadata, trigger, &self.template_context(instance, &metadata))?;
        let driver = self.driver(instance.kind)?;
        let root = volume.join("rootfs");
        for file in rendered {
            if file.create_only && matches!(stat(&*driver, &root, &file), Ok(FileReply::Meta(_))) {
                continue;
            }
            let request = FileRequest::Replace {
                path: file.path.to_string_lossy().into_owned(),
                content: file.content,
                uid: file.uid.unwrap_or(0),
                gid: file.gid.unwrap_or(0),
                mode: file.mode.unwrap_or(0o644),
            };
            driver.files_offline(&root, &request).map_err(|error| {
                Error::failed(format!("failed to write {} from its template into {}", file.path.display(), instance.name), error)
            })?;
        }
        Ok(())
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

fn stat(driver: &dyn stapes_instance::Driver, root: &Path, file: &RenderedFile) -> Result<FileReply> {
    Ok(driver.files_offline(root, &FileRequest::Stat { path: file.path.to_string_lossy().into_owned() })?)
}

/// The metadata that came with the image; `None` for an instance made empty.
pub(crate) fn read_metadata(volume: &Path) -> Result<Option<ImageMetadata>> {
    use std::io::Read;
    let path = volume.join("metadata.yaml");
    let wrong = |error: std::io::Error| Error::failed(format!("failed to read {}", path.display()), error);
    // Beside the root and not in it: only the daemon and the unpacking child write here.
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(wrong)?,
    };
    let mut text = String::new();
    file.take(METADATA_LIMIT).read_to_string(&mut text).map_err(wrong)?;
    Ok(Some(ImageMetadata::parse(&text)?))
}
