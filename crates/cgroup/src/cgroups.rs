use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::io::Errno;

use crate::{
    CgroupError, Group, Layout,
    devices::{Programs, close_v1_parent},
    knob,
};

/// How this host mounts control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Hybrid,
    V1,
    V2,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// The parent group of every instance, in each hierarchy of this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups {
    pub(crate) homes: Arc<Homes>,
}

/// Our parent group's directories.
#[derive(Debug)]
pub(crate) struct Homes {
    pub v1: Vec<V1Home>,
    pub v2: Option<V2Home>,
    pub programs: Programs,
}

#[derive(Debug)]
pub(crate) struct V1Home {
    pub dir: PathBuf,
    pub controllers: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct V2Home {
    pub dir: PathBuf,
    /// Controllers that instances get, in the kernel's order.
    pub controllers: Vec<String>,
    /// The same as one write to `cgroup.subtree_control`; empty when there are none.
    pub enable: String,
}

/// Controllers that instances get on v2, as far as there are limits for them. The rest (`hugetlb`, `rdma`, `misc`) would
/// cost memory for nothing, and a controller once enabled on v2 can no longer be mounted as v1.
const V2_WANTED: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

impl Cgroups {
    /// Makes the parent group in every hierarchy that this host mounts; harmless to repeat.
    ///
    /// `parent` is one name at the top of the hierarchies (`stapes`) or, under systemd, a path to a delegated group
    /// (`system.slice/stapes.scope/instances`). On v2 the controllers are enabled on the way down, and those that
    /// the host or a group above withholds are done without: what needs them is refused later, by name.
    pub fn open(parent: &str) -> Result<Self, CgroupError> {
        let mounts = knob::read(Path::new("/proc/self/mountinfo"))?;
        Self::with_layout(parent, &Layout::from_mountinfo(&mounts))
    }

    /// Like [`open`](Self::open), with the hierarchies given instead of probed.
    pub fn with_layout(parent: &str, layout: &Layout) -> Result<Self, CgroupError> {
        let relative = Path::new(parent);
        if parent.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(CgroupError::BadName(parent.to_owned()));
        }
        if layout.v1.is_empty() && layout.v2.is_none() {
            return Err(CgroupError::NotMounted);
        }
        let mut v1 = Vec::with_capacity(layout.v1.len());
        for hierarchy in &layout.v1 {
            let dir = open_v1(&hierarchy.mount, relative, hierarchy.has("cpuset"))?;
            if hierarchy.has("devices") {
                close_v1_parent(&dir)?;
            }
            v1.push(V1Home { dir, controllers: hierarchy.controllers.clone() });
        }
        let v2 = layout.v2.as_deref().map(|mount| open_v2(mount, relative)).transpose()?;
        Ok(Self { homes: Arc::new(Homes { v1, v2, programs: Programs::default() }) })
    }

    pub fn kind(&self) -> Kind {
        match (self.homes.v1.is_empty(), self.homes.v2.is_some()) {
            (true, _) => Kind::V2,
            (false, false) => Kind::V1,
            (false, true) => Kind::Hybrid,
        }
    }

    /// What `stapes info` prints: the kind, and each controller with the version that serves it.
    pub fn describe(&self) -> BTreeMap<String, String> {
        let mut about = BTreeMap::from([("cgroups".to_owned(), self.kind().as_str().to_owned())]);
        for home in &self.homes.v1 {
            for controller in &home.controllers {
                about.insert(format!("cgroup_{controller}"), "v1".to_owned());
            }
        }
        for controller in self.homes.v2.iter().flat_map(|home| &home.controllers) {
            about.insert(format!("cgroup_{controller}"), "v2".to_owned());
        }
        about
    }

    /// The group of that name, without any I/O and whether it exists or not.
    ///
    /// A name that is no single path component cannot leave the parent: its slashes and dots are replaced, and the
    /// group that it then names does not exist.
    pub fn group(&self, name: &str) -> Group {
        let name = if is_name(name) { name.to_owned() } else { name.replace(['/', '.', '\0'], "_") };
        Group::new(Arc::clone(&self.homes), name)
    }

    /// Makes an instance's groups in every hierarchy, or none at all. A name that exists already is a conflict.
    pub fn create(&self, name: &str) -> Result<Group, CgroupError> {
        checked(name)?;
        let group = self.group(name);
        group.make()?;
        Ok(group)
    }

    /// Makes a group ahead of time that [`rename`](Self::rename) will turn into an instance's: v1 only, since v2 cannot
    /// rename and makes its groups then. On a host with v2 only there is nothing to prepare.
    pub fn create_spare(&self, name: &str) -> Result<Group, CgroupError> {
        checked(name)?;
        let group = self.group(name);
        group.make_v1()?;
        Ok(group)
    }

    /// Gives a group another name: a [spare](Self::create_spare) becomes an instance's.
    ///
    /// v1 groups are renamed with what is in them (13 µs each). v2 has no rename: the new group is made and the old
    /// one, which must be empty, removed; any limits on it are forgotten. On an error the old name stays.
    pub fn rename(&self, from: &str, to: &str) -> Result<Group, CgroupError> {
        checked(from)?;
        checked(to)?;
        let (old, new) = (self.group(from), self.group(to));
        self.rename_v1(from, to)?;
        let result = new.make_v2().and_then(|()| {
            old.remove_empty_v2().inspect_err(|_| {
                let _ = new.remove_empty_v2();
            })
        });
        match result {
            Ok(()) => Ok(new),
            Err(error) => {
                let _ = self.rename_v1(to, from);
                Err(error)
            }
        }
    }

    /// Renames in every v1 hierarchy or in none.
    pub(crate) fn rename_v1(&self, from: &str, to: &str) -> Result<(), CgroupError> {
        checked(from)?;
        checked(to)?;
        for (renamed, home) in self.homes.v1.iter().enumerate() {
            let (old, new) = (home.dir.join(from), home.dir.join(to));
            if let Err(errno) = rustix::fs::rename(&old, &new) {
                for home in &self.homes.v1[..renamed] {
                    let _ = rustix::fs::rename(home.dir.join(to), home.dir.join(from));
                }
                let call = format!("rename({}, {})", old.display(), new.display());
                return Err(CgroupError::Call { call, source: errno.into() });
            }
        }
        Ok(())
    }

    /// Names beneath the parent in any hierarchy, sorted: a group that half exists is listed too.
    pub fn list(&self) -> Result<Vec<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for dir in self.homes.dirs() {
            let groups = knob::child_groups(dir)?;
            names.extend(groups.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
        }
        Ok(names.into_iter().collect())
    }

    /// Removes the parent groups themselves, for tests and uninstalling. Fails while any instance's group is there.
    ///
    /// Only the last component of a parent path goes: the ones above may be systemd's.
    pub fn remove_parent(&self) -> Result<(), CgroupError> {
        self.homes.dirs().try_for_each(knob::rmdir)
    }
}

impl Homes {
    fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|home| home.dir.as_path()).chain(self.v2.iter().map(|home| home.dir.as_path()))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\n', '\0'])
}

fn checked(name: &str) -> Result<(), CgroupError> {
    // Beside instances live the kernel's own files (`tasks`, `cpu.max`): a name like those is refused by mkdir.
    if is_name(name) { Ok(()) } else { Err(CgroupError::BadName(name.to_owned())) }
}

fn open_v1(mount: &Path, relative: &Path, cpuset: bool) -> Result<PathBuf, CgroupError> {
    let mut dir = mount.to_owned();
    for part in relative.components() {
        let above = dir.clone();
        dir.push(part);
        knob::ensure_dir(&dir)?;
        if cpuset {
            inherit_cpuset(&above, &dir)?;
        }
    }
    if cpuset {
        // From here on the kernel copies CPUs and memory nodes into each new group: nothing to write on the hot path.
        knob::write(&dir.join("cgroup.clone_children"), "1")?;
    }
    Ok(dir)
}

/// A v1 cpuset is born without CPUs and memory nodes, and joining it fails with ENOSPC. A set that has some stays.
fn inherit_cpuset(above: &Path, dir: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if knob::read(&dir.join(file))?.trim().is_empty() {
            knob::write(&dir.join(file), knob::read(&above.join(file))?.trim())?;
        }
    }
    Ok(())
}

fn open_v2(mount: &Path, relative: &Path) -> Result<V2Home, CgroupError> {
    let mut dir = mount.to_owned();
    for part in relative.components() {
        enable_controllers(&dir)?;
        dir.push(part);
        knob::ensure_dir(&dir)?;
    }
    enable_controllers(&dir)?;
    let enabled = knob::read(&dir.join("cgroup.subtree_control"))?;
    let controllers: Vec<String> = enabled.split_whitespace().map(str::to_owned).collect();
    let wanted = controllers.iter().filter(|name| V2_WANTED.contains(&name.as_str()));
    let enable = wanted.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    Ok(V2Home { dir, controllers, enable })
}

/// Hands every controller that a group has on to its children, as far as the kernel allows.
fn enable_controllers(dir: &Path) -> Result<(), CgroupError> {
    let control = dir.join("cgroup.subtree_control");
    let enabled = match knob::read(&control) {
        Ok(enabled) => enabled,
        // A threaded or domain-invalid group has none to give.
        Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    let available = knob::read(&dir.join("cgroup.controllers"))?;
    for controller in available.split_whitespace() {
        if V2_WANTED.contains(&controller) && !enabled.split_whitespace().any(|one| one == controller) {
            // One at a time, so that one that is refused (EBUSY: processes in the group) takes no other with it.
            let _ = knob::write(&control, &format!("+{controller}"));
        }
    }
    Ok(())
}
