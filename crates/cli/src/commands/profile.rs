//! `profile`.

use clap::Subcommand;
use stapes_api::{Instance, Profile as ApiProfile, ProfilePost, ProfilePut, ProfilesPost};
use stapes_client::Target;

use super::device::{Device, Owner};
use super::{ListFormat, one_scope};
use crate::context::{Ctx, piped_input, settings_of};
use crate::failure::{Result, fail};
use crate::object::Object;
use crate::table::{self, Columns};
use crate::yaml;

#[derive(Debug, Subcommand)]
pub enum Profile {
    /// Add a profile to an instance
    Add { instance: String, profile: String },
    /// Replace the profiles of an instance
    #[command(visible_alias = "apply")]
    Assign {
        instance: String,
        /// Names with commas between; empty for none
        #[arg(value_name = "PROFILES")]
        profiles: Option<String>,
        /// Take all profiles away
        #[arg(long)]
        no_profiles: bool,
    },
    /// Copy a profile
    #[command(visible_alias = "cp")]
    Copy {
        source: String,
        copy: String,
        /// Replace the copy if it exists
        #[arg(long)]
        refresh: bool,
        #[arg(long)]
        target_project: Option<String>,
    },
    /// Create a profile; YAML is read from a pipe
    Create {
        name: String,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a profile
    #[command(visible_alias = "rm")]
    Delete { name: String },
    /// Devices of a profile
    #[command(subcommand)]
    Device(Device),
    /// Edit as YAML
    Edit { name: String },
    /// Print one key
    Get {
        name: String,
        key: String,
        #[arg(long, short)]
        property: bool,
    },
    /// List profiles
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        remote: Option<String>,
        #[arg(long)]
        all_projects: bool,
        /// n name, d description, u used by, e project
        #[arg(long, short, default_value = "ndu")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Take a profile from an instance
    Remove { instance: String, profile: String },
    /// Rename a profile
    #[command(visible_alias = "mv")]
    Rename { name: String, new: String },
    /// Set keys
    Set {
        name: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long, short)]
        property: bool,
    },
    /// Print all
    Show { name: String },
    /// Unset a key
    Unset {
        name: String,
        key: String,
        #[arg(long, short)]
        property: bool,
    },
}

const COLUMNS: &Columns<ApiProfile> = &[
    ('n', "NAME", |p| p.name.clone()),
    ('d', "DESCRIPTION", |p| p.description.clone()),
    ('e', "PROJECT", |p| p.project.clone()),
    ('u', "USED BY", |p| p.used_by.len().to_string()),
];

const HELP: &str = "A profile as YAML. Lines that start with # are ignored. Its name cannot be changed here.";

pub fn profile_object(ctx: &Ctx, spec: &str) -> Result<Object> {
    let name = ctx.name(spec, "a profile")?;
    ctx.about("/1.0/profiles", name);
    Ok(Object::new::<ProfilePut>(format!("profile {name}"), Target::new("/1.0/profiles").join(name)))
}

impl Profile {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Profile::Device(device) => device.run(ctx, Owner::Profile).await,
            Profile::Show { name } => profile_object(ctx, &name)?.show(ctx).await,
            Profile::Get { name, key, property } => {
                profile_object(ctx, &name)?.get(ctx, &key, property, "config").await
            }
            Profile::Set { name, settings, property } => {
                profile_object(ctx, &name)?.set(ctx, &settings_of(&settings)?, property, "config").await
            }
            Profile::Unset { name, key, property } => {
                profile_object(ctx, &name)?.unset(ctx, &key, property, "config").await
            }
            Profile::Edit { name } => profile_object(ctx, &name)?.edit(ctx, HELP, |_| ()).await,
            Profile::Delete { name } => {
                ctx.client.delete(profile_object(ctx, &name)?.target).await?;
                ctx.say(format!("Profile {} deleted", ctx.local(&name)?))
            }
            Profile::Rename { name, new } => {
                let body = ProfilePost { name: ctx.name(&new, "a profile")?.to_owned() };
                ctx.client.post(profile_object(ctx, &name)?.target, &body).await?;
                ctx.say(format!("Profile {} renamed to {new}", ctx.local(&name)?))
            }
            Profile::Create { name, description } => create(ctx, &name, description).await,
            Profile::Copy { source, copy, refresh, target_project } => {
                copy_profile(ctx, &source, &copy, refresh, target_project.as_deref()).await
            }
            Profile::List { remote, all_projects, columns, format } => {
                list(ctx, remote, all_projects, &columns, format).await
            }
            Profile::Add { instance, profile } => {
                apply(ctx, &instance, |profiles| {
                    profiles.push(profile.clone());
                    Ok(())
                })
                .await?;
                ctx.say(format!("Profile {profile} added to {instance}"))
            }
            Profile::Remove { instance, profile } => {
                apply(ctx, &instance, |profiles| match profiles.iter().position(|p| *p == profile) {
                    Some(at) => {
                        profiles.remove(at);
                        Ok(())
                    }
                    None => fail!("{instance} does not have the profile {profile}"),
                })
                .await?;
                ctx.say(format!("Profile {profile} removed from {instance}"))
            }
            Profile::Assign { instance, profiles, no_profiles } => {
                let names = match (profiles.as_deref(), no_profiles) {
                    (None | Some(""), true) | (Some(""), false) => Vec::new(),
                    (Some(names), false) => names.split(',').map(str::to_owned).collect(),
                    (None, false) => fail!("`stapes profile assign` needs profiles, or --no-profiles"),
                    (Some(_), true) => fail!("profiles and --no-profiles exclude each other"),
                };
                let said = if names.is_empty() { "(none)".to_owned() } else { names.join(",") };
                apply(ctx, &instance, |profiles| {
                    *profiles = names;
                    Ok(())
                })
                .await?;
                ctx.say(format!("Profiles {said} applied to {instance}"))
            }
        }
    }
}

async fn create(ctx: &Ctx, spec: &str, description: Option<String>) -> Result<()> {
    let put: ProfilePut = yaml::parse(piped_input()?.as_deref().unwrap_or_default())?;
    let name = ctx.name(spec, "a profile")?;
    let post = ProfilesPost {
        name: name.to_owned(),
        config: put.config,
        devices: put.devices,
        description: description.unwrap_or(put.description),
    };
    ctx.client.post("/1.0/profiles", &post).await?;
    ctx.say(format!("Profile {name} created"))
}

async fn copy_profile(ctx: &Ctx, source: &str, copy: &str, refresh: bool, project: Option<&str>) -> Result<()> {
    let profile: ApiProfile = ctx.client.get(profile_object(ctx, source)?.target).await?;
    let name = match ctx.local(copy)? {
        "" => ctx.local(source)?,
        name => name,
    };
    let put = profile.writable();
    if refresh {
        let target = Target::new("/1.0/profiles").join(name).query_some("project", project);
        match ctx.client.put(target, &put, "").await {
            Err(error) if error.is_not_found() => {}
            other => return Ok(other?),
        }
    }
    let post =
        ProfilesPost { name: name.to_owned(), config: put.config, devices: put.devices, description: put.description };
    Ok(ctx.client.post(Target::new("/1.0/profiles").query_some("project", project), &post).await?)
}

async fn list(ctx: &Ctx, remote: Option<String>, all: bool, columns: &str, format: ListFormat) -> Result<()> {
    one_scope(ctx, all)?;
    ctx.local(remote.as_deref().unwrap_or_default())?;
    let mut target = Target::new("/1.0/profiles").query("recursion", "1");
    if all {
        target = target.query("all-projects", "true");
    }
    let columns = if all && columns == "ndu" { "endu" } else { columns };
    table::list(&ctx.client.get::<Vec<ApiProfile>>(target).await?, COLUMNS, columns, format.format)
}

/// Changes the list of profiles of an instance.
async fn apply(ctx: &Ctx, spec: &str, change: impl FnOnce(&mut Vec<String>) -> Result<()>) -> Result<()> {
    let target = ctx.instance_target(spec)?;
    let (mut instance, etag) = ctx.client.get_tagged::<Instance>(target.clone()).await?;
    change(&mut instance.profiles)?;
    Ok(ctx.client.put(target, &instance.writable(), &etag).await?)
}
