//! `admin`: setting up and stopping the daemon.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use stapes_api::{
    ConfigMap, InitLocalPreseed, InitNetworksProjectPost, InitProfileProjectPost, Network, NetworkPut, Profile,
    ProfilePut, Project, ProjectPut, ProjectsPost, Server, StoragePool, StoragePoolPut, StoragePoolsPost,
};
use stapes_client::{Error, Method, Target};
use tokio::time::{Instant, sleep, timeout};

use super::launch::text_map;
use crate::context::Ctx;
use crate::failure::{About, Failure, Result, fail};
use crate::{out, yaml};

#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Set up storage and network
    Init(Init),
    /// Stop the daemon and its instances
    Shutdown {
        /// Without waiting for operations
        #[arg(long, short)]
        force: bool,
        /// Seconds to wait
        #[arg(long, short)]
        timeout: Option<u64>,
    },
    /// Wait until the daemon is ready
    Waitready {
        /// Seconds to wait
        #[arg(long, short)]
        timeout: Option<u64>,
    },
}

#[derive(Args, Debug)]
pub struct Init {
    /// Without questions: what is missing is set up as usual
    #[arg(long)]
    auto: bool,
    /// Print the present setup as a preseed
    #[arg(long)]
    dump: bool,
    /// The same as --auto
    #[arg(long)]
    minimal: bool,
    /// From YAML on standard input (or in a file)
    #[arg(long)]
    preseed: bool,
    #[arg(value_name = "PRESEED")]
    file: Option<String>,
    /// Listen here for HTTPS
    #[arg(long)]
    network_address: Option<String>,
    #[arg(long)]
    network_port: Option<u16>,
    /// btrfs or dir
    #[arg(long)]
    storage_backend: Option<String>,
    /// Use this block device
    #[arg(long)]
    storage_create_device: Option<String>,
    /// Use a loop file of this many GiB
    #[arg(long)]
    storage_create_loop: Option<u64>,
    /// Name of the pool
    #[arg(long)]
    storage_pool: Option<String>,
}

impl Admin {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Admin::Init(init) => init.run(ctx).await,
            Admin::Waitready { timeout } => wait_ready(ctx, timeout).await,
            Admin::Shutdown { force, timeout: seconds } => {
                let target = Target::new("/internal/shutdown").query("force", if force { "true" } else { "false" });
                let stop = ctx.client.send::<()>(Method::PUT, target, None, "");
                match seconds {
                    None => _ = stop.await?,
                    Some(seconds) => match timeout(Duration::from_secs(seconds), stop).await {
                        Ok(answer) => _ = answer?,
                        Err(_) => fail!("the daemon still runs after {seconds} seconds"),
                    },
                }
                Ok(())
            }
        }
    }
}

async fn wait_ready(ctx: &Ctx, seconds: Option<u64>) -> Result<()> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let cause: Error = match ctx.client.get::<Value>("/internal/ready").await {
            Ok(_) => return Ok(()),
            Err(cause) => cause,
        };
        if seconds.is_some_and(|seconds| seconds > 0 && start.elapsed().as_secs() >= seconds) {
            let failure = Failure::from(cause);
            return Err(failure.within(format!("the daemon is not ready after {} seconds", seconds.unwrap_or(0))));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

impl Init {
    async fn run(self, ctx: &Ctx) -> Result<()> {
        if self.dump {
            let preseed = dump(ctx).await?;
            return out::line(yaml::of(&preseed)?);
        }
        if self.preseed {
            let problem = || "cannot read the preseed".to_owned();
            let text = match self.file.as_deref() {
                Some(file) if file != "-" => std::fs::read_to_string(file).about(problem)?,
                _ => std::io::read_to_string(std::io::stdin()).about(problem)?,
            };
            return apply(ctx, yaml::parse(&text)?).await;
        }
        if !self.auto && !self.minimal {
            return Err(Failure::new("the questions of `admin init` are not available yet")
                .hint("use --auto for the usual setup, or --preseed for your own"));
        }
        let preseed = self.usual(ctx).await?;
        apply(ctx, preseed).await
    }

    /// What is missing for a usual setup: a pool, a bridge, and both in the default profile.
    async fn usual(&self, ctx: &Ctx) -> Result<InitLocalPreseed> {
        let pools: Vec<StoragePool> = ctx.client.get("/1.0/storage-pools?recursion=1").await?;
        let networks: Vec<Network> = ctx.client.get("/1.0/networks?recursion=1").await?;
        let default: Profile = ctx.client.get("/1.0/profiles/default").await?;
        let has = |kind: &str| default.devices.values().any(|d| d.get("type").is_some_and(|t| t == kind));
        let mut preseed = InitLocalPreseed::default();
        if let Some(address) = &self.network_address {
            let port = self.network_port.unwrap_or(8443);
            let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            preseed.config.insert("core.https_address".to_owned(), format!("{address}:{port}"));
        }
        let mut devices = default.devices.clone();
        if pools.is_empty() {
            preseed.storage_pools.push(self.pool(ctx).await?);
        } else if self.storage_backend.is_some() || self.storage_pool.is_some() {
            fail!("storage is set up already: pool {}", pools[0].name);
        }
        let pool = preseed.storage_pools.first().map(|p| &p.name).or(pools.first().map(|p| &p.name));
        if let Some(pool) = pool.filter(|_| !has("disk")) {
            devices.insert("root".to_owned(), text_map(&[("type", "disk"), ("path", "/"), ("pool", pool)]));
        }
        if !has("nic") {
            let managed = networks.iter().find(|network| network.managed).map(|network| network.name.clone());
            let name = managed.unwrap_or_else(|| {
                let name = free_bridge(&networks);
                let network = InitNetworksProjectPost {
                    name: name.clone(),
                    project: "default".to_owned(),
                    kind: "bridge".to_owned(),
                    ..InitNetworksProjectPost::default()
                };
                preseed.networks.push(network);
                name
            });
            devices.insert("eth0".to_owned(), text_map(&[("type", "nic"), ("network", &name), ("name", "eth0")]));
        }
        if devices != default.devices {
            preseed.profiles.push(InitProfileProjectPost {
                name: "default".to_owned(),
                project: "default".to_owned(),
                devices,
                config: default.config,
                description: default.description,
            });
        }
        Ok(preseed)
    }

    async fn pool(&self, ctx: &Ctx) -> Result<StoragePoolsPost> {
        let server: Server = ctx.client.get("/1.0").await?;
        let offered = &server.environment.storage_supported_drivers;
        let offers = |name: &str| offered.iter().any(|driver| driver.name == name);
        let usual = if offers("btrfs") { "btrfs" } else { "dir" };
        let driver = self.storage_backend.as_deref().unwrap_or(usual);
        if !offers(driver) && !offered.is_empty() {
            let names: Vec<_> = offered.iter().map(|driver| driver.name.as_str()).collect();
            return Err(Failure::new(format!("storage driver {driver} is not available on this host"))
                .hint(format!("available: {}", names.join(", "))));
        }
        let mut config = ConfigMap::new();
        config.extend(self.storage_create_device.clone().map(|device| ("source".to_owned(), device)));
        config.extend(self.storage_create_loop.map(|gib| ("size".to_owned(), format!("{gib}GiB"))));
        let name = self.storage_pool.clone().unwrap_or_else(|| "default".to_owned());
        Ok(StoragePoolsPost { name, driver: driver.to_owned(), config, ..StoragePoolsPost::default() })
    }
}

fn free_bridge(networks: &[Network]) -> String {
    // The list has the host's own interfaces too.
    let is_free = |name: &String| networks.iter().all(|network| network.name != *name);
    (0..).map(|index| format!("stapesbr{index}")).find(is_free).unwrap_or_default()
}

async fn dump(ctx: &Ctx) -> Result<InitLocalPreseed> {
    let server: Server = ctx.client.get("/1.0").await?;
    let networks: Vec<Network> = ctx.client.get("/1.0/networks?recursion=1&project=default").await?;
    let pools: Vec<StoragePool> = ctx.client.get("/1.0/storage-pools?recursion=1").await?;
    let profiles: Vec<Profile> = ctx.client.get("/1.0/profiles?recursion=1").await?;
    let projects: Vec<Project> = ctx.client.get("/1.0/projects?recursion=1").await?;
    let network = |n: Network| InitNetworksProjectPost {
        config: n.config,
        description: n.description,
        name: n.name,
        kind: n.kind,
        project: "default".to_owned(),
    };
    let pool = |p: StoragePool| StoragePoolsPost {
        config: p.config,
        description: p.description,
        name: p.name,
        driver: p.driver,
    };
    let profile = |p: Profile| InitProfileProjectPost {
        config: p.config,
        description: p.description,
        devices: p.devices,
        name: p.name,
        project: String::new(),
    };
    let project = |p: Project| ProjectsPost { config: p.config, description: p.description, name: p.name };
    Ok(InitLocalPreseed {
        config: server.config,
        networks: networks.into_iter().filter(|n| n.managed).map(network).collect(),
        storage_pools: pools.into_iter().map(pool).collect(),
        storage_volumes: Vec::new(),
        profiles: profiles.into_iter().map(profile).collect(),
        projects: projects.into_iter().map(project).collect(),
    })
}

/// Creates what the preseed names, or updates it where it exists.
async fn apply(ctx: &Ctx, preseed: InitLocalPreseed) -> Result<()> {
    if !preseed.config.is_empty() {
        ctx.client.patch("/1.0", &serde_json::json!({ "config": preseed.config })).await?;
    }
    for pool in preseed.storage_pools {
        let put = StoragePoolPut { config: pool.config.clone(), description: pool.description.clone() };
        ensure(ctx, "/1.0/storage-pools", &pool.name, "", &pool, &put).await?;
    }
    for project in preseed.projects {
        let put = ProjectPut { config: project.config.clone(), description: project.description.clone() };
        ensure(ctx, "/1.0/projects", &project.name, "", &project, &put).await?;
    }
    for network in preseed.networks {
        let put = NetworkPut { config: network.config.clone(), description: network.description.clone() };
        ensure(ctx, "/1.0/networks", &network.name, &network.project, &network, &put).await?;
    }
    for volume in preseed.storage_volumes {
        let collection = format!("/1.0/storage-pools/{}/volumes/{}", volume.pool, "custom");
        ctx.client.post(Target::new(&collection).query_some("project", Some(&volume.project)), &volume).await?;
    }
    for profile in preseed.profiles {
        let put = ProfilePut {
            config: profile.config.clone(),
            description: profile.description.clone(),
            devices: profile.devices.clone(),
        };
        ensure(ctx, "/1.0/profiles", &profile.name, &profile.project, &profile, &put).await?;
    }
    Ok(())
}

async fn ensure<P: serde::Serialize, U: serde::Serialize>(
    ctx: &Ctx,
    collection: &str,
    name: &str,
    project: &str,
    post: &P,
    put: &U,
) -> Result<()> {
    let at = |target: Target| target.query_some("project", Some(project));
    let target = at(Target::new(collection).join(name));
    let done = match ctx.client.get_tagged::<Value>(target.clone()).await {
        Ok((_, etag)) => ctx.client.put(target, put, &etag).await,
        Err(error) if error.is_not_found() => ctx.client.post(at(Target::new(collection)), post).await,
        Err(error) => Err(error),
    };
    done.map_err(|error| Failure::from(error).within(format!("cannot set up {name} in {collection}")))
}
