//! What any pool must do: one body, every driver.
//!
//! Pools are made for real, in temporary directories and on loop files, so that this needs root; whatever happens,
//! no mount, loop device or file is left behind.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use stapes_model::{ByteSize, ErrorKind};
use stapes_storage::{Pool, VolumeKind, VolumeRef, default_config, drivers};

use support::{TempPool, describe, fill, image, instance, need_btrfs, need_filesystem, need_root, write_mib};

#[test]
fn a_dir_pool_keeps_the_contract() {
    if need_root() {
        pool_contract(|| TempPool::new("dir", &[]));
    }
}

#[test]
fn a_dir_pool_on_reflinks_keeps_the_contract() {
    if need_root() && need_filesystem("xfs") {
        pool_contract(|| TempPool::in_filesystem("xfs", 400));
    }
}

#[test]
fn a_dir_pool_in_memory_keeps_the_contract() {
    if need_root() {
        pool_contract(|| TempPool::in_filesystem("tmpfs", 200));
    }
}

#[test]
fn a_btrfs_pool_on_a_loop_file_keeps_the_contract() {
    if need_btrfs() {
        pool_contract(|| TempPool::new("btrfs", &[("size", "512MiB")]));
    }
}

#[test]
fn a_btrfs_pool_on_a_path_keeps_the_contract() {
    if need_btrfs() {
        pool_contract(TempPool::on_btrfs_path);
    }
}

/// What any pool must do.
fn pool_contract(fresh_pool: impl Fn() -> TempPool) {
    making_a_volume_twice_is_success(&fresh_pool());
    an_image_appears_when_it_is_sealed(&fresh_pool());
    deleting_twice_is_success(&fresh_pool());
    a_clone_differs_in_nothing(&fresh_pool());
    a_clone_and_its_source_are_apart(&fresh_pool());
    a_clone_replaces_nothing(&fresh_pool());
    what_a_crash_left_is_listed_and_deleted(&fresh_pool());
    opening_again_finds_the_same_pool(&fresh_pool());
    a_pool_with_volumes_is_not_destroyed(fresh_pool());
    a_pool_that_is_not_there_says_so(&fresh_pool());
    creating_over_volumes_is_refused(&fresh_pool());
    a_limit_holds_or_is_refused_with_the_reason(&fresh_pool());
    a_snapshot_keeps_what_the_volume_later_loses(&fresh_pool());
    the_room_is_told(&fresh_pool());
}

fn making_a_volume_twice_is_success(pool: &TempPool) {
    let volume = instance("abc");
    assert!(!pool.exists(&volume).unwrap());
    let path = pool.ensure_volume(&volume).unwrap();
    assert_eq!(path, pool.volume_path(&volume));
    fs::write(path.join("kept"), "x").unwrap();
    assert_eq!(pool.ensure_volume(&volume).unwrap(), path);
    assert!(path.join("kept").exists());
    assert!(pool.exists(&volume).unwrap());
    assert!(!pool.exists(&image("abc")).unwrap());
    assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
}

fn an_image_appears_when_it_is_sealed(pool: &TempPool) {
    let volume = image("0123");
    assert_eq!(pool.seal(&volume).unwrap_err().kind(), ErrorKind::NotFound);
    let filling = pool.ensure_volume(&volume).unwrap();
    fs::create_dir(filling.join("rootfs")).unwrap();
    assert!(!pool.exists(&volume).unwrap());
    assert_eq!(pool.unfinished(VolumeKind::Image).unwrap(), ["0123"]);
    let path = pool.seal(&volume).unwrap();
    assert_eq!(path, pool.volume_path(&volume));
    assert_eq!(pool.seal(&volume).unwrap(), path);
    assert_eq!(pool.ensure_volume(&volume).unwrap(), path);
    assert!(path.join("rootfs").exists() && pool.exists(&volume).unwrap());
    assert!(pool.unfinished(VolumeKind::Image).unwrap().is_empty());
    let copy = pool.clone_volume(&volume, &instance("abc")).unwrap();
    fs::write(copy.join("rootfs/x"), "a clone of a sealed image is writable").unwrap();
}

fn deleting_twice_is_success(pool: &TempPool) {
    let volume = instance("abc");
    pool.delete_volume(&volume).unwrap();
    let path = pool.ensure_volume(&volume).unwrap();
    fill(&path);
    pool.delete_volume(&volume).unwrap();
    assert!(!path.exists() && !pool.exists(&volume).unwrap());
    pool.delete_volume(&volume).unwrap();
    pool.ensure_volume(&image("0123")).unwrap();
    pool.delete_volume(&image("0123")).unwrap();
    assert!(pool.list(VolumeKind::Image).unwrap().is_empty());
}

fn a_clone_differs_in_nothing(pool: &TempPool) {
    let source = pool.ensure_volume(&image("0123")).unwrap();
    fill(&source);
    let source = pool.seal(&image("0123")).unwrap();
    let copy = pool.clone_volume(&image("0123"), &instance("abc")).unwrap();
    let (wanted, found) = (describe(&source), describe(&copy));
    for (path, wanted) in &wanted {
        assert_eq!(Some(wanted), found.get(path), "{path:?}");
    }
    assert_eq!(wanted.len(), found.len());
    let holes = copy.join("rootfs/sparse").metadata().unwrap();
    assert!(holes.blocks() * 512 < holes.len() / 4, "{} blocks", holes.blocks());
}

fn a_clone_and_its_source_are_apart(pool: &TempPool) {
    let source = pool.ensure_volume(&instance("abc")).unwrap();
    fs::write(source.join("file"), "before").unwrap();
    let copy = pool.clone_volume(&instance("abc"), &instance("def")).unwrap();
    fs::write(source.join("file"), "after").unwrap();
    fs::write(copy.join("more"), "x").unwrap();
    assert_eq!(fs::read(copy.join("file")).unwrap(), b"before");
    assert!(!source.join("more").exists());
    pool.delete_volume(&instance("abc")).unwrap();
    assert_eq!(fs::read(copy.join("file")).unwrap(), b"before");
}

fn a_clone_replaces_nothing(pool: &TempPool) {
    let missing = pool.clone_volume(&image("0123"), &instance("abc")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert!(!pool.exists(&instance("abc")).unwrap());
    pool.ensure_volume(&instance("abc")).unwrap();
    let there = pool.ensure_volume(&instance("def")).unwrap();
    fs::write(there.join("kept"), "x").unwrap();
    let taken = pool.clone_volume(&instance("abc"), &instance("def")).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict, "{taken}");
    assert!(there.join("kept").exists());
    assert_eq!(pool.list(VolumeKind::Instance).unwrap(), ["abc", "def"]);
}

fn what_a_crash_left_is_listed_and_deleted(pool: &TempPool) {
    pool.ensure_volume(&image("0123")).unwrap();
    // As a copy or a removal that was cut short leaves it.
    let dir = pool.volume_path(&instance("abc")).parent().unwrap().to_owned();
    fs::create_dir_all(dir.join(".abc.tmp/rootfs")).unwrap();
    pool.ensure_volume(&instance("def")).unwrap();
    assert_eq!(pool.list(VolumeKind::Image).unwrap(), ["0123"]);
    assert_eq!(pool.list(VolumeKind::Instance).unwrap(), ["abc", "def"]);
    assert_eq!(pool.unfinished(VolumeKind::Instance).unwrap(), ["abc"]);
    assert!(!pool.exists(&instance("abc")).unwrap());
    pool.clone_volume(&instance("def"), &instance("abc")).unwrap();
    assert!(pool.unfinished(VolumeKind::Instance).unwrap().is_empty());
    pool.delete_volume(&instance("abc")).unwrap();
    pool.delete_volume(&image("0123")).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

fn opening_again_finds_the_same_pool(pool: &TempPool) {
    pool.ensure_volume(&instance("abc")).unwrap();
    let again = pool.open().unwrap();
    assert_eq!(again.name(), pool.name());
    assert!(again.exists(&instance("abc")).unwrap());
    assert_eq!(again.volume_path(&instance("abc")), pool.volume_path(&instance("abc")));
}

fn a_pool_with_volumes_is_not_destroyed(mut pool: TempPool) {
    pool.ensure_volume(&instance("abc")).unwrap();
    let error = pool.destroy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("instances/abc"), "{error}");
    assert!(pool.exists(&instance("abc")).unwrap());
    pool.delete_volume(&instance("abc")).unwrap();
    pool.destroy().unwrap();
    pool.destroy().unwrap();
    pool.assert_nothing_left();
    assert_eq!(pool.open().err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
}

fn a_pool_that_is_not_there_says_so(pool: &TempPool) {
    pool.ensure_volume(&instance("abc")).unwrap();
    // An unmounted disk leaves an empty directory; taken for the pool, the next sweep would forget every volume.
    let restore = pool.make_vanish();
    let error = pool.list(VolumeKind::Instance).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains(pool.name().as_str()), "{error}");
    assert_eq!(pool.exists(&instance("abc")).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(pool.delete_volume(&instance("abc")).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(pool.ensure_volume(&instance("def")).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(pool.open().err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    restore();
    let again: Arc<dyn Pool> = pool.open().unwrap();
    assert_eq!(again.list(VolumeKind::Instance).unwrap(), ["abc"]);
}

fn creating_over_volumes_is_refused(pool: &TempPool) {
    pool.create().unwrap();
    pool.ensure_volume(&instance("abc")).unwrap();
    assert_eq!(pool.create().unwrap_err().kind(), ErrorKind::Conflict);
    assert!(pool.exists(&instance("abc")).unwrap());
}

fn a_limit_holds_or_is_refused_with_the_reason(pool: &TempPool) {
    let volume = instance("abc");
    let path = pool.ensure_volume(&volume).unwrap();
    pool.set_quota(&volume, None).unwrap();
    match pool.set_quota(&volume, Some(ByteSize::mib(16))) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().len() > 40, "a reason: {error}");
            assert_eq!(pool.usage(&volume).unwrap(), None);
        }
        Ok(()) => {
            let refused = write_mib(&path.join("file"), 32).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(122), "EDQUOT, not {refused}");
            // A full volume can still be snapshotted, cloned, and given more.
            pool.clone_volume(&volume, &instance("def")).unwrap();
            pool.delete_volume(&instance("def")).unwrap();
            pool.set_quota(&volume, Some(ByteSize::mib(64))).unwrap();
            write_mib(&path.join("file"), 32).unwrap();
            rustix::fs::syncfs(File::open(&path).unwrap()).unwrap();
            let usage = pool.usage(&volume).unwrap().unwrap();
            // Up to 16 MiB more: what the deleted clone shared may not be freed yet.
            assert!((32 << 20..56 << 20).contains(&usage), "{usage}");
            assert_eq!(pool.usages(VolumeKind::Instance).unwrap(), [("abc".to_owned(), usage)].into());
            pool.set_quota(&volume, None).unwrap();
            write_mib(&path.join("file2"), 96).unwrap();
        }
    }
}

fn a_snapshot_keeps_what_the_volume_later_loses(pool: &TempPool) {
    let Some(snapshots) = pool.snapshots() else { return };
    let volume = instance("abc");
    let path = pool.ensure_volume(&volume).unwrap();
    fs::write(path.join("file"), "before").unwrap();
    let kept = snapshots.create_snapshot(&volume, "snap0").unwrap();
    assert_eq!(snapshots.create_snapshot(&volume, "snap0").unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(snapshots.create_snapshot(&volume, "../x").unwrap_err().kind(), ErrorKind::BadRequest);
    fs::write(path.join("file"), "after").unwrap();
    assert_eq!(fs::read(kept.join("file")).unwrap(), b"before");
    assert!(File::create(kept.join("new")).is_err());
    assert_eq!(snapshots.list_snapshots(&volume).unwrap(), ["snap0"]);

    let other = snapshots.clone_snapshot(&volume, "snap0", &instance("def")).unwrap();
    assert_eq!(fs::read(other.join("file")).unwrap(), b"before");
    fs::write(other.join("file"), "its own").unwrap();

    let limited = pool.set_quota(&volume, Some(ByteSize::mib(16))).is_ok();
    snapshots.restore_snapshot(&volume, "snap0").unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap(), b"before");
    fs::write(path.join("file"), "writable").unwrap();
    assert_eq!(write_mib(&path.join("big"), 32).is_err(), limited, "the limit stays");
    assert_eq!(snapshots.restore_snapshot(&volume, "snap9").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(pool.unfinished(VolumeKind::Instance).unwrap().is_empty());

    snapshots.delete_snapshot(&volume, "snap0").unwrap();
    snapshots.delete_snapshot(&volume, "snap0").unwrap();
    assert!(snapshots.list_snapshots(&volume).unwrap().is_empty());
    let last = snapshots.create_snapshot(&volume, "snap1").unwrap();
    pool.delete_volume(&volume).unwrap();
    assert!(!last.exists());
}

fn the_room_is_told(pool: &TempPool) {
    let space = pool.space().unwrap();
    assert!(space.total > 100 << 20 && space.free <= space.total && space.used <= space.total, "{space:?}");
}

#[test]
fn a_pool_needs_an_empty_directory() {
    if !need_root() {
        return;
    }
    let pool = TempPool::uncreated("dir", &[]);
    fs::create_dir_all(&pool.paths.mount).unwrap();
    fs::write(pool.paths.mount.join("precious"), "x").unwrap();
    let error = pool.create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("precious"), "{error}");
    assert_eq!(fs::read_dir(&pool.paths.mount).unwrap().count(), 1);
}

#[test]
fn a_copy_that_does_not_fit_leaves_nothing() {
    if !need_root() {
        return;
    }
    let pool = TempPool::in_filesystem("tmpfs", 64);
    let source = pool.ensure_volume(&instance("abc")).unwrap();
    fs::create_dir(source.join("small")).unwrap();
    for number in 0..8 {
        write_mib(&source.join(format!("{number}")), 5).unwrap();
    }
    let error = pool.clone_volume(&instance("abc"), &instance("def")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!(pool.list(VolumeKind::Instance).unwrap(), ["abc"]);
    let free = pool.space().unwrap().free;
    assert!(free > 16 << 20, "{free}");
}

#[test]
fn copies_share_their_data_where_there_are_reflinks() {
    if !(need_root() && need_filesystem("xfs")) {
        return;
    }
    let pool = TempPool::in_filesystem("xfs", 400);
    let source = pool.ensure_volume(&instance("abc")).unwrap();
    write_mib(&source.join("large"), 64).unwrap();
    // What is reserved ahead of writing is given back meanwhile, so that use may even shrink.
    let before = pool.space().unwrap().used;
    pool.clone_volume(&instance("abc"), &instance("def")).unwrap();
    let grown = pool.space().unwrap().used.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown}");
    assert_eq!(pool.shortcomings().len(), 1, "{:?}", pool.shortcomings());
}

#[test]
fn a_socket_is_not_copied_and_a_fifo_is() {
    if !need_root() {
        return;
    }
    let pool = TempPool::new("dir", &[]);
    let source = pool.ensure_volume(&instance("abc")).unwrap();
    fill(&source);
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let copy = pool.clone_volume(&instance("abc"), &instance("def")).unwrap();
    assert!(!copy.join("socket").exists());
    assert!(copy.join("rootfs/fifo").symlink_metadata().unwrap().file_type().is_fifo());
}

#[test]
fn the_drivers_tell_their_versions() {
    let names: Vec<_> = drivers().iter().map(|driver| (driver.name, driver.remote)).collect();
    assert_eq!(names, [("btrfs", false), ("dir", false)]);
    assert_eq!(drivers()[1].version().as_deref(), Some("1"));
    if need_btrfs() {
        assert!(drivers()[0].version().unwrap().starts_with(|c: char| c.is_ascii_digit()));
    }
}

#[test]
fn the_default_pool_is_one_that_this_machine_can_make() {
    let config = default_config(Path::new("/var/lib/stapes"));
    stapes_storage::validate(&config).unwrap();
    assert_eq!(config.name.as_str(), "default");
    let own = VolumeRef::new(VolumeKind::Custom, "data").unwrap();
    assert_eq!(own.to_string(), "custom/data");
}
