//! Images made on the spot: archives of a static busybox, sound or as evil as a test wants them.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

/// The machine's statically linked busybox, if it has one.
pub fn static_busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| is_static(path))
}

/// An ELF file whose program headers name no interpreter.
fn is_static(path: &Path) -> bool {
    let mut head = vec![0; 4096];
    let read = fs::File::open(path).and_then(|mut f| f.read(&mut head)).unwrap_or(0);
    head.truncate(read);
    head.starts_with(b"\x7fELF") && !head.windows(7).any(|w| w == b"/ld-lin" || w == b"/ld-mus" || w == b"/lib/ld")
}

/// The applets that the tests and the guest's own scripts use; linking all of them would triple the archive's entries.
const APPLETS: &str = "sh ls cat echo true false sleep id ps kill mkdir rm touch ln chmod chown mount umount ip ifconfig \
udhcpc hostname reboot poweroff halt ping nc wget nslookup stty tty test env pwd dd head tail wc grep sed awk date stat \
find readlink ulimit seq yes httpd nproc free df du tar sync setsid trap su mknod mkfifo cut tr sort uname printf";

const INITTAB: &str = "::sysinit:/etc/init.d/rcS\n::ctrlaltdel:/sbin/reboot\n::shutdown:/bin/true\n";

const RC: &str = "#!/bin/sh
[ -f /etc/hostname ] && hostname -F /etc/hostname
echo started
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -b -S -t 10 -T 1 >/dev/null 2>&1 &
fi
: > /run/booted
";

const DHCP_SCRIPT: &str = "#!/bin/sh
case \"$1\" in
  deconfig) ip addr flush dev \"$interface\"; ip link set \"$interface\" up;;
  bound|renew)
    ip addr replace \"$ip/${mask:-24}\" dev \"$interface\"
    [ -n \"$router\" ] && ip route replace default via ${router%% *} dev \"$interface\"
    : > /etc/resolv.conf
    for d in $dns; do echo \"nameserver $d\" >> /etc/resolv.conf; done;;
esac
";

/// Builds the root file system's archive, entry by entry.
pub struct ImageBuilder {
    archive: Builder<Vec<u8>>,
    /// Put before every path: `rootfs` in a unified image, nothing in a split one.
    prefix: &'static str,
}

impl std::fmt::Debug for ImageBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl ImageBuilder {
    /// An archive that holds metadata and root file system.
    pub fn unified(description: &str) -> Self {
        let mut image = Self { archive: Builder::new(Vec::new()), prefix: "" };
        image.metadata(description);
        image.prefix = "rootfs";
        image.dir("");
        image
    }

    /// The root file system alone.
    pub fn rootfs() -> Self {
        let mut image = Self { archive: Builder::new(Vec::new()), prefix: "." };
        image.dir("");
        image
    }

    /// The metadata alone: the first half of a split image.
    pub fn metadata_only(description: &str) -> Self {
        let mut image = Self { archive: Builder::new(Vec::new()), prefix: "" };
        image.metadata(description);
        image
    }

    fn metadata(&mut self, description: &str) {
        let yaml = format!(
            "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  architecture: x86_64\n  \
             description: {description}\n  os: Busybox\n  release: \"1\"\ntemplates:\n  /etc/hostname:\n    \
             when: [create, copy, rename]\n    template: hostname.tpl\n"
        );
        self.file("metadata.yaml", 0o644, yaml.as_bytes());
        self.dir("templates");
        self.file("templates/hostname.tpl", 0o644, b"{{ container.name }}\n");
    }

    /// Adds a whole small system whose init is busybox's.
    ///
    /// # Panics
    /// The machine has no static busybox: ask for `Need::StaticBusybox` first.
    #[must_use]
    pub fn busybox(self) -> Self {
        let mut image = self.busybox_without_init();
        image.symlink("sbin/init", "../bin/busybox");
        image
    }

    /// The same system with an init of the test's own, a shell script.
    ///
    /// # Panics
    /// As [`ImageBuilder::busybox`].
    #[must_use]
    pub fn busybox_with_init(self, script: &str) -> Self {
        let mut image = self.busybox_without_init();
        image.file("sbin/init", 0o755, script.as_bytes());
        image
    }

    /// # Panics
    /// As [`ImageBuilder::busybox`].
    #[must_use]
    pub fn busybox_without_init(mut self) -> Self {
        let busybox = fs::read(static_busybox().expect("a static busybox")).expect("read busybox");
        for dir in "bin sbin etc etc/init.d etc/udhcpc dev proc sys run root var var/log mnt usr usr/bin".split(' ') {
            self.dir(dir);
        }
        self.entry(EntryType::Directory, "tmp", 0o1777, "", &[]);
        self.file("bin/busybox", 0o755, &busybox);
        for applet in APPLETS.split_whitespace() {
            self.symlink(&format!("bin/{applet}"), "busybox");
        }
        for applet in ["reboot", "poweroff", "halt"] {
            self.symlink(&format!("sbin/{applet}"), "../bin/busybox");
        }
        self.file("etc/inittab", 0o644, INITTAB.as_bytes());
        self.file("etc/init.d/rcS", 0o755, RC.as_bytes());
        self.file("etc/udhcpc/default.script", 0o755, DHCP_SCRIPT.as_bytes());
        self.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
        self.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
        self
    }

    pub fn dir(&mut self, path: &str) -> &mut Self {
        self.entry(EntryType::Directory, path, 0o755, "", &[])
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(EntryType::Regular, path, mode, "", content)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(EntryType::Symlink, path, 0o777, target, &[])
    }

    pub fn hardlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(EntryType::Link, path, 0o644, target, &[])
    }

    /// A character device, numbers 1:1 (memory) when `evil` wants to see whether it is created.
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        let mut header = self.header(EntryType::Char, path, 0o666, "", 0);
        header.set_device_major(major).expect("major");
        header.set_device_minor(minor).expect("minor");
        header.set_cksum();
        self.archive.append(&header, &[][..]).expect("append to memory");
        self
    }

    /// Any entry with its path as it is: absolute, with `..`, whatever a careful library would refuse to write.
    pub fn entry(&mut self, kind: EntryType, path: &str, mode: u32, target: &str, content: &[u8]) -> &mut Self {
        let mut header = self.header(kind, path, mode, target, content.len() as u64);
        header.set_cksum();
        self.archive.append(&header, content).expect("append to memory");
        self
    }

    fn header(&self, kind: EntryType, path: &str, mode: u32, target: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        let full = match (self.prefix, path.starts_with('/')) {
            ("", _) | (_, true) => path.to_owned(),
            (prefix, false) => format!("{prefix}/{path}"),
        };
        let raw = header.as_old_mut();
        raw.name[..full.len()].copy_from_slice(full.as_bytes());
        raw.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header
    }

    /// The archive, compressed by gzip at its quickest.
    ///
    /// # Panics
    /// Memory cannot be written.
    pub fn gzip(self) -> Vec<u8> {
        let plain = self.archive.into_inner().expect("finish in memory");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).expect("compress in memory");
        encoder.finish().expect("compress in memory")
    }
}

/// Debian with systemd from the machine's own archive, as a split image: metadata archive and root archive.
///
/// Some 20 s and 200 MB in `dir`, where a second call finds it again.
///
/// # Errors
/// mmdebstrap failed: no archive in reach, most often.
pub fn debian(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    fs::create_dir_all(dir)?;
    let (meta, root) = (dir.join("debian.meta.tar.gz"), dir.join("debian.rootfs.tar"));
    if !root.exists() {
        let part = dir.join(format!("debian.{}.tar", std::process::id()));
        let output = Command::new("mmdebstrap")
            .args(["--variant=minbase", "--mode=root", "--quiet"])
            .arg("--include=systemd,systemd-sysv,dbus,udev,iproute2,iputils-ping,procps")
            .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"])
            .args(["--dpkgopt=path-exclude=/usr/share/locale/*", "--customize-hook", DEBIAN_NETWORK])
            .arg("bookworm")
            .arg(&part)
            .output()
            .context("failed to run mmdebstrap")?;
        anyhow::ensure!(output.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&part, &root)?;
    }
    fs::write(&meta, ImageBuilder::metadata_only("Debian bookworm with systemd").gzip())?;
    Ok((meta, root))
}

const DEBIAN_NETWORK: &str = r#"printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n[DHCPv4]\nClientIdentifier=mac\n' \
> "$1/etc/systemd/network/eth0.network"
chroot "$1" systemctl enable systemd-networkd.service
chroot "$1" systemctl disable systemd-networkd-wait-online.service
: > "$1/etc/machine-id""#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evil_path_is_written_as_it_is() {
        let mut image = ImageBuilder::unified("evil");
        image.file("../../escape", 0o644, b"x").file("/absolute", 0o644, b"y");
        let bytes = image.archive.into_inner().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("rootfs/../../escape"));
        assert!(text.contains("\0/absolute"));
    }
}
