//! `config device` and `profile device`: the devices of an object.

use clap::Subcommand;
use serde_json::{Map, Value};

use super::config::instance_object;
use super::profile::profile_object;
use crate::context::{Ctx, pairs, settings_of};
use crate::failure::{Failure, Result, fail};
use crate::object::{Object, config_of};
use crate::{out, yaml};

#[derive(Debug, Subcommand)]
pub enum Device {
    /// Add a device
    #[command(visible_alias = "create")]
    Add {
        /// Instance or profile
        owner: String,
        device: String,
        /// disk, nic, proxy, gpu, usb, tpm, unix-char, unix-block…
        kind: String,
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Print one key
    Get { owner: String, device: String, key: String },
    /// List the names of the devices
    #[command(visible_alias = "ls")]
    List { owner: String },
    /// Copy a profile's device to the instance, with changes
    Override {
        owner: String,
        device: String,
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Remove devices
    #[command(visible_aliases = ["rm", "delete"])]
    Remove {
        owner: String,
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
    },
    /// Set keys
    Set {
        owner: String,
        device: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Print all devices
    Show { owner: String },
    /// Unset a key
    Unset { owner: String, device: String, key: String },
}

/// Whose devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Instance,
    Profile,
}

impl Device {
    pub async fn run(self, ctx: &Ctx, kind: Owner) -> Result<()> {
        let (Device::Add { owner, .. }
        | Device::Get { owner, .. }
        | Device::List { owner }
        | Device::Override { owner, .. }
        | Device::Remove { owner, .. }
        | Device::Set { owner, .. }
        | Device::Show { owner }
        | Device::Unset { owner, .. }) = &self;
        let object = match kind {
            Owner::Instance => instance_object(ctx, owner)?,
            Owner::Profile => profile_object(ctx, owner)?,
        };
        let name = ctx.local(owner)?.to_owned();
        let (mut value, etag) = object.load(ctx).await?;
        let said = match self {
            Device::Show { .. } => return out::put(yaml::to_text(&value["devices"])),
            Device::List { .. } => {
                let names = value["devices"].as_object().into_iter().flat_map(Map::keys);
                return out::line(names.cloned().collect::<Vec<_>>().join("\n"));
            }
            Device::Get { device, key, .. } => {
                let found = existing(&mut value, &object, &device)?;
                return out::line(found.get(&key).and_then(Value::as_str).unwrap_or_default());
            }
            Device::Add { device, kind, settings, .. } => {
                refuse_twice(&value, &object, &device)?;
                let fields = [("type".to_owned(), kind)].into_iter().chain(pairs(&settings)?);
                let fields = fields.map(|(key, value)| (key, Value::from(value))).collect();
                config_of(&mut value, "devices").insert(device.clone(), Value::Object(fields));
                Some(format!("Device {device} added to {name}"))
            }
            Device::Override { device, settings, .. } => {
                override_inherited(&mut value, &object, kind, &device, &settings)?;
                Some(format!("Device {device} overridden for {name}"))
            }
            Device::Remove { devices, .. } => {
                for device in &devices {
                    existing(&mut value, &object, device)?;
                    config_of(&mut value, "devices").shift_remove(device);
                }
                Some(format!("Device {} removed from {name}", devices.join(", ")))
            }
            Device::Set { device, settings, .. } => {
                let settings = settings_of(&settings)?;
                let found = existing(&mut value, &object, &device)?;
                found.extend(settings.into_iter().map(|(key, value)| (key, Value::from(value))));
                None
            }
            Device::Unset { device, key, .. } => {
                existing(&mut value, &object, &device)?.shift_remove(&key);
                None
            }
        };
        object.store(ctx, &value, &etag).await?;
        said.map_or(Ok(()), |said| ctx.say(said))
    }
}

/// A device of the object's own.
fn existing<'a>(value: &'a mut Value, object: &Object, device: &str) -> Result<&'a mut Map<String, Value>> {
    let is_inherited = value["expanded_devices"].get(device).is_some();
    let label = &object.label;
    match config_of(value, "devices").get_mut(device) {
        Some(Value::Object(found)) => Ok(found),
        _ if is_inherited => Err(Failure::new(format!("device {device} of {label} comes from a profile"))
            .hint("change the profile, or copy the device with `stapes config device override`")),
        _ => fail!("{label} has no device {device}"),
    }
}

fn refuse_twice(value: &Value, object: &Object, device: &str) -> Result<()> {
    if value["devices"].get(device).is_some() {
        fail!("{} already has a device {device}", object.label);
    }
    Ok(())
}

fn override_inherited(
    value: &mut Value,
    object: &Object,
    kind: Owner,
    device: &str,
    settings: &[String],
) -> Result<()> {
    if kind == Owner::Profile {
        fail!("a profile inherits no devices that could be overridden");
    }
    refuse_twice(value, object, device)?;
    let Some(Value::Object(mut inherited)) = value["expanded_devices"].get(device).cloned() else {
        fail!("no profile of {} has a device {device}", object.label);
    };
    inherited.extend(pairs(settings)?.into_iter().map(|(key, value)| (key, Value::from(value))));
    config_of(value, "devices").insert(device.to_owned(), Value::Object(inherited));
    Ok(())
}
