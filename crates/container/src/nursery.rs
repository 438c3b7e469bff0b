//! The nursery as the driver sees it: found, or started, and asked.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stapes_instance::DriverError;
use stapes_shim_api::{NURSERY_SOCKET, NurseryReply, NurseryRequest, VERSION};
use stapes_sys::socket;

use crate::wire::{AskError, Connection};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Nursery {
    program: PathBuf,
    run_dir: PathBuf,
    connection: Mutex<Option<Connection>>,
    /// What is to run, by name: a new nursery is told of all of it.
    services: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Nursery {
    pub fn new(program: PathBuf, run_dir: PathBuf) -> Self {
        Self { program, run_dir, connection: Mutex::new(None), services: Mutex::default() }
    }

    /// Asks, starting a nursery where none of this build runs. An earlier one that died is replaced once.
    pub fn ask(&self, request: &NurseryRequest, fds: &[BorrowedFd<'_>]) -> Result<NurseryReply, DriverError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = AskError::Gone;
        for _ in 0..2 {
            let open = match connection.take() {
                Some(open) => open,
                None => self.connect()?,
            };
            match open.ask(request, fds, PATIENCE) {
                Ok((NurseryReply::Failed(failure), _)) => {
                    *connection = Some(open);
                    return Err(DriverError::Other { doing: failure.message, source: None });
                }
                Ok((reply, _)) => {
                    *connection = Some(open);
                    return Ok(reply);
                }
                Err(AskError::Gone) => last = AskError::Gone,
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        Err(DriverError::other("failed to ask the shim nursery", last))
    }

    /// A connection of one's own, for what may take long.
    pub fn connect(&self) -> Result<Connection, DriverError> {
        let failed = |error: io::Error| DriverError::other("failed to reach the shim nursery", error);
        if let Some(found) = Connection::open(&self.run_dir, NURSERY_SOCKET).map_err(failed)? {
            match found.ask(&NurseryRequest::Hello { version: VERSION }, &[], PATIENCE) {
                Ok((NurseryReply::Hello { build, .. }, _)) if Some(&build) == build_of(&self.program).as_ref() => {
                    return Ok(found);
                }
                // Of another build: its shims live on, its services are started anew by whoever wants them.
                _ => drop(found.ask::<_, NurseryReply>(&NurseryRequest::Quit, &[], PATIENCE)),
            }
        }
        self.spawn()?;
        let open = Connection::open(&self.run_dir, NURSERY_SOCKET).map_err(failed)?;
        let open = open.ok_or_else(|| failed(io::ErrorKind::ConnectionRefused.into()))?;
        self.start_missing(&open);
        Ok(open)
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that a service runs, in this nursery and in any that replaces it.
    pub fn ensure_service(&self, name: &str, argv: &[String]) -> Result<NurseryReply, DriverError> {
        let reply = self.ask(&NurseryRequest::EnsureService { name: name.to_owned(), argv: argv.to_vec() }, &[])?;
        self.services().insert(name.to_owned(), argv.to_vec());
        Ok(reply)
    }

    pub fn stop_service(&self, name: &str) -> Result<(), DriverError> {
        self.services().remove(name);
        self.ask(&NurseryRequest::StopService { name: name.to_owned() }, &[]).map(drop)
    }

    /// Starts the services that should run and do not.
    fn start_missing(&self, open: &Connection) {
        let Ok((NurseryReply::Names(running), _)) = open.ask(&NurseryRequest::Services, &[], PATIENCE) else { return };
        let missing: Vec<_> = self.services().clone().into_iter().filter(|(name, _)| !running.contains(name)).collect();
        for (name, argv) in missing {
            tracing::warn!(service = name, "a service was lost and is started anew");
            let request = NurseryRequest::EnsureService { name: name.clone(), argv };
            match open.ask::<_, NurseryReply>(&request, &[], PATIENCE) {
                Ok((NurseryReply::Pid(_), _)) => {}
                Ok((reply, _)) => tracing::error!(service = name, ?reply, "a service is down"),
                Err(error) => {
                    tracing::error!(service = name, error = &error as &dyn std::error::Error, "a service is down");
                }
            }
        }
    }

    /// Replaces a nursery that died, and starts services that did, before anybody asks for them.
    pub fn revive(&self) {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // Readable without a request under way: the far end is gone.
        let lives = |open: &Connection| !socket::wait_readable(&open.0, Duration::ZERO).unwrap_or(true);
        match &*connection {
            Some(open) if lives(open) => self.start_missing(open),
            None => {}
            Some(_) => match self.connect() {
                Ok(open) => *connection = Some(open),
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "no shim nursery"),
            },
        }
    }

    /// Ends the nursery that runs, if any, and its services; its shims live on.
    pub fn quit(&self) {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Ok(Some(found)) = Connection::open(&self.run_dir, NURSERY_SOCKET) {
            drop(found.ask::<_, NurseryReply>(&NurseryRequest::Quit, &[], PATIENCE));
        }
    }

    fn spawn(&self) -> Result<(), DriverError> {
        let doing = || format!("failed to start the shim nursery ({})", self.program.display());
        std::fs::create_dir_all(&self.run_dir).map_err(|error| DriverError::other(doing(), error))?;
        let mut command = Command::new(&self.program);
        command.arg("--nursery").arg(&self.run_dir).stdin(Stdio::null()).stdout(Stdio::null()).env_clear();
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(DriverError::other(doing(), io::Error::other(status.to_string()))),
            Err(error) => Err(DriverError::other(doing(), error)),
        }
    }

    /// Forks a shim whose embryo joins the given groups; returns the connection to it. It is there once it greets.
    pub fn fork_shim(&self, join: Vec<String>) -> Result<Connection, DriverError> {
        let failed = |error: io::Error| DriverError::other("failed to make a socket pair", error);
        let (ours, theirs): (OwnedFd, OwnedFd) = socket::seqpacket_pair().map_err(failed)?;
        self.ask(&NurseryRequest::Fork { join }, &[theirs.as_fd()])?;
        drop(theirs);
        Ok(Connection(ours))
    }
}

/// The same words as the nursery's own.
fn build_of(program: &Path) -> Option<String> {
    let meta = std::fs::metadata(program).ok()?;
    Some(format!("{}-{}-{}.{}", env!("CARGO_PKG_VERSION"), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
