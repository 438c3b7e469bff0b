//! `launch` and `create`.

use std::collections::BTreeMap;

use clap::Args;
use stapes_api::{
    ConfigMap, DevicesMap, Instance, InstancePut, InstanceSource, InstancesPost, Network, Operation, Profile,
};
use stapes_client::{ErrorKind, Method, Target};

use super::console::attach_and_explain;
use crate::context::{Ctx, Remote, last_segment, pairs, piped_input};
use crate::failure::{About, Failure, Result, fail};
use crate::{out, yaml};

#[derive(Args, Debug)]
pub struct Create {
    /// Image and name: `debian:12 c1`; with --empty only a name
    #[arg(num_args = 0..=2, value_name = "[REMOTE:]IMAGE> <[NAME]")]
    pub words: Vec<String>,
    /// Set a configuration key
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub config: Vec<String>,
    /// Change a device: DEVICE,KEY=VALUE
    #[arg(long, short, value_name = "DEVICE,KEY=VALUE")]
    pub device: Vec<String>,
    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
    /// Start from an empty root file system
    #[arg(long)]
    pub empty: bool,
    /// Set environment variables from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub environment_file: Option<String>,
    /// Delete it when it stops
    #[arg(long, short)]
    pub ephemeral: bool,
    /// Connect eth0 to this network
    #[arg(long, short)]
    pub network: Option<String>,
    /// Apply no profile
    #[arg(long)]
    pub no_profiles: bool,
    /// Apply this profile (again for more)
    #[arg(long, short)]
    pub profile: Vec<String>,
    /// Put the root disk in this pool
    #[arg(long, short, value_name = "POOL")]
    pub storage: Option<String>,
    #[command(flatten)]
    pub target: super::Target,
    /// Size, such as c2-m4 for two CPUs and 4 GiB
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub size: Option<String>,
    /// A virtual machine instead of a container
    #[arg(long)]
    pub vm: bool,
}

#[derive(Args, Debug)]
pub struct Launch {
    #[command(flatten)]
    pub create: Create,
    /// Attach to the console at once
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "console")]
    pub console: Option<String>,
}

impl Create {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        self.create(ctx, false).await.map(|_| ())
    }

    /// Creates it and returns its name.
    async fn create(&self, ctx: &Ctx, start: bool) -> Result<String> {
        self.target.refuse()?;
        let (image, name) = self.image_and_name(ctx)?;
        let mut post = self.request(ctx, piped_input()?).await?;
        post.name = name.to_owned();
        post.start = start;
        let verb = if start { "Launching" } else { "Creating" };
        ctx.say(if name.is_empty() { format!("{verb} the instance") } else { format!("{verb} {name}") })?;
        let done = match image {
            None => {
                post.source.kind = "none".to_owned();
                submit(ctx, &post).await?
            }
            Some((remote, image)) => create_from(ctx, &mut post, remote, image).await?,
        };
        let instances = done.resources.get("instances").into_iter().flatten();
        let created = instances.filter_map(|path| last_segment(path)).next().map(str::to_owned);
        let created = match (name, created) {
            ("", None) => fail!("the daemon did not say what the new instance is called"),
            ("", Some(created)) => {
                out::line(format!("Instance name is: {created}"))?;
                created
            }
            (name, _) => name.to_owned(),
        };
        warn_without_network(ctx, &created).await;
        Ok(created)
    }

    fn image_and_name<'a>(&'a self, ctx: &Ctx) -> Result<(Option<(Remote, &'a str)>, &'a str)> {
        let word = |index: usize| self.words.get(index).map_or("", String::as_str);
        if self.empty {
            if self.words.len() > 1 {
                fail!("--empty takes no image, only a name");
            }
            return Ok((None, ctx.local(word(0))?));
        }
        if self.words.is_empty() {
            return Err(Failure::new("an image must be named").hint("for example `stapes launch debian:12 c1`"));
        }
        Ok((Some(ctx.remote(word(0))?), ctx.local(word(1))?))
    }

    async fn request(&self, ctx: &Ctx, piped: Option<String>) -> Result<InstancesPost> {
        let given: InstancePut = yaml::parse(piped.as_deref().unwrap_or_default())?;
        let mut config = given.config;
        if let Some(file) = &self.environment_file {
            config.extend(environment_of(file)?);
        }
        config.extend(pairs(&self.config)?);
        let mut devices = given.devices;
        if let Some(network) = &self.network {
            devices.insert("eth0".to_owned(), nic_on(ctx, network).await?);
        }
        if let Some(pool) = &self.storage {
            let disk = [("type", "disk"), ("path", "/"), ("pool", pool)];
            devices.insert("root".to_owned(), text_map(&disk));
        }
        let profiles = match (&self.profile[..], self.no_profiles) {
            ([], true) => Some(Vec::new()),
            ([], false) if given.profiles.is_empty() => None,
            ([], false) => Some(given.profiles),
            (profiles, _) => Some(profiles.to_vec()),
        };
        self.override_devices(ctx, &mut devices, profiles.as_deref()).await?;
        Ok(InstancesPost {
            config,
            devices,
            ephemeral: self.ephemeral || given.ephemeral,
            description: self.description.clone().unwrap_or(given.description),
            instance_type: self.size.clone().unwrap_or_default(),
            kind: if self.vm { "virtual-machine" } else { "container" }.to_owned(),
            profiles,
            ..InstancesPost::default()
        })
    }

    /// `--device`: a device of the profiles is copied to the instance first.
    async fn override_devices(&self, ctx: &Ctx, devices: &mut DevicesMap, profiles: Option<&[String]>) -> Result<()> {
        let overrides = device_overrides(&self.device)?;
        let mut inherited = DevicesMap::new();
        if overrides.keys().any(|name| !devices.contains_key(name)) {
            let default = ["default".to_owned()];
            for name in profiles.unwrap_or(&default) {
                let profile: Profile = ctx.client.get(Target::new("/1.0/profiles").join(name)).await?;
                inherited.extend(profile.devices);
            }
        }
        for (name, changes) in overrides {
            let device = match devices.remove(&name).or_else(|| inherited.remove(&name)) {
                Some(device) => device,
                // A new device says what it is.
                None if changes.contains_key("type") => ConfigMap::new(),
                None => fail!("--device {name}: no profile has such a device; a new one needs {name},type=…"),
            };
            devices.insert(name, device.into_iter().chain(changes).collect());
        }
        Ok(())
    }
}

impl Launch {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        let name = self.create.create(ctx, true).await?;
        match &self.console {
            Some(kind) => attach_and_explain(ctx, &name, kind).await,
            None => Ok(()),
        }
    }
}

/// Creates from an image. The daemon resolves the alias; only if there is none by that name is it tried as a fingerprint
/// and as a remote.
async fn create_from(ctx: &Ctx, post: &mut InstancesPost, remote: Remote, image: &str) -> Result<Operation> {
    let is_fingerprint = image.len() >= 2 && image.chars().all(|c| c.is_ascii_hexdigit());
    post.source = source_of(remote, image);
    ctx.about("/1.0/images/aliases", image);
    let failure = match submit(ctx, post).await {
        Err(failure) if remote == Remote::Local && failure.kind == Some(ErrorKind::NotFound) => failure,
        other => return other,
    };
    if is_fingerprint {
        post.source = InstanceSource { kind: "image".to_owned(), fingerprint: image.to_owned(), ..Default::default() };
        return submit(ctx, post).await;
    }
    match image.split_once('/').unwrap_or((image, "")) {
        ("debian", version) => {
            eprintln!("there is no local image {image:?}, taking debian:{version}");
            post.source = source_of(Remote::Debian, version);
            submit(ctx, post).await
        }
        _ => Err(failure),
    }
}

fn source_of(remote: Remote, image: &str) -> InstanceSource {
    let mut source = InstanceSource { kind: "image".to_owned(), alias: image.to_owned(), ..InstanceSource::default() };
    if remote == Remote::Debian {
        source.protocol = "debian".to_owned();
        source.server = "debian".to_owned();
        source.mode = "pull".to_owned();
    }
    if source.alias.is_empty() {
        source.alias = "default".to_owned();
    }
    source
}

async fn submit(ctx: &Ctx, post: &InstancesPost) -> Result<Operation> {
    let operation = ctx.client.begin(Method::POST, "/1.0/instances", Some(post)).await?;
    ctx.wait(&operation, "").await
}

/// `DEVICE,KEY=VALUE` for each device.
pub fn device_overrides(args: &[String]) -> Result<BTreeMap<String, ConfigMap>> {
    let mut overrides = BTreeMap::<String, ConfigMap>::new();
    for arg in args {
        let parts = arg.split_once(',').and_then(|(device, rest)| Some((device, rest.split_once('=')?)));
        let Some((device, (key, value))) = parts else {
            fail!("--device {arg:?} is not of the form DEVICE,KEY=VALUE");
        };
        overrides.entry(device.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }
    Ok(overrides)
}

fn environment_of(file: &str) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file).about(|| format!("cannot read {file}"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let variable = |line: &str| match line.split_once('=') {
        Some((name, value)) => Ok((format!("environment.{name}"), value.trim_matches('"').to_owned())),
        None => Err(Failure::new(format!("{file}: {line:?} is not of the form NAME=VALUE"))),
    };
    lines.map(variable).collect()
}

/// A network card on `network`, which may be one the daemon does not manage.
pub async fn nic_on(ctx: &Ctx, network: &str) -> Result<ConfigMap> {
    ctx.about("/1.0/networks", network);
    let found: Network = ctx.client.get(Target::new("/1.0/networks").join(network)).await?;
    Ok(match (found.managed, found.kind.as_str()) {
        (true, _) => text_map(&[("name", "eth0"), ("type", "nic"), ("network", network)]),
        (false, "bridge") => {
            text_map(&[("name", "eth0"), ("type", "nic"), ("nictype", "bridged"), ("parent", network)])
        }
        (false, _) => text_map(&[("name", "eth0"), ("type", "nic"), ("nictype", "macvlan"), ("parent", network)]),
    })
}

pub fn text_map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn warn_without_network(ctx: &Ctx, name: &str) {
    let Ok(instance) = ctx.client.get::<Instance>(Target::new("/1.0/instances").join(name)).await else { return };
    let has_nic = instance.expanded_devices.values().any(|device| device.get("type").is_some_and(|t| t == "nic"));
    if !has_nic {
        eprintln!(
            "{name} has no network\nhint: see `stapes network list`, then `stapes network attach NETWORK {name}`"
        );
    }
}
