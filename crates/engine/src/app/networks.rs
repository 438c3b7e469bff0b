//! Managed networks: make, bring up, change, delete; their services; what dnsmasq is told of each NIC.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use ipnet::IpNet;
use serde_json::json;
use stapes_model::{InstanceId, NetworkName};
use stapes_network::{Advertiser, Bridge, DnsmasqPaths, NetworkConfig, NetworkError, RadvdPaths, Reservation};
use stapes_store::{Check, Transaction};

use crate::{
    Engine, Error, Result,
    index::Stored,
    records::{self, Record},
};

use super::nics::ManagedNic;

impl Engine {
    /// Makes a network, brings it up, records it with its completed configuration. Blocking: runs nft.
    pub fn create_network(&self, mut network: records::Network) -> Result<()> {
        stapes_network::validate(&network_config(&network))?;
        if self.index.read().network(&network.name).is_some() {
            return Err(Error::exists("network", &network.name));
        }
        let _held = self.locks.take("network", network.name.as_str(), "create")?;
        if self.host.interface_exists(network.name.as_str()) {
            return Err(Error::invalid(
                "name",
                format!("the host has an interface {:?} already", network.name.as_str()),
            ));
        }
        let taken = self.taken_subnets()?;
        let world = Arc::clone(&self.world);
        let completed =
            stapes_network::complete(&network_config(&network), &taken, stapes_network::ipv6_available(), &mut || {
                world.random()
            })?;
        network.config = completed.config;
        self.journaled("create-network", json!({ "network": network }), || {
            let made = self.network_up(&network).and_then(|()| self.put(&network, Check::Absent(network.key())));
            made.inspect_err(|_| {
                if let Err(left) = self.network_down(&network) {
                    let error = crate::chain(&left);
                    tracing::error!(network = network.name.as_str(), error, "a network is half made");
                }
            })
        })?;
        self.network_event("network-created", &network);
        Ok(())
    }

    /// Replaces a network's configuration and applies it. Blocking.
    pub fn update_network(&self, name: &NetworkName, description: String, config: records::Config) -> Result<()> {
        let _held = self.locks.take("network", name.as_str(), "update")?;
        let stored = self.network(name)?;
        let mut changed = (*stored.value).clone();
        changed.description = description;
        changed.config = config;
        stapes_network::validate(&network_config(&changed))?;
        let others = self.taken_subnets()?;
        let own: Vec<_> = self.bridge(&stored)?.subnets();
        let taken: Vec<_> = others.into_iter().filter(|subnet| !own.contains(subnet)).collect();
        let world = Arc::clone(&self.world);
        let completed =
            stapes_network::complete(&network_config(&changed), &taken, stapes_network::ipv6_available(), &mut || {
                world.random()
            })?;
        changed.config = completed.config;
        if let Err(error) = self.network_up(&changed) {
            // Back to what worked.
            self.network_up(&stored)?;
            return Err(error);
        }
        self.put(&changed, Check::Unchanged { key: changed.key(), revision: stored.revision })?;
        self.network_event("network-updated", &changed);
        Ok(())
    }

    pub fn delete_network(&self, name: &NetworkName) -> Result<()> {
        let _held = self.locks.take("network", name.as_str(), "delete")?;
        let stored = self.network(name)?;
        let users = self.network_users(name);
        if !users.is_empty() {
            return Err(Error::InUse { what: "network", name: name.to_string(), users: users.join(", ") });
        }
        self.journaled("delete-network", json!({ "network": *stored.value }), || {
            self.store.commit(Transaction::new().unchanged(stored.key(), stored.revision).delete(stored.key()))?;
            self.network_down(&stored)
        })?;
        let directory = self.paths.network(name);
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %directory.display(), %error, "the directory of a deleted network is left");
        }
        self.network_event("network-deleted", &stored);
        Ok(())
    }

    /// Makes the host have the network: bridge, firewall, files, services. May run twice.
    pub(crate) fn network_up(&self, network: &records::Network) -> Result<()> {
        let bridge = self.bridge(network)?;
        if dnsmasq().is_none() {
            let why = "dnsmasq is not installed; install the package dnsmasq-base".to_owned();
            return Err(Error::Refused(format!("network {}: {why}", network.name)));
        }
        if !self.host.is_up(&bridge)?
            || self.index.read().network(&network.name).is_none_or(|known| known.config != network.config)
        {
            self.host.up(&bridge)?;
        }
        let paths = self.dnsmasq_paths(&network.name);
        stapes_network::prepare_files(&bridge, &paths)?;
        let radvd = self.prepare_radvd(&bridge)?;
        let ensure = |service: String, argv: &[String]| {
            let started = self.services.ensure_service(&service, argv);
            started.map_err(|error| Error::failed(format!("failed to start {service}"), error))
        };
        // One that shall advertise no more ends before the other begins: its last word is that the router is gone.
        let advertiser = if radvd.is_some() { Advertiser::Radvd } else { Advertiser::Dnsmasq };
        if radvd.is_none() {
            self.services.stop_service(&radvd_service(&network.name))?;
        }
        ensure(service_name(&network.name), &stapes_network::dnsmasq_argv(&bridge, &paths, advertiser))?;
        if let Some(argv) = radvd {
            ensure(radvd_service(&network.name), &argv)?;
        }
        Ok(())
    }

    /// The command line of the network's radvd; `None` where dnsmasq is to send what advertisements there are.
    fn prepare_radvd(&self, bridge: &Bridge) -> Result<Option<Vec<String>>> {
        let program = radvd();
        let paths = RadvdPaths {
            program: program.clone().unwrap_or_default(),
            ..RadvdPaths::beneath(self.paths.network(&bridge.name))
        };
        if program.is_none() && stapes_network::radvd_config(bridge).is_some() {
            tracing::warn!(network = bridge.name.as_str(), "{}", describe_advertiser());
            return Ok(None);
        }
        match stapes_network::prepare_radvd(bridge, &paths) {
            Err(error @ NetworkError::Advertisements { .. }) => {
                let error = crate::chain(&error);
                tracing::warn!(network = bridge.name.as_str(), error, "dnsmasq sends the router advertisements");
                Ok(None)
            }
            prepared => Ok(prepared?),
        }
    }

    pub(crate) fn network_down(&self, network: &records::Network) -> Result<()> {
        for service in service_names(&network.name) {
            self.services.stop_service(&service)?;
        }
        Ok(self.host.down(&self.bridge(network)?)?)
    }

    pub fn bridge(&self, network: &records::Network) -> Result<Bridge> {
        // The host part of generated MACs: the same network name on two hosts of one LAN must not share one.
        Ok(Bridge::parse(&network_config(network), &self.host_identity())?)
    }

    fn host_identity(&self) -> String {
        static MACHINE: OnceLock<String> = OnceLock::new();
        let id =
            MACHINE.get_or_init(|| std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned());
        if id.is_empty() { self.paths.state.display().to_string() } else { id.clone() }
    }

    pub(crate) fn dnsmasq_paths(&self, network: &NetworkName) -> DnsmasqPaths {
        let mut paths = DnsmasqPaths::beneath(self.paths.network(network));
        if let Some(program) = dnsmasq() {
            paths.program = program.to_owned();
        }
        paths
    }

    /// Subnets that a new network must not overlap: the host's routes and the other networks'.
    fn taken_subnets(&self) -> Result<Vec<IpNet>> {
        let mut taken = self.host.taken_subnets()?;
        let networks: Vec<_> = self.index.read().networks.values().cloned().collect();
        for network in networks {
            taken.extend(self.bridge(&network)?.subnets());
        }
        Ok(taken)
    }

    /// Writes what dnsmasq is to know of the instance's NICs.
    pub(crate) fn write_reservations(&self, instance: &records::Instance) -> Result<()> {
        for nic in self.managed_nics(instance)? {
            let network = self.network(&nic.network)?;
            let bridge = self.bridge(&network)?;
            let paths = self.dnsmasq_paths(&nic.network);
            let reservation = nic.reservation(instance, &bridge);
            stapes_network::write_reservation(&bridge, &paths, &instance.id, &nic.device, &reservation)?;
        }
        Ok(())
    }

    /// The reservations of all NICs on managed networks, by network.
    fn all_reservations(&self) -> HashMap<NetworkName, Vec<(InstanceId, ManagedNic, Stored<records::Instance>)>> {
        let instances: Vec<_> = self.index.read().instances_of(None).cloned().collect();
        let mut by_network: HashMap<_, Vec<_>> = HashMap::new();
        for instance in instances {
            let nics = self.managed_nics(&instance).unwrap_or_else(|error| {
                tracing::error!(instance = %instance.id, error = crate::chain(&error), "its NICs cannot be read");
                Vec::new()
            });
            for nic in nics {
                by_network.entry(nic.network.clone()).or_default().push((instance.id, nic, instance.clone()));
            }
        }
        by_network
    }

    /// Makes what dnsmasq was told of the network's NICs agree with the store.
    fn agree_on_reservations(
        &self,
        network: &records::Network,
        nics: &[(InstanceId, ManagedNic, Stored<records::Instance>)],
    ) -> Result<()> {
        let (bridge, paths) = (self.bridge(network)?, self.dnsmasq_paths(&network.name));
        let mut keep = Vec::new();
        for (id, nic, instance) in nics {
            let reservation = nic.reservation(instance, &bridge);
            stapes_network::write_reservation(&bridge, &paths, id, &nic.device, &reservation)?;
            keep.push((*id, nic.device.clone()));
        }
        if stapes_network::sweep_reservations(&paths, &keep)? {
            self.services.signal_service(&service_name(&network.name), HANG_UP)?;
        }
        Ok(())
    }

    /// Makes dnsmasq know the NICs of a changed instance, and forget what it had `before` and has no more.
    pub(crate) fn replace_reservations(&self, instance: &records::Instance, before: Vec<ManagedNic>) -> Result<()> {
        let now = self.managed_nics(instance)?;
        self.remove_reservations(&instance.id, before.into_iter().filter(|nic| !now.contains(nic)));
        self.write_reservations(instance)
    }

    /// Makes dnsmasq forget NICs of an instance. Failures are told in the log: the record is gone already.
    pub(crate) fn remove_reservations(&self, id: &InstanceId, nics: impl IntoIterator<Item = ManagedNic>) {
        for nic in nics {
            let forget = || -> Result<()> {
                let network = self.network(&nic.network)?;
                let bridge = self.bridge(&network)?;
                if stapes_network::remove_reservation(&self.dnsmasq_paths(&nic.network), id, &nic.device)? {
                    self.services.signal_service(&service_name(&nic.network), HANG_UP)?;
                }
                if let Some(address) = nic.ipv4 {
                    self.host.release(&bridge, nic.mac, address)?;
                }
                Ok(())
            };
            if let Err(error) = forget() {
                tracing::warn!(
                    network = nic.network.as_str(),
                    error = crate::chain(&error),
                    "a DHCP reservation is left"
                );
            }
        }
    }

    /// The reservations of all NICs on a network.
    pub fn reservations(&self, network: &records::Network) -> Result<Vec<Reservation>> {
        let bridge = self.bridge(network)?;
        let instances: Vec<_> = self.index.read().instances_of(None).cloned().collect();
        let mut reservations = Vec::new();
        for instance in instances {
            let nics = self.managed_nics(&instance)?;
            let here = nics.into_iter().filter(|nic| nic.network == network.name);
            reservations.extend(here.map(|nic| nic.reservation(&instance, &bridge)));
        }
        Ok(reservations)
    }

    /// The text of a network's lease file; empty when there is none.
    pub fn lease_file(&self, name: &NetworkName) -> String {
        std::fs::read_to_string(self.dnsmasq_paths(name).leases()).unwrap_or_default()
    }

    /// URLs of the instances and profiles with a NIC on the network.
    pub fn network_users(&self, name: &NetworkName) -> Vec<String> {
        let uses = |devices: &records::Devices| {
            devices.values().any(|device| {
                ["network", "parent"].iter().any(|key| device.get(*key).is_some_and(|value| value == name.as_str()))
            })
        };
        let tables = self.index.read();
        let instances = tables.instances_of(None).filter(|instance| uses(&tables.expand(instance).devices));
        let mut users: Vec<_> =
            instances.map(|instance| super::instance_url(&instance.project, &instance.name)).collect();
        let profiles = tables.profiles.values().filter(|profile| uses(&profile.devices));
        users.extend(
            profiles.map(|profile| super::with_project(format!("/1.0/profiles/{}", profile.name), &profile.project)),
        );
        users
    }

    /// Brings every network up and removes what is left of deleted ones; one that fails does not stop the others.
    pub(crate) fn networks_up(&self) {
        let networks: Vec<_> = self.index.read().networks.values().cloned().collect();
        let nics = self.all_reservations();
        for network in networks {
            let nics = nics.get(&network.name).map(Vec::as_slice).unwrap_or_default();
            let up = self.network_up(&network).and_then(|()| self.agree_on_reservations(&network, nics));
            if let Err(error) = up {
                tracing::error!(network = network.name.as_str(), error = crate::chain(&error), "a network is down");
            }
        }
    }

    pub(crate) fn network_names(&self) -> HashSet<NetworkName> {
        self.index.read().networks.values().map(|network| network.name.clone()).collect()
    }

    /// Addresses of an instance's NICs as they were reserved: known before the guest has asked for them.
    pub fn reserved_addresses(&self, instance: &records::Instance) -> Vec<IpAddr> {
        let nics = self.managed_nics(instance).unwrap_or_default();
        nics.into_iter().filter_map(|nic| nic.ipv4.map(IpAddr::V4)).collect()
    }

    fn network_event(&self, action: &str, network: &records::Network) {
        let source = format!("/1.0/networks/{}", network.name);
        self.events.lifecycle("default", action, &source, None, serde_json::Value::Null);
    }
}

/// Where dnsmasq is; looked for until it was found, since a `PATH` may be long and every creation asks.
fn dnsmasq() -> Option<&'static Path> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if FOUND.get().is_none()
        && let Some(program) = find_program("dnsmasq")
    {
        let _ = FOUND.set(program);
    }
    FOUND.get().map(PathBuf::as_path)
}

/// Where radvd is, if this host has it. Looked for each time: a network that comes up is rare.
fn radvd() -> Option<PathBuf> {
    find_program("radvd")
}

/// Who sends router advertisements on this host, and what to do about it.
pub fn describe_advertiser() -> &'static str {
    match radvd() {
        Some(_) => "radvd",
        None => "dnsmasq (each start is dearer, the more instances run: install the package radvd)",
    }
}

/// A program of the host, where a daemon's `PATH` may lack the system directories.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"]);
    folders
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.is_file())
}

/// SIGHUP: dnsmasq re-reads its reservations.
const HANG_UP: i32 = 1;

fn service_name(network: &NetworkName) -> String {
    format!("dnsmasq-{network}")
}

fn radvd_service(network: &NetworkName) -> String {
    format!("radvd-{network}")
}

/// Every service that a network may have.
pub(crate) fn service_names(network: &NetworkName) -> [String; 2] {
    [radvd_service(network), service_name(network)]
}

pub(crate) fn network_config(network: &records::Network) -> NetworkConfig {
    NetworkConfig { name: network.name.clone(), kind: network.kind.clone(), config: network.config.clone() }
}
