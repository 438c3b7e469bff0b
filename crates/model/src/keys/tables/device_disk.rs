//! Keys of disk devices.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    Key,
    Kind::{Bool, Bytes, Enum, Int, Path, Str},
};

pub(in crate::keys) static DEVICES_DISK: &[Key] = &[
    Key::new("attached", Bool, "Only for VMs: Whether the disk is attached or ejected").default("true")
        .refused("it is not built yet"),
    Key::new("boot.priority", Int { min: 0, max: u32::MAX as i64 }, "Boot priority for VMs (higher value boots first)"),
    Key::new("ceph.cluster_name", Str, "The cluster name of the Ceph cluster (required for Ceph or CephFS sources)")
        .default("ceph").refused("it is not built yet"),
    Key::new("ceph.user_name", Str, "The user name of the Ceph cluster (required for Ceph or CephFS sources)")
        .default("admin").refused("it is not built yet"),
    Key::new("dependent", Bool, "Specifies if the disk is instance dependent").default("false")
        .refused("it is not built yet"),
    Key::new("initial.*", Str, "Initial volume configuration for instance root disk devices")
        .refused("it is not built yet")
        .long(r#"For root disk devices, this is used to override the storage pool's default volume
configuration when creating the instance's root volume.

For custom volumes, only `initial.uid`, `initial.gid` and `initial.mode` are
accepted and they are used when auto-creating sub-directories inside the custom
volume (when the `source` includes a sub-path that doesn't exist).

`initial.uid`, `initial.gid` and `initial.mode` are also used to set the ownership
and mode of the file system when the `source` is `tmpfs:` or `tmpfs-overlay:`."#),
    Key::new("io.bus", Enum(&["virtio-scsi", "virtio-blk", "nvme"]), "Only for VMs: Override the bus for the device")
        .default_text("`virtio-scsi` for block, `auto` for file system")
        .long(r#"This controls what bus a disk device should be attached to.

For block devices (disks), this is one of:
- `nvme`
- `virtio-blk`
- `virtio-scsi` (default)
- `usb`

For file systems (shared directories or custom volumes), this is one of:
- `9p`
- `auto` (default) (`virtiofs` if possible, else `9p`)
- `virtiofs`

`9p` doesn't support hotplugging and `virtiofs` doesn't support live migration. `auto` tries
to use `virtiofs` if possible (`migration.stateful` not set to `true` and host support for
`virtiofsd`) and falls back to `9p` otherwise."#),
    Key::new("io.cache", Str, "Only for VMs: Override the caching mode for the device").default("none")
        .refused("it is not built yet")
        .long(r#"This controls what bus a disk device should be attached to.

For block devices (disks), this is one of:
- `none` (default)
- `writeback`
- `unsafe`

For file systems (shared directories or custom volumes), this is one of:
- `none` (default)
- `metadata`
- `unsafe`"#),
    Key::new("limits.max", Str, "I/O limit in byte/s and/or IOPS for both read and write (same as setting both `limits.read` and `limits.write`)")
        .refused("it is not built yet"),
    Key::new("limits.max.burst", Str, "I/O limit in byte/s and/or IOPS that both reads and writes may burst up to (same as setting both `limits.read.burst` and `limits.write.burst`)")
        .refused("it is not built yet"),
    Key::new("limits.max.burst.length", Str, "How long the burst limits may be sustained for (same as setting both `limits.read.burst.length` and `limits.write.burst.length`)")
        .default("1s").refused("it is not built yet"),
    Key::new("limits.read", Str, "I/O limit in byte/s (various suffixes supported, see {ref}`instances-limit-units`) and/or in IOPS (must be suffixed with `iops`), comma separated when specifying both - see also {ref}`storage-configure-IO`")
        .refused("it is not built yet"),
    Key::new("limits.read.burst", Str, "I/O limit in byte/s and/or IOPS that reads may burst up to for `limits.read.burst.length` (only for virtual machines) - see also {ref}`storage-configure-IO`")
        .refused("it is not built yet"),
    Key::new("limits.read.burst.length", Str, "How long `limits.read.burst` may be sustained for before falling back to the sustained limit")
        .default("1s").refused("it is not built yet"),
    Key::new("limits.write", Str, "I/O limit in byte/s (various suffixes supported, see {ref}`instances-limit-units`) and/or in IOPS (must be suffixed with `iops`), comma separated when specifying both - see also {ref}`storage-configure-IO`")
        .refused("it is not built yet"),
    Key::new("limits.write.burst", Str, "I/O limit in byte/s and/or IOPS that writes may burst up to for `limits.write.burst.length` (only for virtual machines) - see also {ref}`storage-configure-IO`")
        .refused("it is not built yet"),
    Key::new("limits.write.burst.length", Str, "How long `limits.write.burst` may be sustained for before falling back to the sustained limit")
        .default("1s").refused("it is not built yet"),
    Key::new("path", Path, "Path inside the instance where the disk will be mounted (only for file system disk devices)")
        .required("yes")
        .long(r#"This controls which path inside the instance the disk should be mounted on.

With containers, this option supports mounting file system disk devices, and paths and single files within them.

With VMs, this option supports mounting file system disk devices and paths within them. Mounting single files is not supported."#),
    Key::new("pool", Str, "The storage pool to which the disk device belongs (only applicable for storage volumes managed by Incus)"),
    Key::new("propagation", Enum(&["private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable"]), "Controls how a bind-mount is shared between the instance and the host (can be one of `private`, the default, or `shared`, `slave`, `unbindable`,  `rshared`, `rslave`, `runbindable`,  `rprivate`; see the Linux Kernel [shared subtree](https://www.kernel.org/doc/Documentation/filesystems/sharedsubtree.txt) documentation for a full explanation)")
        .refused("it is not built yet"),
    Key::new("raw.mount.options", Str, "File system specific mount options").refused("it is not built yet"),
    Key::new("readonly", Bool, "Controls whether to make the mount read-only").default("false"),
    Key::new("recursive", Bool, "Controls whether to recursively mount the source path").default("false"),
    Key::new("required", Bool, "Controls whether to fail if the source doesn't exist").default("true"),
    Key::new("shift", Bool, "Sets up a shifting overlay to translate the source UID/GID to match the instance (only for containers)")
        .default("false"),
    Key::new("size", Bytes, "Disk size in bytes (various suffixes supported, see {ref}`instances-limit-units`) - only supported for the `rootfs` (`/`)"),
    Key::new("size.state", Bytes, "Same as `size`, but applies to the file-system volume used for saving runtime state in VMs")
        .refused("it is not built yet"),
    Key::new("source", Str, "Source of a file system or block device (see {ref}`devices-disk-types` for details)")
        .required("yes"),
    Key::new("wwn", Str, "Only for VMs: Set the disk World Wide Name (only supported on `virtio-scsi` bus)")
        .refused("it is not built yet"),
];
