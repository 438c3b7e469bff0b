//! Size limits and usage by btrfs quota groups.
//!
//! With simple quotas a limited volume gets a group of its own, `1/<subvolume>`, above its subvolume's `0/<subvolume>`:
//! subvolumes that a guest makes inside join the groups of the one they are in, so that they count too.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::io::Errno;
use stapes_sys::btrfs::{self, QuotaMode, qgroup_id};

/// Groups of subvolumes long gone are looked for once in so many deletions.
const SWEEP_INTERVAL: u32 = 64;

pub(super) struct Quotas {
    mode: QuotaMode,
    deletions: AtomicU32,
}

/// Treats an error as success: the state asked for is there already.
fn unless(result: io::Result<()>, fine: Errno) -> io::Result<()> {
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(fine) => Ok(()),
        other => other,
    }
}

impl Quotas {
    /// Finds out how the file system counts; where it is the pool's alone, switches simple quotas on first. The
    /// text says what is missing, if something is.
    pub fn prepare(root: &File, exclusive: bool) -> io::Result<(Self, Option<String>)> {
        let mut mode = btrfs::quota_mode(root)?;
        let mut missing = None;
        if mode == QuotaMode::Off && exclusive {
            match btrfs::enable_simple_quota(root) {
                Ok(()) => mode = QuotaMode::Simple,
                Err(error) => {
                    missing = Some(format!(
                        "no size limits and no disk usage: simple quotas, of Linux 6.7, cannot be enabled: {error}"
                    ));
                }
            }
        } else if mode == QuotaMode::Off {
            missing = Some(
                "no size limits and no disk usage: quotas are off on the host's btrfs; \"btrfs quota enable --simple\" \
                 switches them on, and kernels before 6.7 then no longer write to it"
                    .to_owned(),
            );
        } else if mode == QuotaMode::Full {
            missing = Some("full quotas are on: each clone and snapshot takes several times as long".to_owned());
        }
        Ok((Self { mode, deletions: AtomicU32::new(0) }, missing))
    }

    pub fn are_on(&self) -> bool {
        self.mode != QuotaMode::Off
    }

    /// Caps the subvolume `id`. `any` must not be inside it: once it is at its limit, the kernel refuses to start the
    /// very transaction that would lift the limit.
    pub fn limit(&self, any: &File, id: u64, bytes: Option<u64>) -> io::Result<()> {
        if self.mode == QuotaMode::Full {
            return btrfs::limit_qgroup(any, qgroup_id(0, id), bytes);
        }
        let group = qgroup_id(1, id);
        if bytes.is_none() {
            return unless(btrfs::limit_qgroup(any, group, None), Errno::NOENT);
        }
        unless(btrfs::create_qgroup(any, group), Errno::EXIST)?;
        let mut inside = vec![id];
        while let Some(member) = inside.pop() {
            unless(btrfs::assign_qgroup(any, qgroup_id(0, member), group), Errno::EXIST)?;
            inside.extend(btrfs::children(any, member)?.into_iter().map(|child| child.id));
        }
        btrfs::limit_qgroup(any, group, bytes)
    }

    /// The cap of the subvolume `id`.
    pub fn limit_of(&self, any: &File, id: u64) -> io::Result<Option<u64>> {
        let groups = btrfs::qgroups(any)?;
        let level = u16::from(self.mode == QuotaMode::Simple);
        Ok(groups.get(&qgroup_id(level, id)).and_then(|group| group.limit))
    }

    /// Bytes of each subvolume, by its id.
    pub fn usage(&self, any: &File) -> io::Result<impl Fn(u64) -> Option<u64> + use<>> {
        let groups = btrfs::qgroups(any)?;
        Ok(move |id| {
            let group = groups.get(&qgroup_id(1, id)).or_else(|| groups.get(&qgroup_id(0, id)));
            group.map(|group| group.referenced)
        })
    }

    /// The subvolume `id` is gone: its groups can go, now or, while extents still count for them, later.
    pub fn forget(&self, any: &File, id: u64) {
        if self.mode != QuotaMode::Simple {
            return;
        }
        let group = qgroup_id(1, id);
        if btrfs::unassign_qgroup(any, qgroup_id(0, id), group).is_ok() {
            // Busy while subvolumes of the guest's are members: the sweep comes again.
            let _ = btrfs::destroy_qgroup(any, group);
        }
        if self.deletions.fetch_add(1, Ordering::Relaxed) % SWEEP_INTERVAL == SWEEP_INTERVAL - 1 {
            self.sweep(any);
        }
    }

    /// Removes the groups of subvolumes that are gone. Best effort: a group too many costs a few bytes.
    pub fn sweep(&self, any: &File) {
        if self.mode != QuotaMode::Simple {
            return;
        }
        let Ok(groups) = btrfs::qgroups(any) else { return };
        // Level 0 first: removing a member also ends its membership.
        for group in groups.into_values() {
            let id = group.id & (qgroup_id(1, 0) - 1);
            let is_stale = btrfs::is_ordinary_id(id)
                && group.referenced == 0
                && btrfs::subvolume_exists(any, id).is_ok_and(|exists| !exists);
            if is_stale {
                let _ = btrfs::destroy_qgroup(any, group.id);
            }
        }
    }
}
