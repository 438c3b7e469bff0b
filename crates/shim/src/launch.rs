//! The start of a program of the host's, from the shim's side.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::pipe::{PipeFlags, pipe_with};
use stapes_shim_api::{Failure, FailureKind, Launch, Remembered, Status};
use stapes_sys::{namespace, socket};

use crate::{
    console::Console,
    embryo::{Embryo, First},
    instance::{Instance, V2Groups},
    log::Output,
    start::{self, Born},
    step::{Step, StepError},
};

/// Starts the program and returns once its first instruction runs. On an error the process is gone.
pub fn launch(embryo: &Embryo, mut plan: Launch, mut fds: Vec<OwnedFd>) -> Result<Instance, Failure> {
    let as_failure = |error: StepError| error.failure(FailureKind::Start);
    let v2 = if plan.cgroup.v2_directories { V2Groups::from_last(&mut fds) } else { None };
    if fds.is_empty() {
        return Err(Failure::new(FailureKind::Start, "the console of the program is missing"));
    }
    let console = fds.remove(0);
    let (said, say) = pipe_with(PipeFlags::CLOEXEC).step(|| "failed to make a pipe".to_owned()).map_err(as_failure)?;
    let (channel, theirs) =
        socket::seqpacket_pair().step(|| "failed to make a socket pair".to_owned()).map_err(as_failure)?;
    let born = clone(embryo, theirs, v2.as_ref().map(|v2| v2.payload.as_fd())).map_err(as_failure)?;
    let done = set_up(&born, &mut plan, say, fds, channel.as_fd());
    let outcome = start::follow(channel.as_fd(), done).and_then(|_| channels(console, said, &plan).map_err(as_failure));
    match outcome {
        Ok((console, output)) => Ok(Instance {
            status: status(plan, born.pid),
            pidfd: born.pidfd,
            console: Some(console),
            output: Some(output),
            v2,
            is_child: true,
            ended: None,
        }),
        Err(failure) => Err(born.end(failure)),
    }
}

/// Without a user namespace: it belongs to a user who has nothing anywhere, and files carry the host's owners.
fn clone(embryo: &Embryo, channel: OwnedFd, v2: Option<BorrowedFd<'_>>) -> Result<Born, StepError> {
    use namespace::{NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUTS};
    let flags = NEWCGROUP | NEWIPC | NEWNET | NEWNS | NEWPID | NEWUTS;
    let made = embryo.clone_first(First::Program, channel.as_fd(), v2, flags, 0).and_then(|()| start::born(embryo));
    made.step(|| "failed to make the program's namespaces".to_owned())
}

/// Opens what the program is to see and hands all of it over: the mounts of view and nodes, its log, its descriptors.
fn set_up(
    born: &Born,
    plan: &mut Launch,
    say: OwnedFd,
    fds: Vec<OwnedFd>,
    channel: BorrowedFd<'_>,
) -> Result<(), StepError> {
    start::limit(born.pid, plan.oom_score_adj, &mut plan.rlimits);
    let mut all = Vec::new();
    start::binds(&mut plan.program.view, None, &mut all)?;
    start::nodes(&plan.program.nodes, 0, &mut all)?;
    all.push(say);
    all.extend(fds);
    start::hand_over(channel, plan, &all)
}

fn channels(console: OwnedFd, said: OwnedFd, plan: &Launch) -> Result<(Console, Output), StepError> {
    let log = Path::new(&plan.log_dir).join(format!("{}.log", plan.program.name));
    let made = (|| Ok::<_, io::Error>((Console::new(console, None, &plan.log_dir, false)?, Output::new(said, log)?)))();
    made.step(|| "failed to set up the console".to_owned())
}

fn status(plan: Launch, pid: i32) -> Status {
    const SIGTERM: i32 = 15;
    Status {
        id: plan.id,
        pid: pid as u32,
        started_at: start::now(),
        shutdown_signal: SIGTERM,
        exited: None,
        remembered: Remembered {
            exec_join: plan.cgroup.exec_join,
            log_dir: plan.log_dir,
            run_dir: plan.run_dir,
            program: true,
            ..Remembered::default()
        },
    }
}
