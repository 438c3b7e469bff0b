use std::collections::BTreeMap;

use super::{
    Host, KeyError,
    kind::id_set,
    limits::{limits_from_config, memory},
    parse_bool,
};
use crate::{ByteSize, Limits};

/// What the configuration says of a virtual machine's hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    pub cpus: u32,
    /// Whole MiB.
    pub memory: ByteSize,
    pub secure_boot: bool,
    /// `security.csm`: firmware older than UEFI.
    pub bios: bool,
    /// `raw.qemu` as words.
    pub qemu_arguments: Vec<String>,
}

/// Keys that decide [`Hardware::cpus`] and [`Hardware::memory`]: a container's groups are told of a change, a machine
/// needs something plugged in.
pub const HARDWARE_KEYS: [&str; 2] = ["limits.cpu", "limits.memory"];

/// As Incus: one processor, 1 GiB.
const MEMORY: ByteSize = ByteSize::bytes(1 << 30);
/// More would need an interrupt remapper of QEMU's.
const MOST_CPUS: usize = 255;
const MIB: u64 = 1 << 20;

/// Reads a machine's hardware out of an expanded configuration. Fails with the key that cannot be had.
pub fn hardware_from_config(config: &BTreeMap<String, String>, host: &Host) -> Result<Hardware, KeyError> {
    let get = |key: &str| config.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let flag = |key: &str| get(key).and_then(parse_bool);
    let (secure_boot, bios) = (flag("security.secureboot").unwrap_or(true), flag("security.csm").unwrap_or(false));
    if bios && secure_boot {
        return Err(KeyError::new("security.csm", "secure boot needs UEFI; set security.secureboot=false as well"));
    }
    let bytes = get("limits.memory").and_then(|value| memory(value, host.memory)).unwrap_or(MEMORY).as_bytes();
    if bytes < MIB {
        return Err(KeyError::new("limits.memory", "a machine needs at least 1MiB"));
    }
    Ok(Hardware {
        cpus: get("limits.cpu").map_or(Ok(1), cpus)?,
        memory: ByteSize::bytes(bytes / MIB * MIB),
        secure_boot,
        bios,
        qemu_arguments: words(get("raw.qemu").unwrap_or_default())?,
    })
}

fn cpus(value: &str) -> Result<u32, KeyError> {
    if value.contains('=') {
        return Err(KeyError::unsupported("limits.cpu", "a CPU topology is not built yet; give a number"));
    }
    let count = value.parse().ok().or_else(|| Some(id_set(value)?.len())).unwrap_or(0);
    match count {
        1..=MOST_CPUS => Ok(count as u32),
        _ => Err(KeyError::new("limits.cpu", format!("a machine has 1 to {MOST_CPUS} processors, not {count}"))),
    }
}

/// Splits as a shell would, without its expansions: blanks separate, quotes and backslashes keep together.
fn words(text: &str) -> Result<Vec<String>, KeyError> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = text.chars();
    let mut quote = None;
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    match quote {
        Some(quote) => Err(KeyError::new("raw.qemu", format!("a {quote} is never closed"))),
        None => Ok(words.into_iter().chain(word).collect()),
    }
}

/// What the groups around a machine are told. Its memory and the number of its processors are hardware and no limits:
/// QEMU needs some more memory than its guest has.
pub fn machine_limits_from_config(config: &BTreeMap<String, String>, host: &Host) -> Result<Limits, KeyError> {
    const OF_GROUPS: [&str; 3] = ["limits.cpu.nodes", "limits.disk.priority", "limits.memory.oom_priority"];
    let pinned = |value: &str| value.parse::<u32>().is_err() && !value.contains('=');
    let told = |(key, value): &(&String, &String)| {
        OF_GROUPS.contains(&key.as_str()) || (*key == "limits.cpu" && pinned(value))
    };
    let told = config.iter().filter(told).map(|(key, value)| (key.clone(), value.clone())).collect();
    limits_from_config(&told, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { memory: ByteSize::bytes(8 << 30), cpus: vec![0, 1, 2, 3], first_cpu: 0 }
    }

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn hardware(pairs: &[(&str, &str)]) -> Result<Hardware, KeyError> {
        hardware_from_config(&config(pairs), &host())
    }

    #[test]
    fn a_machine_of_which_nothing_is_said_is_small_and_checks_signatures() {
        let plain = hardware(&[]).unwrap();
        assert_eq!((plain.cpus, plain.memory.as_bytes()), (1, 1 << 30));
        assert!(plain.secure_boot && !plain.bios && plain.qemu_arguments.is_empty());
    }

    #[test]
    fn processors_are_a_number_or_as_many_as_are_named() {
        for (value, count) in [("3", 3), ("8", 8), ("0-2", 3), ("0,3", 2)] {
            assert_eq!(hardware(&[("limits.cpu", value)]).unwrap().cpus, count, "{value}");
        }
        assert_eq!(hardware(&[("limits.memory", "25%")]).unwrap().memory.as_bytes(), 2 << 30);
        assert_eq!(hardware(&[("limits.memory", "1000000000")]).unwrap().memory.as_bytes(), 953 << 20);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_its_key() {
        for (pairs, key) in [
            (&[("limits.cpu", "256")][..], "limits.cpu"),
            (&[("limits.cpu", "0")], "limits.cpu"),
            (&[("limits.cpu", "sockets=2,cores=2,threads=1")], "limits.cpu"),
            (&[("limits.memory", "4kB")], "limits.memory"),
            (&[("security.csm", "true")], "security.csm"),
            (&[("raw.qemu", "-cpu \"max")], "raw.qemu"),
        ] {
            assert_eq!(hardware(pairs).unwrap_err().key, key);
        }
        assert!(hardware(&[("security.csm", "true"), ("security.secureboot", "false")]).unwrap().bios);
    }

    #[test]
    fn extra_arguments_are_split_as_a_shell_would() {
        let split = words("-device  'a b',c=\"d\\\" e\" \\-x\n'' ").unwrap();
        assert_eq!(split, ["-device", "a b,c=d\" e", "-x", ""]);
    }

    #[test]
    fn the_groups_around_a_machine_do_not_cap_what_is_hardware() {
        let many = [("limits.memory", "1GiB"), ("limits.cpu", "2"), ("limits.processes", "9")];
        assert_eq!(machine_limits_from_config(&config(&many), &host()).unwrap(), Limits::default());
        let pinned = machine_limits_from_config(&config(&[("limits.cpu", "1-2")]), &host()).unwrap();
        assert_eq!(pinned.cpus.as_deref(), Some("1-2"));
        assert!(machine_limits_from_config(&config(&[("limits.cpu", "1-9")]), &host()).is_err());
    }
}
