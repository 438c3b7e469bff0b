//! `/` and `/1.0`: what this server is.

use std::collections::BTreeMap;

use serde_json::json;
use stapes_api as api;

use crate::{
    reply::{Reply, Result, etag},
    request::Context,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/" Public "List the API versions", answer Vec<String> => versions),
        route!(GET "/1.0" ViewServer "Get the server's environment and configuration", answer api::Server => get),
        route!(PUT "/1.0" EditServer "Replace the server's configuration", body api::ServerPut => put),
        route!(PATCH "/1.0" EditServer "Change some of the server's configuration", body api::ServerPut => patch),
        route!(GET "/1.0/resources" ViewResources "Get the host's resources" => resources),
    ]
}

async fn versions(_: Context) -> Result {
    Reply::sync(&["/1.0"])
}

async fn get(context: Context) -> Result {
    let engine = &context.engine;
    let config = engine.server_config();
    let host = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let mut features: BTreeMap<_, _> = engine.drivers().iter().flat_map(|driver| driver.features()).collect();
    features.insert("idmapped_mounts".to_owned(), engine.describe_mapping());
    features.insert("router_advertisements".to_owned(), stapes_engine::app::describe_advertiser().to_owned());
    features.insert("id_ranges".to_owned(), engine.ids.describe());
    let drivers: Vec<_> = engine.index.read().pools.values().map(|pool| pool.driver.clone()).collect();
    let (os_name, os_version) = os_release();
    let server = api::Server {
        config: config.clone(),
        api_extensions: api::API_EXTENSIONS.iter().map(|name| (*name).to_owned()).collect(),
        api_status: "stable".to_owned(),
        api_version: api::API_VERSION.to_owned(),
        auth: "trusted".to_owned(),
        public: false,
        auth_methods: vec!["tls".to_owned()],
        auth_user_name: context.caller.requestor().username,
        auth_user_method: "unix".to_owned(),
        environment: api::ServerEnvironment {
            addresses: Vec::new(),
            architectures: architectures(),
            driver: "stapes".to_owned(),
            driver_version: env!("CARGO_PKG_VERSION").to_owned(),
            firewall: "nftables".to_owned(),
            kernel: text(host.sysname()),
            kernel_architecture: text(host.machine()),
            kernel_features: features,
            kernel_version: text(host.release()),
            os_name,
            os_version,
            project: context.project()?.to_string(),
            server: "stapes".to_owned(),
            server_event_mode: "full-mesh".to_owned(),
            server_name: text(host.nodename()),
            server_pid: std::process::id().into(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            storage: drivers.join(" | "),
            storage_supported_drivers: storage_drivers(),
            ..api::ServerEnvironment::default()
        },
    };
    Reply::tagged(&server, &config)
}

async fn put(mut context: Context) -> Result {
    let body: api::ServerPut = context.json().await?;
    context.check_etag(&etag(&context.engine.server_config())?)?;
    context.engine.update_server(body.config)?;
    Ok(Reply::empty())
}

async fn patch(mut context: Context) -> Result {
    let body: api::ServerPut = context.json().await?;
    let mut config = context.engine.server_config();
    context.check_etag(&etag(&config)?)?;
    config.extend(body.config);
    context.engine.update_server(config)?;
    Ok(Reply::empty())
}

/// CPUs and memory, as far as `info --resources` needs them.
async fn resources(_: Context) -> Result {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
    };
    let (total, available) = (kib("MemTotal") * 1024, kib("MemAvailable") * 1024);
    let resources = json!({
        "cpu": { "architecture": std::env::consts::ARCH, "sockets": [], "total": cpus },
        "memory": { "nodes": [], "used": total.saturating_sub(available), "total": total,
                    "hugepages_total": 0, "hugepages_used": 0, "hugepages_size": 0 },
        "gpu": { "cards": [], "total": 0 },
        "network": { "cards": [], "total": 0 },
        "storage": { "disks": [], "total": 0 },
        "usb": { "devices": [], "total": 0 },
        "pci": { "devices": [], "total": 0 },
        "system": { "uuid": "", "vendor": "", "product": "", "family": "", "version": "", "sku": "", "serial": "",
                    "type": "", "firmware": null, "chassis": null, "motherboard": null },
        "load": null,
    });
    Ok(Reply::Sync { metadata: resources, etag: None })
}

/// The drivers that work on this host. Asked once: finding out may run a program.
fn storage_drivers() -> Vec<api::ServerStorageDriverInfo> {
    static DRIVERS: std::sync::OnceLock<Vec<api::ServerStorageDriverInfo>> = std::sync::OnceLock::new();
    let info = |driver: &stapes_storage::DriverInfo| {
        let version = driver.version()?;
        Some(api::ServerStorageDriverInfo { name: driver.name.to_owned(), version, remote: driver.remote })
    };
    DRIVERS.get_or_init(|| stapes_storage::drivers().iter().filter_map(info).collect()).clone()
}

fn architectures() -> Vec<String> {
    let native = std::env::consts::ARCH;
    let also = if native == "x86_64" { Some("i686") } else { None };
    std::iter::once(native).chain(also).map(str::to_owned).collect()
}

/// `NAME` and `VERSION_ID` of os-release(5).
fn os_release() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    (field("NAME"), field("VERSION_ID"))
}
