//! `/1.0/networks`, their state and leases. Interfaces of the host that are not ours are listed, and only read.

use std::sync::Arc;

use stapes_api as api;
use stapes_engine::{Engine, records};
use stapes_model::NetworkName;
use stapes_network as network;

use crate::{
    convert,
    reply::{Reply, Result, etag, to_value},
    request::Context,
    rest::instances::patched,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/networks" ViewNetworks "List the networks", answer Vec<api::Network> => list),
        route!(POST "/1.0/networks" EditNetworks "Create a network", body api::NetworksPost => create),
        route!(GET "/1.0/networks/{name}" ViewNetworks "Get a network", answer api::Network => get),
        route!(PUT "/1.0/networks/{name}" EditNetworks "Replace a network's configuration", body api::NetworkPut => put),
        route!(PATCH "/1.0/networks/{name}" EditNetworks "Change some of a network's configuration",
            body api::NetworkPut => patch),
        route!(DELETE "/1.0/networks/{name}" EditNetworks "Delete a network" => delete),
        route!(GET "/1.0/networks/{name}/state" ViewNetworks "Get a network's state", answer api::NetworkState => state),
        route!(GET "/1.0/networks/{name}/leases" ViewNetworks "List a network's leases",
            answer Vec<api::NetworkLease> => leases),
    ]
}

fn managed(engine: &Engine, record: &records::Network) -> api::Network {
    let up = engine.bridge(record).is_ok_and(|bridge| network::is_up(&bridge).unwrap_or(false));
    convert::network(record, engine.network_users(&record.name), up)
}

async fn list(context: Context) -> Result {
    let engine = Arc::clone(&context.engine);
    let networks = move || {
        let records: Vec<_> = engine.index.read().networks.values().cloned().collect();
        let mut shown: Vec<_> = records.iter().map(|record| managed(&engine, record)).collect();
        for interface in network::host_interfaces()? {
            if records.iter().all(|record| record.name.as_str() != interface.name) {
                shown.push(unmanaged(&interface));
            }
        }
        Ok(shown)
    };
    let shown = context.engine.lanes.fast(networks).await?;
    let mut objects = Vec::new();
    for network in shown {
        objects.push((format!("/1.0/networks/{}", network.name), to_value(&network)?));
    }
    super::collection(&context, objects)
}

fn unmanaged(interface: &network::HostInterface) -> api::Network {
    api::Network {
        name: interface.name.clone(),
        kind: interface.kind.to_owned(),
        managed: false,
        ..api::Network::default()
    }
}

async fn create(mut context: Context) -> Result {
    let body: api::NetworksPost = context.json().await?;
    let record = records::Network {
        name: body.name.parse()?,
        kind: if body.kind.is_empty() { "bridge".to_owned() } else { body.kind },
        description: body.description,
        config: body.config,
    };
    let location = format!("/1.0/networks/{}", record.name);
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.slow(move || engine.create_network(record)).await?;
    Ok(Reply::Created { location })
}

async fn get(context: Context) -> Result {
    if let Ok(name) = context.param("name").parse::<NetworkName>()
        && let Ok(record) = context.engine.network(&name)
    {
        let engine = Arc::clone(&context.engine);
        let shown = context.engine.lanes.fast(move || Ok(managed(&engine, &record))).await?;
        return Reply::tagged(&shown, &shown.clone().writable());
    }
    let wanted = context.param("name").to_owned();
    let interfaces = context.engine.lanes.fast(|| Ok(network::host_interfaces()?)).await?;
    match interfaces.iter().find(|interface| interface.name == wanted) {
        Some(interface) => Reply::sync(&unmanaged(interface)),
        None => Err(stapes_engine::Error::missing("network", wanted).into()),
    }
}

async fn replace(context: &Context, name: NetworkName, body: api::NetworkPut) -> Result {
    let engine = Arc::clone(&context.engine);
    context.engine.lanes.slow(move || engine.update_network(&name, body.description, body.config)).await?;
    Ok(Reply::empty())
}

async fn put(mut context: Context) -> Result {
    let body: api::NetworkPut = context.json().await?;
    let name = context.name("name")?;
    let record = context.engine.network(&name)?;
    context.check_etag(&etag(&convert::network(&record, Vec::new(), true).writable())?)?;
    replace(&context, name, body).await
}

async fn patch(mut context: Context) -> Result {
    let name = context.name("name")?;
    let record = context.engine.network(&name)?;
    let writable = convert::network(&record, Vec::new(), true).writable();
    let put = patched(&mut context, &writable).await?;
    replace(&context, name, put).await
}

async fn delete(context: Context) -> Result {
    let (engine, name) = (Arc::clone(&context.engine), context.name("name")?);
    context.engine.lanes.slow(move || engine.delete_network(&name)).await?;
    Ok(Reply::empty())
}

async fn state(context: Context) -> Result {
    let name = context.param("name").to_owned();
    let wanted = name.clone();
    let state = context.engine.lanes.fast(move || Ok(network::state(&wanted)?)).await?;
    let state = state.ok_or_else(|| stapes_engine::Error::missing("network interface", name))?;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Reply::sync(&api::NetworkState {
        addresses: state
            .addresses
            .iter()
            .map(|address| api::NetworkStateAddress {
                family: address.family.to_owned(),
                address: address.address.to_string(),
                netmask: address.prefix.to_string(),
                scope: address.scope.to_owned(),
            })
            .collect(),
        counters: Some(api::NetworkStateCounters {
            bytes_received: signed(state.counters.bytes_received),
            bytes_sent: signed(state.counters.bytes_sent),
            packets_received: signed(state.counters.packets_received),
            packets_sent: signed(state.counters.packets_sent),
        }),
        hwaddr: state.hwaddr.clone(),
        mtu: state.mtu.into(),
        state: if state.up { "up" } else { "down" }.to_owned(),
        kind: state.kind.to_owned(),
        ..api::NetworkState::default()
    })
}

async fn leases(context: Context) -> Result {
    let engine = Arc::clone(&context.engine);
    let name = context.name("name")?;
    let leases = move || {
        let record = engine.network(&name)?;
        let bridge = engine.bridge(&record)?;
        let reservations = engine.reservations(&record)?;
        Ok(network::leases(&bridge, &reservations, &engine.lease_file(&record.name)))
    };
    let leases = context.engine.lanes.fast(leases).await?;
    let shown: Vec<_> = leases
        .iter()
        .map(|lease| api::NetworkLease {
            hostname: lease.hostname.clone(),
            hwaddr: lease.mac.clone(),
            address: lease.address.to_string(),
            kind: lease.kind.as_str().to_owned(),
            location: "none".to_owned(),
        })
        .collect();
    Reply::sync(&shown)
}
