//! Everything on the host must belong to something that the store knows, and the other way round.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::Value;
use stapes_testkit::Daemon;

/// Spare shims that the daemon keeps ready: its default.
const WARM: usize = 4;

/// How long the host may take to come to rest: dying namespaces, groups that are removed by a thread.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the store and the journal hold, read beside the daemon.
pub struct Stored {
    objects: BTreeMap<String, Value>,
    open_operations: Vec<String>,
}

impl Stored {
    /// The daemon keeps its files locked, so copies are read, while nothing is under way.
    fn read(daemon: &Daemon) -> anyhow::Result<Self> {
        let (database, copies) = (daemon.state_dir().join("database"), tempfile::tempdir()?);
        let open = |name: &str| -> anyhow::Result<Connection> {
            for file in [name.to_owned(), format!("{name}-wal")] {
                let from = database.join(&file);
                if from.exists() {
                    fs::copy(from, copies.path().join(file))?;
                }
            }
            Ok(Connection::open(copies.path().join(name))?)
        };
        let store = open("store.db")?;
        let mut statement = store.prepare("SELECT key, value FROM object")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let mut objects = BTreeMap::new();
        for row in rows {
            let (key, bytes) = row?;
            // A reference to an instance is its bare id.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let is_reference = key.starts_with("claim/") || key.starts_with("instance-name/");
            let value = if is_reference { None } else { serde_json::from_str(&text).ok() };
            objects.insert(key, value.unwrap_or(Value::String(text)));
        }
        let journal = open("journal.db")?;
        let mut statement = journal.prepare("SELECT operation || ' ' || name FROM record ORDER BY place")?;
        let open_operations = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(Self { objects, open_operations })
    }

    /// What follows `prefix` in the keys, with the objects.
    fn all<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.objects.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value)))
    }

    fn names(&self, prefix: &str) -> BTreeSet<String> {
        self.all(prefix).filter_map(|(key, _)| key.rsplit('/').next()).map(str::to_owned).collect()
    }
}

/// What is left where nothing should be, or missing where something should; empty once the host agrees with the store.
pub fn settled(daemon: &Daemon) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let wrong = look(daemon);
        if wrong.is_empty() || Instant::now() > end {
            return wrong;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

fn look(daemon: &Daemon) -> Vec<String> {
    let stored = match Stored::read(daemon) {
        Ok(stored) => stored,
        Err(error) => return vec![format!("the store cannot be read: {error}")],
    };
    let mut wrong = Vec::new();
    rows(&stored, &mut wrong);
    files(daemon, &stored, &mut wrong);
    volumes(daemon, &stored, &mut wrong);
    match running(daemon, &stored) {
        Ok(running) => host(daemon, &stored, &running, &mut wrong),
        Err(error) => wrong.push(format!("the instances cannot be listed: {error:#}")),
    }
    wrong
}

/// Ids of the instances that run.
fn running(daemon: &Daemon, stored: &Stored) -> anyhow::Result<BTreeSet<String>> {
    let list = daemon.api().get("/1.0/instances?recursion=1")?;
    let is_running =
        |name: &str| list.as_array().into_iter().flatten().any(|one| one["name"] == name && one["status"] == "Running");
    let instances = stored.all("instance/");
    Ok(instances.filter(|(_, one)| one["name"].as_str().is_some_and(is_running)).map(|(id, _)| id.to_owned()).collect())
}

fn rows(stored: &Stored, wrong: &mut Vec<String>) {
    let ids = stored.names("instance/");
    for prefix in ["claim/", "instance-name/"] {
        for (key, owner) in stored.all(prefix) {
            if !owner.as_str().is_some_and(|owner| ids.contains(owner)) {
                wrong.push(format!("row {prefix}{key} belongs to no instance"));
            }
        }
    }
    for (id, instance) in stored.all("instance/") {
        let name = instance["name"].as_str().unwrap_or_default();
        let named = stored.all("instance-name/").any(|(key, owner)| key.ends_with(&format!("/{name}")) && owner == id);
        if !named {
            wrong.push(format!("instance {id} ({name}) has no name row"));
        }
    }
    wrong
        .extend(stored.open_operations.iter().map(|open| format!("an operation is still open in the journal: {open}")));
}

fn entries(dir: &Path) -> BTreeSet<String> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten();
    found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Compares the names in a directory with those that may be there, and with those that must.
fn compare(dir: &Path, may: &BTreeSet<String>, must: &BTreeSet<String>, wrong: &mut Vec<String>) {
    let there = entries(dir);
    wrong.extend(there.difference(may).map(|name| format!("left: {}/{name}", dir.display())));
    wrong.extend(must.difference(&there).map(|name| format!("lost: {}/{name}", dir.display())));
}

fn files(daemon: &Daemon, stored: &Stored, wrong: &mut Vec<String>) {
    let (state, none) = (daemon.state_dir(), BTreeSet::new());
    let ids = stored.names("instance/");
    // Sockets lie in a file system that is mounted where the daemon lives.
    let run = state.join("run/instances");
    let listed = daemon.on_host(&["ls", "-A", &run.to_string_lossy()]).stdout;
    let strangers = listed.lines().filter(|name| !ids.contains(*name));
    wrong.extend(strangers.map(|name| format!("left: run/instances/{name}")));
    compare(&state.join("logs"), &ids, &none, wrong);
    let images = stored.names("image/");
    let mut image_files = images.clone();
    image_files.extend(images.iter().map(|fingerprint| format!("{fingerprint}.rootfs")));
    compare(&state.join("images"), &image_files, &images, wrong);
    let networks = stored.names("network/");
    compare(&state.join("networks"), &networks, &networks, wrong);
    for network in &networks {
        for kind in ["dnsmasq.hosts", "dnsmasq.reservations"] {
            let dir = state.join("networks").join(network).join(kind);
            let expected = if network == "stapesbr0" { ids.clone() } else { BTreeSet::new() };
            let expected = expected.iter().map(|id| format!("{id}.eth0")).collect();
            compare(&dir, &expected, &expected, wrong);
        }
    }
    compare(&state.join("cache/build"), &none, &none, wrong);
    let half_built = entries(&state.join("cache/images")).into_iter().filter(|name| name.starts_with('.'));
    wrong.extend(half_built.map(|name| format!("left: cache/images/{name}")));
}

fn volumes(daemon: &Daemon, stored: &Stored, wrong: &mut Vec<String>) {
    let (state, none) = (daemon.state_dir(), BTreeSet::new());
    let pools = stored.names("pool/");
    compare(&state.join("storage-pools"), &pools, &pools, wrong);
    let loops = stored.all("pool/").filter(|(_, pool)| pool["driver"] == "btrfs");
    let loops = loops.map(|(name, _)| format!("{name}.img")).collect();
    compare(&state.join("disks"), &loops, &none, wrong);
    for pool in &pools {
        // The pool is mounted where the daemon lives.
        let list = |kind: &str| -> BTreeSet<String> {
            let dir = state.join("storage-pools").join(pool).join(kind);
            let listed = daemon.on_host(&["ls", "-A", &dir.to_string_lossy()]);
            listed.stdout.lines().map(str::to_owned).collect()
        };
        let of_pool = stored.all("instance/").filter(|(_, one)| one["pool"] == **pool);
        let wanted: BTreeSet<String> = of_pool.map(|(id, _)| id.to_owned()).collect();
        let there = list("instances");
        wrong.extend(there.difference(&wanted).map(|id| format!("left: volume {pool}/instances/{id}")));
        wrong.extend(wanted.difference(&there).map(|id| format!("lost: volume {pool}/instances/{id}")));
        let images = stored.names("image/");
        wrong.extend(list("images").difference(&images).map(|id| format!("left: volume {pool}/images/{id}")));
    }
}

/// What the kernel holds: mounts, links, groups, tables, loop devices, processes.
fn host(daemon: &Daemon, stored: &Stored, running: &BTreeSet<String>, wrong: &mut Vec<String>) {
    let networks = stored.names("network/");
    let (mut veths, mut shims, mut servers, mut advertisers, mut tables, mut daemons) = (0, 0, 0, 0, 0, 0);
    let own_spares = format!("warm-{}-", daemon.pid().unwrap_or_default());
    let state = daemon.state_dir();
    let pools: BTreeSet<_> = stored.names("pool/");
    let is_pool = |path: &str, dir: &str, suffix: &str| {
        pools.iter().any(|pool| *path == *state.join(dir).join(format!("{pool}{suffix}")).to_string_lossy())
    };
    for line in daemon.remains() {
        let (kind, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let expected = match kind {
            "mount" => is_pool(rest, "storage-pools", "") || *rest == *state.join("run").to_string_lossy(),
            "link" if networks.contains(rest) => true,
            "link" => {
                veths += 1;
                true
            }
            "loop" => rest.rsplit(" on ").next().is_some_and(|file| is_pool(file, "disks", ".img")),
            "cgroup" => {
                daemon.group_name(rest).is_some_and(|name| running.contains(&name) || name.starts_with(&own_spares))
            }
            "nftables" => {
                tables += 1;
                true
            }
            "process" if rest.contains("stapes-shim") => {
                shims += 1;
                true
            }
            "process" if rest.contains("dnsmasq") => {
                servers += 1;
                true
            }
            "process" if rest.contains("radvd --nodaemon") => {
                advertisers += 1;
                true
            }
            "process" if rest.contains("stapesd --log-level") => {
                daemons += 1;
                true
            }
            _ => false,
        };
        if !expected {
            wrong.push(format!("left: {line}"));
        }
    }
    // The nursery; then a shim and an embryo each. Of spares there may be twice as many as are made: others come back.
    let most_shims = 1 + 2 * 2 * WARM + 2 * running.len();
    let counts = [
        ("daemons", daemons, 1),
        ("host sides of NICs", veths, running.len()),
        ("DHCP servers", servers, networks.len()),
        ("nftables tables", tables, networks.len()),
    ];
    for (what, there, wanted) in counts {
        if there != wanted {
            wrong.push(format!("{there} {what} where {wanted} should be"));
        }
    }
    // Each has a child that stays root.
    if advertisers > 2 * networks.len() {
        wrong.push(format!("{advertisers} processes of radvd where {} should be", 2 * networks.len()));
    }
    if shims > most_shims {
        wrong.push(format!("{shims} shims, embryos and nurseries where at most {most_shims} should be"));
    }
}
