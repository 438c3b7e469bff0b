//! What QEMU sees of the host's files: its own program and data, and what the machine is made of, under names that tell
//! nothing of the host.

use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use stapes_instance::{DeviceNode, Firmware, Machine, Mount};

use crate::firmware::FirmwareFiles;

/// Where QEMU finds what is its machine's.
pub const NVRAM: &str = "/machine/nvram.fd";
pub const CONFIG_DRIVE: &str = "/machine/config.img";
const CODE: &str = "/machine/code.fd";
const KERNEL: &str = "/machine/kernel";
const INITRD: &str = "/machine/initrd";

/// Beneath the prefix that QEMU was installed in: libraries and modules, firmware, option ROMs.
const OF_PREFIX: [&str; 6] = ["lib", "lib64", "libexec", "share/qemu", "share/seabios", "share/ipxe"];
/// What the dynamic loader wants.
const OF_ROOT: [&str; 5] = ["lib", "lib64", "usr/lib", "usr/lib64", "etc/ld.so.cache"];

/// A view under construction.
#[derive(Debug, Default)]
pub struct View {
    pub mounts: Vec<Mount>,
    pub nodes: Vec<DeviceNode>,
    pub links: Vec<(String, String)>,
}

impl View {
    /// What `program` needs to run at all.
    pub fn of_program(program: &Path) -> Self {
        let mut view = Self::default();
        view.show(program, &program.to_string_lossy(), true);
        // A program is in a directory beneath its prefix.
        if let Some(prefix) = program.parent().and_then(Path::parent) {
            for name in OF_PREFIX {
                view.offer(&prefix.join(name));
            }
        }
        for name in OF_ROOT {
            view.offer(&Path::new("/").join(name));
        }
        for node in ["/dev/null", "/dev/urandom"] {
            view.show(Path::new(node), node, true);
        }
        view
    }

    /// A file or directory of the host's at the same place, if there is one; a symbolic link as itself.
    fn offer(&mut self, path: &Path) {
        let target = path.to_string_lossy().into_owned();
        let known = self.mounts.iter().any(|mount| mount.target == target);
        match (std::fs::read_link(path), path.exists()) {
            _ if known => {}
            (Ok(says), true) => self.links.push((target, says.to_string_lossy().into_owned())),
            (Err(_), true) => self.show(path, &target, true),
            (_, false) => {}
        }
    }

    pub fn show(&mut self, source: &Path, target: &str, read_only: bool) {
        self.mounts.push(Mount {
            device: "qemu".to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
            recursive: false,
            shift: false,
            optional: false,
        });
    }

    /// Shows a file at `target`, or makes a node beneath /dev for a device, of `owner`, since the host's may be open to root
    /// alone. Returns where it is.
    pub fn give(&mut self, source: &Path, target: &str, read_only: bool, owner: u32) -> io::Result<String> {
        let meta = std::fs::metadata(source)?;
        let kind = meta.file_type();
        if !kind.is_block_device() && !kind.is_char_device() {
            self.show(source, target, read_only);
            return Ok(target.to_owned());
        }
        let target = if target.starts_with("/dev/") { target.to_owned() } else { format!("/dev{target}") };
        self.nodes.push(DeviceNode {
            device: "qemu".to_owned(),
            source: source.to_owned(),
            target: target.clone(),
            block: kind.is_block_device(),
            major: rustix::fs::major(meta.rdev()),
            minor: rustix::fs::minor(meta.rdev()),
            mode: if read_only { 0o400 } else { 0o600 },
            uid: owner,
            gid: owner,
        });
        Ok(target)
    }

    /// Shows the machine's disks and kernel; returns the machine as QEMU sees it.
    pub fn of_machine(&mut self, machine: &Machine, owner: u32) -> io::Result<Machine> {
        let mut seen = machine.clone();
        for (number, disk) in seen.disks.iter_mut().enumerate() {
            let target = format!("/disks/{number}");
            disk.source = self.give(&disk.source, &target, disk.read_only, owner)?.into();
        }
        if let Firmware::Kernel { kernel, initrd, .. } = &mut seen.firmware {
            self.show(kernel, KERNEL, true);
            *kernel = KERNEL.into();
            if let Some(initrd) = initrd {
                self.show(initrd, INITRD, true);
                *initrd = INITRD.into();
            }
        }
        Ok(seen)
    }

    /// Shows the firmware's program; returns the files as QEMU sees them.
    pub fn of_firmware(&mut self, files: &FirmwareFiles) -> FirmwareFiles {
        self.show(&files.code, CODE, true);
        FirmwareFiles { code: CODE.into(), variables: PathBuf::from(NVRAM) }
    }
}
