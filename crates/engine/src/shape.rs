//! What an instance's type decides outside its driver: what its volume holds, what its limits mean, what its devices may
//! be. One implementation a type, chosen in [`of`] alone.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use stapes_device::Requests;
use stapes_image::DISK_FILE;
use stapes_instance::{Disk, DiskFormat, DriverError, Firmware, Machine, MachineProfile, Templates, require};
use stapes_model::{
    ByteSize, InstanceType, Limits,
    keys::{HARDWARE_KEYS, Host, hardware_from_config, limits_from_config, machine_limits_from_config, parse_bool},
};
use stapes_storage::{Pool, VolumeRef};

use crate::{
    Error, Result,
    app::Expanded,
    id_ranges,
    records::{self, Config},
};

pub(crate) trait Shape: Sync {
    /// Whether its start takes longer than other work may have to wait for.
    fn starts_slowly(&self) -> bool;

    /// What of a volume a plan names as the instance's root.
    fn root(&self, volume: &Path) -> PathBuf;

    /// Whether the host writes files beneath the root of a stopped instance; else its guest does, at its start.
    fn is_written_by_host(&self) -> bool;

    /// Fills the volume of an instance that is made from no image.
    fn fill_empty(&self, volume: &Path) -> Result<()>;

    /// Bytes that the root may have; `None`: as many as its pool. Where its volume is, may take a while to say.
    fn size(&self, expanded: &Expanded, volume: &dyn Fn() -> Option<PathBuf>) -> Option<u64>;

    /// Gives the root the size that its device asks for, or the usual one.
    fn set_size(&self, pool: &dyn Pool, volume: &VolumeRef, size: Option<ByteSize>) -> Result<()>;

    /// Its own log, as the API lists it.
    fn log(&self) -> Log;

    /// How many host ids it needs; none where it shares the host's own.
    fn ids(&self, expanded: &Expanded) -> Option<u32>;

    /// Refuses what the type cannot have, by the capability's name. Of the keys that both types know, only the instance's
    /// own are judged: a profile serves both.
    fn check(&self, own: &Config, expanded: &Expanded, requests: &Requests, host: &Host) -> Result<()>;

    /// What its groups are told.
    fn limits(&self, config: &Config, host: &Host) -> Result<Limits>;

    /// Bytes of memory that it has for itself; `None`: as much as the host.
    fn memory(&self, config: &Config, host: &Host) -> Option<u64>;

    /// Whether a changed key needs more than its groups being told.
    fn is_hardware(&self, key: &str) -> bool;

    fn machine(
        &self,
        instance: &records::Instance,
        expanded: &Expanded,
        requests: &Requests,
        host: &Host,
        volume: &Path,
    ) -> Result<Option<Machine>>;
}

/// What the daemon noted of an instance, after what programs that stand for it said.
pub(crate) struct Log {
    /// What Incus's clients ask an instance of this type for.
    pub name: &'static str,
    /// Files in the instance's log directory.
    pub programs: &'static [&'static str],
}

pub(crate) fn of(kind: InstanceType) -> &'static dyn Shape {
    match kind {
        InstanceType::Container => &Tree,
        InstanceType::VirtualMachine => &Hardware,
    }
}

/// A directory of files, shown to processes of this kernel.
struct Tree;

impl Shape for Tree {
    fn starts_slowly(&self) -> bool {
        false
    }

    fn root(&self, volume: &Path) -> PathBuf {
        volume.join("rootfs")
    }

    fn is_written_by_host(&self) -> bool {
        true
    }

    fn fill_empty(&self, volume: &Path) -> Result<()> {
        let root = self.root(volume);
        fs::create_dir(&root).map_err(|error| Error::failed(format!("failed to make {}", root.display()), error))
    }

    fn size(&self, expanded: &Expanded, _: &dyn Fn() -> Option<PathBuf>) -> Option<u64> {
        Some(expanded.root_size().ok()??.as_bytes())
    }

    fn set_size(&self, pool: &dyn Pool, volume: &VolumeRef, size: Option<ByteSize>) -> Result<()> {
        Ok(pool.set_quota(volume, size)?)
    }

    fn log(&self) -> Log {
        Log { name: "lxc.log", programs: &[] }
    }

    fn ids(&self, expanded: &Expanded) -> Option<u32> {
        let blocks = if expanded.is_on("security.nesting") { 4 } else { 1 };
        (!expanded.is_on("security.privileged")).then_some(blocks * id_ranges::BLOCK)
    }

    fn check(&self, _: &Config, expanded: &Expanded, _: &Requests, host: &Host) -> Result<()> {
        self.limits(&expanded.config, host).map(drop)
    }

    fn limits(&self, config: &Config, host: &Host) -> Result<Limits> {
        Ok(limits_from_config(config, host)?)
    }

    fn memory(&self, config: &Config, host: &Host) -> Option<u64> {
        Some(self.limits(config, host).ok()?.memory?.as_bytes())
    }

    fn is_hardware(&self, _: &str) -> bool {
        false
    }

    fn machine(
        &self,
        _: &records::Instance,
        _: &Expanded,
        _: &Requests,
        _: &Host,
        _: &Path,
    ) -> Result<Option<Machine>> {
        Ok(None)
    }
}

/// A disk image beside what else a machine keeps, for a kernel of its own.
struct Hardware;

const KIND: InstanceType = InstanceType::VirtualMachine;

/// Unless more was asked for, or came with the image; as Incus.
const DISK: ByteSize = ByteSize::bytes(10 << 30);

impl Shape for Hardware {
    fn starts_slowly(&self) -> bool {
        true
    }

    fn root(&self, volume: &Path) -> PathBuf {
        volume.to_owned()
    }

    fn is_written_by_host(&self) -> bool {
        false
    }

    fn fill_empty(&self, volume: &Path) -> Result<()> {
        use fs::OpenOptions;
        use std::os::unix::fs::OpenOptionsExt;
        let disk = volume.join(DISK_FILE);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&disk);
        made.map(drop).map_err(|error| Error::failed(format!("failed to make {}", disk.display()), error))
    }

    fn size(&self, _: &Expanded, volume: &dyn Fn() -> Option<PathBuf>) -> Option<u64> {
        Some(fs::metadata(volume()?.join(DISK_FILE)).ok()?.len())
    }

    /// The disk's size is the cap. A quota on what the pool needs for it would have to be larger, since a file system that
    /// copies on write keeps old blocks for a while, and to meet it the guest would see a broken disk.
    fn set_size(&self, pool: &dyn Pool, volume: &VolumeRef, size: Option<ByteSize>) -> Result<()> {
        let disk = pool.volume_path(volume).join(DISK_FILE);
        let failed = |error| Error::failed(format!("failed to grow {}", disk.display()), error);
        let file = fs::OpenOptions::new().write(true).open(&disk).map_err(failed)?;
        let has = file.metadata().map_err(failed)?.len();
        let wanted = size.map_or(has.max(DISK.as_bytes()), ByteSize::as_bytes);
        if wanted < has {
            let has = ByteSize::bytes(has);
            return Err(Error::invalid("size", format!("the disk has {has} already, and a disk cannot shrink")));
        }
        // Firmware and partition tables count in sectors.
        file.set_len(wanted.next_multiple_of(4096)).map_err(failed)
    }

    fn log(&self) -> Log {
        Log { name: "qemu.log", programs: &["qemu.log.old", "qemu.log"] }
    }

    fn ids(&self, _: &Expanded) -> Option<u32> {
        Some(id_ranges::BLOCK)
    }

    fn check(&self, own: &Config, expanded: &Expanded, requests: &Requests, host: &Host) -> Result<()> {
        if own.contains_key("raw.apparmor") {
            require(KIND, "apparmor").map_err(|error| Error::invalid("raw.apparmor", error.to_string()))?;
        }
        if own.get("security.nesting").and_then(|value| parse_bool(value)) == Some(false) {
            require(KIND, "nesting.off").map_err(|error| Error::invalid("security.nesting", error.to_string()))?;
        }
        hardware_from_config(&expanded.config, host)?;
        self.limits(&expanded.config, host)?;
        let refused = |device: &str, capability: &str| match require(KIND, capability) {
            Err(DriverError::Unsupported { what, reason }) => {
                Err(DriverError::Unsupported { what: format!("device {device}: {what}"), reason })
            }
            other => other,
        };
        requests.mounts.iter().try_for_each(|mount| refused(&mount.device, "shared-directories"))?;
        Ok(requests.nodes.iter().try_for_each(|(device, _)| refused(device, "unix-devices"))?)
    }

    fn limits(&self, config: &Config, host: &Host) -> Result<Limits> {
        Ok(machine_limits_from_config(config, host)?)
    }

    fn memory(&self, config: &Config, host: &Host) -> Option<u64> {
        Some(hardware_from_config(config, host).ok()?.memory.as_bytes())
    }

    fn is_hardware(&self, key: &str) -> bool {
        HARDWARE_KEYS.contains(&key)
    }

    fn machine(
        &self,
        instance: &records::Instance,
        expanded: &Expanded,
        requests: &Requests,
        host: &Host,
        volume: &Path,
    ) -> Result<Option<Machine>> {
        let hardware = hardware_from_config(&expanded.config, host)?;
        let firmware = match hardware.bios {
            true => Firmware::Bios,
            false => Firmware::Uefi { secure_boot: hardware.secure_boot },
        };
        let root = Disk {
            device: requests.root.device.clone(),
            source: volume.join(DISK_FILE),
            format: DiskFormat::Raw,
            bus: requests.root.bus,
            read_only: false,
            boot_priority: requests.root.boot_priority,
        };
        let boot_nics = requests.links.iter().filter_map(|link| Some((link.device.clone(), link.nic.boot_priority?)));
        Ok(Some(Machine {
            architecture: instance.architecture.clone(),
            profile: MachineProfile::Full,
            firmware,
            accelerator: None,
            cpus: hardware.cpus,
            max_cpus: hardware.cpus,
            memory: hardware.memory,
            max_memory: hardware.memory,
            disks: vec![root],
            boot_nics: boot_nics.collect::<BTreeMap<_, _>>(),
            uuid: instance.config.get("volatile.uuid").cloned().unwrap_or_default(),
            raw_arguments: hardware.qemu_arguments,
            templates: Templates::default(),
        }))
    }
}
