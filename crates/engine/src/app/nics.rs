//! What an instance's NICs are given at birth and keep: MAC, address, index.
//!
//! They are kept in the instance's configuration as `volatile.<device>.…` and claimed in the store, so that no two
//! instances of a network can have the same.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use stapes_device::{Attachment, LinkFacts, LinkRef, host_interface_name};
use stapes_instance::Link;
use stapes_model::{DeviceName, InstanceId, NetworkName, keys::parse_mac};
use stapes_network::{Bridge, DnsMode, Reservation};
use stapes_store::Transaction;

use crate::{Engine, Error, Result, records, reserve};

use super::Expanded;

/// Interface indexes inside instances start here: unique on the host and out of the way of those that the kernel gives,
/// so that a checkpoint can be restored beside others.
const FIRST_INDEX: u32 = 1 << 20;
const INDEX_BITS: u32 = 30;

/// A NIC on a managed network, with what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What NICs hold: entries of the instance's configuration, and the claims that make them the instance's own.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    pub config: records::Config,
    pub claims: Vec<String>,
}

/// Who holds what while NICs are given theirs.
struct Holdings<'a> {
    /// Claims of the instance itself, which it may keep.
    owned: &'a HashSet<String>,
    /// Claims of creations and changes under way.
    reserved: &'a HashSet<String>,
}

/// Entries that a NIC has in its instance's configuration.
const ENTRIES: [&str; 3] = ["hwaddr", "index", "ipv4.address"];

fn volatile(device: &str, what: &str) -> String {
    format!("volatile.{device}.{what}")
}

fn is_nic_entry(key: &str) -> bool {
    // `volatile.<device>.hwaddr`: the device's name may hold dots and is not empty.
    let of_device = |rest: &str| {
        ENTRIES.iter().any(|what| rest.strip_suffix(what).is_some_and(|d| d.len() > 1 && d.ends_with('.')))
    };
    key.strip_prefix("volatile.").is_some_and(of_device)
}

/// The part of a claim that says where a MAC address or an IP address must be unique.
fn segment(link: &LinkRef) -> String {
    match &link.nic.attachment {
        Attachment::Network(network) => network.to_string(),
        Attachment::Bridge(bridge) => format!("@{bridge}"),
    }
}

impl Engine {
    /// Gives every NIC its MAC, index and address: what it holds already where that still fits, else something new.
    pub(crate) fn choose_nics(
        &self,
        record: &records::Instance,
        expanded: &Expanded,
        reserved: &HashSet<String>,
    ) -> Result<Grant> {
        let owned = self.nic_claims(&record.id);
        let holdings = Holdings { owned: &owned, reserved };
        let mut grant = Grant::default();
        for link in stapes_device::requests(&expanded.devices)?.links {
            self.choose_nic(record, &link, &holdings, &mut grant)?;
        }
        Ok(grant)
    }

    fn choose_nic(
        &self,
        record: &records::Instance,
        link: &LinkRef,
        holdings: &Holdings<'_>,
        grant: &mut Grant,
    ) -> Result<()> {
        let known = |what: &str| record.config.get(&volatile(&link.device, what));
        let mac = self.choose_mac(link, known("hwaddr").and_then(|text| parse_mac(text)), holdings, grant)?;
        grant.claims.push(records::mac_claim(&segment(link), &stapes_network::mac_text(mac)));
        if link.nic.mac.is_none() {
            grant.config.insert(volatile(&link.device, "hwaddr"), stapes_network::mac_text(mac));
        }
        let index = known("index").cloned().unwrap_or_else(|| {
            (FIRST_INDEX + (self.world.random() as u32) % ((1 << INDEX_BITS) - FIRST_INDEX)).to_string()
        });
        grant.config.insert(volatile(&link.device, "index"), index);
        if let Attachment::Network(network) = &link.nic.attachment {
            let before = known("ipv4.address").and_then(|text| text.parse().ok());
            if let Some(address) = self.choose_address(network, link.nic.ipv4, before, holdings, grant)? {
                grant.claims.push(records::address_claim(network.as_str(), IpAddr::V4(address)));
                grant.config.insert(volatile(&link.device, "ipv4.address"), address.to_string());
            }
        }
        Ok(())
    }

    /// The configured MAC, the one it has had, or a new one.
    fn choose_mac(
        &self,
        link: &LinkRef,
        before: Option<[u8; 6]>,
        holdings: &Holdings<'_>,
        grant: &Grant,
    ) -> Result<[u8; 6]> {
        let taken = |mac: [u8; 6]| {
            let claim = records::mac_claim(&segment(link), &stapes_network::mac_text(mac));
            let others = || holdings.reserved.contains(&claim) || self.index.read().claims.contains_key(&claim);
            grant.claims.contains(&claim) || (!holdings.owned.contains(&claim) && others())
        };
        match link.nic.mac.or(before) {
            Some(mac) if taken(mac) => {
                let text = stapes_network::mac_text(mac);
                Err(Error::invalid(format!("devices.{}.hwaddr", link.device), format!("{text} is in use")))
            }
            Some(mac) => Ok(mac),
            None => {
                let mut random = || self.world.random();
                let fresh = || stapes_network::new_mac(&HashSet::new(), &mut random);
                let mut fresh = std::iter::repeat_with(fresh).take(64);
                fresh
                    .find(|mac| !taken(*mac))
                    .ok_or_else(|| Error::Exhausted("no free MAC address was found".to_owned()))
            }
        }
    }

    /// The configured address, the one it has had on this network, or a free one; `None` where the network has no IPv4.
    fn choose_address(
        &self,
        network: &NetworkName,
        wanted: Option<Ipv4Addr>,
        before: Option<Ipv4Addr>,
        holdings: &Holdings<'_>,
        grant: &Grant,
    ) -> Result<Option<Ipv4Addr>> {
        let bridge = self.bridge(&*self.network(network)?)?;
        let Some(ipv4) = &bridge.ipv4 else { return Ok(None) };
        let prefix = format!("claim/address/{network}/");
        let address = |claim: &String| claim.strip_prefix(&prefix)?.parse::<Ipv4Addr>().ok();
        let owned: HashSet<Ipv4Addr> = holdings.owned.iter().filter_map(address).collect();
        let ours: HashSet<Ipv4Addr> = grant.claims.iter().filter_map(address).collect();
        let kept = before.filter(|ip| owned.contains(ip) && !ours.contains(ip) && ipv4.address.contains(ip));
        if wanted.is_none() && kept.is_some() {
            return Ok(kept);
        }
        let tables = self.index.read();
        let held = tables.claims.keys().chain(holdings.reserved).filter_map(address);
        let mut used: HashSet<Ipv4Addr> = held.filter(|ip| !owned.contains(ip)).collect();
        used.extend(ours);
        Ok(Some(stapes_network::allocate_ipv4(&bridge, &used, wanted)?))
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

    /// Claims on MACs and addresses that an instance holds.
    fn nic_claims(&self, id: &InstanceId) -> HashSet<String> {
        let nic = |claim: &String| claim.starts_with("claim/mac/") || claim.starts_with("claim/address/");
        self.claims_of(id).into_iter().filter(nic).collect()
    }

    /// Every claim that an instance holds, whatever its devices are now.
    pub(crate) fn claims_of(&self, id: &InstanceId) -> Vec<String> {
        let (tables, owner) = (self.index.read(), id.as_str());
        tables.claims.iter().filter(|(_, holder)| *holder == owner).map(|(claim, _)| claim.clone()).collect()
    }

    /// Brings the NICs of a changed instance up to date: new ones are given theirs, gone ones give theirs back, the
    /// others keep what they have. Returns the claims' part of the transaction, empty where nothing changes hands; the
    /// reservation is held until that is committed.
    pub(crate) fn update_nics(
        &self,
        changed: &mut records::Instance,
        after: &Expanded,
    ) -> Result<(Transaction, reserve::Reservation)> {
        let owned = self.nic_claims(&changed.id);
        let (grant, reservation) = self.reserved.choose(|reserved| {
            let grant = self.choose_nics(changed, after, reserved)?;
            let fresh = grant.claims.iter().filter(|claim| !owned.contains(*claim)).cloned().collect();
            Ok::<_, Error>((grant, fresh))
        })?;
        let mut transaction = Transaction::new();
        for claim in owned.iter().filter(|claim| !grant.claims.contains(claim)) {
            transaction = transaction.delete(claim);
        }
        for claim in reservation.keys() {
            transaction = transaction.create(claim, changed.id.to_string());
        }
        changed.config.retain(|key, _| !is_nic_entry(key));
        changed.config.extend(grant.config);
        Ok((transaction, reservation))
    }

    /// Refuses devices that name a pool, network or bridge that does not exist.
    pub(crate) fn check_references(&self, requests: &stapes_device::Requests) -> Result<()> {
        self.pool_record(&requests.root.pool)?;
        for link in &requests.links {
            match &link.nic.attachment {
                Attachment::Network(network) => drop(self.network(network)?),
                Attachment::Bridge(bridge) => {
                    if !self.host.bridge_exists(bridge) {
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
