//! The workflows, one file each.
//!
//! A workflow checks everything that can be refused, takes its locks, and only then starts an operation; the operation
//! writes its intent before its first effect.

mod console;
mod create;
mod delete;
pub(crate) mod exec;
mod files;
mod freeze;
mod ids;
mod images;
mod init;
mod instances;
mod logs;
pub(crate) mod networks;
mod nics;
mod plan;
mod pools;
mod profiles;
mod projects;
mod rename;
mod server;
mod shutdown;
mod start;
mod state;
mod stop;
mod templates;
mod update;

pub use create::{CreateInstance, CreateSource};
pub use exec::{ExecCommand, ExecOutput, ExecTarget, exec_failed};
pub use images::{ImageEdit, ImportedImage};
pub use init::InitPlan;
pub use instances::{Expanded, InstanceEdit};
pub use networks::describe_advertiser;
pub(crate) use start::REBOOT;
pub use state::{AddressState, InstanceState, NicState, OsState};
pub use stop::StopMode;
pub(crate) use templates::KnownMetadata;

use std::collections::BTreeMap;

use stapes_model::{InstanceName, ProjectName};

use crate::{
    events::Requestor,
    operations::{Class, Spec},
};

/// Path of an instance in the API, as events and operations name it.
pub fn instance_url(project: &ProjectName, name: &InstanceName) -> String {
    with_project(format!("/1.0/instances/{name}"), project)
}

/// Adds `?project=` for any project but the default one, as Incus writes URLs.
pub fn with_project(url: String, project: &ProjectName) -> String {
    if project.as_str() == "default" { url } else { format!("{url}?project={project}") }
}

/// A task about all instances of a project.
pub fn bulk_task(description: &'static str, project: &ProjectName, requestor: Option<Requestor>) -> Spec {
    Spec {
        class: Class::Task,
        description,
        project: project.to_string(),
        resources: BTreeMap::new(),
        requestor,
        may_cancel: false,
    }
}

/// A task about one instance.
pub fn task(
    description: &'static str,
    project: &ProjectName,
    name: &InstanceName,
    requestor: Option<Requestor>,
) -> Spec {
    let urls = vec![instance_url(project, name)];
    Spec {
        class: Class::Task,
        description,
        project: project.to_string(),
        resources: BTreeMap::from([("instances".to_owned(), urls)]),
        requestor,
        may_cancel: false,
    }
}
