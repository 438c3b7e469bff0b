use stapes_model::InstanceType;

use crate::DriverError;

/// Whether an instance type has a feature, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Yes,
    No(&'static str),
}

/// One row of the capability table. Asking for what a row denies fails before anything changes, naming the row.
#[derive(Debug, Clone, Copy)]
pub struct Capability {
    pub name: &'static str,
    pub container: Support,
    pub vm: Support,
}

/// What each type can do. Docs and refusals read it.
pub const CAPABILITIES: &[Capability] = &[
    Capability { name: "start", container: Support::Yes, vm: Support::Yes },
    Capability { name: "exec", container: Support::Yes, vm: Support::Yes },
    Capability { name: "files", container: Support::Yes, vm: Support::Yes },
    Capability {
        name: "files.stopped",
        container: Support::Yes,
        vm: Support::No("what is on the disk of a stopped machine cannot be read yet; start it"),
    },
    Capability { name: "console", container: Support::Yes, vm: Support::Yes },
    Capability {
        name: "console.vga",
        container: Support::No("a container has no display adapter; use a text console"),
        vm: Support::No("a machine's screen is not built yet; use a text console"),
    },
    Capability { name: "freeze", container: Support::Yes, vm: Support::Yes },
    Capability {
        name: "stateful",
        container: Support::No("checkpoint and restore come with live migration"),
        vm: Support::No("to save a machine's memory is not built yet"),
    },
    Capability { name: "templates", container: Support::Yes, vm: Support::Yes },
    Capability {
        name: "shared-directories",
        container: Support::Yes,
        vm: Support::No("neither virtiofs nor 9p is built yet"),
    },
    Capability {
        name: "unix-devices",
        container: Support::Yes,
        vm: Support::No("a machine has a kernel of its own, to which nodes of the host mean nothing"),
    },
    Capability {
        name: "apparmor",
        container: Support::Yes,
        vm: Support::No("QEMU has namespaces and a system call filter, and no profile of its own yet"),
    },
    Capability {
        name: "nesting.off",
        container: Support::Yes,
        vm: Support::No("to hide virtualization from a guest is not built yet"),
    },
    Capability {
        name: "limits.live",
        container: Support::Yes,
        vm: Support::No("processors and memory cannot be plugged in yet; stop it first"),
    },
    Capability {
        name: "disk.resize.live",
        container: Support::Yes,
        vm: Support::No("a machine's disk cannot be grown while it runs yet; stop it first"),
    },
];

/// Fails with the row's reason when `kind` cannot have `name`. A name without a row is a programming error and is
/// answered as unsupported.
pub fn require(kind: InstanceType, name: &str) -> Result<(), DriverError> {
    let unsupported =
        |reason: &str| DriverError::Unsupported { what: format!("{name} of a {kind}"), reason: reason.to_owned() };
    let row = CAPABILITIES.iter().find(|row| row.name == name).ok_or_else(|| unsupported("unknown capability"))?;
    let support = match kind {
        InstanceType::Container => row.container,
        InstanceType::VirtualMachine => row.vm,
    };
    match support {
        Support::Yes => Ok(()),
        Support::No(reason) => Err(unsupported(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table for people, as `docs/capabilities.md` has it.
    fn text() -> String {
        let of = |support: Support| match support {
            Support::Yes => "yes".to_owned(),
            Support::No(reason) => format!("no: {reason}"),
        };
        let count = |container: bool, vm: bool| {
            let has = |row: &Capability| (row.container == Support::Yes, row.vm == Support::Yes);
            CAPABILITIES.iter().filter(|row| has(row) == (container, vm)).count()
        };
        let mut text = format!(
            "# What each type of instance can do\n\nWritten by `STAPES_UPDATE=1 cargo test -p stapes-instance`. Asking for what \
             a row denies fails by its name.\n\n{} rows: {} for both types, {} for containers only, {} for virtual \
             machines only, {} for neither yet.\n\n| capability | container | virtual machine |\n|---|---|---|\n",
            CAPABILITIES.len(),
            count(true, true),
            count(true, false),
            count(false, true),
            count(false, false)
        );
        for row in CAPABILITIES {
            text.push_str(&format!("| `{}` | {} | {} |\n", row.name, of(row.container), of(row.vm)));
        }
        text
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/capabilities.md");
        if std::env::var_os("STAPES_UPDATE").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, text(), "run STAPES_UPDATE=1 cargo test -p stapes-instance");
    }

    #[test]
    fn a_refusal_names_the_row_and_its_reason() {
        let error = require(InstanceType::Container, "console.vga").unwrap_err().to_string();
        assert!(
            error.starts_with("console.vga of a container is not supported: a container has no display"),
            "{error}"
        );
    }

    #[test]
    fn a_type_can_at_least_be_used() {
        for kind in [InstanceType::Container, InstanceType::VirtualMachine] {
            for name in ["start", "exec", "files", "console", "freeze"] {
                require(kind, name).unwrap();
            }
        }
        let error = require(InstanceType::VirtualMachine, "unix-devices").unwrap_err().to_string();
        assert!(error.starts_with("unix-devices of a virtual-machine is not supported: a machine has"), "{error}");
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names: Vec<_> = CAPABILITIES.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CAPABILITIES.len());
    }
}
