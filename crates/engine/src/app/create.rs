//! Making an instance: from an image, or empty.

use std::{collections::HashSet, sync::Arc};

use serde::Serialize;
use stapes_image::metadata::Trigger;
use stapes_model::{IdRange, InstanceId, InstanceName, InstanceType, PoolName, ProfileName, ProjectName};
use stapes_storage::VolumeRef;
use stapes_store::{StoreError, Transaction};

use crate::{
    Engine, Error, Result,
    events::Requestor,
    id_ranges,
    index::Stored,
    locks::Held,
    operations::Operation,
    records::{self, Config, Devices, Record},
    reserve::Reservation,
    shape,
};

use super::{Expanded, task};

/// What a new instance is made of.
#[derive(Debug, Clone)]
pub enum CreateSource {
    /// An image of this host, by alias or fingerprint.
    Image(String),
    /// Built on this host from the distribution's archive; the release, such as `12`.
    Debian(String),
    /// An empty root.
    Empty,
}

/// A request for a new instance; names are checked, the rest is not yet.
#[derive(Debug, Clone)]
pub struct CreateInstance {
    pub project: ProjectName,
    /// `None` picks a free one.
    pub name: Option<InstanceName>,
    pub kind: InstanceType,
    pub description: String,
    pub ephemeral: bool,
    /// `None` means the default profile.
    pub profiles: Option<Vec<ProfileName>>,
    pub config: Config,
    pub devices: Devices,
    pub source: CreateSource,
    pub start: bool,
    pub requestor: Option<Requestor>,
}

/// Everything that the creation will make, written down before the first effect.
#[derive(Debug, Serialize)]
struct Intent<'a> {
    id: InstanceId,
    pool: &'a PoolName,
    project: &'a ProjectName,
    name: &'a InstanceName,
}

impl Engine {
    /// Starts the creation of an instance. Everything that can be refused is refused here; what the returned operation
    /// can still meet is a failing host.
    pub fn create_instance(self: &Arc<Self>, request: CreateInstance) -> Result<Operation> {
        self.driver(request.kind)?;
        let draft = self.draft(&request)?;
        let profiles = self.profiles_of(&draft)?;
        let expanded = self.check_expanded(&draft, &profiles)?;
        let pool = root_pool(&expanded)?;
        self.pool(&pool)?;
        check_sources(&expanded)?;
        if let CreateSource::Image(reference) = &request.source {
            let image = self.find_image(&request.project, reference)?;
            check_image(&image, &request)?;
        }
        if self.instance(&draft.project, &draft.name).is_ok() {
            return Err(Error::exists("instance", &draft.name));
        }
        let held = self.locks.take("instance", &lock_name(&draft.project, &draft.name), "create")?;
        let spec = task("Creating instance", &draft.project, &draft.name, request.requestor.clone());
        let engine = Arc::clone(self);
        Ok(self.operations.run(spec, move |operation| async move {
            engine.create_in(&operation, request, records::Instance { pool, ..draft }, held).await
        }))
    }

    /// The record as far as the request decides it.
    fn draft(&self, request: &CreateInstance) -> Result<records::Instance> {
        if let Some(key) = request.config.keys().find(|key| key.starts_with("volatile.")) {
            return Err(Error::invalid(key, "is kept by the daemon and cannot be set on a new instance"));
        }
        let default_profile = || Ok::<_, Error>(vec!["default".parse()?]);
        let name = match &request.name {
            Some(name) => name.clone(),
            None => self.free_name(&request.project)?,
        };
        Ok(records::Instance {
            // Replaced by one that is free, with everything else that must be its own.
            id: self.world.instance_id(),
            name,
            project: request.project.clone(),
            kind: request.kind,
            architecture: std::env::consts::ARCH.to_owned(),
            description: request.description.clone(),
            ephemeral: request.ephemeral,
            created_at: self.world.now(),
            last_used_at: None,
            profiles: request.profiles.clone().map_or_else(default_profile, Ok)?,
            config: request.config.clone(),
            devices: request.devices.clone(),
            // Replaced by the root disk's pool before anything is made.
            pool: "default".parse()?,
            ids: None,
        })
    }

    async fn create_in(
        self: &Arc<Self>,
        operation: &Operation,
        request: CreateInstance,
        mut record: records::Instance,
        held: Held,
    ) -> Result<()> {
        let image = match &request.source {
            CreateSource::Image(reference) => Some(self.find_image(&request.project, reference)?),
            CreateSource::Debian(release) => {
                Some(self.debian_image(operation, &request.project, release, request.kind).await?)
            }
            CreateSource::Empty => None,
        };
        if let Some(image) = &image {
            self.ensure_unpacked(operation, &record.pool, &image.fingerprint).await?;
            remember_image(&mut record.config, image);
        }
        let engine = Arc::clone(self);
        let task = operation.clone();
        let start = request.start;
        let record = self.lanes.fast(move || engine.make(&task, record, image.as_ref(), start)).await?;
        if request.start {
            self.start_held(operation, &record.project, &record.name, request.requestor.as_ref()).await?;
        }
        drop(held);
        Ok(())
    }

    /// The effects: claim ids, clone the root, write the templates, commit the record. Undone on failure.
    fn make(
        &self,
        operation: &Operation,
        mut record: records::Instance,
        image: Option<&Stored<records::Image>>,
        start: bool,
    ) -> Result<records::Instance> {
        let reservation = self.assign(&mut record)?;
        let intent = Intent { id: record.id, pool: &record.pool, project: &record.project, name: &record.name };
        operation.intent("create", &intent, true)?;
        let made = self.clone_root(&record, image).and_then(|()| {
            if start {
                self.expect_start(&record);
            }
            self.furnish(&record)?;
            operation.step("volume", false)?;
            self.commit_new(&record, &reservation)?;
            operation.step("record", false)
        });
        if let Err(error) = made {
            let undone =
                self.pool(&record.pool).and_then(|pool| Ok(pool.delete_volume(&VolumeRef::instance(&record.id))?));
            if let Err(undone) = undone {
                tracing::error!(instance = %record.id, error = crate::chain(&undone), "a half-made volume is left");
            }
            return Err(error);
        }
        self.write_reservations(&record)?;
        let url = super::instance_url(&record.project, &record.name);
        let context = serde_json::json!({ "type": record.kind, "storage-pool": record.pool });
        let requestor = operation.spec().requestor.as_ref();
        self.events.lifecycle(record.project.as_str(), "instance-created", &url, requestor, context);
        Ok(record)
    }

    /// Gives the instance what is its own for life: id, id range, MACs, addresses.
    fn assign(&self, record: &mut records::Instance) -> Result<Reservation> {
        let expanded = self.expanded(record);
        let size = shape::of(record.kind).ids(&expanded);
        let (chosen, reservation) = self.reserved.choose(|reserved| {
            record.id = self.free_id(reserved)?;
            let mut keys = vec![record.key()];
            let mut ids = None;
            if let Some(size) = size {
                let range = self.free_ids(size, reserved)?;
                keys.extend(id_ranges::blocks(range).map(records::id_range_claim));
                ids = Some(range);
            }
            let grant = self.choose_nics(record, &expanded, reserved)?;
            keys.extend(grant.claims);
            Ok::<_, Error>(((ids, grant.config), keys))
        })?;
        let (ids, nics) = chosen;
        record.ids = ids;
        record.config.extend(nics);
        let uuid = self.world.uuid();
        record.config.insert("volatile.uuid".to_owned(), uuid.clone());
        record.config.insert("volatile.uuid.generation".to_owned(), uuid.clone());
        record.config.insert("volatile.cloud_init.instance-id".to_owned(), uuid);
        if let Some(range) = ids {
            record.config.insert("volatile.idmap.base".to_owned(), range.base.to_string());
        }
        record.config.insert("volatile.last_state.power".to_owned(), "STOPPED".to_owned());
        Ok(reservation)
    }

    pub(super) fn free_ids(&self, size: u32, reserved: &HashSet<String>) -> Result<IdRange> {
        let mut taken = self.index.read().claimed_id_ranges();
        taken.extend(reserved.iter().filter_map(|key| key.strip_prefix("claim/id-range/")?.parse::<u32>().ok()));
        self.ids.find(size, &taken)
    }

    fn clone_root(&self, record: &records::Instance, image: Option<&Stored<records::Image>>) -> Result<()> {
        let pool = self.pool(&record.pool)?;
        let volume = VolumeRef::instance(&record.id);
        match image {
            Some(image) => {
                pool.clone_volume(&VolumeRef::image(&image.fingerprint), &volume)?;
            }
            None => shape::of(record.kind).fill_empty(&pool.ensure_volume(&volume)?)?,
        }
        Ok(())
    }

    fn furnish(&self, record: &records::Instance) -> Result<()> {
        self.set_root_size(record, &self.expanded(record))?;
        self.apply_templates(record, Trigger::Create)
    }

    fn commit_new(&self, record: &records::Instance, reservation: &Reservation) -> Result<()> {
        let mut transaction = Transaction::new()
            .create(record.key(), record.to_bytes())
            .create(records::instance_name_key(&record.project, &record.name), record.id.to_string());
        for key in reservation.keys().iter().filter(|key| key.starts_with("claim/")) {
            transaction = transaction.create(key, record.id.to_string());
        }
        match self.store.commit(transaction) {
            Ok(_) => Ok(()),
            Err(StoreError::CheckFailed { key, .. }) if key.starts_with("instance-name/") => {
                Err(Error::exists("instance", &record.name))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An id that no instance and no creation has: the creation owns what is named by its id, and removes it when it
    /// fails.
    fn free_id(&self, reserved: &HashSet<String>) -> Result<InstanceId> {
        let free = |id: &InstanceId| {
            !self.index.read().instances.contains_key(id) && !reserved.contains(&records::instance_key(id))
        };
        let mut ids = std::iter::repeat_with(|| self.world.instance_id()).take(64);
        ids.find(free).ok_or_else(|| Error::Exhausted("no free instance id was found".to_owned()))
    }

    /// A name nobody has, for a request without one.
    fn free_name(&self, project: &ProjectName) -> Result<InstanceName> {
        const FIRST: [&str; 16] = [
            "able", "brave", "calm", "deft", "eager", "fair", "glad", "keen", "light", "merry", "neat", "quick",
            "ready", "sharp", "swift", "warm",
        ];
        const SECOND: [&str; 16] = [
            "anvil", "badger", "comet", "drum", "falcon", "gecko", "hammer", "iris", "kestrel", "lynx", "marten",
            "otter", "puffin", "raven", "stirrup", "wren",
        ];
        for _ in 0..64 {
            let bits = self.world.random() as usize;
            let name = format!("{}-{}", FIRST[bits & 15], SECOND[(bits >> 4) & 15]);
            let name = if bits & 0x1000 == 0 { name } else { format!("{name}-{}", (bits >> 16) & 0xfff) };
            let name: InstanceName = name.parse()?;
            if self.instance(project, &name).is_err() {
                return Ok(name);
            }
        }
        Err(Error::Exhausted("no free instance name was found; give one".to_owned()))
    }
}

/// Key of the lock that every workflow on an instance takes.
pub(crate) fn lock_name(project: &ProjectName, name: &InstanceName) -> String {
    format!("{project}/{name}")
}

/// The pool of the root disk.
pub(crate) fn root_pool(expanded: &Expanded) -> Result<PoolName> {
    let root = expanded.devices.values().find(|device| device.get("path").is_some_and(|path| path == "/"));
    let pool = root.and_then(|device| device.get("pool")).ok_or_else(|| {
        Error::invalid("devices", "no root disk: add a disk device with path=/ and a pool, or use a profile with one")
    })?;
    Ok(pool.parse()?)
}

/// A required disk whose source is not there is refused now, and not by a start that leaves a useless instance behind.
fn check_sources(expanded: &Expanded) -> Result<()> {
    let mounts = stapes_device::requests(&expanded.devices)?.mounts;
    match mounts.iter().find(|mount| !mount.optional && !mount.source.exists()) {
        Some(mount) => Err(Error::invalid(
            format!("devices.{}.source", mount.device),
            format!("{} does not exist on this host; make it, or set required=false", mount.source.display()),
        )),
        None => Ok(()),
    }
}

fn check_image(image: &records::Image, request: &CreateInstance) -> Result<()> {
    if image.kind != request.kind {
        return Err(Error::invalid(
            "type",
            format!("image {} is for a {}, not for a {}", &image.fingerprint.as_str()[..12], image.kind, request.kind),
        ));
    }
    Ok(())
}

/// Incus keeps an image's properties on the instances made from it.
fn remember_image(config: &mut Config, image: &records::Image) {
    config.insert("volatile.base_image".to_owned(), image.fingerprint.to_string());
    for (name, value) in &image.properties {
        config.insert(format!("image.{name}"), value.clone());
    }
}
