//! Keys of projects, and requirements of images.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ANY_INT, Key,
    Kind::{Bool, Bytes, Str},
};

pub(in crate::keys) static PROJECT_FEATURES: &[Key] = &[
    Key::new("features.images", Bool, "Whether to use a separate set of images for the project")
        .default("false")
        .refused("projects other than the default are not built yet")
        .long("This setting applies to both images and image aliases."),
    Key::new("features.networks", Bool, "Whether to use a separate set of networks for the project")
        .default("false")
        .refused("projects other than the default are not built yet")
        .long("This feature requires the server to be configured for OVN."),
    Key::new("features.networks.zones", Bool, "Whether to use a separate set of network zones for the project")
        .default("false")
        .refused("projects other than the default are not built yet"),
    Key::new("features.profiles", Bool, "Whether to use a separate set of profiles for the project")
        .default("false")
        .refused("projects other than the default are not built yet"),
    Key::new("features.storage.buckets", Bool, "Whether to use a separate set of storage buckets for the project")
        .default("false")
        .refused("projects other than the default are not built yet"),
    Key::new("features.storage.volumes", Bool, "Whether to use a separate set of storage volumes for the project")
        .default("false")
        .refused("projects other than the default are not built yet"),
];

pub(in crate::keys) static PROJECT_LIMITS: &[Key] = &[
    Key::new("limits.containers", ANY_INT, "Maximum number of containers that can be created in the project")
        .refused("projects other than the default are not built yet"),
    Key::new("limits.cpu", ANY_INT, "Maximum number of CPUs to use in the project")
        .refused("projects other than the default are not built yet")
        .long("This value is the maximum value for the sum of the individual {config:option}`instance-resource-limits:limits.cpu` configurations set on the instances of the project."),
    Key::new("limits.disk", Bytes, "Maximum disk space used by the project")
        .refused("projects other than the default are not built yet")
        .long("This value is the maximum value of the aggregate disk space used by all instance volumes, custom volumes, and images of the project."),
    Key::new("limits.disk.pool.POOL_NAME", Bytes, "Maximum disk space used by the project on this pool")
        .refused("projects other than the default are not built yet")
        .long(r#"This value is the maximum value of the aggregate disk
space used by all instance volumes, custom volumes, and images of the
project on this specific storage pool."#),
    Key::new("limits.instances", ANY_INT, "Maximum number of instances that can be created in the project")
        .refused("projects other than the default are not built yet"),
    Key::new("limits.memory", Bytes, "Usage limit for the host's memory for the project")
        .refused("projects other than the default are not built yet")
        .long("The value is the maximum value for the sum of the individual {config:option}`instance-resource-limits:limits.memory` configurations set on the instances of the project."),
    Key::new("limits.networks", ANY_INT, "Maximum number of networks that the project can have")
        .refused("projects other than the default are not built yet"),
    Key::new("limits.processes", ANY_INT, "Maximum number of processes within the project")
        .refused("projects other than the default are not built yet")
        .long("This value is the maximum value for the sum of the individual {config:option}`instance-resource-limits:limits.processes` configurations set on the instances of the project."),
    Key::new("limits.virtual-machines", ANY_INT, "Maximum number of VMs that can be created in the project")
        .refused("projects other than the default are not built yet"),
];

pub(in crate::keys) static PROJECT_RESTRICTED: &[Key] = &[
    Key::new("restricted", Bool, "Whether to block access to security-sensitive features").default("false")
        .refused("projects other than the default are not built yet")
        .long(r#"This option must be enabled to allow the `restricted.*` keys to take effect.
To temporarily remove the restrictions, you can disable this option instead of clearing the related keys."#),
    Key::new("restricted.backups", Str, "Whether to prevent creating instance or volume backups")
        .default("block").refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.cluster.groups", Str, "Cluster groups that can be targeted")
        .refused("projects other than the default are not built yet")
        .long("If specified, this option prevents targeting cluster groups other than the provided ones."),
    Key::new("restricted.cluster.target", Str, "Whether to prevent targeting of cluster members")
        .default("block").refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow` or `block`.
When set to `allow`, this option allows targeting of cluster members (either directly or via a group) when creating or moving instances."#),
    Key::new("restricted.containers.interception", Str, "Whether to prevent using system call interception options")
        .default("block").refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow`, `block`, or `full`.
When set to `allow`, interception options that are usually safe are allowed.
File system mounting remains blocked."#),
    Key::new("restricted.containers.lowlevel", Str, "Whether to prevent using low-level container options")
        .default("block").refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow` or `block`.
When set to `allow`, low-level container options like {config:option}`instance-raw:raw.lxc`, {config:option}`instance-raw:raw.idmap`, `volatile.*`, etc. can be used."#),
    Key::new("restricted.containers.nesting", Str, "Whether to prevent running nested Incus").default("block")
        .refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow` or `block`.
When set to `allow`, {config:option}`instance-security:security.nesting` can be set to `true` for an instance."#),
    Key::new("restricted.containers.privilege", Str, "Which settings for privileged containers to prevent")
        .default("unprivileged").refused("projects other than the default are not built yet")
        .long(r#"Possible values are `unprivileged`, `isolated`, and `allow`.

- When set to `unprivileged`, this option prevents setting {config:option}`instance-security:security.privileged` to `true`.
- When set to `isolated`, this option prevents setting {config:option}`instance-security:security.privileged` to `true` and {config:option}`instance-security:security.idmap.isolated` to `false`.
- When set to `allow`, there is no restriction."#),
    Key::new("restricted.devices.disk", Str, "Which disk devices can be used").default("managed")
        .refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow`, `block`, or `managed`.

- When set to `block`, this option prevents using all disk devices except the root one.
- When set to `managed`, this option allows using disk devices only if `pool=` is set.
- When set to `allow`, there is no restriction on which disk devices can be used."#),
    Key::new("restricted.devices.disk.paths", Str, "Which `source` can be used for `disk` devices")
        .refused("projects other than the default are not built yet")
        .long(r#"If {config:option}`project-restricted:restricted.devices.disk` is set to `allow`, this option controls which `source` can be used for `disk` devices.
Specify a comma-separated list of path prefixes that restrict the `source` setting.
If this option is left empty, all paths are allowed."#),
    Key::new("restricted.devices.gpu", Str, "Whether to prevent using devices of type `gpu`").default("block")
        .refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.devices.infiniband", Str, "Whether to prevent using devices of type `infiniband`")
        .default("block").refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.devices.nic", Str, "Which network devices can be used").default("managed")
        .refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow`, `block`, or `managed`.

- When set to `block`, this option prevents using all network devices.
- When set to `managed`, this option allows using network devices only if `network=` is set.
- When set to `allow`, there is no restriction on which network devices can be used."#),
    Key::new("restricted.devices.pci", Str, "Whether to prevent using devices of type `pci`").default("block")
        .refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.devices.proxy", Str, "Whether to prevent using devices of type `proxy`")
        .default("block").refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.devices.unix-block", Str, "Whether to prevent using devices of type `unix-block`")
        .default("block").refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.devices.unix-char", Str, "Whether to prevent using devices of type `unix-char`")
        .default("block").refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.devices.unix-hotplug", Str, "Whether to prevent using devices of type `unix-hotplug`")
        .default("block").refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.devices.usb", Str, "Whether to prevent using devices of type `usb`").default("block")
        .refused("projects other than the default are not built yet")
        .long("Possible values are `allow` or `block`."),
    Key::new("restricted.idmap.gid", Str, "Which host GID ranges are allowed in `raw.idmap`")
        .refused("projects other than the default are not built yet")
        .long("This option specifies the host GID ranges that are allowed in the instance's {config:option}`instance-raw:raw.idmap` setting."),
    Key::new("restricted.idmap.uid", Str, "Which host UID ranges are allowed in `raw.idmap`")
        .refused("projects other than the default are not built yet")
        .long("This option specifies the host UID ranges that are allowed in the instance's {config:option}`instance-raw:raw.idmap` setting."),
    Key::new("restricted.images.servers", Str, "Which image servers (HTTP host) are allowed for us in this project")
        .refused("projects other than the default are not built yet")
        .long(r#"Specify a comma-delimited list of image servers domains that are allowed for use in this project.
If this option is not set, all image servers are accessible."#),
    Key::new("restricted.networks.access", Str, "Which network names are allowed for use in this project")
        .refused("projects other than the default are not built yet")
        .long(r#"Specify a comma-delimited list of network names that are allowed for use in this project.
If this option is not set, all networks are accessible.

In restricted projects with {config:option}`project-features:features.networks` enabled,
the listed networks from the default project are shared into the project and their names
can't be used for the project's own networks.

Note that this setting depends on the {config:option}`project-restricted:restricted.devices.nic` setting."#),
    Key::new("restricted.networks.integrations", Str, "Which network integrations can be used in this project")
        .refused("projects other than the default are not built yet")
        .long("Specify a comma-delimited list of network integrations that can be used by networks in this project."),
    Key::new("restricted.networks.subnets", Str, "Which network subnets are allocated for use in this project")
        .default("block").refused("projects other than the default are not built yet")
        .long(r#"Specify a comma-delimited list of network subnets from the uplink networks that are allocated for use in this project.
Use the form `<uplink>:<subnet>`."#),
    Key::new("restricted.networks.uplinks", Str, "Which network names can be used as uplink in this project")
        .refused("projects other than the default are not built yet")
        .long("Specify a comma-delimited list of network names that can be used as uplink for networks in this project."),
    Key::new("restricted.networks.zones", Str, "Which network zones can be used in this project")
        .default("block").refused("projects other than the default are not built yet")
        .long("Specify a comma-delimited list of network zones that can be used (or something under them) in this project."),
    Key::new("restricted.snapshots", Str, "Whether to prevent creating instance or volume snapshots")
        .default("block").refused("projects other than the default are not built yet"),
    Key::new("restricted.storage-pools.access", Str, "Which storage pool names are allowed for use in this project")
        .refused("projects other than the default are not built yet")
        .long(r#"Specify a comma-delimited list of storage pool names that are allowed for use in this project.
If this option is not set, all storage pools are accessible."#),
    Key::new("restricted.virtual-machines.lowlevel", Str, "Whether to prevent using low-level VM options")
        .default("block").refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow` or `block`.
When set to `allow`, low-level VM options like {config:option}`instance-raw:raw.qemu`, `volatile.*`, etc. can be used."#),
    Key::new("restricted.virtual-machines.nesting", Str, "Whether to prevent using nested virtualization")
        .default("allow").refused("projects other than the default are not built yet")
        .long(r#"Possible values are `allow` or `block`.
When set to `block`, {config:option}`instance-security:security.nesting` must be set to `false` on all virtual machines, turning off nested virtualization."#),
];

pub(in crate::keys) static PROJECT_SPECIFIC: &[Key] = &[
    Key::new("backups.compression_algorithm", Str, "Compression algorithm to use for backups")
        .stored("it is not built yet")
        .long(r#"Specify which compression algorithm to use for backups in this project.
Possible values are `bzip2`, `gzip`, `lz4`, `lzma`, `xz`, `zstd` or `none`."#),
    Key::new("images.auto_update_cached", Bool, "Whether to automatically update cached images in the project")
        .stored("it is not built yet"),
    Key::new("images.auto_update_interval", ANY_INT, "Interval at which to look for updates to cached images")
        .stored("it is not built yet")
        .long(r#"Specify the interval in hours.
To disable looking for updates to cached images, set this option to `0`."#),
    Key::new("images.compression_algorithm", Str, "Compression algorithm to use for new images in the project")
        .stored("it is not built yet")
        .long("Possible values are `bzip2`, `gzip`, `lz4`, `lzma`, `xz`, `zstd` or `none`."),
    Key::new("images.default_architecture", Str, "Default architecture to use in a mixed-architecture cluster")
        .stored("it is not built yet"),
    Key::new("images.remote_cache_expiry", ANY_INT, "When an unused cached remote image is flushed in the project")
        .stored("it is not built yet")
        .long("Specify the number of days after which the unused cached image expires."),
    Key::new("network.hwaddr_pattern", Str, "MAC address template").scope("global")
        .refused("projects other than the default are not built yet")
        .long(r#"Specify a MAC address template, e.g. `10:66:6a:xx:xx:xx`, to use within the cluster.
Every `x` in the template will be replaced by a random character in `0`–`f`.
Beware of the birthday paradox! A single `xx` block leads to a 10% collision probability with only 8 addresses; for a double `xx:xx` block, 118 addresses; for a triple `xx:xx:xx` block, 1881; for a quadruple `xx:xx:xx:xx` block, 30084. We provide absolutely no guardrail against that."#),
    Key::new("user.*", Str, "User-provided free-form key/value pairs"),
];

pub(in crate::keys) static IMAGE_REQUIREMENTS: &[Key] = &[
    Key::new("requirements.cdrom_agent", Bool, "If set to `true`, indicates that the VM requires an `agent:config` disk be added.")
        .stored("it concerns virtual machines or old hosts"),
    Key::new("requirements.cdrom_cloud_init", Bool, "If set to `true`, indicates that the VM requires a `cloud-init:config` disk be present every time `cloud-init` should be run.")
        .stored("it concerns virtual machines or old hosts"),
    Key::new("requirements.cgroup", Str, "If set to `v1`, indicates that the image requires the host to run cgroup v1.")
        .stored("it concerns virtual machines or old hosts"),
    Key::new("requirements.nesting", Bool, "If set to `true`, indicates that the image cannot work without nesting enabled."),
    Key::new("requirements.privileged", Bool, "If set to `false`, indicates that the image cannot work as a privileged container."),
    Key::new("requirements.secureboot", Bool, "If set to `false`, indicates that the image cannot boot under secure boot.")
        .stored("it concerns virtual machines or old hosts"),
];
