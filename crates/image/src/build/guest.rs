//! The guest agent's loader: what a virtual machine's image holds so that the host can bring its agent at every boot.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::ImageError;

const SETUP: &str = include_str!("../../../agent/guest/stapes-agent-setup");
const SERVICE: &str = include_str!("../../../agent/guest/stapes-agent.service");
const RULES: &str = include_str!("../../../agent/guest/99-stapes-agent.rules");
const INITTAB: &str = include_str!("../../../agent/guest/stapes-agent.inittab");

/// Puts the loader where systemd and udev find it.
pub(super) fn install_systemd(root: &Path) -> Result<(), ImageError> {
    put(root, "usr/lib/stapes/stapes-agent-setup", 0o755, SETUP)?;
    put(root, "usr/lib/systemd/system/stapes-agent.service", 0o644, SERVICE)?;
    put(root, "usr/lib/udev/rules.d/99-stapes-agent.rules", 0o644, RULES)
}

/// Puts the loader into a root whose init is busybox; the lines that start it are for `/etc/inittab`.
pub(super) fn install_busybox(root: &Path) -> Result<&'static str, ImageError> {
    put(root, "usr/lib/stapes/stapes-agent-setup", 0o755, SETUP)?;
    Ok(INITTAB)
}

/// Writes a file of a root that we make, and the directories above it.
pub(super) fn put(root: &Path, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Result<(), ImageError> {
    let to = root.join(path);
    make_parents(root, path)?;
    fs::write(&to, content).map_err(ImageError::io("write", &to))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).map_err(ImageError::io("set the mode of", &to))
}

/// Makes what is missing of the directories above `path`, 0755 whatever the mask of this process is.
pub(super) fn make_parents(root: &Path, path: &str) -> Result<(), ImageError> {
    let mut folder = PathBuf::from(root);
    for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        if !folder.is_dir() {
            fs::create_dir(&folder).map_err(ImageError::io("create", &folder))?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))
                .map_err(ImageError::io("set the mode of", &folder))?;
        }
    }
    Ok(())
}
