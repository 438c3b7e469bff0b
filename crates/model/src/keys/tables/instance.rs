//! Keys of instances and profiles, but for `security.*` and `volatile.*`.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    ANY_INT, Key,
    Kind::{Blob, Bool, BoolOr, Bytes, CpuAllowance, Cpus, Cron, Duration, Enum, Int, Memory, Nodes, Rlimit, Str},
};

pub(in crate::keys) static INSTANCE_BOOT: &[Key] = &[
    Key::new("boot.autorestart", Bool, "Whether to automatically restart an instance on unexpected exit")
        .long("If set to `true` will attempt up to 10 restarts over a 1 minute period upon unexpected instance exit."),
    Key::new("boot.autostart", BoolOr("last-state"), "Whether to always start the instance when the daemon starts")
        .long("If unset or set to `last-state`, restores the last state."),
    Key::new("boot.autostart.delay", Int { min: 0, max: 86_400 }, "Delay after starting the instance")
        .default("0")
        .long("The number of seconds to wait after the instance started before starting the next one."),
    Key::new("boot.autostart.priority", ANY_INT, "What order to start the instances in").long(
        r#"The instance with the highest value is started first.
Instances without a priority set will be started (with some parallelism) ahead of
instances with a priority set."#,
    ),
    Key::new(
        "boot.host_shutdown_action",
        Enum(&["stop", "force-stop", "stateful-stop"]),
        "What action to take on the instance when the host is shut down",
    )
    .default("stop")
    .live()
    .long(
        r#"Action to take on host shut down

Valid values are: `stop`, `force-stop` or `stateful-stop`"#,
    ),
    Key::new(
        "boot.host_shutdown_timeout",
        Int { min: 0, max: 86_400 },
        "How long to wait for the instance to shut down",
    )
    .default("30")
    .live()
    .long("Number of seconds to wait for the instance to shut down before it is force-stopped."),
    Key::new("boot.stop.priority", ANY_INT, "What order to shut down the instances in")
        .default("0")
        .long("The instance with the highest value is shut down first."),
];

pub(in crate::keys) static INSTANCE_CLOUD_INIT: &[Key] = &[
    Key::new("cloud-init.network-config", Blob, "Network configuration for `cloud-init`")
        .default_text("`DHCP on eth0`")
        .condition("If supported by image")
        .long("The content is used as seed value for `cloud-init`."),
    Key::new("cloud-init.user-data", Blob, "User data for `cloud-init`")
        .default("#cloud-config")
        .condition("If supported by image")
        .long("The content is used as seed value for `cloud-init`."),
    Key::new("cloud-init.vendor-data", Blob, "Vendor data for `cloud-init`")
        .default("#cloud-config")
        .condition("If supported by image")
        .long("The content is used as seed value for `cloud-init`."),
    Key::new("user.network-config", Blob, "Legacy version of `cloud-init.network-config`")
        .default_text("`DHCP on eth0`")
        .condition("If supported by image"),
    Key::new("user.user-data", Blob, "Legacy version of `cloud-init.user-data`")
        .default("#cloud-config")
        .condition("If supported by image"),
    Key::new("user.vendor-data", Blob, "Legacy version of `cloud-init.vendor-data`")
        .default("#cloud-config")
        .condition("If supported by image"),
];

pub(in crate::keys) static INSTANCE_MIGRATION: &[Key] = &[
    Key::new("migration.incremental.memory", Bool, "Whether to use incremental memory transfer")
        .default("false")
        .container()
        .condition("container")
        .live()
        .stored("live migration is not built yet")
        .long("Using incremental memory transfer of the instance's memory can reduce downtime."),
    Key::new(
        "migration.incremental.memory.goal",
        Int { min: 0, max: 100 },
        "Percentage of memory to have in sync before stopping the instance",
    )
    .default("70")
    .container()
    .condition("container")
    .live()
    .stored("live migration is not built yet"),
    Key::new(
        "migration.incremental.memory.iterations",
        ANY_INT,
        "Maximum number of transfer operations to go through before stopping the instance",
    )
    .default("10")
    .container()
    .condition("container")
    .live()
    .stored("live migration is not built yet"),
    Key::new("migration.stateful", Bool, "Whether to allow for stateful stop/start and snapshots")
        .default("false")
        .refused("checkpoint and restore come with live migration, which is not built yet")
        .long("Enabling this option prevents the use of some features that are incompatible with it."),
];

pub(in crate::keys) static INSTANCE_MISCELLANEOUS: &[Key] = &[
    Key::new("agent.nic_config", Bool, "Whether to use the name and MTU of the default network interfaces")
        .default("false").vm().condition("virtual machine").refused("it is not built yet")
        .long(r#"For containers, the name and MTU of the default network interfaces is used for the instance devices.
For virtual machines, set this option to `true` to set the name and MTU of the default network interfaces to be the same as the instance devices."#),
    Key::new("cluster.evacuate", Enum(&["auto", "migrate", "live-migrate", "refresh-migrate", "stop", "stateful-stop", "force-stop"]), "What to do when evacuating the instance")
        .default("auto").stored("clusters are not built yet")
        .long(r#"The `cluster.evacuate` provides control over how instances are handled when a cluster member is being
evacuated.

Available Modes:
  - `auto` *(default)*: The system will automatically decide the best evacuation method based on the
     instance's type and configured devices:
    + If any device is not suitable for migration, the instance will not be migrated (only stopped).
    + Live migration will be used only for virtual machines with the `migration.stateful` setting
      enabled and for which all its devices can be migrated as well.
  - `live-migrate`: Instances are live-migrated to another server. This means the instance remains running
     and operational during the migration process, ensuring minimal disruption.
  - `refresh-migrate`: Instances are migrated to another server through a series of incremental
     transfers, keeping the instance running until the last one. This isn't a live migration, but the
     downtime is limited to the final transfer. Only supported for containers.
  - `migrate`: In this mode, instances are migrated to another server in the cluster. The migration
     process will not be live, meaning there will be a brief downtime for the instance during the
     migration.
  -  `stop`: Instances are not migrated. Instead, they are stopped on the current server.
  -  `stateful-stop`: Instances are not migrated. Instead, they are stopped on the current server
     but with their runtime state (memory) stored on disk for resuming on restore.
  -  `force-stop`: Instances are not migrated. Instead, they are forcefully stopped.

See {ref}`cluster-evacuate` for more information."#),
    Key::new("environment.*", Str, "Free-form environment key/value").live()
        .long("Extra environment variables to set on boot and during exec."),
    Key::new("linux.kernel_modules", Str, "Kernel modules to load before starting the instance").container()
        .condition("container").live().refused("it is not built yet")
        .long("Specify the kernel modules as a comma-separated list."),
    Key::new("linux.sysctl.*", Str, "Override for the corresponding `sysctl` setting in the container")
        .container().condition("container").refused("it is not built yet"),
    Key::new("smbios11.*", Str, "Free-form `SMBIOS Type 11` key/value").live()
        .refused("it is not built yet").long("`SMBIOS Type 11` configuration keys."),
    Key::new("systemd.credential-binary.*", Str, "Systemd credential key/value, where value is Base64 encoded")
        .live().refused("it is not built yet")
        .long("Systemd credential key/value pair passed as a read-only bind mount in containers and as `SMBIOS Type 11` data in virtual machines. The value is Base64 encoded."),
    Key::new("systemd.credential.*", Str, "Systemd credential key/value").live().refused("it is not built yet")
        .long("Systemd credential key/value pair passed as a read-only bind mount in containers and as `SMBIOS Type 11` data in virtual machines."),
    Key::new("user.*", Str, "Free-form user key/value storage").live().long("User keys can be used in search."),
    Key::new("image.*", Str, "Properties of the image that the instance was made from"),
];

pub(in crate::keys) static INSTANCE_NVIDIA: &[Key] = &[
    Key::new("nvidia.driver.capabilities", Str, "What driver capabilities the instance needs")
        .default("compute,utility")
        .container()
        .condition("container")
        .refused("GPUs are not built yet")
        .long("The specified driver capabilities are used to set `libnvidia-container NVIDIA_DRIVER_CAPABILITIES`."),
    Key::new("nvidia.require.cuda", Str, "Required CUDA version")
        .container()
        .condition("container")
        .refused("GPUs are not built yet")
        .long("The specified version expression is used to set `libnvidia-container NVIDIA_REQUIRE_CUDA`."),
    Key::new("nvidia.require.driver", Str, "Required driver version")
        .container()
        .condition("container")
        .refused("GPUs are not built yet")
        .long("The specified version expression is used to set `libnvidia-container NVIDIA_REQUIRE_DRIVER`."),
    Key::new("nvidia.runtime", Bool, "Whether to pass the host NVIDIA and CUDA runtime libraries into the instance")
        .default("false")
        .container()
        .condition("container")
        .refused("GPUs are not built yet"),
];

pub(in crate::keys) static INSTANCE_OCI: &[Key] = &[
    Key::new("oci.cwd", Str, "Working directory")
        .container()
        .condition("OCI container")
        .refused("OCI images are not built yet")
        .long("Override the working directory of an OCI container."),
    Key::new("oci.dns.domain", Str, "DNS domain")
        .container()
        .condition("OCI container")
        .refused("OCI images are not built yet")
        .long(
            r#"Domain name for `resolv.conf`.
When set, the domain name received over DHCP is ignored."#,
        ),
    Key::new("oci.dns.nameservers", Str, "DNS name servers")
        .container()
        .condition("OCI container")
        .refused("OCI images are not built yet")
        .long(
            r#"Comma-separated list of name server addresses for `resolv.conf`.
When set, name servers received over DHCP are ignored."#,
        ),
    Key::new("oci.dns.search", Str, "DNS search domains")
        .container()
        .condition("OCI container")
        .refused("OCI images are not built yet")
        .long(
            r#"Comma-separated list of search domains for `resolv.conf`.
When set, search domains received over DHCP are ignored."#,
        ),
    Key::new("oci.entrypoint", Str, "Entry point")
        .container()
        .condition("OCI container")
        .refused("OCI images are not built yet")
        .long("Override the entry point of an OCI container."),
    Key::new("oci.gid", Str, "Process GID")
        .container()
        .condition("OCI container")
        .refused("OCI images are not built yet")
        .long("Override the GID of the process run in an OCI container."),
    Key::new("oci.uid", Str, "Process UID")
        .container()
        .condition("OCI container")
        .refused("OCI images are not built yet")
        .long("Override the UID of the process run in an OCI container."),
];

pub(in crate::keys) static INSTANCE_RAW: &[Key] = &[
    Key::new("raw.apparmor", Blob, "AppArmor profile entries")
        .live()
        .long("The specified entries are appended to the generated profile."),
    Key::new("raw.idmap", Blob, "Raw idmap configuration")
        .container()
        .condition("unprivileged container")
        .refused("it is not built yet")
        .long("For example: `both 1000 1000`"),
    Key::new("raw.lxc", Blob, "Raw LXC configuration to be appended to the generated one")
        .container()
        .condition("container")
        .refused("Stapes runs containers without LXC, so there is no LXC configuration to add to"),
    Key::new("raw.qemu", Blob, "Raw QEMU configuration to be appended to the generated command line")
        .vm()
        .condition("virtual machine"),
    Key::new("raw.qemu.conf", Blob, "Addition/override to the generated `qemu.conf` file")
        .vm()
        .condition("virtual machine")
        .refused("it is not built yet")
        .long("See {ref}`instance-options-qemu` for more information."),
    Key::new("raw.qemu.qmp.early", Blob, "QMP commands to run before Incus QEMU initialization")
        .vm()
        .condition("virtual machine")
        .refused("it is not built yet"),
    Key::new("raw.qemu.qmp.post-start", Blob, "QMP commands to run after the VM has started")
        .vm()
        .condition("virtual machine")
        .refused("it is not built yet"),
    Key::new(
        "raw.qemu.qmp.pre-start",
        Blob,
        "QMP commands to run after Incus QEMU initialization and before the VM has started",
    )
    .vm()
    .condition("virtual machine")
    .refused("it is not built yet"),
    Key::new("raw.qemu.scriptlet", Str, "QEMU scriptlet to run at early, pre-start and post-start stages")
        .vm()
        .condition("virtual machine")
        .refused("it is not built yet"),
    Key::new("raw.seccomp", Blob, "Raw Seccomp configuration")
        .container()
        .condition("container")
        .refused("it is not built yet"),
];

pub(in crate::keys) static INSTANCE_RESOURCE_LIMITS: &[Key] = &[
    Key::new("limits.cpu", Cpus, "Which CPUs to expose to the instance").default_text("1 (VMs)").live()
        .long(r#"A number or a specific range of CPUs to expose to the instance.
For virtual machines, a CPU topology of the form `sockets=2,cores=4,threads=2` may also be provided.

See {ref}`instance-options-limits-cpu` for more information."#),
    Key::new("limits.cpu.allowance", CpuAllowance, "How much of the CPU can be used").default("100%")
        .container().condition("container").live()
        .long(r#"To control how much of the CPU can be used, specify either a percentage (`50%`) for a soft limit
or a chunk of time (`25ms/100ms`) for a hard limit.

See {ref}`instance-options-limits-cpu-container` for more information."#),
    Key::new("limits.cpu.nodes", Nodes, "Which NUMA nodes to place the instance CPUs on").live()
        .long(r#"A comma-separated list of NUMA node IDs or ranges to place the instance CPUs on.
Alternatively, the value `balanced` may be used to have Incus pick the least busy NUMA node on startup.

See {ref}`instance-options-limits-cpu-container` for more information."#),
    Key::new("limits.cpu.priority", Int { min: 0, max: 10 }, "CPU scheduling priority compared to other instances")
        .default_text("`10` (maximum)").container().condition("container").live()
        .long(r#"When overcommitting resources, specify the CPU scheduling priority compared to other instances that share the same CPUs.
Specify an integer between 0 and 10.

See {ref}`instance-options-limits-cpu-container` for more information."#),
    Key::new("limits.disk.priority", Int { min: 0, max: 10 }, "Priority of the instance's I/O requests")
        .default_text("`5` (medium)").live()
        .long(r#"Controls how much priority to give to the instance's I/O requests when under load.

Specify an integer between 0 and 10."#),
    Key::new("limits.hugepages.1GB", Bytes, "Limit for the number of 1 GB huge pages").container()
        .condition("container").live().refused("it is not built yet")
        .long(r#"Fixed value (in bytes) to limit the number of 1 GB huge pages.
Various suffixes are supported (see {ref}`instances-limit-units`).

See {ref}`instance-options-limits-hugepages` for more information."#),
    Key::new("limits.hugepages.1MB", Bytes, "Limit for the number of 1 MB huge pages").container()
        .condition("container").live().refused("it is not built yet")
        .long(r#"Fixed value (in bytes) to limit the number of 1 MB huge pages.
Various suffixes are supported (see {ref}`instances-limit-units`).

See {ref}`instance-options-limits-hugepages` for more information."#),
    Key::new("limits.hugepages.2MB", Bytes, "Limit for the number of 2 MB huge pages").container()
        .condition("container").live().refused("it is not built yet")
        .long(r#"Fixed value (in bytes) to limit the number of 2 MB huge pages.
Various suffixes are supported (see {ref}`instances-limit-units`).

See {ref}`instance-options-limits-hugepages` for more information."#),
    Key::new("limits.hugepages.64KB", Bytes, "Limit for the number of 64 KB huge pages").container()
        .condition("container").live().refused("it is not built yet")
        .long(r#"Fixed value (in bytes) to limit the number of 64 KB huge pages.
Various suffixes are supported (see {ref}`instances-limit-units`).

See {ref}`instance-options-limits-hugepages` for more information."#),
    Key::new("limits.memory", Memory, "Usage limit for the host's memory").default_text("`1GiB` (VMs)").live()
        .long(r#"Percentage of the host's memory or a fixed value in bytes.
Various suffixes are supported.

See {ref}`instances-limit-units` for details."#),
    Key::new("limits.memory.enforce", Enum(&["hard", "soft"]), "Whether the memory limit is `hard` or `soft`")
        .default("hard").container().condition("container").live()
        .long(r#"If the instance's memory limit is `hard`, the instance cannot exceed its limit.
If it is `soft`, the instance can exceed its memory limit when extra host memory is available."#),
    Key::new("limits.memory.hotplug", Str, "Control upper limit for hotplugged memory or disable memory hotplug.")
        .default("true").vm().condition("virtual machine").live().refused("it is not built yet")
        .long(r#"If this option is set to `false`, disable memory hotplug entirely.
Alternatively, it can be set to a bytes value which will define an upper limit for hotplugged memory.
The value must be greater than or equal to limits.memory."#),
    Key::new("limits.memory.hugepages", Bool, "Whether to back the instance using huge pages").default("false")
        .vm().condition("virtual machine").refused("it is not built yet")
        .long("If this option is set to `false`, regular system memory is used."),
    Key::new("limits.memory.oom_priority", Int { min: -1000, max: 1000 }, "Out Of Memory killer priority adjustment for the instance")
        .default("0").live()
        .long(r#"Specify an integer between -1000 and 1000.
A negative value makes the instance less likely to be killed by the Out Of Memory killer,
while a positive value makes it more likely to be killed.
The default value of 0 means no adjustment to the Out Of Memory score."#),
    Key::new("limits.memory.swap", Bool, "Control swap usage by the instance").default("true").container()
        .condition("container").live()
        .long(r#"When set to `true` or `false`, it controls whether the container is likely to get some of
its memory swapped by the kernel. Alternatively, it can be set to a bytes value which will
then allow the container to make use of additional memory through swap.

Support for this is limited on cgroup2 systems due to lack of swap priority control."#),
    Key::new("limits.memory.swap.priority", Int { min: 0, max: 10 }, "Prevents the instance from being swapped to disk")
        .default_text("`10` (maximum)").container().condition("container").live().refused("it is not built yet")
        .long(r#"Specify an integer between 0 and 10.
The higher the value, the less likely the instance is to be swapped to disk.

This currently doesn't have any effect on cgroup2 systems."#),
    Key::new("limits.processes", Int { min: 1, max: i64::MAX }, "Maximum number of processes that can run in the instance")
        .default_text("empty").container().condition("container").live().long("If left empty, no limit is set."),
];

pub(in crate::keys) static INSTANCE_SNAPSHOTS: &[Key] = &[
    Key::new("snapshots.expiry", Duration, "When newly created snapshots are to be deleted")
        .stored("scheduled snapshots are not built yet")
        .long(r#"Specify an expression like `1M 2H 3d 4w 5m 6y`.

This value is used to compute the expiry date of newly created snapshots.
It is added to the current time when a snapshot is taken, and the resulting timestamp is stored as that snapshot's individual expiry date.
Changing this value only affects snapshots created after the change; the expiry date of existing snapshots is not modified.

The supported units are `S` (seconds), `M` (minutes), `H` (hours), `d` (days), `w` (weeks), `m` (months) and `y` (years)."#),
    Key::new("snapshots.expiry.manual", Duration, "When newly created snapshots are to be deleted (for those not created through scheduling)")
        .stored("scheduled snapshots are not built yet")
        .long(r#"Specify an expression like `1M 2H 3d 4w 5m 6y`.

This value is used to compute the expiry date of newly created snapshots that are not created through scheduling.
It is added to the current time when a snapshot is taken, and the resulting timestamp is stored as that snapshot's individual expiry date.
Changing this value only affects snapshots created after the change; the expiry date of existing snapshots is not modified.

See {config:option}`instance-snapshots:snapshots.expiry` for the supported units."#),
    Key::new("snapshots.pattern", Str, "Template for the snapshot name").default("snap%d")
        .stored("scheduled snapshots are not built yet")
        .long(r#"Specify a Pongo2 template string that represents the snapshot name.
This template is used for scheduled snapshots and for unnamed snapshots.

See {ref}`instance-options-snapshots-names` for more information."#),
    Key::new("snapshots.schedule", Cron, "Schedule for automatic instance snapshots").default_text("empty")
        .stored("scheduled snapshots are not built yet")
        .long(r#"Specify either a cron expression (`<minute> <hour> <dom> <month> <dow>`), a comma-and-space-separated list of schedule aliases (`@startup`, `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@annually`, `@yearly`), or leave empty to disable automatic snapshots.

Note that unlike most other configuration keys, this one must be comma-and-space-separated and not just comma-separated as cron expression can themselves contain commas."#),
    Key::new("snapshots.schedule.stopped", Bool, "Whether to automatically snapshot stopped instances")
        .default("false").stored("scheduled snapshots are not built yet"),
];

pub(in crate::keys) static KERNEL_LIMITS: &[Key] = &[
    Key::new("limits.kernel.as", Rlimit, "Maximum size of the process's virtual memory").container(),
    Key::new("limits.kernel.core", Rlimit, "Maximum size of the process's core dump file").container(),
    Key::new("limits.kernel.cpu", Rlimit, "Limit in seconds on the amount of CPU time the process can consume")
        .container(),
    Key::new("limits.kernel.data", Rlimit, "Maximum size of the process's data segment").container(),
    Key::new("limits.kernel.fsize", Rlimit, "Maximum size of files the process may create").container(),
    Key::new("limits.kernel.locks", Rlimit, "Limit on the number of file locks that this process may establish")
        .container(),
    Key::new(
        "limits.kernel.memlock",
        Rlimit,
        "Limit on the number of bytes of memory that the process may lock in RAM",
    )
    .container(),
    Key::new("limits.kernel.nice", Rlimit, "Maximum value to which the process's nice value can be raised").container(),
    Key::new("limits.kernel.nofile", Rlimit, "Maximum number of open files for the process").container(),
    Key::new(
        "limits.kernel.nproc",
        Rlimit,
        "Maximum number of processes that can be created for the user of the calling process",
    )
    .container(),
    Key::new(
        "limits.kernel.rtprio",
        Rlimit,
        "Maximum value on the real-time-priority that may be set for this process",
    )
    .container(),
    Key::new(
        "limits.kernel.sigpending",
        Rlimit,
        "Limit on the number of bytes of memory that the process may lock in RAM",
    )
    .container(),
    Key::new("limits.kernel.msgqueue", Rlimit, "Maximum number of bytes in POSIX message queues").container(),
    Key::new("limits.kernel.rss", Rlimit, "Maximum resident set (ignored by current kernels)").container(),
    Key::new(
        "limits.kernel.rttime",
        Rlimit,
        "Limit in microseconds on real-time CPU time without a blocking system call",
    )
    .container(),
    Key::new("limits.kernel.stack", Rlimit, "Maximum size of the process's stack").container(),
];
