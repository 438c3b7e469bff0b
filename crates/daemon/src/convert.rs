//! Between the engine's records and the wire's types: the only place that knows both.

use stapes_api as api;
use stapes_engine::{
    app::{Expanded, InstanceState, with_project},
    index::Tables,
    records,
};
use stapes_model::{InstanceType, state::Status};

pub fn time(at: chrono::DateTime<chrono::Utc>) -> api::Timestamp {
    at.into()
}

pub fn time_or_epoch(at: Option<chrono::DateTime<chrono::Utc>>) -> api::Timestamp {
    at.map_or(api::Timestamp::EPOCH, Into::into)
}

pub fn instance(record: &records::Instance, expanded: Expanded, status: Status) -> api::Instance {
    api::Instance {
        architecture: record.architecture.clone(),
        config: record.config.clone(),
        devices: record.devices.clone(),
        ephemeral: record.ephemeral,
        profiles: record.profiles.iter().map(ToString::to_string).collect(),
        restore: String::new(),
        stateful: false,
        description: record.description.clone(),
        created_at: time(record.created_at),
        expanded_config: expanded.config,
        expanded_devices: expanded.devices,
        name: record.name.to_string(),
        status: status.as_str().to_owned(),
        status_code: api::StatusCode(status.code()),
        last_used_at: time_or_epoch(record.last_used_at),
        location: "none".to_owned(),
        kind: record.kind.as_str().to_owned(),
        project: record.project.to_string(),
    }
}

/// An instance with its state, from an [`instance`].
pub fn instance_full(instance: api::Instance, state: api::InstanceState) -> api::InstanceFull {
    api::InstanceFull {
        architecture: instance.architecture,
        config: instance.config,
        devices: instance.devices,
        ephemeral: instance.ephemeral,
        profiles: instance.profiles,
        restore: instance.restore,
        stateful: instance.stateful,
        description: instance.description,
        created_at: instance.created_at,
        expanded_config: instance.expanded_config,
        expanded_devices: instance.expanded_devices,
        name: instance.name,
        status: state.status.clone(),
        status_code: state.status_code,
        last_used_at: instance.last_used_at,
        location: instance.location,
        kind: instance.kind,
        project: instance.project,
        backups: None,
        state: Some(state),
        snapshots: None,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn state(state: &InstanceState) -> api::InstanceState {
    let disk = state.root_used.map(|used| {
        let root = api::InstanceStateDisk { usage: signed(used), total: signed(state.root_size.unwrap_or(0)) };
        std::collections::BTreeMap::from([("root".to_owned(), root)])
    });
    let running = state.status != Status::Stopped;
    let network = running.then(|| state.nics.iter().map(|(name, nic)| (name.clone(), nic_state(nic))).collect());
    let started = chrono::DateTime::from_timestamp(state.started_at, 0);
    api::InstanceState {
        status: state.status.as_str().to_owned(),
        status_code: api::StatusCode(state.status.code()),
        disk,
        memory: api::InstanceStateMemory {
            usage: signed(state.usage.memory_bytes),
            usage_peak: signed(state.usage.memory_peak_bytes),
            total: signed(state.memory_total),
            swap_usage: signed(state.usage.swap_bytes),
            swap_usage_peak: 0,
        },
        network,
        pid: state.pid.into(),
        processes: state.processes.map_or(-1, signed),
        cpu: api::InstanceStateCPU { usage: signed(state.usage.cpu_nanoseconds), allocated_time: 0 },
        started_at: started.filter(|_| running).map_or_else(api::Timestamp::zero, Into::into),
        os_info: state.os.clone().map(|os| api::InstanceStateOSInfo {
            os: os.name,
            os_version: os.version,
            kernel_version: os.kernel,
            fqdn: os.hostname.clone(),
            hostname: os.hostname,
        }),
        stapes_facts: state.facts.clone(),
    }
}

fn nic_state(nic: &stapes_engine::app::NicState) -> api::InstanceStateNetwork {
    let address = |address: &stapes_engine::app::AddressState| api::InstanceStateNetworkAddress {
        family: if address.address.is_ipv4() { "inet" } else { "inet6" }.to_owned(),
        address: address.address.to_string(),
        netmask: address.prefix.to_string(),
        scope: address.scope.to_owned(),
    };
    api::InstanceStateNetwork {
        addresses: nic.addresses.iter().map(address).collect(),
        counters: api::InstanceStateNetworkCounters {
            bytes_received: signed(nic.bytes_received),
            bytes_sent: signed(nic.bytes_sent),
            packets_received: signed(nic.packets_received),
            packets_sent: signed(nic.packets_sent),
            errors_received: signed(nic.errors_received),
            errors_sent: signed(nic.errors_sent),
            packets_dropped_outbound: signed(nic.drops_sent),
            packets_dropped_inbound: signed(nic.drops_received),
        },
        hwaddr: if nic.loopback { String::new() } else { nic.mac.map(mac).unwrap_or_default() },
        host_name: nic.host_name.clone(),
        mtu: nic.mtu.into(),
        state: if nic.up { "up" } else { "down" }.to_owned(),
        kind: if nic.loopback { "loopback" } else { "broadcast" }.to_owned(),
    }
}

pub fn mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

pub fn profile(tables: &Tables, record: &records::Profile) -> api::Profile {
    let users = tables.instances_of(Some(&record.project)).filter(|user| user.profiles.contains(&record.name));
    api::Profile {
        config: record.config.clone(),
        description: record.description.clone(),
        devices: record.devices.clone(),
        name: record.name.to_string(),
        used_by: users.map(|user| stapes_engine::app::instance_url(&user.project, &user.name)).collect(),
        project: record.project.to_string(),
    }
}

pub fn image(tables: &Tables, record: &records::Image) -> api::Image {
    let ours =
        tables.aliases.values().filter(|alias| alias.project == record.project && alias.target == record.fingerprint);
    let aliases =
        ours.map(|alias| api::ImageAlias { name: alias.name.to_string(), description: alias.description.clone() });
    let source = record.source.as_ref().map(|source| api::ImageSource {
        alias: source.alias.clone(),
        certificate: String::new(),
        protocol: source.protocol.clone(),
        server: source.server.clone(),
        image_type: record.kind.as_str().to_owned(),
    });
    api::Image {
        auto_update: record.auto_update,
        properties: record.properties.clone(),
        public: record.public,
        expires_at: record.expires_at.map_or(api::Timestamp::EPOCH, Into::into),
        profiles: if record.profiles.is_empty() {
            vec!["default".to_owned()]
        } else {
            record.profiles.iter().map(ToString::to_string).collect()
        },
        aliases: aliases.collect(),
        architecture: record.architecture.clone(),
        cached: record.cached,
        filename: record.filename.clone(),
        fingerprint: record.fingerprint.to_string(),
        size: signed(record.size),
        update_source: source,
        kind: record.kind.as_str().to_owned(),
        created_at: time_or_epoch(record.created_at),
        last_used_at: time_or_epoch(record.last_used_at),
        uploaded_at: time(record.uploaded_at),
        project: record.project.to_string(),
    }
}

pub fn alias(record: &records::ImageAlias) -> api::ImageAliasesEntry {
    api::ImageAliasesEntry {
        description: record.description.clone(),
        target: record.target.to_string(),
        name: record.name.to_string(),
        kind: record.kind.as_str().to_owned(),
    }
}

pub fn network(record: &records::Network, used_by: Vec<String>, up: bool) -> api::Network {
    api::Network {
        config: record.config.clone(),
        description: record.description.clone(),
        name: record.name.to_string(),
        kind: record.kind.clone(),
        used_by,
        managed: true,
        status: if up { "Created" } else { "Unavailable" }.to_owned(),
        locations: vec!["none".to_owned()],
        project: "default".to_owned(),
    }
}

pub fn pool(
    record: &records::Pool,
    used_by: Vec<String>,
    available: bool,
    shortcomings: Vec<String>,
) -> api::StoragePool {
    api::StoragePool {
        config: record.config.clone(),
        description: record.description.clone(),
        name: record.name.to_string(),
        driver: record.driver.clone(),
        used_by,
        status: if available { "Created" } else { "Unavailable" }.to_owned(),
        locations: vec!["none".to_owned()],
        stapes_shortcomings: shortcomings,
    }
}

/// URLs of everything in a project.
pub fn project(tables: &Tables, record: &records::Project) -> api::Project {
    let here = Some(&record.name);
    let mut used_by: Vec<String> = tables
        .profiles
        .values()
        .filter(|profile| profile.project == record.name)
        .map(|profile| with_project(format!("/1.0/profiles/{}", profile.name), &profile.project))
        .collect();
    let instances = tables.instances_of(here);
    used_by.extend(instances.map(|user| stapes_engine::app::instance_url(&user.project, &user.name)));
    let images = tables.images.values().filter(|image| image.project == record.name);
    used_by.extend(images.map(|image| with_project(format!("/1.0/images/{}", image.fingerprint), &image.project)));
    api::Project {
        config: record.config.clone(),
        description: record.description.clone(),
        name: record.name.to_string(),
        used_by,
    }
}

/// The API's word for an instance type; empty means a container, as in Incus.
pub fn instance_type(word: &str) -> Result<InstanceType, crate::reply::ApiError> {
    match word {
        "" | "container" => Ok(InstanceType::Container),
        "virtual-machine" => Ok(InstanceType::VirtualMachine),
        other => Err(crate::reply::ApiError::bad_request(format!(
            "type: {other:?} is neither \"container\" nor \"virtual-machine\""
        ))),
    }
}
