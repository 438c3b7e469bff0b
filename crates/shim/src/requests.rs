//! Requests of the daemon, one function each.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Instant,
};

use stapes_shim_api::{Event, Failure, FailureKind, FileOp, Reply, Request, SHIM_SOCKET, Takeover, VERSION};
use stapes_sys::{
    process::{self, Forked},
    socket,
};

use crate::{
    console::Console,
    embryo::Embryo,
    events::{Queue, Results},
    files,
    instance::{Instance, V2Groups},
    launch,
    shim::{FILE_PATIENCE, Helper, Shim},
    start, wire,
};

/// A reply now, or later by whoever does the work.
type Answer = Result<Option<(Reply, Vec<OwnedFd>)>, Failure>;

fn now(reply: Reply) -> Answer {
    Ok(Some((reply, Vec::new())))
}

fn other(doing: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Other, format!("failed to {doing}: {error}"))
}

impl Shim {
    pub fn request(&mut self, id: u64, bytes: &[u8], fds: Vec<OwnedFd>) {
        let answer = match stapes_shim_api::decode::<Request>(bytes) {
            Ok(request) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.busy = true;
                }
                self.dispatch(id, request, fds)
            }
            Err(error) => Err(Failure::new(FailureKind::Unsupported, format!("unknown request: {error}"))),
        };
        match answer {
            Ok(None) => {}
            Ok(Some((reply, fds))) => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                self.reply(id, &reply, &fds);
            }
            Err(failure) => self.reply(id, &Reply::Failed(failure), &[]),
        }
    }

    fn dispatch(&mut self, id: u64, request: Request, fds: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Hello { .. } => match &self.parked {
                Ok(()) => now(Reply::Hello { version: VERSION, pid: std::process::id() }),
                Err(error) => Err(other("join the control groups", error)),
            },
            Request::Start(plan) => {
                let run_dir = plan.run_dir.clone();
                self.start(&run_dir, |embryo| start::start(embryo, *plan, fds))
            }
            Request::Launch(plan) => {
                let run_dir = plan.run_dir.clone();
                self.start(&run_dir, |embryo| launch::launch(embryo, *plan, fds))
            }
            Request::Takeover(takeover) => self.take_over(*takeover, fds),
            Request::Status => now(Reply::Status(self.held()?.status.clone())),
            Request::Duplicates => self.duplicates(),
            Request::Console => self.view_console(),
            Request::Exec(exec) => {
                self.container()?;
                self.exec(id, *exec, fds).map(|()| None)
            }
            Request::ExecSignal { exec, signal } => {
                let pidfd =
                    self.execs.pidfd(exec).ok_or_else(|| Failure::new(FailureKind::State, "the command has ended"))?;
                process::pidfd_send_signal(pidfd, signal).map_err(|error| other("signal the command", &error))?;
                now(Reply::Done)
            }
            Request::ExecStatus { exec } => now(Reply::Exec(self.results.get(exec))),
            Request::File { op } => self.file(id, &op, fds),
            Request::Subscribe => {
                let exited = self.instance.as_ref().and_then(|instance| instance.status.exited);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.busy = false;
                    let queue = connection.queue.insert(std::mem::take::<Queue>(&mut self.unheard));
                    // A listener that died with the news in its socket has told nobody; the end is news until it is
                    // acknowledged. Hearing of it twice is harmless.
                    if let Some((reason, status)) = exited {
                        queue.push(&Event::Exited { reason, status });
                    }
                }
                Ok(None)
            }
            Request::AcknowledgeExit => {
                self.leave = self.held()?.status.exited.is_some();
                if self.leave {
                    // Before the answer: the next run of this instance listens at the same place.
                    self.withdraw();
                }
                now(Reply::Done)
            }
            Request::Reuse => self.become_spare(id),
        }
    }

    fn held(&self) -> Result<&Instance, Failure> {
        self.instance.as_ref().ok_or_else(|| Failure::new(FailureKind::State, "nothing was started here"))
    }

    /// What is held, if something can be done inside.
    fn container(&self) -> Result<&Instance, Failure> {
        match self.held()? {
            instance if instance.status.remembered.program => Err(Failure::new(
                FailureKind::Other,
                "this instance is a program of the host's: nothing is done inside",
            )),
            instance => Ok(instance),
        }
    }

    fn listen(&mut self, run_dir: &str) -> Result<(), Failure> {
        let listener = socket::open_directory(Path::new(run_dir))
            .and_then(|dir| socket::listen_in(dir.as_fd(), SHIM_SOCKET))
            .map_err(|error| other(&format!("listen in {run_dir}"), &error))?;
        self.listener = Some(listener);
        Ok(())
    }

    fn start(&mut self, run_dir: &str, first: impl FnOnce(&Embryo) -> Result<Instance, Failure>) -> Answer {
        if self.instance.is_some() {
            return Err(Failure::new(FailureKind::State, "this shim holds an instance already"));
        }
        self.listen(run_dir)?;
        match first(&self.embryo) {
            Ok(instance) => {
                if !instance.status.remembered.program {
                    let _ = self.embryo.enter(instance.pidfd.as_fd());
                }
                self.instance = Some(instance);
                self.untidy = true;
                self.status_with_duplicates()
            }
            Err(failure) => {
                self.listener = None;
                let _ = std::fs::remove_file(Path::new(run_dir).join(SHIM_SOCKET));
                Err(failure)
            }
        }
    }

    /// Forgets an instance that ended, and everybody but the connection `id`.
    fn become_spare(&mut self, id: u64) -> Answer {
        let instance = self.held()?;
        let over = instance.status.exited.is_some() && instance.is_child;
        let empty = self.execs.is_empty() && self.helpers.is_empty() && self.parked.is_ok();
        if !over || !empty || self.embryo.pid == 0 {
            return Err(Failure::new(FailureKind::State, "something of the last instance is left"));
        }
        let left = self.embryo.leave().and_then(|()| self.embryo.wait_ready());
        left.map_err(|error| other("leave the last instance's pid namespace", &error))?;
        self.withdraw();
        self.instance = None;
        self.connections.retain(|one, _| *one == id);
        self.results = Results::default();
        self.unheard = Queue::default();
        self.orphans.clear();
        self.untidy = true;
        now(Reply::Done)
    }

    fn take_over(&mut self, takeover: Takeover, mut fds: Vec<OwnedFd>) -> Answer {
        if self.instance.is_some() {
            return Err(Failure::new(FailureKind::State, "this shim holds an instance already"));
        }
        let v2 = if takeover.v2_directories { V2Groups::from_last(&mut fds) } else { None };
        if fds.is_empty() {
            return Err(Failure::new(FailureKind::Other, "the pidfd of init is missing"));
        }
        let pidfd = fds.remove(0);
        let remembered = takeover.status.remembered.clone();
        let console = fds.pop().and_then(|master| Console::new(master, None, &remembered.log_dir, true).ok());
        if !remembered.program {
            self.embryo.enter(pidfd.as_fd()).map_err(|error| other("prepare for commands", &error))?;
        }
        self.listen(&remembered.run_dir)?;
        let status = takeover.status;
        self.instance = Some(Instance { status, pidfd, console, output: None, v2, is_child: false, ended: None });
        self.status_with_duplicates()
    }

    fn status_with_duplicates(&self) -> Answer {
        let duplicates = self.duplicates()?.map(|(_, fds)| fds).unwrap_or_default();
        Ok(Some((Reply::Status(self.held()?.status.clone()), duplicates)))
    }

    fn duplicates(&self) -> Answer {
        let instance = self.held()?;
        let mut fds = vec![instance.pidfd.try_clone().map_err(|error| other("duplicate the pidfd", &error))?];
        if let Some(console) = &instance.console {
            fds.push(console.master().try_clone_to_owned().map_err(|error| other("duplicate the console", &error))?);
        }
        Ok(Some((Reply::Descriptors, fds)))
    }

    fn view_console(&mut self) -> Answer {
        let console = self.instance.as_mut().and_then(|instance| instance.console.as_mut());
        let console = console.ok_or_else(|| Failure::new(FailureKind::State, "there is no console (any more)"))?;
        let master = console.view().map_err(|error| other("make a terminal for the console", &error))?;
        Ok(Some((Reply::Descriptors, vec![master])))
    }

    fn file(&mut self, id: u64, op: &FileOp, mut fds: Vec<OwnedFd>) -> Answer {
        let instance = self.container()?;
        if instance.status.exited.is_some() {
            return Err(Failure::new(FailureKind::State, "the instance is not running"));
        }
        match process::fork().map_err(|error| other("fork", &error))? {
            Forked::Parent { pid } => {
                self.helpers.push(Helper { pid, connection: id, deadline: Instant::now() + FILE_PATIENCE });
                Ok(None)
            }
            Forked::Child => {
                let init = Some((instance.pidfd.as_fd(), instance.status.remembered.ids.is_some()));
                let result = files::perform(op, fds.pop(), init, None);
                let (reply, fd) = match result {
                    Ok((answer, fd)) => (Reply::File(answer), fd),
                    Err(failure) => (Reply::Failed(failure), None),
                };
                let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
                let sent = self.connections.get(&id).map(|connection| wire::send(&connection.fd, &reply, &fds));
                process::exit_now(i32::from(!matches!(sent, Some(Ok(())))))
            }
        }
    }
}
