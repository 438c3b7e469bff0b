//! System calls: the only crate with `unsafe` code.
//!
//! Everything else in the workspace says `#![forbid(unsafe_code)]`. A wrapper here keeps the kernel's name, takes
//! borrowed descriptors, returns owned ones, sets close-on-exec itself and cites its manual page.
#![allow(unsafe_code)]

pub mod activation;
pub mod command;
pub mod confine;
pub mod exec;
pub mod fs;
pub mod process;

/// btrfs ioctls: subvolumes, snapshots, quotas. Source: linux/btrfs.h.
pub mod btrfs;
/// Whether KVM runs guests here. Source: Documentation/virt/kvm/api.rst.
pub mod kvm;
/// Loop devices. Source: loop(4).
pub mod loopdev;
/// The mount API of Linux 5.2 and later, and idmapped mounts.
pub mod mount;
/// Namespaces, id maps, clone3, pidfd.
pub mod namespace;
/// rtnetlink: links, addresses, routes, neighbours, network-namespace ids.
pub mod netlink;
/// seccomp filters, capabilities, securebits, and the bpf(2) device program.
pub mod privilege;
/// Pseudo-terminals.
pub mod pty;
/// Unix sockets with descriptors (SCM_RIGHTS) and credentials.
pub mod socket;
/// Tap interfaces. Source: Documentation/networking/tuntap.rst.
pub mod tap;
/// Sockets between a virtual machine and its host.
pub mod vsock;
