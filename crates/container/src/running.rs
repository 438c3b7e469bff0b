//! A handle to one running container.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stapes_cgroup::Group;
use stapes_instance::{
    Asked, DriverError, Event, ExecHandle, ExecIo, ExecSpec, ExitStatus, FileReply, FileRequest, Limits, Running, Usage,
};
use stapes_model::InstanceId;
use stapes_shim_api::{Exec, MAX_FRAME, Reply, Request, SHIM_SOCKET};
use stapes_sys::{process, socket};

use crate::{
    convert,
    driver::Inner,
    registry::Held,
    wire::{AskError, Connection},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// A little more than the shim's own.
const EXEC_PATIENCE: Duration = Duration::from_secs(25);
const FILE_PATIENCE: Duration = Duration::from_secs(35);
/// How long the kernel may take to end everything inside.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

pub struct Container {
    pub(crate) inner: Arc<Inner>,
    pub(crate) id: InstanceId,
    pub(crate) run: u64,
    pub(crate) run_dir: PathBuf,
    pub(crate) held: Arc<Held>,
    pub(crate) group: Group,
    pub(crate) events: OwnedFd,
    /// One connection that is kept open between requests; further ones are made as callers overlap.
    pub(crate) idle: Mutex<Option<Connection>>,
    /// Its shim and groups may serve another instance after it.
    pub(crate) reusable: bool,
    pub(crate) over: AtomicBool,
}

impl Container {
    fn ask(
        &self,
        subject: &str,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(Reply, Vec<OwnedFd>), DriverError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.run_dir, SHIM_SOCKET)
                .map_err(|error| DriverError::other(format!("failed to reach the shim of {}", self.id), error))?
                .ok_or(DriverError::ShimGone { id: self.id })?,
        };
        match connection.ask(request, fds, patience) {
            Ok((reply, fds)) => {
                *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
                match reply {
                    Reply::Failed(failure) => Err(convert::failure(self.id, subject, failure)),
                    reply => Ok((reply, fds)),
                }
            }
            Err(AskError::Gone) => Err(DriverError::ShimGone { id: self.id }),
            Err(AskError::Silent { seconds }) => Err(DriverError::ShimSilent { seconds }),
            Err(error) => Err(DriverError::other(format!("failed to ask the shim of {}", self.id), error)),
        }
    }

    fn unexpected(&self) -> DriverError {
        DriverError::Other {
            doing: format!("the shim of {} gave an answer to another question", self.id),
            source: None,
        }
    }

    fn group_error(&self, doing: &str, error: stapes_cgroup::CgroupError) -> DriverError {
        DriverError::other(format!("failed to {doing} instance {}", self.id), error)
    }

    fn ended(&self) -> bool {
        socket::wait_readable(&self.held.pidfd, Duration::ZERO).unwrap_or(true)
    }
}

impl Running for Container {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn pid(&self) -> u32 {
        self.held.status.pid
    }

    fn started_at(&self) -> i64 {
        self.held.status.started_at
    }

    fn request_shutdown(&self) -> Result<Asked, DriverError> {
        let signal = self.held.status.shutdown_signal;
        // Looked at before, sent in any case: where the look is wrong, a second request does no harm.
        let told = if process::heeds_signal(self.held.status.pid, signal).unwrap_or(true) {
            Asked::Told
        } else {
            Asked::NotListening
        };
        process::pidfd_send_signal(self.held.pidfd.as_fd(), signal).map(|()| told).map_err(|error| {
            match error.raw_os_error() {
                Some(3) => DriverError::NotRunning { id: self.id },
                _ => DriverError::other(format!("failed to signal init of {}", self.id), error),
            }
        })
    }

    fn kill(&self) -> Result<(), DriverError> {
        let failed = |error: io::Error| DriverError::other(format!("failed to kill init of {}", self.id), error);
        match process::pidfd_send_signal(self.held.pidfd.as_fd(), 9) {
            Err(error) if error.raw_os_error() != Some(3) => return Err(failed(error)),
            _ => {}
        }
        // A task that is frozen by version 1 takes even this signal only when it is thawed.
        if self.group.is_frozen().unwrap_or(false) {
            let _ = self.group.thaw();
        }
        if !socket::wait_readable(&self.held.pidfd, KILL_PATIENCE).map_err(failed)? {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        Ok(())
    }

    fn freeze(&self) -> Result<(), DriverError> {
        if self.ended() {
            return Err(DriverError::NotRunning { id: self.id });
        }
        self.group.freeze().map_err(|error| self.group_error("freeze", error))
    }

    fn thaw(&self) -> Result<(), DriverError> {
        self.group.thaw().map_err(|error| self.group_error("thaw", error))
    }

    fn is_frozen(&self) -> Result<bool, DriverError> {
        self.group.is_frozen().map_err(|error| self.group_error("look at the freezer of", error))
    }

    fn exec(&self, spec: &ExecSpec, io: ExecIo) -> Result<ExecHandle, DriverError> {
        let program = spec.command.first().map(String::as_str).unwrap_or_default();
        if self.is_frozen()? {
            let doing = format!("failed to run {program}: instance {} is frozen; resume it first", self.id);
            return Err(DriverError::Other { doing, source: None });
        }
        let (pty, streams) = match io {
            ExecIo::Pty { columns, rows } => (Some((columns, rows)), Vec::new()),
            ExecIo::Streams { stdin, stdout, stderr } => (None, vec![stdin, stdout, stderr]),
        };
        let exec = Exec {
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            uid: spec.uid,
            gid: spec.gid,
            cwd: spec.cwd.clone(),
            pty,
        };
        let fds: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
        match self.ask(program, &Request::Exec(Box::new(exec)), &fds, EXEC_PATIENCE)? {
            (Reply::Executed { exec, pid }, mut fds) => Ok(ExecHandle { exec, pid, pty: fds.pop() }),
            _ => Err(self.unexpected()),
        }
    }

    fn exec_signal(&self, exec: u64, signal: i32) -> Result<(), DriverError> {
        self.ask("", &Request::ExecSignal { exec, signal }, &[], PATIENCE).map(drop)
    }

    fn exec_status(&self, exec: u64) -> Result<Option<ExitStatus>, DriverError> {
        match self.ask("", &Request::ExecStatus { exec }, &[], PATIENCE)? {
            (Reply::Exec(status), _) => Ok(status.map(convert::exit_status)),
            _ => Err(self.unexpected()),
        }
    }

    fn console(&self) -> Result<OwnedFd, DriverError> {
        let (_, mut fds) = self.ask("console", &Request::Console, &[], PATIENCE)?;
        fds.pop().ok_or_else(|| self.unexpected())
    }

    fn file(&self, request: &FileRequest) -> Result<FileReply, DriverError> {
        let path = convert::path(request);
        let (op, content) = convert::file_op(request)
            .map_err(|error| DriverError::other(format!("failed to prepare a request on {path}"), error))?;
        let fds: Vec<_> = content.iter().map(AsFd::as_fd).collect();
        match self.ask(path, &Request::File { op }, &fds, FILE_PATIENCE)? {
            (Reply::File(answer), mut fds) => convert::file_reply(path, answer, fds.pop()),
            _ => Err(self.unexpected()),
        }
    }

    fn update_limits(&self, limits: &Limits) -> Result<(), DriverError> {
        self.group.apply(limits).map_err(|error| self.group_error("limit", error))?;
        if self.ended() {
            return Err(DriverError::NotRunning { id: self.id });
        }
        // Of init and what it starts from now on; what runs inside may have set its own.
        let path = format!("/proc/{}/oom_score_adj", self.held.status.pid);
        std::fs::write(path, limits.oom_score_adj.unwrap_or(0).to_string()).map_err(|error| {
            DriverError::other(format!("failed to set limits.memory.oom_priority of {}", self.id), error)
        })
    }

    fn usage(&self) -> Result<Usage, DriverError> {
        let mut usage = self.group.usage().map_err(|error| self.group_error("read the counters of", error))?;
        if !self.held.status.remembered.exec_join.is_empty() {
            // The shim's embryo, which sits in version 1's groups.
            usage.processes = usage.processes.saturating_sub(1);
        }
        Ok(usage)
    }

    fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn next_event(&self) -> Option<Event> {
        if self.over.load(Ordering::Relaxed) {
            return None;
        }
        let event = match socket::receive(self.events.as_fd(), MAX_FRAME, false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(Some(datagram)) => stapes_shim_api::decode(&datagram.bytes).ok().map(convert::event)?,
            Ok(None) | Err(_) => Event::ShimLost,
        };
        match event {
            Event::Exited { .. } | Event::ShimLost => self.over.store(true, Ordering::Relaxed),
            Event::ExecExited { .. } => {}
        }
        Some(event)
    }

    fn acknowledge_exit(&self) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shim = idle.or_else(|| Connection::open(&self.run_dir, SHIM_SOCKET).ok().flatten());
        if shim.is_none() {
            // Its socket was removed with the instance. The answer is one event too many, and nobody reads it.
            let request = stapes_shim_api::encode(&Request::AcknowledgeExit);
            let _ = socket::send(self.events.as_fd(), &request, &[], false);
        }
        self.inner.clean_later(self.id, self.run, shim, self.reusable);
    }
}
