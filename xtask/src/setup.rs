//! Debian packages that the daemon and its tests need, installed only where they are missing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::shell::{find, output, require_root, run};

/// Written by us, removed by `setup --undo`.
const BACKPORTS: &str = "/etc/apt/sources.list.d/stapes-backports.sources";

struct Need {
    /// Found on the machine: the package is there, whoever installed it.
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const RUN: &[Need] = &[
    Need { program: "ip", package: "iproute2", why: "looking at bridges from a shell" },
    Need { program: "dnsmasq", package: "dnsmasq-base", why: "DHCP and names on the bridge" },
    Need { program: "radvd", package: "radvd", why: "IPv6 router advertisements on the bridge" },
    Need { program: "nft", package: "nftables", why: "address translation and filtering" },
    Need { program: "mkfs.btrfs", package: "btrfs-progs", why: "making the default pool" },
    Need { program: "unsquashfs", package: "squashfs-tools", why: "images in squashfs form" },
    Need { program: "mmdebstrap", package: "mmdebstrap", why: "building the image debian:12" },
    Need { program: "qemu-system-x86_64", package: "qemu-system-x86", why: "running virtual machines" },
    Need { program: "qemu-img", package: "qemu-utils", why: "disks of virtual machines" },
    Need { program: "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", package: "ovmf", why: "firmware of virtual machines" },
    Need { program: "swtpm", package: "swtpm", why: "TPMs of virtual machines" },
    Need { program: "sfdisk", package: "fdisk", why: "building virtual machines' images" },
    Need { program: "mkfs.ext4", package: "e2fsprogs", why: "building virtual machines' images" },
    Need { program: "mkfs.vfat", package: "dosfstools", why: "building virtual machines' images" },
    Need { program: "mcopy", package: "mtools", why: "building virtual machines' images" },
    Need { program: STATIC_BUSYBOX, package: "busybox-static", why: "small test images, and ping" },
];

const TESTS: &[Need] = &[
    Need { program: "incus", package: "incus-client", why: "tests drive the daemon with Incus's own client" },
    Need { program: "apparmor_parser", package: "apparmor", why: "tests compile the containers' profiles" },
    Need { program: "strace", package: "strace", why: "a test reads what radvd asks of the kernel" },
    Need { program: "lxc", package: "lxd-client", why: "tests drive the daemon with LXD's own client" },
];

/// What `bench` compares with.
const PEER: &[Need] = &[
    Need { program: "/usr/libexec/incus/incusd", package: "incus-base", why: "bench measures Incus beside us" },
    Need { program: "incus", package: "incus-client", why: "bench measures Incus beside us" },
];

/// Not a program's name: any busybox will not do, a static one is wanted.
const STATIC_BUSYBOX: &str = "a static busybox";

impl Need {
    fn is_there(&self) -> bool {
        match self.program {
            STATIC_BUSYBOX => stapes_testkit::image::static_busybox().is_some(),
            program if program.starts_with('/') => Path::new(program).exists(),
            program => find(program).is_some(),
        }
    }
}

pub fn main(args: &[&str]) -> Result<()> {
    match args {
        [] => ensure(false),
        ["--tests"] => ensure(true),
        ["--peer"] => install_missing(RUN.iter().chain(PEER)),
        ["--undo"] => undo(),
        other => bail!("setup: unknown arguments {other:?}"),
    }
}

/// Installs what is missing, and prints what it does; nothing to do is one line.
pub fn ensure(for_tests: bool) -> Result<()> {
    install_missing(RUN.iter().chain(if for_tests { TESTS } else { &[] }))
}

fn install_missing<'a>(wanted: impl Iterator<Item = &'a Need>) -> Result<()> {
    let missing: Vec<&Need> = wanted.filter(|need| !need.is_there()).collect();
    if missing.is_empty() {
        println!("setup: every package that is needed is installed");
        return Ok(());
    }
    for need in &missing {
        println!("setup: {} is missing: {}", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if find("apt-get").is_none() {
        bail!("this machine has no apt-get; install by its own means what these Debian packages hold: {packages:?}");
    }
    require_root("installing packages")?;
    update(&packages)?;
    if packages.iter().any(|package| package.starts_with("incus-") && !has_candidate(package)) {
        add_backports()?;
        update(&packages)?;
    }
    // QEMU comes from backports where these are at hand, whole: parts of two versions do not fit together.
    let backports = output(Command::new("apt-cache").arg("policy")).ok().and_then(|policy| backports_of(&policy));
    let (qemu, rest): (Vec<&str>, Vec<&str>) = packages.iter().partition(|package| package.starts_with("qemu-"));
    install(&rest, None)?;
    install(&qemu, backports.as_deref())?;
    let still: Vec<&str> = missing.iter().filter(|need| !need.is_there()).map(|need| need.program).collect();
    if !still.is_empty() {
        bail!("installed {packages:?}, and yet these are not on this machine: {still:?}");
    }
    Ok(())
}

fn install(packages: &[&str], release: Option<&str>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let from = release.map(|release| format!(" from {release}")).unwrap_or_default();
    println!("setup: apt-get install {}{from}", packages.join(" "));
    let mut install = apt();
    install.args(["install", "--yes", "--no-install-recommends", "-qq"]);
    install.args(release.map(|release| format!("--target-release={release}"))).args(packages);
    run(&mut install).with_context(|| offline(packages))
}

/// The backports among the archives that `apt-cache policy` lists.
fn backports_of(policy: &str) -> Option<String> {
    let fields =
        policy.lines().filter_map(|line| line.trim().strip_prefix("release ")).flat_map(|line| line.split(','));
    let mut names = fields.filter_map(|field| field.strip_prefix("n="));
    names.find(|name| name.ends_with("-backports")).map(str::to_owned)
}

fn offline(packages: &[&str]) -> String {
    format!(
        "Debian's package archive is not in reach. Connect this machine, or install by hand: {}",
        packages.join(" ")
    )
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-o",
        "DPkg::Lock::Timeout=400",
        "-o",
        "Acquire::Retries=2",
    ]);
    command
}

fn update(packages: &[&str]) -> Result<()> {
    println!("setup: apt-get update");
    run(apt().args(["update", "-qq"])).with_context(|| offline(packages))
}

fn has_candidate(package: &str) -> bool {
    let policy = output(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    policy.lines().any(|line| line.trim().strip_prefix("Candidate: ").is_some_and(|version| version != "(none)"))
}

/// Debian 12 has Incus's client in backports only: the archive is the one this machine uses already.
fn add_backports() -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").context("failed to read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"');
    let (uri, key) = archive(codename)
        .with_context(|| format!("no apt source for {codename} was found, so its backports cannot be derived"))?;
    let signed = key.map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
    let text = format!("Types: deb\nURIs: {uri}\nSuites: {codename}-backports\nComponents: main\n{signed}");
    fs::write(BACKPORTS, text).with_context(|| format!("failed to write {BACKPORTS}"))?;
    println!("setup: added {codename}-backports in {BACKPORTS} (`cargo xtask setup --undo` removes it)");
    Ok(())
}

/// The address of this machine's own archive and the key it is signed with.
fn archive(codename: &str) -> Option<(String, Option<String>)> {
    let dir = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    for path in dir.chain([Path::new("/etc/apt/sources.list").to_owned()]) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let found = match path.extension().and_then(|e| e.to_str()) {
            Some("sources") => text.split("\n\n").find_map(|stanza| stanza_archive(stanza, codename)),
            Some("list") => text.lines().find_map(|line| line_archive(line, codename)).map(|uri| (uri, None)),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn stanza_archive(stanza: &str, codename: &str) -> Option<(String, Option<String>)> {
    let field = |name: &str| stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let suites = field("Suites:")?;
    if !suites.split(' ').any(|suite| suite == codename) {
        return None;
    }
    Some((field("URIs:")?.split(' ').next()?.to_owned(), field("Signed-By:")))
}

fn line_archive(line: &str, codename: &str) -> Option<String> {
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('[') && !word.ends_with(']'));
    let is_deb = words.next()? == "deb";
    let uri = words.next()?;
    (is_deb && words.next()? == codename).then(|| uri.to_owned())
}

fn undo() -> Result<()> {
    if Path::new(BACKPORTS).exists() {
        require_root("removing an apt source")?;
        fs::remove_file(BACKPORTS).with_context(|| format!("failed to remove {BACKPORTS}"))?;
        println!("setup: removed {BACKPORTS}; installed packages stay (apt-get remove takes them away)");
    } else {
        println!("setup: nothing to undo");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_are_found_where_apt_lists_them() {
        let policy = "Package files:\n 500 http://x bookworm/main amd64 Packages\n     release v=12.1,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main\n\
                      \x20    origin x\n 100 http://x bookworm-backports/main amd64 Packages\n     release o=Debian,a=b,n=bookworm-backports,l=D\n";
        assert_eq!(backports_of(policy).as_deref(), Some("bookworm-backports"));
        assert_eq!(backports_of(&policy.replace("-backports", "")), None);
    }

    #[test]
    fn the_archive_is_read_from_both_forms_of_apt_sources() {
        let stanza = "Types: deb\n# a comment\nURIs: http://archive.example/debian\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By: /usr/share/keyrings/k.gpg";
        let found = stanza_archive(stanza, "bookworm").unwrap();
        assert_eq!(found, ("http://archive.example/debian".into(), Some("/usr/share/keyrings/k.gpg".into())));
        assert_eq!(stanza_archive(stanza, "trixie"), None);
        let line = "deb [signed-by=/k.gpg] http://archive.example/debian bookworm main";
        assert_eq!(line_archive(line, "bookworm").as_deref(), Some("http://archive.example/debian"));
        assert_eq!(line_archive("# deb http://x bookworm main", "bookworm"), None);
        assert_eq!(line_archive("deb http://x bookworm-security main", "bookworm"), None);
    }
}
