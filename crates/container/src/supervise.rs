//! Programs of the host's under the same shims, groups and handles as containers.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use stapes_cgroup::{Group, Leaf};
use stapes_instance::{DriverError, ProgramPlan, Running, Supervise};
use stapes_model::InstanceId;
use stapes_shim_api as wire;
use stapes_shim_api::Request;

use crate::{
    ContainerDriver,
    driver::{Inner, START_PATIENCE, start_error, v2_directories},
    render,
    warm::{Warm, join_files},
};

impl Supervise for ContainerDriver {
    fn launch(
        &self,
        program: &ProgramPlan,
        console: OwnedFd,
        fds: Vec<OwnedFd>,
    ) -> Result<Arc<dyn Running>, DriverError> {
        let own: Vec<_> = [console].into_iter().chain(fds).collect();
        self.inner.begin(program.id, &program.run_dir, |warm, group| launch(&self.inner, program, warm, group, &own))
    }

    fn adopt(&self, id: &InstanceId, run_dir: &Path) -> Result<Option<Arc<dyn Running>>, DriverError> {
        self.inner.adopt(*id, run_dir)
    }
}

fn launch(
    inner: &Arc<Inner>,
    program: &ProgramPlan,
    warm: &Warm,
    group: &Group,
    own: &[OwnedFd],
) -> Result<Arc<dyn Running>, DriverError> {
    let id = program.id;
    let limited = |error| start_error(id, "failed to set its limits", error);
    group.apply_to_new(&program.limits).map_err(limited)?;
    if !program.nodes.is_empty() || !inner.pool.v1_devices() {
        group.allow_devices(&render::device_rules(&program.nodes)).map_err(limited)?;
    }
    let directories = v2_directories(group).map_err(|error| start_error(id, "failed to open its groups", error))?;
    let fds: Vec<_> = own.iter().chain(&directories).map(AsFd::as_fd).collect();
    let request = Request::Launch(Box::new(order(program, group)));
    inner.started(id, &program.run_dir, warm.control.ask(&request, &fds, START_PATIENCE))
}

fn order(program: &ProgramPlan, group: &Group) -> wire::Launch {
    wire::Launch {
        id: program.id.to_string(),
        run_dir: program.run_dir.display().to_string(),
        log_dir: program.log_dir.display().to_string(),
        program: wire::Program {
            name: program.name.clone(),
            path: program.path.clone(),
            argv: program.argv.clone(),
            environment: program.environment.clone(),
            uid: program.uid,
            gid: program.gid,
            view: program.view.iter().map(render::bind).collect(),
            nodes: program.nodes.iter().map(render::node).collect(),
            links: program.links.clone(),
        },
        cgroup: wire::CgroupView {
            exec_join: join_files(group),
            v2_directories: group.v2_dir(Leaf::Payload).is_some(),
            ..wire::CgroupView::default()
        },
        oom_score_adj: program.limits.oom_score_adj,
        rlimits: render::rlimits(&program.limits),
    }
}
