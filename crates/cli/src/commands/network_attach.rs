//! `network attach` and `detach`: network cards of instances and profiles.

use clap::Args;
use serde_json::Value;

use super::config::instance_object;
use super::device::Owner;
use super::launch::nic_on;
use super::profile::profile_object;
use crate::context::Ctx;
use crate::failure::{Failure, Result, fail};
use crate::object::{Object, config_of};

#[derive(Args, Debug)]
pub struct Attach {
    network: String,
    /// Instance or profile
    #[arg(value_name = "OWNER")]
    owner: String,
    /// What to call the device; else as the network
    #[arg(value_name = "DEVICE")]
    device: Option<String>,
    /// What to call the interface inside
    #[arg(value_name = "INTERFACE")]
    interface: Option<String>,
}

fn object(ctx: &Ctx, spec: &str, kind: Owner) -> Result<Object> {
    match kind {
        Owner::Instance => instance_object(ctx, spec),
        Owner::Profile => profile_object(ctx, spec),
    }
}

pub async fn attach(ctx: &Ctx, attach: Attach, kind: Owner) -> Result<()> {
    let network = ctx.name(&attach.network, "a network")?;
    let mut nic = nic_on(ctx, network).await?;
    nic.remove("name");
    if let Some(interface) = attach.interface {
        nic.insert("name".to_owned(), interface);
    }
    let device = attach.device.as_deref().unwrap_or(network);
    let object = object(ctx, &attach.owner, kind)?;
    let (mut value, etag) = object.load(ctx).await?;
    let devices = config_of(&mut value, "devices");
    if devices.contains_key(device) {
        fail!("{} already has a device {device}", object.label);
    }
    devices.insert(device.to_owned(), nic.into_iter().map(|(key, value)| (key, Value::from(value))).collect());
    object.store(ctx, &value, &etag).await
}

pub async fn detach(ctx: &Ctx, network: &str, owner: &str, device: Option<String>, kind: Owner) -> Result<()> {
    let network = ctx.name(network, "a network")?;
    let object = object(ctx, owner, kind)?;
    let (mut value, etag) = object.load(ctx).await?;
    let devices = config_of(&mut value, "devices");
    let is_on =
        |device: &Value| device["type"] == "nic" && (device["network"] == network || device["parent"] == network);
    let found: Vec<_> = devices.iter().filter(|(_, d)| is_on(d)).map(|(name, _)| name.clone()).collect();
    let label = &object.label;
    let name = match (device, found.as_slice()) {
        (Some(device), found) if found.contains(&device) => device,
        (Some(device), _) => fail!("{label} has no device {device} on {network}"),
        (None, [one]) => one.clone(),
        (None, []) => fail!("{label} has no device on {network}"),
        (None, several) => {
            return Err(Failure::new(format!("{label} has several devices on {network}"))
                .hint(format!("name one of {}", several.join(", "))));
        }
    };
    devices.shift_remove(&name);
    object.store(ctx, &value, &etag).await
}
