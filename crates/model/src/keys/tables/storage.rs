//! Keys of storage pools and volumes, by driver.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ID, Key,
    Kind::{Bool, Bytes, Cron, Duration, Mode, MountOptions, Path, Str},
};

pub(in crate::keys) static STORAGE_BTRFS_COMMON: &[Key] = &[
    Key::new("btrfs.create_options", Str, "Additional options to pass to `mkfs.btrfs` when creating the pool")
        .scope("global"),
    Key::new("btrfs.mount_options", MountOptions, "Mount options for block devices").default("user_subvol_rm_allowed")
        .scope("global"),
    Key::new("size", Bytes, "Size of the storage pool when creating loop-based pools (in bytes, suffixes supported, can be increased to grow storage pool)")
        .default_text("auto (20% of free disk space, >= 5 GiB and <= 30 GiB)").scope("local"),
    Key::new("source", Path, "Path to an existing block device, loop file or Btrfs subvolume").scope("local"),
    Key::new("source.wipe", Bool, "Wipe the block device specified in `source` prior to creating the storage pool")
        .default("false").scope("local"),
    Key::new("rsync.bwlimit", Str, "The upper limit to be placed on the socket I/O when `rsync` must be used to transfer storage entities")
        .default_text("`0` (no limit)").scope("global").stored("pools on other hosts are not copied to yet"),
    Key::new("rsync.compression", Bool, "Whether to use compression while migrating storage pools")
        .default("true").scope("global").stored("pools on other hosts are not copied to yet"),
    Key::new("user.*", Str, "Free-form user key/value storage"),
];

pub(in crate::keys) static STORAGE_DIR_COMMON: &[Key] = &[
    Key::new(
        "rsync.bwlimit",
        Str,
        "The upper limit to be placed on the socket I/O when `rsync` must be used to transfer storage entities",
    )
    .default_text("`0` (no limit)")
    .scope("global")
    .stored("pools on other hosts are not copied to yet"),
    Key::new("rsync.compression", Bool, "Whether to use compression while migrating storage pools")
        .default("true")
        .scope("global")
        .stored("pools on other hosts are not copied to yet"),
    Key::new("source", Path, "Path to an existing directory").scope("local"),
    Key::new("user.*", Str, "Free-form user key/value storage"),
];

pub(in crate::keys) static STORAGE_VOLUME_BTRFS_COMMON: &[Key] = &[
    Key::new("btrfs.compression", Str, "Compression algorithm to set on the volume, mapping to the Btrfs `compression` property (for example `zstd`, `lzo`, `zlib` or `none`)")
        .default_text("same as `volume.btrfs.compression`").condition("appropriate driver")
        .refused("custom volumes are not built yet"),
    Key::new("initial.gid", ID, "GID of the volume owner in the instance")
        .default_text("same as `volume.initial.gid` or `0`")
        .condition("custom volume with content type `filesystem`").refused("custom volumes are not built yet"),
    Key::new("initial.mode", Mode, "Mode of the volume in the instance")
        .default_text("same as `volume.initial.mode` or `711`")
        .condition("custom volume with content type `filesystem`").refused("custom volumes are not built yet"),
    Key::new("initial.uid", ID, "UID of the volume owner in the instance")
        .default_text("same as `volume.initial.uid` or `0`")
        .condition("custom volume with content type `filesystem`").refused("custom volumes are not built yet"),
    Key::new("security.shared", Bool, "Enable sharing the volume across multiple instances")
        .default_text("same as `volume.security.shared` or `false`").condition("custom block volume")
        .refused("custom volumes are not built yet"),
    Key::new("security.shifted", Bool, "{{enable_ID_shifting}}")
        .default_text("same as `volume.security.shifted` or `false`").condition("custom volume")
        .refused("custom volumes are not built yet"),
    Key::new("security.unmapped", Bool, "Disable ID mapping for the volume")
        .default_text("same as `volume.security.unmapped` or `false`").condition("custom volume")
        .refused("custom volumes are not built yet"),
    Key::new("size", Bytes, "Size/quota of the storage volume").default_text("same as `volume.size`")
        .condition("appropriate driver"),
    Key::new("snapshots.expiry", Duration, "{{snapshot_expiry_format}}")
        .default_text("same as `volume.snapshot.expiry`").condition("custom volume")
        .stored("scheduled snapshots are not built yet").long("{{snapshot_expiry_detail}}"),
    Key::new("snapshots.expiry.manual", Duration, "{{snapshot_expiry_format}}")
        .default_text("same as `volume.snapshot.expiry.manual`").condition("custom volume")
        .stored("scheduled snapshots are not built yet").long("{{snapshot_expiry_detail}}"),
    Key::new("snapshots.pattern", Str, "{{snapshot_pattern_format}} [^*]")
        .default_text("same as `volume.snapshot.pattern` or `snap%d`").condition("custom volume")
        .stored("scheduled snapshots are not built yet"),
    Key::new("snapshots.schedule", Cron, "{{snapshot_schedule_format}}")
        .default_text("same as `volume.snapshot.schedule`").condition("custom volume")
        .stored("scheduled snapshots are not built yet"),
    Key::new("user.*", Str, "Free-form user key/value storage").refused("custom volumes are not built yet"),
];

pub(in crate::keys) static STORAGE_VOLUME_DIR_COMMON: &[Key] = &[
    Key::new("initial.gid", ID, "GID of the volume owner in the instance")
        .default_text("same as `volume.initial.gid` or `0`")
        .condition("custom volume with content type `filesystem`")
        .refused("custom volumes are not built yet"),
    Key::new("initial.mode", Mode, "Mode of the volume in the instance")
        .default_text("same as `volume.initial.mode` or `711`")
        .condition("custom volume with content type `filesystem`")
        .refused("custom volumes are not built yet"),
    Key::new("initial.uid", ID, "UID of the volume owner in the instance")
        .default_text("same as `volume.initial.uid` or `0`")
        .condition("custom volume with content type `filesystem`")
        .refused("custom volumes are not built yet"),
    Key::new("security.shared", Bool, "Enable sharing the volume across multiple instances")
        .default_text("same as `volume.security.shared` or `false`")
        .condition("custom block volume")
        .refused("custom volumes are not built yet"),
    Key::new("security.shifted", Bool, "{{enable_ID_shifting}}")
        .default_text("same as `volume.security.shifted` or `false`")
        .condition("custom volume")
        .refused("custom volumes are not built yet"),
    Key::new("size", Bytes, "Size/quota of the storage volume")
        .default_text("same as `volume.size`")
        .condition("appropriate driver")
        .refused("custom volumes are not built yet"),
    Key::new("security.unmapped", Bool, "Disable ID mapping for the volume")
        .default_text("same as `volume.security.unmapped` or `false`")
        .condition("custom volume")
        .refused("custom volumes are not built yet"),
    Key::new("snapshots.expiry", Duration, "{{snapshot_expiry_format}}")
        .default_text("same as `volume.snapshot.expiry`")
        .condition("custom volume")
        .stored("scheduled snapshots are not built yet")
        .long("{{snapshot_expiry_detail}}"),
    Key::new("snapshots.expiry.manual", Duration, "{{snapshot_expiry_format}}")
        .default_text("same as `volume.snapshot.expiry.manual`")
        .condition("custom volume")
        .stored("scheduled snapshots are not built yet")
        .long("{{snapshot_expiry_detail}}"),
    Key::new("snapshots.pattern", Str, "{{snapshot_pattern_format}}  [^*]")
        .default_text("same as `volume.snapshot.pattern` or `snap%d`")
        .condition("custom volume")
        .stored("scheduled snapshots are not built yet"),
    Key::new("snapshots.schedule", Cron, "{{snapshot_schedule_format}}")
        .default_text("same as `volume.snapshot.schedule`")
        .condition("custom volume")
        .stored("scheduled snapshots are not built yet"),
    Key::new("user.*", Str, "Free-form user key/value storage").refused("custom volumes are not built yet"),
];
