//! What an instance's NICs are given at birth and keep: MAC, address, index.
//!
//! They are kept in the instance's configuration as `volatile.<device>.…` and claimed in the store, so that no two
//! instances of a network can have the same.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use stapes_device::{Attachment, LinkFacts, LinkRef, host_interface_name};
use stapes_instance::Link;
use stapes_model::{DeviceName, NetworkName, keys::parse_mac};
use stapes_network::{Bridge, DnsMode, Reservation};
use stapes_store::Transaction;

use crate::{Engine, Error, Result, records};

use super::Expanded;

/// Interface indexes inside instances start here: unique on the host and out of the way of those that the kernel gives,
/// so that a checkpoint can be restored beside others.
const FIRST_INDEX: u32 = 1 << 20;
const INDEX_BITS: u32 = 30;

/// A NIC on a managed network, with what it was given.
#[derive(Debug, Clone)]
pub(crate) struct ManagedNic {
    pub device: DeviceName,
    pub network: NetworkName,
    pub mac: [u8; 6],
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

impl ManagedNic {
    /// What dnsmasq is to know of it.
    pub fn reservation(&self, instance: &records::Instance, bridge: &Bridge) -> Reservation {
        Reservation {
            mac: self.mac,
            ipv4: self.ipv4,
            ipv6: self.ipv6.or_else(|| stapes_network::eui64(bridge, self.mac)),
            name: if bridge.dns_mode == DnsMode::Managed { instance.name.to_string() } else { String::new() },
            domain: bridge.domain.clone(),
        }
    }
}

fn volatile(device: &str, what: &str) -> String {
    format!("volatile.{device}.{what}")
}

impl Engine {
    /// Chooses MAC, index and address for every NIC of a new instance; `keys` gets their claims.
    pub(crate) fn choose_nics(
        &self,
        record: &records::Instance,
        expanded: &Expanded,
        reserved: &HashSet<String>,
        keys: &mut Vec<String>,
    ) -> Result<records::Config> {
        let mut chosen = records::Config::new();
        for link in stapes_device::requests(&expanded.devices)?.links {
            self.choose_nic(record, &link, reserved, keys, &mut chosen)?;
        }
        Ok(chosen)
    }

    fn choose_nic(
        &self,
        record: &records::Instance,
        link: &LinkRef,
        reserved: &HashSet<String>,
        keys: &mut Vec<String>,
        chosen: &mut records::Config,
    ) -> Result<()> {
        let known = |what: &str| record.config.get(&volatile(&link.device, what));
        let taken =
            |key: &String| reserved.contains(key) || keys.contains(key) || self.index.read().claims.contains(key);
        let segment = match &link.nic.attachment {
            Attachment::Network(network) => network.to_string(),
            Attachment::Bridge(bridge) => format!("@{bridge}"),
        };
        let claim = |mac: [u8; 6]| records::mac_claim(&segment, &stapes_network::mac_text(mac));
        let mac = match link.nic.mac.or_else(|| parse_mac(known("hwaddr")?)) {
            Some(mac) if taken(&claim(mac)) => {
                let text = stapes_network::mac_text(mac);
                return Err(Error::invalid(format!("devices.{}.hwaddr", link.device), format!("{text} is in use")));
            }
            Some(mac) => mac,
            None => {
                let world = std::sync::Arc::clone(&self.world);
                let mut random = || world.random();
                let fresh = || stapes_network::new_mac(&HashSet::new(), &mut random);
                std::iter::repeat_with(fresh)
                    .take(64)
                    .find(|mac| !taken(&claim(*mac)))
                    .ok_or_else(|| Error::Exhausted("no free MAC address was found".to_owned()))?
            }
        };
        let mut claims = vec![claim(mac)];
        if link.nic.mac.is_none() {
            chosen.insert(volatile(&link.device, "hwaddr"), stapes_network::mac_text(mac));
        }
        let index = FIRST_INDEX + (self.world.random() as u32) % ((1 << INDEX_BITS) - FIRST_INDEX);
        chosen.insert(volatile(&link.device, "index"), index.to_string());
        if let Attachment::Network(name) = &link.nic.attachment {
            let bridge = self.bridge(&*self.network(name)?)?;
            if bridge.ipv4.is_some() {
                let mut used: HashSet<Ipv4Addr> = HashSet::new();
                let prefix = format!("claim/address/{name}/");
                let held = reserved
                    .iter()
                    .chain(keys.iter())
                    .filter_map(|key| key.strip_prefix(&prefix)?.parse::<Ipv4Addr>().ok());
                used.extend(held);
                used.extend(self.index.read().claimed_addresses(name).into_iter().filter_map(
                    |address| match address {
                        IpAddr::V4(address) => Some(address),
                        IpAddr::V6(_) => None,
                    },
                ));
                let address = stapes_network::allocate_ipv4(&bridge, &used, link.nic.ipv4)?;
                claims.push(records::address_claim(name.as_str(), IpAddr::V4(address)));
                chosen.insert(volatile(&link.device, "ipv4.address"), address.to_string());
            }
        }
        keys.extend(claims);
        Ok(())
    }

    /// The instance's NICs on managed networks, as far as they were given something.
    pub(crate) fn managed_nics(&self, instance: &records::Instance) -> Result<Vec<ManagedNic>> {
        let links = stapes_device::requests(&self.expanded(instance).devices)?.links;
        let mut nics = Vec::new();
        for link in links {
            let Attachment::Network(network) = &link.nic.attachment else { continue };
            let Some(mac) = self.nic_mac(instance, &link) else { continue };
            let address = instance.config.get(&volatile(&link.device, "ipv4.address"));
            nics.push(ManagedNic {
                device: link.device.parse()?,
                network: network.clone(),
                mac,
                ipv4: address.and_then(|text| text.parse().ok()),
                ipv6: link.nic.ipv6,
            });
        }
        Ok(nics)
    }

    fn nic_mac(&self, instance: &records::Instance, link: &LinkRef) -> Option<[u8; 6]> {
        link.nic.mac.or_else(|| parse_mac(instance.config.get(&volatile(&link.device, "hwaddr"))?))
    }

    /// Claims that an instance holds, by what its record says.
    pub(crate) fn claims_of(&self, instance: &records::Instance) -> Vec<String> {
        let mut claims: Vec<_> = Vec::new();
        if let Some(range) = instance.ids {
            claims.extend(crate::id_ranges::blocks(range).map(records::id_range_claim));
        }
        claims.extend(self.nic_claims(instance));
        claims
    }

    fn nic_claims(&self, instance: &records::Instance) -> Vec<String> {
        let links = stapes_device::requests(&self.expanded(instance).devices).map(|requests| requests.links);
        let mut claims = Vec::new();
        for link in links.unwrap_or_default() {
            let segment = match &link.nic.attachment {
                Attachment::Network(network) => network.to_string(),
                Attachment::Bridge(bridge) => format!("@{bridge}"),
            };
            if let Some(mac) = self.nic_mac(instance, &link) {
                claims.push(records::mac_claim(&segment, &stapes_network::mac_text(mac)));
            }
            let address = instance.config.get(&volatile(&link.device, "ipv4.address"));
            if let Some(address) = address.and_then(|text| text.parse().ok()) {
                claims.push(records::address_claim(&segment, address));
            }
        }
        claims
    }

    /// What a change of devices means for MACs and addresses: new NICs are given theirs, old ones give theirs back.
    /// `None`: the NICs stay as they are.
    pub(crate) fn update_nics(
        &self,
        changed: &mut records::Instance,
        before: &Expanded,
        after: &Expanded,
    ) -> Result<Option<Transaction>> {
        let nics = |expanded: &Expanded| -> BTreeMap<String, BTreeMap<String, String>> {
            let nic = |device: &BTreeMap<String, String>| device.get("type").is_some_and(|kind| kind == "nic");
            expanded
                .devices
                .iter()
                .filter(|(_, device)| nic(device))
                .map(|(name, device)| (name.clone(), device.clone()))
                .collect()
        };
        let (old, new) = (nics(before), nics(after));
        if old == new {
            return Ok(None);
        }
        let stored = self
            .index
            .read()
            .instances
            .get(&changed.id)
            .cloned()
            .ok_or_else(|| Error::missing("instance", &changed.name))?;
        self.remove_reservations(&stored);
        let released = self.nic_claims(&stored);
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            let prefix = format!("volatile.{name}.");
            changed.config.retain(|key, _| !key.starts_with(&prefix));
        }
        let ((chosen, keys), _reservation) = self.reserved.choose(|reserved| {
            let mut keys = Vec::new();
            let mut chosen = records::Config::new();
            for link in stapes_device::requests(&after.devices)?.links {
                if old.get(&link.device) != new.get(&link.device) {
                    changed.config.remove(&volatile(&link.device, "ipv4.address"));
                    self.choose_changed(changed, &link, reserved, &released, &mut keys, &mut chosen)?;
                }
            }
            Ok::<_, Error>(((chosen, keys.clone()), keys))
        })?;
        changed.config.extend(chosen);
        let kept = self.nic_claims(changed);
        let mut transaction = Transaction::new();
        for claim in released.iter().filter(|claim| !keys.contains(claim) && !kept.contains(claim)) {
            transaction = transaction.delete(claim);
        }
        for claim in keys.iter().filter(|claim| !released.contains(claim)) {
            transaction = transaction.create(claim, changed.id.to_string());
        }
        Ok(Some(transaction))
    }

    /// A changed NIC may keep what it held itself.
    fn choose_changed(
        &self,
        changed: &records::Instance,
        link: &LinkRef,
        reserved: &HashSet<String>,
        released: &[String],
        keys: &mut Vec<String>,
        chosen: &mut records::Config,
    ) -> Result<()> {
        if let Some(mac) = self.nic_mac(changed, link) {
            let text = stapes_network::mac_text(mac);
            if let Some(claim) = released.iter().find(|claim| claim.starts_with("claim/mac/") && claim.ends_with(&text))
            {
                let mut own = changed.clone();
                own.config.remove(&volatile(&link.device, "hwaddr"));
                let fresh = LinkRef { nic: stapes_device::Nic { mac: None, ..link.nic.clone() }, ..link.clone() };
                self.choose_nic(&own, &fresh, reserved, keys, chosen)?;
                keys.retain(|key| !key.starts_with("claim/mac/"));
                keys.push(claim.clone());
                chosen.insert(volatile(&link.device, "hwaddr"), text);
                return Ok(());
            }
        }
        self.choose_nic(changed, link, reserved, keys, chosen)
    }

    /// Refuses devices that name a pool, network or bridge that does not exist.
    pub(crate) fn check_references(&self, requests: &stapes_device::Requests) -> Result<()> {
        self.pool_record(&requests.root.pool)?;
        for link in &requests.links {
            match &link.nic.attachment {
                Attachment::Network(network) => drop(self.network(network)?),
                Attachment::Bridge(bridge) => {
                    if !std::path::Path::new("/sys/class/net").join(bridge).join("bridge").is_dir() {
                        let why = format!("this host has no bridge {bridge:?}");
                        return Err(Error::invalid(format!("devices.{}.parent", link.device), why));
                    }
                }
            }
        }
        Ok(())
    }

    /// The links of a start, with everything that the shim needs to make them.
    pub(crate) fn links(&self, instance: &records::Instance, requests: &stapes_device::Requests) -> Result<Vec<Link>> {
        let number =
            |(number, link): (usize, &LinkRef)| self.link(instance, u16::try_from(number).unwrap_or(u16::MAX), link);
        requests.links.iter().enumerate().map(number).collect()
    }

    fn link(&self, instance: &records::Instance, number: u16, link: &LinkRef) -> Result<Link> {
        let known = |what: &str| instance.config.get(&volatile(&link.device, what));
        let mac = self.nic_mac(instance, link).ok_or_else(|| {
            Error::invalid(format!("devices.{}", link.device), "the NIC has no MAC; set the instance's devices again")
        })?;
        let mut facts = LinkFacts {
            host_name: host_interface_name(&instance.id, number),
            guest_index: known("index").and_then(|text| text.parse().ok()).unwrap_or(FIRST_INDEX + u32::from(number)),
            mac,
            ..LinkFacts::default()
        };
        match &link.nic.attachment {
            Attachment::Bridge(bridge) => facts.bridge = Some(bridge.clone()),
            Attachment::Network(name) => {
                let bridge = self.bridge(&*self.network(name)?)?;
                facts.bridge = Some(bridge.interface().to_owned());
                facts.mtu = bridge.mtu;
                facts.gateways = bridge.gateways();
                facts.gateway_mac = Some(bridge.mac);
                let ipv4 = known("ipv4.address").and_then(|text| text.parse().ok()).map(IpAddr::V4);
                let ipv6 = link.nic.ipv6.or_else(|| stapes_network::eui64(&bridge, mac)).map(IpAddr::V6);
                facts.addresses = ipv4.into_iter().chain(ipv6).collect();
            }
        }
        Ok(link.nic.link(&link.device, &link.guest_name, facts))
    }
}
