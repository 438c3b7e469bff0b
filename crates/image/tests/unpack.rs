//! The confined unpacking, with good and evil archives. Needs root; without it every test says so and passes.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use stapes_image::{
    ImageError, ImageFiles, ImageKind, UnpackFault, UnpackLimits, UnpackReport, WorkerCommand, inspect, unpack,
};
use tar::{EntryType, Header};

const METADATA: &str =
    "architecture: x86_64\ncreation_date: 1\ntemplates:\n  /etc/hostname:\n    when: [create]\n    template: h.tpl\n";

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// An archive in the making; names go in unchecked, as no honest tool would write them.
#[derive(Default)]
struct Evil(Vec<u8>);

impl Evil {
    fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(2000);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", 0o644, content.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path.as_bytes(), b"", 0o755, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    /// A PAX header for the entry after it.
    fn pax(self, key: &str, value: &[u8]) -> Self {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        let record = [length.to_string().as_bytes(), &body].concat();
        self.entry(EntryType::XHeader, b"pax", b"", 0o644, &record)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn image() -> Evil {
    Evil::default()
        .file("metadata.yaml", METADATA)
        .directory("templates")
        .file("templates/h.tpl", "x")
        .directory("rootfs")
}

struct Bench {
    folder: tempfile::TempDir,
    limits: UnpackLimits,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("volume")).unwrap();
        fs::write(folder.path().join("outside"), "untouched").unwrap();
        Self { folder, limits: UnpackLimits::default() }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("volume").join(path)
    }

    fn files(&self, files: &ImageFiles) -> Result<UnpackReport, ImageError> {
        let worker = WorkerCommand { program: env!("CARGO_BIN_EXE_stapes-image-worker").into(), args: Vec::new() };
        let done = unpack(files, &self.at(""), &self.limits, &worker);
        assert_eq!(fs::read_to_string(self.folder.path().join("outside")).unwrap(), "untouched");
        done
    }

    fn unified(&self, archive: Evil) -> Result<UnpackReport, ImageError> {
        let meta = self.put("image", &archive.end());
        self.files(&ImageFiles { meta, rootfs: None })
    }

    fn split(&self, rootfs: &[u8]) -> Result<UnpackReport, ImageError> {
        let meta = self.put("meta", &Evil::default().file("metadata.yaml", METADATA).end());
        let rootfs = Some(self.put("root", rootfs));
        self.files(&ImageFiles { meta, rootfs })
    }
}

fn fault(done: Result<UnpackReport, ImageError>) -> UnpackFault {
    match done {
        Err(ImageError::Unpack(fault)) => fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

#[test]
fn an_honest_image_arrives_with_owners_modes_times_and_links() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let archive = image()
        .entry(EntryType::Regular, b"rootfs/su", b"", 0o4755, b"#!")
        .symlink("rootfs/absolute", "/etc/passwd")
        .hardlink("rootfs/again", "rootfs/su")
        .entry(EntryType::Fifo, b"rootfs/pipe", b"", 0o620, b"")
        .entry(EntryType::Char, b"rootfs/null", b"", 0o666, b"")
        .file("rootfs/deep/er/file", "hello")
        .file("rootfs/twice", "first, longer")
        .file("rootfs/twice", "second")
        .entry(EntryType::Regular, b"rootfs/latin-\xe9", b"", 0o600, b"x")
        .file("other/thing", "left out");
    let report = bench.unified(archive).unwrap();
    assert_eq!((report.skipped_devices, report.skipped_other), (1, 1));
    let su = fs::metadata(bench.at("rootfs/su")).unwrap();
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.mtime(), su.nlink()),
        (0o4755, 1000, 2000, 1_600_000_000, 2)
    );
    assert_eq!(fs::metadata(bench.at("rootfs")).unwrap().mtime(), 1_600_000_000);
    assert_eq!(fs::read_link(bench.at("rootfs/absolute")).unwrap(), Path::new("/etc/passwd"));
    let pipe = fs::metadata(bench.at("rootfs/pipe")).unwrap();
    assert!(pipe.file_type().is_fifo() && pipe.mode() & 0o777 == 0o620);
    assert_eq!(fs::read_to_string(bench.at("rootfs/deep/er/file")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(bench.at("rootfs/twice")).unwrap(), "second");
    assert!(!bench.at("rootfs/null").exists() && !bench.at("other").exists());
    assert!(bench.at("templates/h.tpl").exists());
}

#[test]
fn entries_that_lead_out_are_refused_by_name() {
    if !root() {
        return;
    }
    let cases: Vec<(&str, &str, Evil)> = vec![
        ("/abs", "absolute", image().file("/abs", "x")),
        ("rootfs/../../outside", "goes up", image().file("rootfs/../../outside", "x")),
        ("rootfs/out/outside", "symbolic link", image().symlink("rootfs/out", "../..").file("rootfs/out/outside", "x")),
        ("rootfs/etc/x", "symbolic link", image().symlink("rootfs/etc", "/etc").file("rootfs/etc/x", "x")),
        ("rootfs/link", "link target", image().hardlink("rootfs/link", "/etc/passwd")),
        ("rootfs/link", "link target", image().hardlink("rootfs/link", "rootfs/../../outside")),
        (
            "rootfs/link",
            "symbolic link",
            image().symlink("rootfs/d", "/etc").hardlink("rootfs/link", "rootfs/d/passwd"),
        ),
        ("rootfs/link", "does not exist", image().hardlink("rootfs/link", "rootfs/nothing")),
        ("rootfs/dir", "directory", image().directory("rootfs/dir").file("rootfs/dir", "x")),
        ("rootfs/f/x", "no directory", image().file("rootfs/f", "x").file("rootfs/f/x", "x")),
        ("rootfs/link", "directory", image().directory("rootfs/d").hardlink("rootfs/link", "rootfs/d")),
    ];
    for (name, why, archive) in cases {
        let bench = Bench::new();
        match fault(bench.unified(archive)) {
            UnpackFault::Refused { entry, reason, .. } => {
                assert_eq!(entry, name);
                assert!(reason.contains(why), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_file_written_over_a_symlink_replaces_the_link() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let outside = bench.folder.path().join("outside");
    bench.unified(image().symlink("rootfs/x", outside.to_str().unwrap()).file("rootfs/x", "mine")).unwrap();
    assert_eq!(fs::read_to_string(bench.at("rootfs/x")).unwrap(), "mine");
    assert!(fs::symlink_metadata(bench.at("rootfs/x")).unwrap().is_file());
}

#[test]
fn an_archive_cut_short_anywhere_is_an_error() {
    if !root() {
        return;
    }
    let whole = Evil::default().directory("rootfs").file("rootfs/a", &"x".repeat(3000)).file("b", "y").end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&whole[..], 1).unwrap();
    let cuts = [
        &whole[..600],
        &whole[..1024],
        &whole[..2000],
        &whole[..whole.len() - 1024],
        &gzip[..gzip.len() - 9],
        &zstd[..zstd.len() - 3],
    ];
    for (number, cut) in cuts.into_iter().enumerate() {
        let fault = fault(Bench::new().split(cut));
        assert!(matches!(fault, UnpackFault::Truncated { .. }), "cut {number}: {fault:?}");
    }
}

#[test]
fn bombs_stop_at_the_limits() {
    if !root() {
        return;
    }
    let mut bench = Bench::new();
    bench.limits = UnpackLimits { entries: 50, bytes: 10_000, depth: 5, name_length: 80 };
    let many = (0..60).fold(image(), |archive, number| archive.file(&format!("rootfs/{number}"), ""));
    assert!(matches!(fault(bench.unified(many)), UnpackFault::Limit { limit: 50, .. }));
    let sparse = image().pax("GNU.sparse.major", b"0").pax("GNU.sparse.size", b"1099511627776").file("rootfs/hole", "");
    for (archive, limit) in [
        (image().file("rootfs/big", &"x".repeat(10_001)), 10_000),
        (image().directory("rootfs/1/2/3/4/5/6"), 5),
        (image().file(&format!("rootfs/{}", "n".repeat(80)), ""), 80),
        (sparse, 10_000),
    ] {
        let mut fresh = Bench::new();
        fresh.limits = bench.limits;
        let fault = fault(fresh.unified(archive));
        assert!(matches!(fault, UnpackFault::Limit { limit: found, .. } if found == limit), "{limit}: {fault:?}");
    }
}

#[test]
fn attributes_survive_and_capabilities_lose_their_container() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let foreign =
        [&0x0300_0001u32.to_le_bytes()[..], &0x2000u32.to_le_bytes(), &[0; 12], &1_000_000u32.to_le_bytes()].concat();
    let archive = image()
        .pax("SCHILY.xattr.security.capability", &foreign)
        .entry(EntryType::Regular, b"rootfs/ping", b"", 0o755, b"x")
        .pax("SCHILY.xattr.user.note", b"a\n\0b")
        .file("rootfs/noted", "x")
        .pax("SCHILY.acl.access", b"user::rw-,user:1234:r--,group::r--,mask::r--,other::---")
        .file("rootfs/acl", "x")
        .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
        .file("rootfs/trusted", "x");
    let report = bench.unified(archive).unwrap();
    assert_eq!(report.skipped_xattrs, 1);
    let get = |path: &str, name: &str| {
        let mut value = vec![0; 256];
        let count = rustix::fs::getxattr(bench.at(path), name, &mut value[..]).unwrap();
        value.truncate(count);
        value
    };
    // Read on the host, whose root owns it, this is the plain revision 2.
    let wanted = [&0x0200_0001u32.to_le_bytes()[..], &0x2000u32.to_le_bytes(), &[0; 12]].concat();
    assert_eq!(get("rootfs/ping", "security.capability"), wanted);
    assert_eq!(get("rootfs/noted", "user.note"), b"a\n\0b");
    assert_eq!(get("rootfs/acl", "system.posix_acl_access").len(), 4 + 5 * 8);
}

#[test]
fn sparse_files_of_gnu_tar_keep_their_holes() {
    if !root() {
        return;
    }
    for format in [
        ["--format=gnu", "--sparse"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ] {
        let bench = Bench::new();
        let source = bench.folder.path().join("source");
        fs::create_dir(&source).unwrap();
        let mut file = fs::File::create(source.join("holes")).unwrap();
        // Ten islands: more than the four that a GNU header has room for.
        for island in 0..10u64 {
            std::os::unix::fs::FileExt::write_all_at(&file, &[b'x'; 4096], island * (1 << 20)).unwrap();
        }
        file.set_len(32 << 20).unwrap();
        file.flush().unwrap();
        let tar = Command::new("tar")
            .args(["--sparse"])
            .args(format)
            .arg("-C")
            .arg(&source)
            .args(["-cf", "-", "."])
            .output()
            .unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        bench.split(&tar.stdout).unwrap();
        assert!(fs::read(bench.at("rootfs/holes")).unwrap() == fs::read(source.join("holes")).unwrap(), "{format:?}");
        assert!(fs::metadata(bench.at("rootfs/holes")).unwrap().blocks() * 512 < 1 << 20, "{format:?}");
    }
}

#[test]
fn a_root_archive_may_have_everything_under_rootfs() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.split(&Evil::default().directory("rootfs").file("rootfs/bin", "x").end()).unwrap();
    assert!(bench.at("rootfs/bin").is_file());
}

#[test]
fn every_compression_is_told_by_its_bytes() {
    let plain = image().end();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let lzma =
        liblzma::stream::Stream::new_lzma_encoder(&liblzma::stream::LzmaOptions::new_preset(1).unwrap()).unwrap();
    let mut lzma = liblzma::write::XzEncoder::new_stream(Vec::new(), lzma);
    lzma.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let bench = Bench::new();
    for (name, bytes) in [
        ("none", plain.clone()),
        ("bzip2", bzip2.finish().unwrap()),
        ("lzma", lzma.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
    ] {
        let meta = bench.put("misnamed.zip", &bytes);
        let found = inspect(&ImageFiles { meta, rootfs: None }).unwrap();
        assert_eq!(found.kind, ImageKind::Unified);
        assert_eq!(serde_json::to_value(found.compression).unwrap(), name);
    }
}

#[test]
fn a_squashfs_root_is_unpacked_by_unsquashfs_in_the_same_prison() {
    if !root() {
        return;
    }
    if Command::new("mksquashfs").arg("-version").output().is_err() {
        eprintln!("skipped: needs squashfs-tools");
        return;
    }
    let bench = Bench::new();
    let source = bench.folder.path().join("source");
    fs::create_dir_all(source.join("etc")).unwrap();
    fs::write(source.join("etc/x"), "hello").unwrap();
    std::os::unix::fs::chown(source.join("etc/x"), Some(7), Some(8)).unwrap();
    fs::set_permissions(source.join("etc/x"), fs::Permissions::from_mode(0o4711)).unwrap();
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.join("null"),
        rustix::fs::FileType::CharacterDevice,
        0o666.into(),
        device,
    )
    .unwrap();
    let root = bench.folder.path().join("root.squashfs");
    let made = Command::new("mksquashfs").arg(&source).arg(&root).args(["-quiet", "-no-progress"]).output().unwrap();
    assert!(made.status.success());
    let report = bench.split(&fs::read(&root).unwrap()).unwrap();
    assert_eq!((report.skipped_devices, report.bytes), (1, 5 + METADATA.len() as u64));
    let made = fs::metadata(bench.at("rootfs/etc/x")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o4711, 7, 8));

    let bytes = fs::read(&root).unwrap();
    let used = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    assert!(matches!(fault(Bench::new().split(&bytes[..used - 1])), UnpackFault::Truncated { .. }));
    let mut damaged = bytes.clone();
    damaged[96..used].fill(0x55);
    let fault = fault(Bench::new().split(&damaged));
    assert!(matches!(fault, UnpackFault::Corrupt { .. }), "{fault:?}");
}

#[test]
fn what_is_no_image_says_so() {
    let bench = Bench::new();
    let meta = bench.put("junk", b"not an archive at all");
    let error = inspect(&ImageFiles { meta, rootfs: None }).unwrap_err();
    assert_eq!(error.to_string(), "junk: it is no tar archive, compressed or not");
    let meta = bench.put("empty", &Evil::default().directory("rootfs").end());
    assert_eq!(inspect(&ImageFiles { meta, rootfs: None }).unwrap_err().to_string(), "empty: it has no metadata.yaml");
    let meta = bench.put("meta", &Evil::default().file("metadata.yaml", METADATA).end());
    let rootfs = Some(bench.put("disk", b"QFI\xfb and more"));
    let found = inspect(&ImageFiles { meta, rootfs }).unwrap();
    assert_eq!(found.instance_type, stapes_model::InstanceType::VirtualMachine);
}

#[test]
fn a_volume_with_something_in_it_is_left_alone() {
    let bench = Bench::new();
    fs::write(bench.at("mine"), "x").unwrap();
    assert!(matches!(bench.unified(image()), Err(ImageError::NotEmpty(_))));
}

/// A qcow2 disk of 64 MiB with a mark in the middle, compressed as images are; `None` without qemu-img.
fn disk(folder: &Path) -> Option<Vec<u8>> {
    let (raw, qcow2) = (folder.join("raw"), folder.join("qcow2"));
    let mut bytes = vec![0; 64 << 20];
    bytes[32 << 20..][..5].copy_from_slice(b"hello");
    fs::write(&raw, &bytes).unwrap();
    let convert = ["convert", "-c", "-f", "raw", "-O", "qcow2"];
    let Ok(done) = Command::new("qemu-img").args(convert).arg(&raw).arg(&qcow2).status() else {
        eprintln!("skipped: needs qemu-img");
        return None;
    };
    assert!(done.success());
    fs::remove_file(&raw).unwrap();
    Some(fs::read(&qcow2).unwrap())
}

#[test]
fn a_disk_becomes_a_sparse_file_whether_it_comes_alone_or_in_an_archive() {
    if !root() {
        return;
    }
    for unified in [false, true] {
        let bench = Bench::new();
        let Some(disk) = disk(bench.folder.path()) else { return };
        let report = if unified {
            let archive = Evil::default().file("metadata.yaml", METADATA).directory("templates");
            let archive =
                archive.file("templates/h.tpl", "x").entry(EntryType::Regular, b"rootfs.img", b"", 0o644, &disk);
            bench.unified(archive)
        } else {
            bench.split(&disk)
        };
        assert_eq!(report.unwrap().disk, Some(64 << 20), "unified {unified}");
        let root = bench.at(stapes_image::DISK_FILE);
        let (metadata, content) = (fs::metadata(&root).unwrap(), fs::read(&root).unwrap());
        assert_eq!((content.len(), &content[32 << 20..][..5]), (64 << 20, &b"hello"[..]));
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(bench.at("metadata.yaml").is_file());
        assert!(!bench.at("rootfs").exists() && !bench.at("rootfs.img").exists());
    }
}

#[test]
fn a_disk_that_leads_to_other_files_or_is_too_large_or_broken_is_refused() {
    if !root() {
        return;
    }
    let mut bench = Bench::new();
    let empty = |bench: &Bench| {
        fs::remove_dir_all(bench.at("")).unwrap();
        fs::create_dir(bench.at("")).unwrap();
    };
    let Some(disk) = disk(bench.folder.path()) else { return };
    for (at, value, reason) in [(15, 104, "backing file"), (79, 4, "another file"), (35, 1, "encrypted")] {
        let mut evil = disk.clone();
        evil[at] = value;
        let error = bench.split(&evil).unwrap_err();
        let ImageError::Unpack(UnpackFault::Corrupt { reason: found, .. }) = &error else { panic!("{error:?}") };
        assert!(found.contains(reason), "{found}");
        assert_eq!(error.kind(), stapes_model::ErrorKind::BadRequest);
        empty(&bench);
    }
    // What is missing would be read as zeros: it is found before, when an image is taken in.
    let check = |bytes: &[u8]| {
        let (meta, rootfs) = (bench.put("meta", b""), Some(bench.put("disk", bytes)));
        stapes_image::check_whole(&ImageFiles { meta: rootfs.clone().unwrap_or(meta), rootfs })
    };
    check(&disk).unwrap();
    for left in [disk.len() * 3 / 4, disk.len() / 2] {
        let error = check(&disk[..left]).unwrap_err();
        assert!(matches!(error, ImageError::Unpack(UnpackFault::Truncated { .. })), "{error:?}");
    }
    bench.limits.bytes = 32 << 20;
    assert!(matches!(bench.split(&disk), Err(ImageError::Unpack(UnpackFault::Limit { .. }))));
}
