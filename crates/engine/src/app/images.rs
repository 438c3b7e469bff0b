//! Images: import, build from the archive, unpack once per pool, alias, edit, delete.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use chrono::{DateTime, Utc};
use serde_json::json;
use stapes_image::{ImageFiles, Inspected, UnpackLimits};
use stapes_model::{AliasName, Fingerprint, InstanceType, PoolName, ProfileName, ProjectName};
use stapes_storage::VolumeRef;
use stapes_store::{Check, Transaction};

use crate::{
    Engine, Error, Result,
    index::Stored,
    operations::Operation,
    records::{self, ImageSource, Record},
};

/// What a client may change of an image.
#[derive(Debug, Clone, Default)]
pub struct ImageEdit {
    pub public: bool,
    pub auto_update: bool,
    pub properties: BTreeMap<String, String>,
    pub profiles: Vec<ProfileName>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Image files that arrived, with what their sender said of them.
#[derive(Debug)]
pub struct ImportedImage {
    pub project: ProjectName,
    pub files: ImageFiles,
    /// The name under which a unified image was sent.
    pub filename: String,
    pub edit: ImageEdit,
    pub aliases: Vec<(AliasName, String)>,
    /// Refused unless the content has this fingerprint.
    pub expected: Option<Fingerprint>,
    pub source: Option<ImageSource>,
}

impl Engine {
    /// Finds an image by alias, fingerprint, or the start of one that is long enough to be the only one.
    pub fn find_image(&self, project: &ProjectName, reference: &str) -> Result<Stored<records::Image>> {
        let tables = self.index.read();
        if let Ok(name) = reference.parse()
            && let Some(alias) = tables.alias(project, &name)
            && let Some(image) = tables.image(project, &alias.target)
        {
            return Ok(image.clone());
        }
        drop(tables);
        self.image_by_fingerprint(project, reference)
    }

    pub fn image_by_fingerprint(&self, project: &ProjectName, prefix: &str) -> Result<Stored<records::Image>> {
        let missing = || Error::missing("image", prefix);
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let tables = self.index.read();
        let mut found = tables.images_starting(project, prefix);
        let image = found.next().cloned().ok_or_else(missing)?;
        if found.next().is_some() {
            return Err(Error::invalid("fingerprint", format!("{prefix:?} is the start of more than one image")));
        }
        Ok(image)
    }

    /// Takes image files in: checks them, moves them into place, records them. Blocking. On failure nothing is left.
    pub fn import_image(&self, imported: ImportedImage) -> Result<Fingerprint> {
        let inspected = stapes_image::inspect(&imported.files)?;
        let fingerprint = stapes_image::fingerprint(&imported.files)?;
        if let Some(expected) = &imported.expected
            && *expected != fingerprint
        {
            return Err(Error::invalid("fingerprint", format!("expected {expected}, the content has {fingerprint}")));
        }
        stapes_image::check_whole(&imported.files)?;
        // Two of the same content at once would take each other's files away, in one project or in two, and a deletion
        // must not come between the files and the record.
        let _held = self.locks.take("image", fingerprint.as_str(), "import")?;
        if self.index.read().image(&imported.project, &fingerprint).is_some() {
            return Err(Error::exists("image", fingerprint));
        }
        for (alias, _) in &imported.aliases {
            if self.index.read().alias(&imported.project, alias).is_some() {
                return Err(Error::exists("image alias", alias));
            }
        }
        let record = self.image_record(&imported, &inspected, &fingerprint)?;
        let mut transaction = Transaction::new().create(record.key(), record.to_bytes());
        for (name, description) in &imported.aliases {
            let alias = records::ImageAlias {
                project: imported.project.clone(),
                name: name.clone(),
                description: description.clone(),
                target: fingerprint.clone(),
                kind: record.kind,
            };
            transaction = transaction.create(alias.key(), alias.to_bytes());
        }
        self.journaled("import-image", json!({ "fingerprint": fingerprint }), || {
            let placed = self.place_files(&imported.files, &fingerprint);
            placed.and_then(|()| Ok(self.store.commit(transaction)?)).inspect_err(|_| {
                if let Err(left) = self.drop_image_content(&fingerprint) {
                    tracing::error!(%fingerprint, error = crate::chain(&left), "files of a failed import are left");
                }
            })
        })?;
        self.image_event("image-created", &record.project, &fingerprint);
        Ok(fingerprint)
    }

    fn image_record(
        &self,
        imported: &ImportedImage,
        inspected: &Inspected,
        fingerprint: &Fingerprint,
    ) -> Result<records::Image> {
        let metadata = &inspected.metadata;
        let time = |seconds: i64| (seconds > 0).then(|| DateTime::from_timestamp(seconds, 0)).flatten();
        let size = |path: &Path| {
            std::fs::metadata(path)
                .map(|metadata| metadata.len())
                .map_err(|error| Error::failed(format!("failed to read {}", path.display()), error))
        };
        let mut bytes = size(&imported.files.meta)?;
        if let Some(rootfs) = &imported.files.rootfs {
            bytes += size(rootfs)?;
        }
        let mut properties = metadata.properties.clone();
        properties.extend(imported.edit.properties.clone());
        Ok(records::Image {
            project: imported.project.clone(),
            fingerprint: fingerprint.clone(),
            kind: inspected.instance_type,
            architecture: metadata.architecture.clone(),
            filename: imported.filename.clone(),
            size: bytes,
            public: imported.edit.public,
            auto_update: imported.edit.auto_update,
            cached: false,
            properties,
            profiles: imported.edit.profiles.clone(),
            created_at: time(metadata.creation_date),
            expires_at: imported.edit.expires_at.or_else(|| time(metadata.expiry_date)),
            uploaded_at: self.world.now(),
            last_used_at: None,
            source: imported.source.clone(),
        })
    }

    fn place_files(&self, files: &ImageFiles, fingerprint: &Fingerprint) -> Result<()> {
        let place = |from: &Path, to: PathBuf| {
            let file = std::fs::File::open(from).and_then(|file| file.sync_all());
            file.and_then(|()| std::fs::rename(from, &to))
                .map_err(|error| Error::failed(format!("failed to store the image file {}", to.display()), error))
        };
        place(&files.meta, self.paths.image_meta(fingerprint))?;
        crate::failpoint::reached("between two files");
        files.rootfs.as_ref().map_or(Ok(()), |rootfs| place(rootfs, self.paths.image_rootfs(fingerprint)))
    }

    fn remove_image_files(&self, fingerprint: &Fingerprint) {
        for path in [self.paths.image_meta(fingerprint), self.paths.image_rootfs(fingerprint)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "an image file could not be removed");
            }
        }
    }

    /// The stored files of an image.
    pub fn image_files(&self, fingerprint: &Fingerprint) -> ImageFiles {
        let rootfs = self.paths.image_rootfs(fingerprint);
        ImageFiles { meta: self.paths.image_meta(fingerprint), rootfs: rootfs.exists().then_some(rootfs) }
    }

    /// Unpacks an image into a pool unless it is there already. Two callers share one unpacking.
    pub(crate) async fn ensure_unpacked(
        self: &Arc<Self>,
        operation: &Operation,
        pool: &PoolName,
        fingerprint: &Fingerprint,
    ) -> Result<()> {
        let volume = VolumeRef::image(fingerprint);
        let (engine, name, wanted) = (Arc::clone(self), pool.clone(), volume.clone());
        if self.lanes.fast(move || Ok(engine.pool(&name)?.exists(&wanted)?)).await? {
            return Ok(());
        }
        let turn = {
            let mut unpacking = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(unpacking.entry(format!("{pool}/{fingerprint}")).or_default())
        };
        let _turn = turn.lock().await;
        operation.progress("create_instance_from_image_unpack", "Unpacking image", None);
        let (engine, pool, fingerprint) = (Arc::clone(self), pool.clone(), fingerprint.clone());
        let work = move || {
            let pool = engine.pool(&pool)?;
            if pool.exists(&volume)? {
                return Ok(());
            }
            // An unpacking that was killed left its half; an image is filled from nothing.
            pool.delete_volume(&volume)?;
            let directory = pool.ensure_volume(&volume)?;
            let files = engine.image_files(&fingerprint);
            let unpacked = stapes_image::unpack(&files, &directory, &UnpackLimits::default(), &engine.worker)
                .map_err(Error::from)
                .and_then(|_| Ok(pool.seal(&volume)?));
            if let Err(error) = unpacked {
                pool.delete_volume(&volume)?;
                return Err(error);
            }
            Ok(())
        };
        self.lanes.slow(work).await
    }

    /// The image `alias` (such as `12`) of the `debian` source for instances of `kind`: the cached one, or built now.
    pub(crate) async fn debian_image(
        self: &Arc<Self>,
        operation: &Operation,
        project: &ProjectName,
        alias: &str,
        kind: InstanceType,
    ) -> Result<Stored<records::Image>> {
        let turn = {
            let mut building = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(building.entry(format!("debian/{kind}/{alias}")).or_default())
        };
        let _turn = turn.lock().await;
        let source =
            ImageSource { protocol: "debian".to_owned(), server: "debian".to_owned(), alias: alias.to_owned() };
        let cached = {
            let tables = self.index.read();
            let mut images = tables.images.values();
            let of_source = |image: &&Stored<records::Image>| {
                image.project == *project && image.kind == kind && image.source.as_ref() == Some(&source)
            };
            images.find(of_source).cloned()
        };
        if let Some(image) = cached {
            return Ok(image);
        }
        let (engine, operation, project, alias) =
            (Arc::clone(self), operation.clone(), project.clone(), alias.to_owned());
        let work = move || {
            let built = engine.build_image(&operation, &alias, kind)?;
            let imported = ImportedImage {
                project: project.clone(),
                files: built,
                filename: format!("debian-{alias}"),
                edit: ImageEdit::default(),
                aliases: Vec::new(),
                expected: None,
                source: Some(source),
            };
            let fingerprint = engine.import_image(imported)?;
            engine.image_by_fingerprint(&project, fingerprint.as_str())
        };
        self.lanes.slow(work).await
    }

    /// Adds the image `alias` of the `debian` source on request, with what the request says of it.
    pub async fn add_debian_image(
        self: &Arc<Self>,
        operation: &Operation,
        project: &ProjectName,
        alias: &str,
        kind: InstanceType,
        edit: Option<ImageEdit>,
        aliases: Vec<(AliasName, String)>,
    ) -> Result<Stored<records::Image>> {
        let image = self.debian_image(operation, project, alias, kind).await?;
        let (engine, project) = (Arc::clone(self), project.clone());
        let work = move || {
            if let Some(mut edit) = edit {
                let mut properties = image.properties.clone();
                properties.extend(edit.properties);
                edit.properties = properties;
                edit.expires_at = edit.expires_at.or(image.expires_at);
                engine.update_image(&project, &image.fingerprint, edit)?;
            }
            for (name, description) in aliases {
                engine.create_alias(&project, name, description, image.fingerprint.as_str())?;
            }
            engine.image_by_fingerprint(&project, image.fingerprint.as_str())
        };
        self.lanes.fast(work).await
    }

    /// Builds a Debian release for instances of `kind`; the files are links into the build cache, which stays.
    fn build_image(&self, operation: &Operation, release: &str, kind: InstanceType) -> Result<ImageFiles> {
        let cache = self.paths.cache();
        let spec = stapes_image::build::BuildSpec {
            release: release.to_owned(),
            cache_dir: cache.join("images"),
            work_dir: cache.join("build"),
            arch: String::new(),
            kind,
            variant: String::new(),
            refresh: false,
        };
        let mut told = |progress: stapes_image::build::Progress| {
            operation.progress(
                "build_image",
                &format!("Building debian:{release}: {}", progress.text),
                progress.percent,
            );
        };
        let built = match release {
            "busybox" => stapes_image::build::busybox(&spec, &mut told)?,
            _ => stapes_image::build::debian(&spec, &mut told)?,
        };
        let link = |file: &Path, suffix: &str| {
            let to = self.paths.images().join(format!(".upload-{}{suffix}", operation.id()));
            std::fs::hard_link(file, &to)
                .map(|()| to)
                .map_err(|error| Error::failed(format!("failed to take over {}", file.display()), error))
        };
        let rootfs = built.rootfs.as_deref().map(|rootfs| link(rootfs, ".rootfs")).transpose()?;
        Ok(ImageFiles { meta: link(&built.meta, "")?, rootfs })
    }

    /// Changes what a client may change.
    pub fn update_image(&self, project: &ProjectName, fingerprint: &Fingerprint, edit: ImageEdit) -> Result<()> {
        for profile in &edit.profiles {
            self.profile(project, profile)?;
        }
        let read = || self.image_by_fingerprint(project, fingerprint.as_str());
        self.change(read, |image: &mut records::Image| {
            image.public = edit.public;
            image.auto_update = edit.auto_update;
            image.properties.clone_from(&edit.properties);
            image.profiles.clone_from(&edit.profiles);
            image.expires_at = edit.expires_at;
            Ok(())
        })?;
        self.image_event("image-updated", project, fingerprint);
        Ok(())
    }

    /// Removes an image: its record and aliases first, then its files and unpacked volumes. Instances made from it are
    /// not touched. Blocking.
    pub fn delete_image(&self, operation: &Operation, project: &ProjectName, fingerprint: &Fingerprint) -> Result<()> {
        let image = self.image_by_fingerprint(project, fingerprint.as_str())?;
        let _held = self.locks.take("image", fingerprint.as_str(), "delete")?;
        operation.intent("delete-image", &json!({ "fingerprint": fingerprint }), true)?;
        let mut transaction = Transaction::new().unchanged(image.key(), image.revision).delete(image.key());
        for alias in self.aliases_of(project, fingerprint) {
            transaction = transaction.delete(alias.key());
        }
        self.store.commit(transaction)?;
        operation.step("record-deleted", false)?;
        self.drop_image_content(fingerprint)?;
        self.image_event("image-deleted", project, fingerprint);
        Ok(())
    }

    /// Removes the files and unpacked volumes of an image that no record names (any more).
    pub(crate) fn drop_image_content(&self, fingerprint: &Fingerprint) -> Result<()> {
        let used = self.index.read().images.values().any(|image| image.fingerprint == *fingerprint);
        if used {
            return Ok(());
        }
        self.remove_image_files(fingerprint);
        for name in self.pool_names() {
            self.pool(&name)?.delete_volume(&VolumeRef::image(fingerprint))?;
        }
        Ok(())
    }

    pub fn aliases_of(&self, project: &ProjectName, fingerprint: &Fingerprint) -> Vec<Stored<records::ImageAlias>> {
        let tables = self.index.read();
        let ours = |alias: &&Stored<records::ImageAlias>| alias.project == *project && alias.target == *fingerprint;
        tables.aliases.values().filter(ours).cloned().collect()
    }

    pub fn alias(&self, project: &ProjectName, name: &AliasName) -> Result<Stored<records::ImageAlias>> {
        self.index.read().alias(project, name).cloned().ok_or_else(|| Error::missing("image alias", name))
    }

    pub fn create_alias(
        &self,
        project: &ProjectName,
        name: AliasName,
        description: String,
        target: &str,
    ) -> Result<()> {
        if self.index.read().alias(project, &name).is_some() {
            return Err(Error::exists("image alias", name));
        }
        let image = self.image_by_fingerprint(project, target)?;
        let alias = records::ImageAlias {
            project: project.clone(),
            name,
            description,
            target: image.fingerprint.clone(),
            kind: image.kind,
        };
        self.put(&alias, Check::Absent(alias.key()))?;
        self.alias_event("image-alias-created", &alias);
        Ok(())
    }

    pub fn update_alias(&self, project: &ProjectName, name: &AliasName, description: &str, target: &str) -> Result<()> {
        let image = self.image_by_fingerprint(project, target)?;
        let read = || self.alias(project, name);
        self.change(read, |alias: &mut records::ImageAlias| {
            description.clone_into(&mut alias.description);
            alias.target = image.fingerprint.clone();
            Ok(())
        })?;
        self.alias_event("image-alias-updated", &*self.alias(project, name)?);
        Ok(())
    }

    pub fn rename_alias(&self, project: &ProjectName, name: &AliasName, to: AliasName) -> Result<()> {
        let stored = self.alias(project, name)?;
        if self.index.read().alias(project, &to).is_some() {
            return Err(Error::exists("image alias", to));
        }
        let mut renamed = (*stored.value).clone();
        renamed.name = to;
        let transaction = Transaction::new()
            .unchanged(stored.key(), stored.revision)
            .delete(stored.key())
            .create(renamed.key(), renamed.to_bytes());
        self.store.commit(transaction)?;
        self.alias_event("image-alias-renamed", &renamed);
        Ok(())
    }

    pub fn delete_alias(&self, project: &ProjectName, name: &AliasName) -> Result<()> {
        let stored = self.alias(project, name)?;
        self.store.commit(Transaction::new().unchanged(stored.key(), stored.revision).delete(stored.key()))?;
        self.alias_event("image-alias-deleted", &stored);
        Ok(())
    }

    fn image_event(&self, action: &str, project: &ProjectName, fingerprint: &Fingerprint) {
        let source = super::with_project(format!("/1.0/images/{fingerprint}"), project);
        self.events.lifecycle(project.as_str(), action, &source, None, serde_json::Value::Null);
    }

    fn alias_event(&self, action: &str, alias: &records::ImageAlias) {
        let source = super::with_project(format!("/1.0/images/aliases/{}", alias.name), &alias.project);
        self.events.lifecycle(alias.project.as_str(), action, &source, None, serde_json::Value::Null);
    }
}
