//! Virtual machines' images built on the host: what is on the disk, and that it boots with Secure Boot and without KVM.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;
use stapes_image::{
    ImageFiles, ImageKind,
    build::{self, BuildSpec},
};
use stapes_model::InstanceType;
use stapes_testkit::{Daemon, Need, host_with};

const TOOLS: &[Need] = &[
    Need::Root,
    Need::Programs,
    Need::StaticBusybox,
    Need::DebianArchive,
    Need::Tool("qemu-img"),
    Need::Tool("sfdisk"),
    Need::Tool("mkfs.vfat"),
    Need::Tool("mcopy"),
    Need::Tool("debugfs"),
];
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// Built once per target directory: it takes some 10 s.
fn busybox() -> ImageFiles {
    let cache_dir = stapes_testkit::binaries_dir().join("test-images");
    let spec = BuildSpec {
        release: String::new(),
        arch: "amd64".into(),
        kind: InstanceType::VirtualMachine,
        variant: String::new(),
        work_dir: cache_dir.join("work"),
        cache_dir,
        refresh: false,
    };
    build::busybox(&spec, &mut |_| {}).unwrap()
}

fn tool(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let (said, complaint) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {args:?}: {said}{complaint}");
    said.into_owned()
}

fn raw_disk(files: &ImageFiles, folder: &Path) -> String {
    let raw = folder.join("raw").display().to_string();
    tool("qemu-img", &["convert", "-O", "raw", files.rootfs.as_ref().unwrap().to_str().unwrap(), &raw]);
    raw
}

#[test]
fn the_disk_has_a_signed_boot_loader_that_finds_the_root_by_its_uuid() {
    let Some(_host) = host_with(TOOLS) else { return };
    let files = busybox();
    let found = stapes_image::inspect(&files).unwrap();
    assert_eq!((found.kind, found.instance_type), (ImageKind::SplitQcow2, InstanceType::VirtualMachine));
    assert_eq!(found.metadata.properties["type"], "disk-kvm.img");
    assert!(found.size < 40 << 20, "{} bytes", found.size);
    let folder = tempfile::tempdir().unwrap();
    let raw = raw_disk(&files, folder.path());

    let table: Value = serde_json::from_str(&tool("sfdisk", &["--json", &raw])).unwrap();
    let table = &table["partitiontable"];
    assert_eq!(table["label"], "gpt");
    let parts = table["partitions"].as_array().unwrap();
    let kinds: Vec<_> = parts.iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"]);
    let start = |part: usize| parts[part]["start"].as_u64().unwrap() * 512;

    let esp = format!("{raw}@@{}", start(0));
    let boot = tool("mdir", &["-i", &esp, "-b", "::EFI/BOOT"]);
    for file in ["BOOTX64.EFI", "grubx64.efi", "grub.cfg"] {
        assert!(boot.contains(file), "{boot}");
    }
    let root = format!("{raw}?offset={}", start(1));
    tool("e2fsck", &["-f", "-n", &root]);
    let uuid = tool("tune2fs", &["-l", &root]);
    let uuid = uuid.lines().find_map(|line| line.strip_prefix("Filesystem UUID:")).unwrap().trim();
    for menu in ["::EFI/BOOT/grub.cfg", "::EFI/debian/grub.cfg"] {
        let text = tool("mtype", &["-i", &esp, menu]);
        assert!(text.starts_with(&format!("search --no-floppy --fs-uuid --set=root {uuid}\n")), "{text}");
    }
    let read = |path: &str| tool("debugfs", &["-R", &format!("cat {path}"), &root]);
    assert!(read("/boot/grub/grub.cfg").contains(&format!("linux /boot/vmlinuz root=UUID={uuid} ro console=tty0")));
    assert!(read("/etc/inittab").contains("stapes-agent-setup"));
    let stat = tool("debugfs", &["-R", "stat /usr/lib/stapes/stapes-agent-setup", &root]);
    assert!(stat.contains("Mode:  0755") && stat.contains("User:     0   Group:     0"), "{stat}");
}

#[test]
fn a_machine_s_image_is_taken_in_as_one_and_a_disk_that_leads_elsewhere_is_not() {
    let Some(_host) = host_with(TOOLS) else { return };
    let files = busybox();
    let disk = files.rootfs.unwrap();
    let daemon = Daemon::start();
    let import = |disk: &Path, alias: &str| {
        daemon.stapes(&["image", "import", files.meta.to_str().unwrap(), disk.to_str().unwrap(), "--alias", alias])
    };
    import(&disk, "small").ok();
    let alias = daemon.api().get("/1.0/images/aliases/small").unwrap();
    assert_eq!(alias["type"], "virtual-machine");
    let image = format!("/1.0/images/{}", alias["target"].as_str().unwrap());
    assert_eq!(daemon.api().get(&image).unwrap()["type"], "virtual-machine");

    let folder = tempfile::tempdir().unwrap();
    let evil = folder.path().join("evil.qcow2");
    let backing = ["create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw"];
    tool("qemu-img", &[&backing[..], &[evil.to_str().unwrap(), "1M"]].concat());
    let refused = import(&evil, "evil");
    assert!(refused.code != 0 && refused.stderr.contains("it has a backing file"), "{refused:?}");
    daemon.finish();
}

/// A machine that ends with its test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an agent's place takes here: a script that says on the console that it runs.
const AGENT: &str = "#!/bin/sh\necho \"the host's program runs with key $(cat /run/stapes/agent.key)\" > /dev/console\n\
                     exec sleep 1000\n";

fn config_drive(folder: &Path) -> PathBuf {
    let drive = folder.join("config");
    fs::File::create(&drive).unwrap().set_len(8 << 20).unwrap();
    tool("mkfs.vfat", &["-n", "STAPES-CONF", drive.to_str().unwrap()]);
    for (name, content) in [("stapes-agent", AGENT), ("agent.key", "42")] {
        let file = folder.join(name);
        fs::write(&file, content).unwrap();
        tool("mcopy", &["-i", drive.to_str().unwrap(), file.to_str().unwrap(), "::"]);
    }
    drive
}

#[test]
fn it_boots_with_secure_boot_and_starts_what_the_host_brings() {
    const BOOT: &[Need] = &[Need::Tool("qemu-system-x86_64"), Need::File(FIRMWARE, "ovmf")];
    let Some(_host) = host_with(&[TOOLS, BOOT].concat()) else { return };
    let files = busybox();
    let folder = tempfile::tempdir().unwrap();
    let raw = raw_disk(&files, folder.path());
    let drive = config_drive(folder.path());
    let variables = folder.path().join("variables");
    fs::copy(VARIABLES, &variables).unwrap();

    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35,smm=on,accel=tcg", "-cpu", "max", "-m", "512", "-display", "none", "-nodefaults"])
        .args(["-no-user-config", "-no-reboot", "-global", "driver=cfi.pflash01,property=secure,value=on"])
        .args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}")])
        .args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", variables.display())])
        .args(["-drive", &format!("if=none,id=root,format=raw,file={raw}"), "-device", "virtio-blk-pci,drive=root"])
        .args(["-drive", &format!("if=none,id=config,format=raw,readonly=on,file={}", drive.display())])
        .args(["-device", "virtio-blk-pci,drive=config,serial=stapes-config", "-device", "virtio-serial-pci"])
        .args(["-serial", "stdio"]);
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let console = BufReader::new(child.stdout.take().unwrap());
    let _machine = Machine(child);
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in console.split(b'\n').map_while(Result::ok) {
            let _ = send.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
    let deadline = Instant::now() + Duration::from_secs(600);
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(line) = lines.recv_timeout(left) else { panic!("no sign of the agent:\n{}", seen.join("\n")) };
        if line.contains("the host's program runs with key 42") {
            break;
        }
        seen.push(line);
    }
    let secure = seen.iter().any(|line| line.contains("Secure boot enabled"));
    assert!(secure, "the kernel was started without Secure Boot:\n{}", seen.join("\n"));
}
