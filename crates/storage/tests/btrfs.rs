//! What only btrfs pools do, and how fast.

mod support;

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command, time::Instant};

use stapes_model::{ByteSize, ErrorKind};
use stapes_storage::{PoolError, VolumeKind};
use stapes_sys::{btrfs, loopdev};

use support::{TempPool, fill, image, instance, need_btrfs, write_mib};

fn loop_pool() -> Option<TempPool> {
    need_btrfs().then(|| TempPool::new("btrfs", &[("size", "512MiB")]))
}

fn subvolume(dir: &Path, name: &str) {
    btrfs::create_subvolume(fs::File::open(dir).unwrap(), name.as_ref()).unwrap();
}

#[test]
fn a_volume_with_nested_subvolumes_is_deleted() {
    let Some(pool) = loop_pool() else { return };
    let path = pool.ensure_volume(&instance("abc")).unwrap();
    for (dir, name) in [("", "one"), ("one", "two"), ("one/two", "three"), ("one/two/three", "four")] {
        subvolume(&path.join(dir), name);
        subvolume(&path.join(dir), "beside");
    }
    fs::write(path.join("one/two/three/file"), "x").unwrap();
    pool.delete_volume(&instance("abc")).unwrap();
    assert!(!path.exists());
    assert!(pool.list(VolumeKind::Instance).unwrap().is_empty());
}

#[test]
fn a_sealed_image_refuses_writes() {
    let Some(pool) = loop_pool() else { return };
    fill(&pool.ensure_volume(&image("0123")).unwrap());
    let path = pool.seal(&image("0123")).unwrap();
    let refused = fs::write(path.join("rootfs/new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    pool.delete_volume(&image("0123")).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_subvolume_made_inside_does_not_escape_the_limit() {
    let Some(pool) = loop_pool() else { return };
    let path = pool.ensure_volume(&instance("abc")).unwrap();
    subvolume(&path, "before");
    pool.set_quota(&instance("abc"), Some(ByteSize::mib(16))).unwrap();
    subvolume(&path, "after");
    for inside in ["before", "after"] {
        let refused = write_mib(&path.join(inside).join("file"), 32).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(122), "{inside}: EDQUOT, not {refused}");
        fs::remove_file(path.join(inside).join("file")).unwrap();
        rustix::fs::syncfs(fs::File::open(&path).unwrap()).unwrap();
    }
    pool.delete_volume(&instance("abc")).unwrap();
}

#[test]
fn quota_groups_do_not_pile_up() {
    let Some(pool) = loop_pool() else { return };
    let root = fs::File::open(&pool.paths.mount).unwrap();
    let count = || btrfs::qgroups(&root).unwrap().len();
    let before = count();
    for round in 0..40 {
        let volume = instance(&format!("v{round}"));
        let path = pool.ensure_volume(&volume).unwrap();
        pool.set_quota(&volume, Some(ByteSize::mib(16))).unwrap();
        subvolume(&path, "inside");
        pool.delete_volume(&volume).unwrap();
    }
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    loop {
        // Freeing is the kernel's own time, which this shortens; opening sweeps.
        Command::new("btrfs").args(["filesystem", "sync"]).arg(&pool.paths.mount).status().unwrap();
        pool.open().unwrap();
        let now = count();
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "{now} groups, {before} before");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    drop(root);
}

#[test]
fn the_loop_file_is_sparse_and_attached_directly() {
    let Some(pool) = loop_pool() else { return };
    let file = pool.paths.disks.join(format!("{}.img", pool.config.name));
    assert_eq!(pool.config.config["size"], "512MiB");
    assert_eq!(pool.config.config["source"], file.display().to_string());
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (512 << 20, 0o600));
    assert!(metadata.blocks() * 512 < 64 << 20, "{} blocks", metadata.blocks());
    let device = loopdev::find(&fs::File::open(&file).unwrap()).unwrap().unwrap();
    eprintln!("direct I/O: {}; missing: {:?}", device.direct_io().unwrap(), pool.shortcomings());
    assert!(pool.space().unwrap().backing_free.is_some());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(pool.paths.mount.to_str().unwrap())).unwrap();
    assert!(line.contains("noatime") && line.contains("user_subvol_rm_allowed"), "{line}");
    drop(device);
}

#[test]
fn a_pool_attached_by_a_dead_process_is_found() {
    let Some(pool) = loop_pool() else { return };
    pool.ensure_volume(&instance("abc")).unwrap();
    rustix::mount::unmount(&pool.paths.mount, rustix::mount::UnmountFlags::empty()).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(pool.paths.disks.join(format!("{}.img", pool.config.name)))
        .unwrap();
    // The mount was the loop device's last user.
    assert!(loopdev::find(&file).unwrap().is_none());
    let attached = loopdev::attach(&file, loopdev::Options { autoclear: true, ..Default::default() }).unwrap();
    let again = pool.open().unwrap();
    assert!(again.exists(&instance("abc")).unwrap());
    assert_eq!(loopdev::find(&file).unwrap().unwrap().path(), attached.path());
}

#[test]
fn many_who_open_at_once_attach_one_loop_device() {
    let Some(pool) = loop_pool() else { return };
    for _ in 0..5 {
        rustix::mount::unmount(&pool.paths.mount, rustix::mount::UnmountFlags::empty()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| drop(pool.open().unwrap()));
            }
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(mounts.matches(pool.paths.mount.to_str().unwrap()).count(), 1);
    }
}

#[test]
fn a_creation_that_fails_leaves_nothing() {
    if !need_btrfs() {
        return;
    }
    for (key, value) in [("btrfs.create_options", "--nonsense"), ("btrfs.mount_options", "nonsense"), ("size", "1MiB")]
    {
        let mut config = vec![("size", "512MiB")];
        config.retain(|(name, _)| *name != key);
        config.push((key, value));
        let pool = TempPool::uncreated("btrfs", &config);
        let error = pool.create().unwrap_err();
        assert!(error.to_string().contains(pool.config.name.as_str()), "{error}");
        pool.assert_nothing_left();
        assert_eq!(fs::read_dir(&pool.paths.disks).map_or(0, Iterator::count), 0, "{error}");
    }
}

#[test]
fn a_creation_cut_short_is_simply_repeated() {
    if !need_btrfs() {
        return;
    }
    let mut pool = TempPool::uncreated("btrfs", &[("size", "512MiB")]);
    fs::create_dir_all(&pool.paths.disks).unwrap();
    fs::write(pool.paths.disks.join(format!("{}.img.tmp", pool.config.name)), "half").unwrap();
    let first = pool.create().unwrap();
    assert_eq!(pool.create().unwrap(), first);
    pool.destroy().unwrap();
    pool.assert_nothing_left();
}

#[test]
fn a_path_elsewhere_is_no_source() {
    if !need_btrfs() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("pool");
    let pool = TempPool::uncreated("btrfs", &[("source", source.to_str().unwrap())]);
    let is_btrfs = rustix::fs::statfs(dir.path()).unwrap().f_type as u64 & 0xffff_ffff == 0x9123_683e;
    if !is_btrfs {
        let error = pool.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        assert!(error.to_string().contains("not on a btrfs"), "{error}");
        assert!(!source.exists());
    }
}

#[test]
fn a_device_with_a_file_system_is_not_overwritten_unasked() {
    if !need_btrfs() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::File::create(&path).unwrap().set_len(512 << 20).unwrap();
    assert!(Command::new("mkfs.btrfs").args(["-q", "-L", "precious"]).arg(&path).status().unwrap().success());
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let device = loopdev::attach(&file, loopdev::Options { autoclear: true, ..Default::default() }).unwrap();
    let source = device.path().to_str().unwrap().to_owned();
    let refused = TempPool::uncreated("btrfs", &[("source", &source)]).create().unwrap_err();
    assert!(matches!(refused, PoolError::Taken { .. }) && refused.to_string().contains("source.wipe"), "{refused}");

    let pool = TempPool::new("btrfs", &[("source", &source), ("source.wipe", "true")]);
    pool.ensure_volume(&instance("abc")).unwrap();
    drop(pool);
    drop(device);
}

#[test]
fn a_full_pool_says_so() {
    let Some(pool) = loop_pool() else { return };
    let path = pool.ensure_volume(&instance("abc")).unwrap();
    write_mib(&path.join("file"), 1024).unwrap_err();
    // Metadata may still have room: clone until it has none, or a hundred times.
    for round in 0..100 {
        if let Err(error) = pool.clone_volume(&instance("abc"), &instance(&format!("c{round}"))) {
            assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        }
    }
    pool.delete_volume(&instance("abc")).unwrap();
}

/// Not a test of a number (absolute times are noise on a shared machine): `--nocapture` shows them.
#[test]
fn clone_snapshot_delete_and_usage_are_measured() {
    let Some(pool) = loop_pool() else { return };
    let path = pool.ensure_volume(&image("0123")).unwrap();
    for number in 0..2_000 {
        let dir = path.join(format!("rootfs/{}", number / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{number}")), vec![b'x'; 8_000]).unwrap();
    }
    pool.seal(&image("0123")).unwrap();
    const ROUNDS: usize = 100;
    let mut times: [Vec<f64>; 5] = Default::default();
    for round in 0..ROUNDS {
        let volume = instance(&format!("v{round}"));
        let mut timed = |place: usize, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            times[place].push(start.elapsed().as_secs_f64() * 1e3);
        };
        timed(0, &mut || drop(pool.clone_volume(&image("0123"), &volume).unwrap()));
        timed(1, &mut || pool.set_quota(&volume, Some(ByteSize::gib(1))).unwrap());
        timed(2, &mut || drop(pool.snapshots().unwrap().create_snapshot(&volume, "snap0").unwrap()));
        timed(3, &mut || drop(pool.usages(VolumeKind::Instance).unwrap()));
    }
    for round in 0..ROUNDS {
        let start = Instant::now();
        pool.delete_volume(&instance(&format!("v{round}"))).unwrap();
        times[4].push(start.elapsed().as_secs_f64() * 1e3);
    }
    for (name, mut times) in
        ["clone", "limit", "snapshot", "usages of ≤100", "delete with a snapshot"].iter().zip(times)
    {
        times.sort_by(f64::total_cmp);
        let (median, p95) = (times[ROUNDS / 2], times[ROUNDS * 95 / 100]);
        eprintln!("{name}: p50 {median:.3} ms, p95 {p95:.3} ms");
    }
}
