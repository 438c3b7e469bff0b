//! `security.*` of instances and profiles.
//!
//! Names and texts are Incus's (Apache-2.0), so that its clients and documents fit; kinds and statuses are ours.

use crate::keys::{
    Key,
    Kind::{Blob, Bool, Enum, Int, Str},
};

pub(in crate::keys) static INSTANCE_SECURITY: &[Key] = &[
    Key::new("security.agent.metrics", Bool, "Whether the `incus-agent` is queried for state information and metrics")
        .default("true").vm().condition("virtual machine").refused("it is not built yet"),
    Key::new("security.bpffs.delegate_attachs", Str, "What BPF attach types to delegate").container()
        .condition("unprivileged container").refused("it is not built yet")
        .long("See {ref}`bpf-tokens` for more information."),
    Key::new("security.bpffs.delegate_cmds", Str, "What BPF command types to delegate").container()
        .condition("unprivileged container").refused("it is not built yet")
        .long("See {ref}`bpf-tokens` for more information."),
    Key::new("security.bpffs.delegate_maps", Str, "What BPF map types to delegate").container()
        .condition("unprivileged container").refused("it is not built yet")
        .long("See {ref}`bpf-tokens` for more information."),
    Key::new("security.bpffs.delegate_progs", Str, "What BPF program types to delegate").container()
        .condition("unprivileged container").refused("it is not built yet")
        .long("See {ref}`bpf-tokens` for more information."),
    Key::new("security.bpffs.path", Str, "The path to mount the BPF file system at").default("/sys/fs/bpf")
        .container().condition("unprivileged container").refused("it is not built yet")
        .long(r#"The specified path must exist in the container.
The BPF file system is only mounted if any of the `security.bpffs.delegate_*` options are set.
See {ref}`bpf-tokens` for more information."#),
    Key::new("security.csm", Bool, "Whether to use a firmware that supports UEFI-incompatible operating systems")
        .default("false").vm().condition("virtual machine")
        .long("When enabling this option, set {config:option}`instance-security:security.secureboot` to `false`."),
    Key::new("security.guestapi", Bool, "Whether `/dev/incus` is present in the instance").default("true")
        .stored("the guest API is not built yet").long("See {ref}`dev-incus` for more information."),
    Key::new("security.guestapi.images", Bool, "Controls the availability of the `/1.0/images` API over `guestapi`")
        .default("false").container().condition("container").refused("the guest API is not built yet"),
    Key::new("security.idmap.base", Int { min: 0, max: u32::MAX as i64 }, "The base host ID to use for the allocation")
        .container().condition("unprivileged container").long("Setting this option overrides auto-detection."),
    Key::new("security.idmap.isolated", Bool, "Whether to use a unique idmap for this instance")
        .default("false").container().condition("unprivileged container")
        .long("If specified, the idmap used for this instance is unique among instances that have this option set."),
    Key::new("security.idmap.size", Int { min: 65_536, max: u32::MAX as i64 }, "The size of the idmap to use")
        .container().condition("unprivileged container"),
    Key::new("security.iommu", Bool, "Whether to enable virtual IOMMU, useful for device passthrough and nesting")
        .default("false").vm().condition("virtual machine").refused("it is not built yet"),
    Key::new("security.nesting", Bool, "Whether to allow nesting inside of the instance")
        .default_text("`false` (containers), `true` (VMs)").live()
        .long(r#"For containers, this controls whether Incus (nested) can be run inside of the instance.
For virtual machines, setting this to `false` disables nested virtualization (turns off the `svm` and `vmx` CPU flags)."#),
    Key::new("security.privileged", Bool, "Whether to run the instance in privileged mode").default("false")
        .container().condition("container"),
    Key::new("security.protection.delete", Bool, "Prevents the instance from being deleted").default("false")
        .live(),
    Key::new("security.protection.shift", Bool, "Whether to protect the file system from being UID/GID shifted")
        .default("false").container().condition("container").live()
        .long("Set this option to `true` to prevent the instance's file system from being UID/GID shifted on startup."),
    Key::new("security.protection.start", Bool, "Prevents the instance from being started").default("false")
        .live(),
    Key::new("security.secureboot", Bool, "Whether UEFI secure boot is enforced with the default Microsoft keys")
        .default("true").vm().condition("virtual machine")
        .long("When disabling this option, consider enabling {config:option}`instance-security:security.csm`."),
    Key::new("security.selinux.domain", Str, "SELinux process domain override")
        .default_text("auto-detected (`container_init_t` for containers, `qemu_t` for VMs)")
        .condition("container or virtual machine").refused("it is not built yet")
        .long("Override the SELinux process domain for the instance."),
    Key::new("security.selinux.label_rootfs", Enum(&["auto", "always", "never"]), "SELinux rootfs labeling mode (auto, always, never)")
        .default("auto").container().condition("container").refused("it is not built yet")
        .long(r#"Control SELinux rootfs labeling behavior.
The default (`auto`) will label rootfs files if it is required. Labeling will be skipped
only if `security.selinux.level` is explicitly set for the instance, it is not started for
the first time and the persisted SELinux context is still valid.
Setting to `always` will label rootfs files on every start and `never` will never touch any
file labels in the rootfs."#),
    Key::new("security.selinux.level", Str, "SELinux MCS level override").default_text("auto-generated")
        .condition("container or virtual machine").refused("it is not built yet")
        .long(r#"Override the SELinux MCS level for the instance.
This key must only be set on individual instances, never on profiles,
since using the same MCS level across instances breaks isolation.
Values set via profiles are ignored."#),
    Key::new("security.selinux.type", Str, "SELinux file type override")
        .default_text("auto-detected (`container_file_t` for containers, `qemu_image_t` for VMs)")
        .condition("container or virtual machine").refused("it is not built yet")
        .long("Override the SELinux file type used for labeling instance storage."),
    Key::new("security.sev", Bool, "Whether AMD SEV (Secure Encrypted Virtualization) is enabled for this VM")
        .default("false").vm().condition("virtual machine").refused("it is not built yet"),
    Key::new("security.sev.policy.es", Bool, "Whether AMD SEV-ES (SEV Encrypted State) is enabled for this VM")
        .default("false").vm().condition("virtual machine").refused("it is not built yet"),
    Key::new("security.sev.session.data", Str, "The guest owner's `base64`-encoded session blob")
        .default("true").vm().condition("virtual machine").refused("it is not built yet"),
    Key::new("security.sev.session.dh", Str, "The guest owner's `base64`-encoded Diffie-Hellman key")
        .default("true").vm().condition("virtual machine").refused("it is not built yet"),
    Key::new("security.syscalls.allow", Blob, "List of syscalls to allow").container().condition("container")
        .long(r#"A `\n`-separated list of syscalls to allow.
This list must be mutually exclusive with `security.syscalls.deny*`."#),
    Key::new("security.syscalls.deny", Blob, "List of syscalls to deny").container().condition("container")
        .long(r#"A `\n`-separated list of syscalls to deny.
This list must be mutually exclusive with `security.syscalls.allow`."#),
    Key::new("security.syscalls.deny_compat", Bool, "Whether to block `compat_*` syscalls (`x86_64` only)")
        .default("false").container().condition("container").refused("it is not built yet")
        .long(r#"On `x86_64`, this option controls whether to block `compat_*` syscalls.
On other architectures, the option is ignored."#),
    Key::new("security.syscalls.deny_default", Bool, "Whether to enable the default syscall deny")
        .default("true").container().condition("container"),
    Key::new("security.syscalls.intercept.bpf", Bool, "Whether to handle the `bpf()` system call")
        .default("false").container().condition("container")
        .refused("system call interception is not built yet"),
    Key::new("security.syscalls.intercept.bpf.devices", Bool, "Whether to allow BPF programs").default("false")
        .container().condition("container").refused("system call interception is not built yet")
        .long("This option controls whether to allow BPF programs for the devices cgroup in the unified hierarchy to be loaded."),
    Key::new("security.syscalls.intercept.mknod", Bool, "Whether to handle the `mknod` and `mknodat` system calls")
        .default("false").container().condition("container")
        .refused("system call interception is not built yet")
        .long("These system calls allow creation of a limited subset of char/block devices."),
    Key::new("security.syscalls.intercept.mount", Bool, "Whether to handle the `mount` system call")
        .default("false").container().condition("container")
        .refused("system call interception is not built yet"),
    Key::new("security.syscalls.intercept.mount.allowed", Str, "File systems that can be mounted").container()
        .condition("container").live().refused("system call interception is not built yet")
        .long("Specify a comma-separated list of file systems that are safe to mount for processes inside the instance."),
    Key::new("security.syscalls.intercept.mount.fuse", Str, "File system that should be redirected to FUSE implementation")
        .container().condition("container").live().refused("system call interception is not built yet")
        .long("Specify the mounts of a given file system that should be redirected to their FUSE implementation (for example, `ext4=fuse2fs`)."),
    Key::new("security.syscalls.intercept.mount.shift", Bool, "Whether to use idmapped mounts for syscall interception")
        .default("false").container().condition("container").live()
        .refused("system call interception is not built yet"),
    Key::new("security.syscalls.intercept.sched_setscheduler", Bool, "Whether to handle the `sched_setscheduler` system call")
        .default("false").container().condition("container")
        .refused("system call interception is not built yet")
        .long("This system call allows increasing process priority."),
    Key::new("security.syscalls.intercept.setxattr", Bool, "Whether to handle the `setxattr` system call")
        .default("false").container().condition("container")
        .refused("system call interception is not built yet")
        .long("This system call allows setting a limited subset of restricted extended attributes."),
    Key::new("security.syscalls.intercept.sysinfo", Bool, "Whether to handle the `sysinfo` system call")
        .default("false").container().condition("container")
        .refused("system call interception is not built yet")
        .long("This system call can be used to get cgroup-based resource usage information."),
];
