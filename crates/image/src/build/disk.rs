//! A virtual machine's disk, made of files alone: no device, no mount, no privilege beyond owning the root's files.
//!
//! GPT with an EFI system partition and the root. The firmware needs no entry of its own: it starts shim by the fallback
//! path, shim the distribution's signed GRUB, and that finds the root by its UUID and reads `/boot/grub/grub.cfg` there.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use stapes_sys::exec::{Exec, ExecError};

use super::pack;
use crate::{Hasher, ImageError};

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
const ESP_START: u64 = MIB;
const ESP_SIZE: u64 = 32 * MIB;
const ROOT_START: u64 = ESP_START + ESP_SIZE;
/// The second GPT lies at the end, and partitions end at whole MiB.
const TAIL: u64 = MIB;
const PATIENCE: Duration = Duration::from_secs(900);

/// mke2fs's defaults differ from release to release, and GRUB or an older guest cannot read all that newer ones turn on.
const MKE2FS: &str = "[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
ext4 = {
features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
";

/// What differs between processors in how a machine boots.
#[derive(Debug)]
pub(super) struct Platform {
    /// Debian's name for it.
    pub arch: &'static str,
    /// UEFI's, in file names.
    efi: &'static str,
    /// GRUB's folder of signed programs.
    grub: &'static str,
    /// The partition type by which systemd knows a root for this processor.
    root_type: &'static str,
    pub serial: &'static str,
}

const PLATFORMS: &[Platform] = &[
    Platform {
        arch: "amd64",
        efi: "x64",
        grub: "x86_64-efi-signed",
        root_type: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
        serial: "ttyS0",
    },
    Platform {
        arch: "arm64",
        efi: "aa64",
        grub: "arm64-efi-signed",
        root_type: "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
        serial: "ttyAMA0",
    },
];

impl Platform {
    pub(super) fn of(arch: &str) -> Result<&'static Self, ImageError> {
        PLATFORMS.iter().find(|platform| platform.arch == arch).ok_or_else(|| ImageError::Metadata {
            field: "architecture".into(),
            reason: format!("virtual machines are built for amd64 and arm64, not for {arch}"),
        })
    }

    pub(super) fn kernel_package(&self) -> String {
        format!("linux-image-cloud-{}", self.arch)
    }

    pub(super) fn boot_packages(&self) -> [String; 2] {
        ["shim-signed".into(), format!("grub-efi-{}-signed", self.arch)]
    }
}

/// The names of a disk's parts: made of what the image is, so that two builds of it agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    pub root: String,
    disk: String,
    parts: [String; 2],
    esp: String,
}

impl Ids {
    pub(super) fn of(image: &str) -> Self {
        let digest = |what: &str| {
            let mut hasher = Hasher::new();
            hasher.update(format!("stapes {what} {image}").as_bytes());
            hasher.finish_hex()
        };
        let uuid = |what: &str| {
            let hex = digest(what);
            // Version 8, variant 10: RFC 9562's form for what is made by a rule of one's own.
            format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
        };
        Self {
            root: uuid("root"),
            disk: uuid("disk"),
            parts: [uuid("esp partition"), uuid("root partition")],
            esp: digest("esp")[..8].to_owned(),
        }
    }
}

/// The file that GRUB reads from the root: the kernel by a name that the system keeps true.
pub(super) fn grub_menu(platform: &Platform, ids: &Ids, kernels: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("set default=0\nset fallback=1\nset timeout=0\n");
    for (title, kernel, initrd) in kernels {
        text.push_str(&format!(
            "menuentry \"{title}\" {{\n  linux {kernel} root=UUID={} ro console=tty0 console={},115200\n  initrd {initrd}\n}}\n",
            ids.root, platform.serial
        ));
    }
    text
}

/// What becomes a disk, and where.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    pub platform: &'a Platform,
    pub ids: &'a Ids,
    /// The tree that becomes the root file system; shim and GRUB are taken from `boot`, where packages put them.
    pub root: &'a Path,
    pub boot: &'a Path,
    /// Bytes of the whole disk at least; it becomes larger where the root needs it.
    pub size: u64,
    pub time: u64,
}

impl Disk<'_> {
    /// Writes the disk to `output` as compressed qcow2, whole or not at all. `work` holds the raw disk meanwhile.
    pub(super) fn write(&self, work: &Path, output: &Path) -> Result<(), ImageError> {
        // Half as much again, for the file system's own tables and a first upgrade.
        let needed = ROOT_START + tree_size(self.root)? * 3 / 2 + 64 * MIB + TAIL;
        let size = self.size.max(needed).next_multiple_of(64 * MIB);
        let raw = work.join("disk.raw");
        let file = fs::File::create(&raw).map_err(ImageError::io("create", &raw))?;
        file.set_len(size).map_err(ImageError::io("enlarge", &raw))?;
        drop(file);
        run("sfdisk", "fdisk", |sfdisk| sfdisk.arg("--quiet").arg(&raw).input(self.table(size)))?;
        self.write_esp(&raw, work)?;
        self.write_root(&raw, work, size)?;
        let finished = pack::temporary(output)?;
        let convert = ["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"];
        run("qemu-img", "qemu-utils", |tool| tool.args(convert).arg(&raw).arg(finished.path()))?;
        fs::remove_file(&raw).map_err(ImageError::io("remove", &raw))?;
        pack::persist(finished, output)
    }

    /// For sfdisk(8).
    fn table(&self, size: u64) -> String {
        let [esp, root] = &self.ids.parts;
        format!(
            "label: gpt\nlabel-id: {}\nstart={}, size={}, type=U, uuid={esp}, name=esp\n\
             start={}, size={}, type={}, uuid={root}, name=root\n",
            self.ids.disk,
            ESP_START / SECTOR,
            ESP_SIZE / SECTOR,
            ROOT_START / SECTOR,
            (size - ROOT_START - TAIL) / SECTOR,
            self.platform.root_type,
        )
    }

    fn write_esp(&self, disk: &Path, work: &Path) -> Result<(), ImageError> {
        let efi = self.platform.efi;
        run("mkfs.vfat", "dosfstools", |mkfs| {
            mkfs.args(["--invariant", "-F", "16", "-n", "ESP", "-i", &self.ids.esp, "--offset"])
                .arg((ESP_START / SECTOR).to_string())
                .arg(disk)
                .arg((ESP_SIZE / 1024).to_string())
        })?;
        let find = work.join("grub.cfg");
        let text = format!(
            "search --no-floppy --fs-uuid --set=root {}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n",
            self.ids.root
        );
        fs::write(&find, text).map_err(ImageError::io("write", &find))?;
        let image = format!("{}@@{ESP_START}", disk.display());
        let mtools = |program: &'static str, args: &[&str]| {
            run(program, "mtools", |tool| {
                tool.arg("-i").arg(&image).args(args).env("SOURCE_DATE_EPOCH", self.time.to_string()).env("TZ", "UTC")
            })
        };
        mtools("mmd", &["::EFI", "::EFI/BOOT", "::EFI/debian"])?;
        let shim = self.boot.join(format!("usr/lib/shim/shim{efi}.efi.signed"));
        let grub = self.boot.join("usr/lib/grub").join(self.platform.grub).join(format!("grub{efi}.efi.signed"));
        for (from, to) in [
            (&shim, format!("::EFI/BOOT/BOOT{}.EFI", efi.to_ascii_uppercase())),
            (&grub, format!("::EFI/BOOT/grub{efi}.efi")),
            (&find, "::EFI/debian/grub.cfg".to_owned()),
            (&find, "::EFI/BOOT/grub.cfg".to_owned()),
        ] {
            mtools("mcopy", &[&from.to_string_lossy(), &to])?;
        }
        Ok(())
    }

    fn write_root(&self, disk: &Path, work: &Path, size: u64) -> Result<(), ImageError> {
        settle_times(self.root, self.time)?;
        let config = work.join("mke2fs.conf");
        fs::write(&config, MKE2FS).map_err(ImageError::io("write", &config))?;
        let uuid = &self.ids.root;
        run("mkfs.ext4", "e2fsprogs", |mkfs| {
            mkfs.args(["-q", "-F", "-L", "root", "-U", uuid, "-E"])
                .arg(format!("offset={ROOT_START},hash_seed={uuid},root_owner=0:0"))
                .arg("-d")
                .arg(self.root)
                .arg(disk)
                .arg(format!("{}k", (size - ROOT_START - TAIL) / 1024))
                .env("MKE2FS_CONFIG", &config)
                .env("E2FSPROGS_FAKE_TIME", self.time.to_string())
                .env("SOURCE_DATE_EPOCH", self.time.to_string())
        })?;
        // The time of an inode's last change is nobody's to set, and mke2fs takes it over from the tree: the one thing left in
        // which two builds differ.
        let inside = format!("{}?offset={ROOT_START}", disk.display());
        let layout = run("dumpe2fs", "e2fsprogs", |tool| tool.arg(&inside))?;
        let mut script = String::new();
        for inode in used_inodes(&String::from_utf8_lossy(&layout)) {
            script.push_str(&format!("set_inode_field <{inode}> ctime @{}\n", self.time));
        }
        let commands = work.join("debugfs");
        fs::write(&commands, script).map_err(ImageError::io("write", &commands))?;
        run("debugfs", "e2fsprogs", |tool| {
            tool.args(["-w", "-f"]).arg(&commands).arg(&inside).env("E2FSPROGS_FAKE_TIME", self.time.to_string())
        })
        .map(drop)
    }
}

/// The inodes that hold files, by what dumpe2fs says of the free ones.
fn used_inodes(layout: &str) -> Vec<u64> {
    let field = |name: &str| layout.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let (count, first): (u64, u64) = (field("Inode count:").unwrap_or(0), field("First inode:").unwrap_or(11));
    let range = |text: &str| {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        Some((from.trim().parse::<u64>().ok()?, to.trim().parse::<u64>().ok()?))
    };
    // Indented: a group's; the whole disk's has the same name.
    let free = layout.lines().filter_map(|line| line.strip_prefix("  Free inodes:"));
    let free: Vec<_> = free.flat_map(|list| list.split(',').filter_map(range)).collect();
    (first..=count).filter(|inode| !free.iter().any(|(from, to)| (from..=to).contains(&inode))).collect()
}

/// Nothing in an image is younger than the image.
fn settle_times(folder: &Path, time: u64) -> Result<(), ImageError> {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(folder).map_err(ImageError::io("list", folder))? {
        let path = entry.map_err(ImageError::io("list", folder))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(ImageError::io("look at", &path))?;
        if metadata.is_dir() {
            settle_times(&path, time)?;
        }
        set_times(&path, metadata.mtime().min(time as i64))?;
    }
    set_times(folder, time as i64)
}

fn set_times(path: &Path, seconds: i64) -> Result<(), ImageError> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| ImageError::io("set the time of", path)(errno.into()))
}

/// Runs a tool of a disk's making; where there is none, its package is named.
fn run(program: &'static str, package: &'static str, with: impl FnOnce(Exec) -> Exec) -> Result<Vec<u8>, ImageError> {
    with(Exec::new(program).patience(PATIENCE)).run().map_err(|error| failed(program, package, error))
}

fn failed(program: &'static str, package: &'static str, error: ExecError) -> ImageError {
    if error.is_missing() {
        return ImageError::MissingTool { program, package };
    }
    ImageError::Build { what: "the disk".into(), reason: error.to_string() }
}

/// Fails with the name of the first tool that is missing: before a long build, not after it.
pub(super) fn require_tools() -> Result<(), ImageError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for (program, package) in [
        ("sfdisk", "fdisk"),
        ("mkfs.vfat", "dosfstools"),
        ("mmd", "mtools"),
        ("mcopy", "mtools"),
        ("mkfs.ext4", "e2fsprogs"),
        ("qemu-img", "qemu-utils"),
    ] {
        if !folders.iter().any(|folder| folder.join(program).is_file()) {
            return Err(ImageError::MissingTool { program, package });
        }
    }
    Ok(())
}

/// Bytes of all files of a tree, each in whole blocks; links are not followed.
fn tree_size(path: &Path) -> Result<u64, ImageError> {
    let mut sum = 0;
    for entry in fs::read_dir(path).map_err(ImageError::io("list", path))? {
        let entry = entry.map_err(ImageError::io("list", path))?;
        let metadata = entry.metadata().map_err(ImageError::io("look at", entry.path()))?;
        sum += metadata.len().next_multiple_of(4096);
        if metadata.is_dir() {
            sum += tree_size(&entry.path())?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_image_and_differ_among_each_other() {
        let ids = Ids::of("debian-12");
        assert_eq!(ids, Ids::of("debian-12"));
        assert_ne!(ids, Ids::of("debian-13"));
        let uuids = [&ids.root, &ids.disk, &ids.parts[0], &ids.parts[1]];
        for (number, uuid) in uuids.iter().enumerate() {
            let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert!(!uuids[number + 1..].contains(uuid));
        }
    }

    #[test]
    fn the_menu_names_the_root_and_both_consoles() {
        let (ids, platform) = (Ids::of("x"), Platform::of("amd64").unwrap());
        let menu = grub_menu(platform, &ids, &[("Linux", "/vmlinuz", "/initrd.img")]);
        let line = format!("  linux /vmlinuz root=UUID={} ro console=tty0 console=ttyS0,115200\n", ids.root);
        assert!(menu.contains(&line), "{menu}");
        assert!(Platform::of("i386").is_err());
    }

    #[test]
    fn inodes_that_are_not_free_are_used() {
        let layout = "Inode count:              32\nFirst inode:              11\nFree inodes:              11\n\
                      Group 0: x\n  Free inodes: 15-16\nGroup 1: y\n  Free inodes: 18, 20-28\nGroup 2: z\n  Free inodes: \n";
        assert_eq!(used_inodes(layout), [11, 12, 13, 14, 17, 19, 29, 30, 31, 32]);
    }

    #[test]
    fn partitions_lie_behind_one_another_and_leave_the_end_free() {
        let ids = Ids::of("x");
        let platform = Platform::of("amd64").unwrap();
        let (root, boot) = (Path::new("/"), Path::new("/"));
        let disk = Disk { platform, ids: &ids, root, boot, size: 0, time: 0 };
        let table = disk.table(1 << 30);
        assert!(table.contains("start=2048, size=65536, type=U"), "{table}");
        let end = 67_584 + ((1 << 30) / 512 - 67_584 - 2048);
        assert!(table.contains(&format!("start=67584, size={}, type=4F68BCE3", end - 67_584)), "{table}");
    }
}
