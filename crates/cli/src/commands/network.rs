//! `network`.

use std::fmt::Write;

use clap::Subcommand;
use stapes_api::{Network as ApiNetwork, NetworkLease, NetworkPost, NetworkPut, NetworkState, NetworksPost};
use stapes_client::Target;

use super::network_attach::{Attach, attach, detach};
use super::{ListFormat, one_scope, yes_no};
use crate::context::{Ctx, pairs, piped_input, settings_of};
use crate::failure::Result;
use crate::object::Object;
use crate::table::{self, Columns};
use crate::{out, units, yaml};

#[derive(Debug, Subcommand)]
pub enum Network {
    /// Connect an instance to a network
    Attach(Attach),
    /// Connect a profile to a network
    AttachProfile(Attach),
    /// Create a network; YAML is read from a pipe
    #[command(visible_alias = "add")]
    Create {
        network: String,
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long)]
        description: Option<String>,
        /// bridge, macvlan, physical…
        #[arg(long = "type", short = 't')]
        kind: Option<String>,
        #[command(flatten)]
        target: super::Target,
    },
    /// Delete a network
    #[command(visible_aliases = ["rm", "remove"])]
    Delete { network: String },
    /// Disconnect an instance from a network
    Detach { network: String, owner: String, device: Option<String> },
    /// Disconnect a profile from a network
    DetachProfile { network: String, owner: String, device: Option<String> },
    /// Edit as YAML
    Edit { network: String },
    /// Print one key
    Get {
        network: String,
        key: String,
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Show the state of a network
    Info {
        network: String,
        #[command(flatten)]
        target: super::Target,
    },
    /// List networks
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        remote: Option<String>,
        #[arg(long)]
        all_projects: bool,
        /// n name, t type, m managed, 4 IPv4, 6 IPv6, d description, u used by, s state, e project
        #[arg(long, short, default_value = "ntm46dus")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// List the addresses handed out
    ListLeases {
        network: String,
        /// h host name, m MAC address, i IP address, t type, L location
        #[arg(long, short, default_value = "hmit")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Rename a network
    #[command(visible_alias = "mv")]
    Rename { network: String, new: String },
    /// Set keys
    Set {
        network: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
    /// Print all
    Show {
        network: String,
        #[command(flatten)]
        target: super::Target,
    },
    /// Unset a key
    Unset {
        network: String,
        key: String,
        #[arg(long, short)]
        property: bool,
        #[command(flatten)]
        target: super::Target,
    },
}

const COLUMNS: &Columns<ApiNetwork> = &[
    ('n', "NAME", |n| n.name.clone()),
    ('t', "TYPE", |n| n.kind.clone()),
    ('m', "MANAGED", |n| yes_no(n.managed)),
    ('4', "IPV4", |n| n.config.get("ipv4.address").cloned().unwrap_or_default()),
    ('6', "IPV6", |n| n.config.get("ipv6.address").cloned().unwrap_or_default()),
    ('d', "DESCRIPTION", |n| n.description.clone()),
    ('u', "USED BY", |n| n.used_by.len().to_string()),
    ('s', "STATE", |n| n.status.to_uppercase()),
    ('e', "PROJECT", |n| n.project.clone()),
];

const LEASES: &Columns<NetworkLease> = &[
    ('h', "HOSTNAME", |l| l.hostname.clone()),
    ('m', "MAC ADDRESS", |l| l.hwaddr.clone()),
    ('i', "IP ADDRESS", |l| l.address.clone()),
    ('t', "TYPE", |l| l.kind.to_uppercase()),
    ('L', "LOCATION", |l| l.location.clone()),
];

pub fn network_target(ctx: &Ctx, spec: &str) -> Result<Target> {
    let name = ctx.name(spec, "a network")?;
    ctx.about("/1.0/networks", name);
    Ok(Target::new("/1.0/networks").join(name))
}

fn object(ctx: &Ctx, spec: &str) -> Result<Object> {
    Ok(Object::new::<NetworkPut>(format!("network {}", ctx.local(spec)?), network_target(ctx, spec)?))
}

impl Network {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Network::Attach(attach_to) => attach(ctx, attach_to, super::device::Owner::Instance).await,
            Network::AttachProfile(attach_to) => attach(ctx, attach_to, super::device::Owner::Profile).await,
            Network::Detach { network, owner, device } => {
                detach(ctx, &network, &owner, device, super::device::Owner::Instance).await
            }
            Network::DetachProfile { network, owner, device } => {
                detach(ctx, &network, &owner, device, super::device::Owner::Profile).await
            }
            Network::Create { network, settings, description, kind, target } => {
                target.refuse()?;
                create(ctx, &network, &settings, description, kind).await
            }
            Network::Delete { network } => {
                ctx.client.delete(network_target(ctx, &network)?).await?;
                ctx.say(format!("Network {} deleted", ctx.local(&network)?))
            }
            Network::Rename { network, new } => {
                let body = NetworkPost { name: ctx.name(&new, "a network")?.to_owned() };
                ctx.client.post(network_target(ctx, &network)?, &body).await?;
                ctx.say(format!("Network {} renamed to {new}", ctx.local(&network)?))
            }
            Network::Edit { network } => {
                object(ctx, &network)?
                    .edit(ctx, "A network as YAML. Lines that start with # are ignored.", |_| ())
                    .await
            }
            Network::Get { network, key, property, target } => {
                target.refuse()?;
                object(ctx, &network)?.get(ctx, &key, property, "config").await
            }
            Network::Set { network, settings, property, target } => {
                target.refuse()?;
                object(ctx, &network)?.set(ctx, &settings_of(&settings)?, property, "config").await
            }
            Network::Unset { network, key, property, target } => {
                target.refuse()?;
                object(ctx, &network)?.unset(ctx, &key, property, "config").await
            }
            Network::Show { network, target } => {
                target.refuse()?;
                object(ctx, &network)?.show(ctx).await
            }
            Network::Info { network, target } => {
                target.refuse()?;
                let state: NetworkState = ctx.client.get(network_target(ctx, &network)?.join("state")).await?;
                out::put(page(ctx.local(&network)?, &state))
            }
            Network::List { remote, all_projects, columns, format } => {
                one_scope(ctx, all_projects)?;
                ctx.local(remote.as_deref().unwrap_or_default())?;
                let mut target = Target::new("/1.0/networks").query("recursion", "1");
                if all_projects {
                    target = target.query("all-projects", "true");
                }
                let columns = if all_projects && columns == "ntm46dus" { "entm46dus" } else { &columns };
                table::list(&ctx.client.get::<Vec<ApiNetwork>>(target).await?, COLUMNS, columns, format.format)
            }
            Network::ListLeases { network, columns, format } => {
                let leases: Vec<NetworkLease> = ctx.client.get(network_target(ctx, &network)?.join("leases")).await?;
                table::list(&leases, LEASES, &columns, format.format)
            }
        }
    }
}

async fn create(
    ctx: &Ctx,
    spec: &str,
    settings: &[String],
    description: Option<String>,
    kind: Option<String>,
) -> Result<()> {
    let mut put: NetworkPut = yaml::parse(piped_input()?.as_deref().unwrap_or_default())?;
    put.config.extend(pairs(settings)?);
    let name = ctx.name(spec, "a network")?;
    let post = NetworksPost {
        name: name.to_owned(),
        kind: kind.unwrap_or_default(),
        config: put.config,
        description: description.unwrap_or(put.description),
    };
    ctx.client.post("/1.0/networks", &post).await?;
    ctx.say(format!("Network {name} created"))
}

/// The state of a network.
fn page(name: &str, state: &NetworkState) -> String {
    let mut text = format!("Name: {name}\n");
    if !state.hwaddr.is_empty() {
        _ = writeln!(text, "MAC address: {}", state.hwaddr);
    }
    _ = writeln!(text, "MTU: {}\nState: {}\nType: {}", state.mtu, state.state, state.kind);
    if !state.addresses.is_empty() {
        _ = writeln!(text, "\nIP addresses:");
    }
    for a in &state.addresses {
        _ = writeln!(text, "  {}\t{}/{} ({})", a.family, a.address, a.netmask, a.scope);
    }
    if let Some(count) = &state.counters {
        _ = writeln!(text, "\nNetwork usage:\n  Bytes received: {}", units::decimal(count.bytes_received));
        _ = writeln!(text, "  Bytes sent: {}", units::decimal(count.bytes_sent));
        _ = writeln!(text, "  Packets received: {}\n  Packets sent: {}", count.packets_received, count.packets_sent);
    }
    if let Some(bond) = &state.bond {
        _ = writeln!(text, "\nBond:\n  Mode: {}\n  Transmit policy: {}", bond.mode, bond.transmit_policy);
        _ = writeln!(text, "  Up delay: {}\n  Down delay: {}", bond.up_delay, bond.down_delay);
        _ = writeln!(text, "  MII Frequency: {}\n  MII state: {}", bond.mii_frequency, bond.mii_state);
        _ = writeln!(text, "  Lower devices: {}", bond.lower_devices.join(", "));
    }
    if let Some(bridge) = &state.bridge {
        _ = writeln!(text, "\nBridge:\n  ID: {}\n  STP: {}", bridge.id, bridge.stp);
        _ = writeln!(text, "  Forward delay: {}\n  Default VLAN ID: {}", bridge.forward_delay, bridge.vlan_default);
        _ = writeln!(text, "  VLAN filtering: {}", bridge.vlan_filtering);
        _ = writeln!(text, "  Upper devices: {}", bridge.upper_devices.join(", "));
    }
    if let Some(vlan) = &state.vlan {
        _ = writeln!(text, "\nVLAN:\n  Lower device: {}\n  VLAN ID: {}", vlan.lower_device, vlan.vid);
    }
    text
}
