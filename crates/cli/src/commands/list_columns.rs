//! The columns of `list`.

use std::cmp::Reverse;

use stapes_api::{InstanceFull, InstanceState, StatusCode};

use crate::failure::{Failure, Result, fail};
use crate::units;

/// Location (L) is dropped where there is no cluster.
pub const DEFAULT: &str = "ns46tSL";

pub const HELP: &str = "\
Columns: 4 IPv4 address, 6 IPv6 address, a architecture, b storage pool, c creation, d description, D disk usage,
e project, f base image (short), F base image, l last use, m memory usage, M memory usage in percent, n name,
N processes, p pid, P profiles, s state, S snapshots, t type, u CPU seconds, U start.
A configuration key or device key is a column too: KEY[:NAME[:WIDTH]], devices:DEVICE.KEY[:NAME[:WIDTH]].
  stapes list -c ns4,user.role:ROLE,devices:eth0.network:NET";

/// What must be asked for to fill a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// Live state or snapshots: `recursion=2`.
    State,
}

#[derive(Clone, Debug)]
enum Kind {
    Letter(fn(&InstanceFull) -> String),
    Config(String),
    Device(String, String),
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub needs: Needs,
    kind: Kind,
    /// Longer text is cut.
    width: Option<usize>,
}

impl Column {
    pub fn cell(&self, instance: &InstanceFull) -> String {
        let text = match &self.kind {
            Kind::Letter(cell) => cell(instance),
            Kind::Config(key) => {
                instance.config.get(key).or_else(|| instance.expanded_config.get(key)).cloned().unwrap_or_default()
            }
            Kind::Device(device, key) => {
                let find = |devices: &stapes_api::DevicesMap| devices.get(device)?.get(key).cloned();
                find(&instance.devices).or_else(|| find(&instance.expanded_devices)).unwrap_or_default()
            }
        };
        match self.width {
            Some(width) => text.chars().take(width).collect(),
            None => text,
        }
    }
}

type Letter = (char, &'static str, Needs, fn(&InstanceFull) -> String);

const LETTERS: &[Letter] = &[
    ('4', "IPV4", Needs::State, |i| addresses(i, "inet")),
    ('6', "IPV6", Needs::State, |i| addresses(i, "inet6")),
    ('a', "ARCHITECTURE", Needs::Nothing, |i| i.architecture.clone()),
    ('b', "STORAGE POOL", Needs::Nothing, |i| {
        root_disk(i).and_then(|(_, d)| d.get("pool")).cloned().unwrap_or_default()
    }),
    ('c', "CREATED AT", Needs::Nothing, |i| units::moment(&i.created_at)),
    ('d', "DESCRIPTION", Needs::Nothing, |i| i.description.clone()),
    ('D', "DISK USAGE", Needs::State, disk_usage),
    ('e', "PROJECT", Needs::Nothing, |i| i.project.clone()),
    ('f', "BASE IMAGE", Needs::Nothing, |i| base_image(i).chars().take(12).collect()),
    ('F', "BASE IMAGE", Needs::Nothing, |i| base_image(i).to_owned()),
    ('l', "LAST USED AT", Needs::Nothing, |i| units::moment(&i.last_used_at)),
    ('m', "MEMORY USAGE", Needs::State, |i| active(i, |s| (s.memory.usage > 0).then(|| units::iec(s.memory.usage)))),
    ('M', "MEMORY USAGE%", Needs::State, memory_percent),
    ('n', "NAME", Needs::Nothing, |i| i.name.clone()),
    ('N', "PROCESSES", Needs::State, |i| active(i, |s| Some(s.processes.to_string()))),
    ('p', "PID", Needs::State, |i| active(i, |s| Some(s.pid.to_string()))),
    ('P', "PROFILES", Needs::Nothing, |i| i.profiles.join("\n")),
    ('S', "SNAPSHOTS", Needs::State, |i| i.snapshots.as_ref().map_or(0, Vec::len).to_string()),
    ('s', "STATE", Needs::Nothing, |i| i.status.to_uppercase()),
    ('t', "TYPE", Needs::Nothing, kind_of),
    ('u', "CPU USAGE", Needs::State, |i| {
        active(i, |s| (s.cpu.usage > 0).then(|| format!("{}s", s.cpu.usage / 1_000_000_000)))
    }),
    ('U', "STARTED AT", Needs::State, |i| i.state.as_ref().map(|s| units::moment(&s.started_at)).unwrap_or_default()),
];

/// Reads `--columns`: letters, and keys with a dot, separated by commas.
pub fn parse(spec: &str) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for entry in spec.split(',') {
        if entry.is_empty() {
            fail!("--columns {spec:?} has an empty entry");
        }
        if entry.contains('.') {
            columns.push(key_column(entry)?);
            continue;
        }
        for letter in entry.chars() {
            let Some((_, name, needs, cell)) = LETTERS.iter().find(|(l, ..)| *l == letter) else {
                return Err(match letter {
                    'L' => Failure::new("column L (location) exists in a cluster only"),
                    _ => Failure::new(format!("there is no column {letter:?} in --columns {spec:?}"))
                        .hint("see `stapes list --help`"),
                });
            };
            let name = (*name).to_owned();
            columns.push(Column { name, needs: *needs, kind: Kind::Letter(*cell), width: None });
        }
    }
    Ok(columns)
}

fn key_column(entry: &str) -> Result<Column> {
    let mut fields: Vec<&str> = entry.split(':').collect();
    let is_device = fields[0] == "devices";
    if fields.len() > 1 && (is_device || fields[0] == "config") {
        fields.remove(0);
    }
    let [key, rest @ ..] = fields.as_slice() else { fail!("--columns entry {entry:?} names no key") };
    let (name, width) = match rest {
        [] => (*key, None),
        [""] => fail!("--columns entry {entry:?} has an empty name"),
        [name] => (*name, None),
        [name, width] => (*name, Some(*width)),
        _ => fail!("--columns entry {entry:?} has too many fields: it is KEY[:NAME[:WIDTH]]"),
    };
    let width = match width.map(str::parse::<i64>) {
        None | Some(Ok(-1)) => None,
        Some(Ok(0)) => Some(name.chars().count()),
        Some(Ok(width)) if width > 0 => Some(width as usize),
        Some(_) => fail!("--columns entry {entry:?} has a bad width: it is a number of characters, 0 or -1"),
    };
    let kind = match key.split_once('.') {
        Some((device, key)) if is_device => Kind::Device(device.to_owned(), key.to_owned()),
        _ => Kind::Config((*key).to_owned()),
    };
    Ok(Column { name: name.to_owned(), needs: Needs::Nothing, kind, width })
}

/// Running or frozen, or on the way to it.
fn is_active(instance: &InstanceFull) -> bool {
    !matches!(instance.status_code, StatusCode::STOPPED | StatusCode::ERROR)
}

fn active(instance: &InstanceFull, cell: impl Fn(&InstanceState) -> Option<String>) -> String {
    let state = instance.state.as_ref().filter(|_| is_active(instance));
    state.and_then(cell).unwrap_or_default()
}

fn addresses(instance: &InstanceFull, family: &str) -> String {
    active(instance, |state| {
        let mut found = Vec::new();
        for (name, network) in state.network.iter().flatten().filter(|(_, network)| network.kind != "loopback") {
            let routable = network.addresses.iter().filter(|a| !matches!(a.scope.as_str(), "link" | "local"));
            found.extend(routable.filter(|a| a.family == family).map(|a| format!("{} ({name})", a.address)));
        }
        found.sort_by_key(|text| Reverse(text.clone()));
        Some(found.join("\n"))
    })
}

fn root_disk(instance: &InstanceFull) -> Option<(&String, &stapes_api::ConfigMap)> {
    let is = |device: &stapes_api::ConfigMap, key: &str, value: &str| device.get(key).is_some_and(|v| v == value);
    instance.expanded_devices.iter().find(|(_, d)| is(d, "type", "disk") && is(d, "path", "/"))
}

fn disk_usage(instance: &InstanceFull) -> String {
    let usage = || {
        let disk = instance.state.as_ref()?.disk.as_ref()?.get(root_disk(instance)?.0)?;
        (disk.usage > 0).then(|| units::iec(disk.usage))
    };
    usage().unwrap_or_default()
}

fn base_image(instance: &InstanceFull) -> &str {
    instance.config.get("volatile.base_image").map_or("", String::as_str)
}

fn memory_percent(instance: &InstanceFull) -> String {
    active(instance, |state| {
        let limit = units::parse_size(instance.expanded_config.get("limits.memory")?).filter(|limit| *limit > 0.0)?;
        let usage = state.memory.usage;
        (usage > 0).then(|| format!("{:.1}%", usage as f64 / limit * 100.0))
    })
}

fn kind_of(instance: &InstanceFull) -> String {
    let kind = if instance.kind.is_empty() { "container" } else { &instance.kind };
    let ephemeral = if instance.ephemeral { " (EPHEMERAL)" } else { "" };
    format!("{}{ephemeral}", kind.to_uppercase())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::table;
    use expect_test::expect;

    /// Two instances as the daemon sends them with `recursion=2`.
    pub fn sample() -> Vec<InstanceFull> {
        serde_json::from_str(
            r#"[{"name":"c1","status":"Running","status_code":103,"type":"container","ephemeral":true,"project":"default",
            "profiles":["default","web"],"architecture":"x86_64","created_at":"2024-05-06T07:08:09Z",
            "config":{"volatile.base_image":"0123456789abcdef","user.role":"frontend"},
            "expanded_config":{"limits.memory":"1GiB","user.role":"frontend","user.env":"prod"},
            "expanded_devices":{"root":{"type":"disk","path":"/","pool":"fast"},"eth0":{"type":"nic","network":"br0"}},
            "state":{"pid":4711,"processes":12,"cpu":{"usage":3500000000},"memory":{"usage":268435456},
              "disk":{"root":{"usage":187190784}},
              "network":{"lo":{"type":"loopback","addresses":[{"family":"inet","address":"127.0.0.1","scope":"local"}]},
                "eth0":{"type":"broadcast","addresses":[{"family":"inet","address":"10.0.3.7","scope":"global"},
                  {"family":"inet6","address":"fe80::1","scope":"link"},
                  {"family":"inet6","address":"fd42::7","scope":"global"}]}}},
            "snapshots":[{"name":"s0"}],"backups":null},
            {"name":"v2","status":"Stopped","status_code":102,"type":"virtual-machine","config":null,"state":null,
             "snapshots":null,"backups":null}]"#,
        )
        .unwrap()
    }

    fn show(spec: &str) -> String {
        let columns = parse(spec).unwrap();
        let rows = sample().iter().map(|i| columns.iter().map(|c| c.cell(i)).collect()).collect();
        let headers: Vec<_> = columns.iter().map(|c| c.name.as_str()).collect();
        table::render("table".parse().unwrap(), &headers, rows, &()).unwrap()
    }

    #[test]
    fn the_default_list_is_incus_s() {
        expect![[r#"
            +------+---------+-----------------+----------------+-----------------------+-----------+
            | NAME |  STATE  |      IPV4       |      IPV6      |         TYPE          | SNAPSHOTS |
            +------+---------+-----------------+----------------+-----------------------+-----------+
            | c1   | RUNNING | 10.0.3.7 (eth0) | fd42::7 (eth0) | CONTAINER (EPHEMERAL) | 1         |
            +------+---------+-----------------+----------------+-----------------------+-----------+
            | v2   | STOPPED |                 |                | VIRTUAL-MACHINE       | 0         |
            +------+---------+-----------------+----------------+-----------------------+-----------+
        "#]]
        .assert_eq(&show("ns46tS"));
    }

    #[test]
    fn figures_come_from_state_and_limits() {
        let text = show("nNpmMuDbf");
        for wanted in
            ["| 12 ", "| 4711 ", "| 256.00MiB ", "| 25.0% ", "| 3s ", "| 178.52MiB ", "| fast ", "| 0123456789ab |"]
        {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
    }

    #[test]
    fn keys_are_columns_with_name_and_width() {
        let text = show("n,user.role:ROLE:5,config:user.env,devices:eth0.network:NET");
        expect![[r#"
            +------+-------+----------+-----+
            | NAME | ROLE  | USER ENV | NET |
            +------+-------+----------+-----+
            | c1   | front | prod     | br0 |
            +------+-------+----------+-----+
            | v2   |       |          |     |
            +------+-------+----------+-----+
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn bad_columns_are_refused_by_name() {
        for bad in ["nz", "n,,s", "user.a:", "user.a:B:x", "user.a:B:1:2", "nL"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
