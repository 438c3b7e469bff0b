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

const NO_VM_DRIVER: Support = Support::No("the virtual machine driver is not built yet");

/// What each type can do. Docs and refusals read it.
pub const CAPABILITIES: &[Capability] = &[
    Capability { name: "start", container: Support::Yes, vm: NO_VM_DRIVER },
    Capability { name: "exec", container: Support::Yes, vm: NO_VM_DRIVER },
    Capability { name: "files", container: Support::Yes, vm: NO_VM_DRIVER },
    Capability { name: "console", container: Support::Yes, vm: NO_VM_DRIVER },
    Capability {
        name: "console.vga",
        container: Support::No("a container has no display adapter; use a text console"),
        vm: NO_VM_DRIVER,
    },
    Capability { name: "freeze", container: Support::Yes, vm: NO_VM_DRIVER },
    Capability {
        name: "stateful",
        container: Support::No("checkpoint and restore come with live migration"),
        vm: NO_VM_DRIVER,
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

    #[test]
    fn a_refusal_names_the_row_and_its_reason() {
        let error = require(InstanceType::Container, "console.vga").unwrap_err().to_string();
        assert!(
            error.starts_with("console.vga of a container is not supported: a container has no display"),
            "{error}"
        );
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names: Vec<_> = CAPABILITIES.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CAPABILITIES.len());
    }
}
