//! Security modules: what a container is called to AppArmor or SELinux, and what it may do under that name.

pub mod policy;
pub mod profile;
pub mod selinux;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::Path,
    sync::Arc,
};

use stapes_instance::Plan;
use stapes_model::{IdMap, InstanceId};
use stapes_sys::exec::ExecError;

use policy::Policies;
use profile::{ProfileSpec, profile_name};

/// A profile that cannot be rendered, compiled or loaded.
#[derive(Debug, thiserror::Error)]
pub enum LsmError {
    #[error("raw.apparmor: line {line:?} would end or begin a profile")]
    Raw { line: String },
    #[error("raw.apparmor is set, and this host cannot confine by AppArmor ({reason}); unset it")]
    Off { reason: String },
    #[error("failed to compile the AppArmor profile (look at raw.apparmor)")]
    Compile {
        #[source]
        source: ExecError,
    },
    #[error("failed to load AppArmor profile {profile}")]
    Load {
        profile: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to remove AppArmor profile {profile}")]
    Unload {
        profile: String,
        #[source]
        source: io::Error,
    },
}

/// What a container's processes and file systems are labelled with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// File beneath `/proc/self/attr`, and what is written to it before `execve`.
    pub exec: Option<(String, String)>,
    /// `context=` of file systems made for the container.
    pub files: Option<String>,
}

/// The security modules of this host.
#[derive(Debug)]
pub struct Modules {
    apparmor: Result<Arc<Policies>, String>,
    selinux: bool,
}

impl Modules {
    /// Looks what this host has. Policy that is compiled is kept in `cache`, notes of what is loaded in `run_dir`.
    pub fn open(cache: &Path, run_dir: &Path) -> Self {
        let apparmor = Policies::open(cache, run_dir).map(Arc::new);
        if let Ok(policies) = &apparmor {
            let policies = Arc::clone(policies);
            std::thread::spawn(move || policies.prepare());
        }
        Self { apparmor, selinux: selinux::is_on() }
    }

    /// Makes the labels of an instance that is to start, and loads what they name. Without a module there are none.
    pub fn label(&self, plan: &Plan) -> Result<Labels, LsmError> {
        let raw = &plan.security.raw_apparmor;
        match &self.apparmor {
            Ok(policies) => {
                let spec =
                    ProfileSpec { privileged: plan.idmap == IdMap::Privileged, nesting: plan.security.nesting, raw };
                policies.load(&plan.id, &spec)?;
                let exec = ("apparmor/exec".to_owned(), format!("exec {}", profile_name(&plan.id)));
                return Ok(Labels { exec: Some(exec), files: None });
            }
            Err(reason) if !raw.trim().is_empty() => return Err(LsmError::Off { reason: reason.clone() }),
            Err(_) => {}
        }
        let label = if self.selinux { selinux::label_for(&plan.id, &plan.root) } else { None };
        Ok(label.map_or_else(Labels::default, |label| Labels {
            exec: Some(("exec".to_owned(), label.process)),
            files: Some(label.files),
        }))
    }

    /// Takes an ended instance's profile out of the kernel; none is success.
    pub fn release(&self, id: &InstanceId) -> Result<(), LsmError> {
        self.apparmor.as_ref().map_or(Ok(()), |policies| policies.unload(id))
    }

    /// Removes the profiles of instances that are not in `keep`; returns their names.
    pub fn sweep(&self, keep: &HashSet<InstanceId>) -> Result<Vec<String>, LsmError> {
        let Ok(policies) = &self.apparmor else { return Ok(Vec::new()) };
        let mut removed = Vec::new();
        for id in policies.loaded().difference(keep) {
            policies.unload(id)?;
            removed.push(format!("AppArmor profile {}", profile_name(id)));
        }
        Ok(removed)
    }

    pub fn describe(&self) -> BTreeMap<String, String> {
        let apparmor = match &self.apparmor {
            Ok(_) => "used: each container has a profile".to_owned(),
            Err(reason) => reason.clone(),
        };
        let selinux = match self.selinux {
            true => "on: containers whose files are labelled container_file_t run as container_init_t",
            false => "not on in this kernel",
        };
        BTreeMap::from([("apparmor".to_owned(), apparmor), ("selinux".to_owned(), selinux.to_owned())])
    }
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, continued.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
