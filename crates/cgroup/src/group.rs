use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use crate::{
    CgroupError,
    cgroups::{Homes, V2Home},
    knob,
};

/// Where in an instance's group a process belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// The guest's init and all it starts.
    Payload,
    /// Commands brought in from outside.
    Exec,
}

impl Leaf {
    fn dir_name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Exec => "payload/.stapes",
        }
    }
}

const V1_LEAVES: [&str; 1] = ["payload"];
/// Outer before inner; removed the other way round.
const V2_LEAVES: [&str; 2] = ["payload", "payload/.stapes"];

/// How long the kernel may go on saying EBUSY to rmdir after the last process of a group has died.
const REMOVE_PATIENCE: Duration = Duration::from_secs(1);

/// One instance's groups in every hierarchy. Holds names only; cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct Group {
    pub(crate) homes: Arc<Homes>,
    name: String,
}

impl Group {
    pub(crate) fn new(homes: Arc<Homes>, name: String) -> Self {
        Self { homes, name }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `cgroup.procs` files of v1 that a process writes `0` to in order to join.
    ///
    /// Each join of an idle kernel waits for an RCU grace period, 7 to 10 ms: do it once in an embryo and fork.
    ///
    /// Commands join the payload like the guest's own: v1 has no rule against it.
    pub fn join_paths(&self) -> Vec<PathBuf> {
        self.homes.v1.iter().map(|home| self.v1_payload(&home.dir).join("cgroup.procs")).collect()
    }

    /// The v2 group to open for `CLONE_INTO_CGROUP`; `None` on a host with v1 only.
    pub fn v2_dir(&self, leaf: Leaf) -> Option<PathBuf> {
        Some(self.v2_base()?.join(leaf.dir_name()))
    }

    pub(crate) fn v1_payload(&self, home: &Path) -> PathBuf {
        home.join(&self.name).join("payload")
    }

    pub(crate) fn v2_base(&self) -> Option<PathBuf> {
        Some(self.homes.v2.as_ref()?.dir.join(&self.name))
    }

    /// Hands the payload groups to the owner of the guest's user namespace, as a systemd inside needs.
    ///
    /// The directory and the files that move processes about change hands; every file with a limit stays ours.
    /// Source: kernel, admin-guide/cgroup-v2, "Model of Delegation"; LXC does the same on v1.
    pub fn delegate(&self, uid: u32) -> Result<(), CgroupError> {
        for home in &self.homes.v1 {
            delegate_v1(&self.v1_payload(&home.dir), uid)?;
        }
        if let Some(payload) = self.v2_dir(Leaf::Payload) {
            knob::chown(&payload, uid, uid)?;
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                knob::chown(&payload.join(file), uid, uid)?;
            }
        }
        Ok(())
    }

    pub(crate) fn make(&self) -> Result<(), CgroupError> {
        self.make_v1()?;
        self.make_v2().inspect_err(|_| self.unmake_v1(self.homes.v1.len()))
    }

    pub(crate) fn make_v1(&self) -> Result<(), CgroupError> {
        for (made, home) in self.homes.v1.iter().enumerate() {
            let base = home.dir.join(&self.name);
            make_dirs(&base, &V1_LEAVES, "").inspect_err(|_| self.unmake_v1(made))?;
        }
        Ok(())
    }

    pub(crate) fn make_v2(&self) -> Result<(), CgroupError> {
        let Some(V2Home { dir, enable, .. }) = &self.homes.v2 else { return Ok(()) };
        make_dirs(&dir.join(&self.name), &V2_LEAVES, enable)
    }

    fn unmake_v1(&self, count: usize) {
        for home in &self.homes.v1[..count] {
            remove_leaves(&home.dir.join(&self.name), &V1_LEAVES);
        }
    }

    pub(crate) fn remove_v2(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_PATIENCE;
        self.v2_base().map_or(Ok(()), |base| remove_tree(&base, &V2_LEAVES, deadline))
    }

    /// Removes the v2 group if no process is in it, nested groups or not.
    pub(crate) fn remove_empty_v2(&self) -> Result<(), CgroupError> {
        self.v2_base().map_or(Ok(()), |base| remove_tree(&base, &V2_LEAVES, Instant::now()))
    }

    /// Removes the group with whatever groups the guest made in it. Missing is success.
    ///
    /// The processes must be dead or dying: the kernel gets a second to let go of the last of them, then EBUSY is
    /// returned as it is. The other hierarchies are cleaned all the same.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_PATIENCE;
        let mut result = Ok(());
        for home in &self.homes.v1 {
            result = result.and(remove_tree(&home.dir.join(&self.name), &V1_LEAVES, deadline));
        }
        let v2 = self.v2_base().map_or(Ok(()), |base| remove_tree(&base, &V2_LEAVES, deadline));
        result.and(v2)
    }
}

pub(crate) fn delegate_v1(payload: &Path, uid: u32) -> Result<(), CgroupError> {
    knob::chown(payload, uid, uid)?;
    ["cgroup.procs", "tasks"].iter().try_for_each(|file| knob::chown(&payload.join(file), uid, uid))
}

/// A group and its leaves; on an error nothing of it stays.
fn make_dirs(base: &Path, leaves: &[&str], enable: &str) -> Result<(), CgroupError> {
    knob::mkdir(base)?;
    let made = (|| {
        if !enable.is_empty() {
            // Before the leaves: a controller enabled over existing groups has to be built into each of them.
            knob::write(&base.join("cgroup.subtree_control"), enable)?;
        }
        leaves.iter().try_for_each(|leaf| knob::mkdir(&base.join(leaf)))
    })();
    made.inspect_err(|_| remove_leaves(base, leaves))
}

/// Takes back what was made a moment ago and is surely empty.
fn remove_leaves(base: &Path, leaves: &[&str]) {
    for leaf in leaves.iter().rev() {
        let _ = knob::rmdir(&base.join(leaf));
    }
    let _ = knob::rmdir(base);
}

/// Depth first, with as few calls as an ordinary group needs: only one that will not go is looked into.
fn remove_tree(base: &Path, leaves: &[&str], deadline: Instant) -> Result<(), CgroupError> {
    let mut pause = Duration::from_micros(200);
    for leaf in leaves.iter().rev() {
        let _ = knob::rmdir(&base.join(leaf));
    }
    loop {
        let error = match knob::rmdir(base) {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.errno(), Some(Errno::BUSY | Errno::NOTEMPTY)) => error,
            Err(error) => return Err(error),
        };
        let nested = knob::child_groups(base)?;
        if nested.is_empty() || nested.iter().try_for_each(|group| remove_nested(group, 0)).is_err() {
            if Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// The guest decides how deep its groups go, within the kernel's path limit; our stack does not grow beyond this.
const DEEPEST: usize = 512;

pub(crate) fn remove_nested(group: &Path, depth: usize) -> Result<(), CgroupError> {
    match knob::rmdir(group) {
        Err(error) if matches!(error.errno(), Some(Errno::BUSY | Errno::NOTEMPTY)) && depth < DEEPEST => {
            let nested = knob::child_groups(group)?;
            if nested.is_empty() {
                return Err(error);
            }
            nested.iter().try_for_each(|group| remove_nested(group, depth + 1))?;
            knob::rmdir(group)
        }
        result => result,
    }
}
