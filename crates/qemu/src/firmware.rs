//! Finding UEFI firmware by the descriptors that packages install for it. Source: QEMU's `docs/interop/firmware.json`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where packages and administrators put descriptors; a file of an earlier directory hides one of the same name later.
const DIRECTORIES: [&str; 2] = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"];

/// A pair of flash images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareFiles {
    /// The program, shared by all instances and read-only.
    pub code: PathBuf,
    /// Variables as they are at first; each instance gets a copy.
    pub variables: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    #[serde(default)]
    interface_types: Vec<String>,
    mapping: Mapping,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    #[serde(default)]
    mode: Option<String>,
    executable: Option<Image>,
    nvram_template: Option<Image>,
}

#[derive(Debug, Deserialize)]
struct Image {
    filename: PathBuf,
    #[serde(default)]
    format: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    #[serde(default)]
    machines: Vec<String>,
}

impl Descriptor {
    /// The files, if they serve: UEFI in split raw flash for this kind of machine, with keys enrolled exactly when
    /// signatures are to be checked, and without system management mode where they are not.
    fn files(self, architecture: &str, secure_boot: bool) -> Option<FirmwareFiles> {
        let has = |name: &str| self.features.iter().any(|feature| feature == name);
        let board = if architecture == "x86_64" { "pc-q35-" } else { "virt-" };
        let fits = |target: &Target| {
            target.architecture == architecture && target.machines.iter().any(|machine| machine.starts_with(board))
        };
        let serves = self.interface_types.iter().any(|kind| kind == "uefi")
            && self.mapping.device == "flash"
            && self.mapping.mode.as_deref().is_none_or(|mode| mode == "split")
            && self.targets.iter().any(fits)
            && has("enrolled-keys") == secure_boot
            && (has("secure-boot") || !secure_boot)
            && (!has("requires-smm") || secure_boot);
        let (code, variables) = (self.mapping.executable?, self.mapping.nvram_template?);
        let raw = [&code.format, &variables.format].iter().all(|format| matches!(format.as_str(), "" | "raw"));
        (serves && raw).then_some(FirmwareFiles { code: code.filename, variables: variables.filename })
    }
}

/// The first firmware that serves, in the order of the descriptors' file names; `None`: none is installed.
pub fn find(architecture: &str, secure_boot: bool) -> Option<FirmwareFiles> {
    find_in(&DIRECTORIES.map(Path::new), architecture, secure_boot)
}

fn find_in(directories: &[&Path], architecture: &str, secure_boot: bool) -> Option<FirmwareFiles> {
    let mut descriptors = std::collections::BTreeMap::new();
    for directory in directories {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            descriptors.entry(entry.file_name()).or_insert_with(|| entry.path());
        }
    }
    descriptors.into_values().find_map(|path| {
        let text = std::fs::read_to_string(&path).ok()?;
        match serde_json::from_str::<Descriptor>(&text) {
            Ok(descriptor) => descriptor.files(architecture, secure_boot).filter(|files| files.code.exists()),
            Err(error) => {
                // An empty file is how an administrator hides a package's.
                if !text.trim().is_empty() {
                    tracing::warn!(path = %path.display(), %error, "a firmware descriptor is not understood");
                }
                None
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(dir: &Path, name: &str, features: &str, machine: &str) {
        let code = dir.join(format!("{name}.fd"));
        std::fs::write(&code, "code").unwrap();
        let text = format!(
            r#"{{"interface-types": ["uefi"], "features": [{features}],
                "targets": [{{"architecture": "x86_64", "machines": ["{machine}-*"]}}],
                "mapping": {{"device": "flash",
                    "executable": {{"filename": "{}", "format": "raw"}},
                    "nvram-template": {{"filename": "/vars/{name}", "format": "raw"}}}}}}"#,
            code.display()
        );
        std::fs::write(dir.join(format!("{name}.json")), text).unwrap();
    }

    #[test]
    fn firmware_is_chosen_by_what_its_descriptor_promises() {
        let dir = tempfile::tempdir().unwrap();
        descriptor(dir.path(), "10-other-board", "", "pc-i440fx");
        descriptor(dir.path(), "40-secure", r#""secure-boot", "enrolled-keys", "requires-smm""#, "pc-q35");
        descriptor(dir.path(), "50-no-keys", r#""secure-boot", "requires-smm""#, "pc-q35");
        descriptor(dir.path(), "60-plain", "", "pc-q35");
        std::fs::write(dir.path().join("00-hidden.json"), "").unwrap();
        std::fs::write(dir.path().join("01-broken.json"), "{").unwrap();
        let found = |secure| find_in(&[dir.path()], "x86_64", secure).map(|files| files.variables);
        assert_eq!(found(true), Some("/vars/40-secure".into()));
        assert_eq!(found(false), Some("/vars/60-plain".into()));
        assert_eq!(find_in(&[dir.path()], "aarch64", false), None);
    }
}
