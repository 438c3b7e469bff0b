//! The nursery: forks shims, keeps the daemon's services, and answers file requests on stopped instances.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use rustix::event::{PollFd, PollFlags, poll};
use stapes_shim_api::{
    Failure, FailureKind, FileOp, IdRange, MAX_FRAME, NURSERY_SOCKET, NurseryReply, NurseryRequest, VERSION,
};
use stapes_sys::{
    mount,
    namespace::{self, NEWUSER},
    process::{self, CloneSpec, Cloned, Forked},
    socket,
};

use crate::{embryo::Embryo, files, helpers::Helpers, services::Services, shim::FILE_PATIENCE, wire};

/// Listens, then goes into the background; returns in the process that was started, once connections are taken.
pub fn start(run_dir: &Path) -> io::Result<()> {
    let dir = socket::open_directory(run_dir)?;
    let listener = socket::listen_in(dir.as_fd(), NURSERY_SOCKET)?;
    // Forked twice: the middle process leads the new session and dies, so this one never gets a terminal, and nobody
    // is its parent but pid 1.
    if let Forked::Parent { pid } = process::fork()? {
        process::reap(pid)?;
        return Ok(());
    }
    let _ = rustix::process::setsid();
    if let Ok(Forked::Parent { .. }) | Err(_) = process::fork() {
        process::exit_now(0);
    }
    let _ = rustix::thread::set_name(c"stapes-nursery");
    let _ = detach();
    let _ = process::close_all_but(&[dir.as_raw_fd(), listener.as_raw_fd()]);
    let _ = Nursery::new(dir, listener).map(Nursery::run);
    process::exit_now(0)
}

fn detach() -> io::Result<()> {
    rustix::process::chdir("/")?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

/// Tells two builds of this program apart, without reading it.
fn build() -> String {
    let of = |meta: std::fs::Metadata| {
        format!("{}-{}-{}.{}", env!("CARGO_PKG_VERSION"), meta.size(), meta.mtime(), meta.mtime_nsec())
    };
    std::fs::metadata("/proc/self/exe").map(of).unwrap_or_default()
}

struct Nursery {
    dir: OwnedFd,
    listener: OwnedFd,
    signals: OwnedFd,
    connections: BTreeMap<i32, OwnedFd>,
    services: Services,
    helpers: Helpers,
    /// Clones shims.
    embryo: Embryo,
    build: String,
    leave: bool,
}

impl Nursery {
    fn new(dir: OwnedFd, listener: OwnedFd) -> io::Result<Self> {
        // Before this process has work of its own in its memory.
        let embryo = ready_embryo()?;
        let signals = process::signal_fd(&[17])?;
        let (connections, services, helpers) = (BTreeMap::new(), Services::default(), Helpers::default());
        Ok(Self { dir, listener, signals, connections, services, helpers, embryo, build: build(), leave: false })
    }

    /// A new shim, by the embryo; one that is gone is replaced.
    fn fork_shim(&mut self, fds: Vec<OwnedFd>, join: &[String]) -> io::Result<i32> {
        let [control] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match self.clone_shim(control.as_fd(), join) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.embryo = ready_embryo()?;
                self.clone_shim(control.as_fd(), join)
            }
            done => done,
        }
    }

    fn clone_shim(&self, control: BorrowedFd<'_>, join: &[String]) -> io::Result<i32> {
        let (read, mut write) = io::pipe()?;
        self.embryo.clone_shim(control, read.as_fd())?;
        drop(read);
        // A page or two: a pipe takes them without a reader.
        write.write_all(join.join("\n").as_bytes())?;
        drop(write);
        let born = self.embryo.next_born(true)?.ok_or(io::ErrorKind::BrokenPipe)?;
        born.child.map(|(pid, _)| pid)
    }

    fn run(mut self) {
        while !self.leave {
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            let ids: Vec<i32> = self.connections.keys().copied().collect();
            fds.extend(self.connections.values().map(|fd| PollFd::new(fd, PollFlags::IN)));
            if poll(&mut fds, self.helpers.timeout().as_ref()).is_err_and(|error| error != rustix::io::Errno::INTR) {
                break;
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            self.helpers.expire();
            if ready[0] {
                self.reap();
            }
            if ready[1] {
                self.accept();
            }
            for (id, ready) in ids.into_iter().zip(&ready[2..]) {
                if *ready && !self.serve(id) {
                    self.connections.remove(&id);
                }
            }
        }
        let _ = rustix::fs::unlinkat(&self.dir, NURSERY_SOCKET, rustix::fs::AtFlags::empty());
    }

    fn reap(&mut self) {
        let mut buffer = [0; 128];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
        while let Some((pid, exit)) = process::reap_any() {
            if !self.helpers.ended(pid, exit) {
                self.services.ended(pid);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok(Some(fd)) = socket::accept(self.listener.as_fd()) {
            if socket::peer_uid(fd.as_fd()).is_ok_and(|uid| uid == 0) {
                self.connections.insert(fd.as_raw_fd(), fd);
            }
        }
    }

    /// False: the connection is over.
    fn serve(&mut self, id: i32) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        let message = match socket::receive(connection.as_fd(), MAX_FRAME, false) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            _ => return false,
        };
        let reply = match stapes_shim_api::decode::<NurseryRequest>(&message.bytes) {
            Ok(NurseryRequest::File { op, ids }) => {
                match offline(&mut self.helpers, connection.as_fd(), &op, ids, message.fds) {
                    Ok(()) => return true,
                    Err(failure) => NurseryReply::Failed(failure),
                }
            }
            Ok(request) => self.dispatch(request, message.fds).unwrap_or_else(NurseryReply::Failed),
            Err(error) => {
                NurseryReply::Failed(Failure::new(FailureKind::Unsupported, format!("unknown request: {error}")))
            }
        };
        self.connections.get(&id).is_some_and(|connection| wire::send(connection, &reply, &[]).is_ok())
    }

    fn dispatch(&mut self, request: NurseryRequest, fds: Vec<OwnedFd>) -> Result<NurseryReply, Failure> {
        let other = |error: io::Error| Failure::new(FailureKind::Other, error.to_string());
        Ok(match request {
            NurseryRequest::Hello { .. } => {
                NurseryReply::Hello { version: VERSION, build: self.build.clone(), pid: std::process::id() }
            }
            NurseryRequest::Fork { join } => NurseryReply::Pid(self.fork_shim(fds, &join).map_err(other)? as u32),
            NurseryRequest::EnsureService { name, argv } => {
                NurseryReply::Pid(self.services.ensure(&name, &argv).map_err(|error| Failure {
                    errno: error.raw_os_error().unwrap_or(0),
                    ..Failure::new(FailureKind::Command, format!("failed to run service {name}: {error}"))
                })? as u32)
            }
            NurseryRequest::StopService { name } => {
                self.services.stop(&name);
                NurseryReply::Done
            }
            NurseryRequest::SignalService { name, signal } => {
                self.services.signal(&name, signal).map_err(other)?;
                NurseryReply::Done
            }
            NurseryRequest::Services => NurseryReply::Names(self.services.names()),
            NurseryRequest::Quit => {
                self.services.stop_all();
                self.leave = true;
                NurseryReply::Done
            }
            NurseryRequest::MapsOwners => {
                let directory = fds.first().ok_or_else(|| other(io::ErrorKind::InvalidInput.into()))?;
                NurseryReply::Answer(maps_owners(directory.as_fd()).map_err(other)?)
            }
            NurseryRequest::File { .. } => NurseryReply::Failed(Failure::new(FailureKind::Other, "not answered here")),
        })
    }
}

fn ready_embryo() -> io::Result<Embryo> {
    let embryo = Embryo::fork(&[])?;
    embryo.wait_ready()?;
    Ok(embryo)
}

/// Whether a mount of `directory` can be idmapped. Nothing is mounted anywhere.
fn maps_owners(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    let Cloned::Parent { pid, .. } = process::clone3(&CloneSpec { flags: NEWUSER, cgroup: None })? else {
        // Stays until the other end is closed.
        drop(ours);
        let _ = socket::receive(theirs.as_fd(), 1, true);
        process::exit_now(0);
    };
    drop(theirs);
    namespace::write_id_maps(pid, PROBED.base, PROBED.size)?;
    let users = namespace::open(pid, "user")?;
    let tree = mount::clone_tree_at(directory, false)?;
    Ok(mount::set_idmap(tree.as_fd(), users.as_fd(), false).is_ok())
}

/// Any map will do.
const PROBED: IdRange = IdRange { base: 1_000_000, size: 65_536 };

/// A file request beneath a directory, answered by a forked child: with `ids` as root of a user namespace, for which the
/// owners on disk are the ones that it knows.
fn offline(
    helpers: &mut Helpers,
    connection: BorrowedFd<'_>,
    op: &FileOp,
    ids: Option<IdRange>,
    mut fds: Vec<OwnedFd>,
) -> Result<(), Failure> {
    if fds.is_empty() {
        return Err(Failure::new(FailureKind::Other, "the root directory is missing"));
    }
    let work = || {
        let root = fds.remove(0);
        match files::perform(op, fds.pop(), None, Some(root)) {
            Ok((answer, fd)) => (NurseryReply::File(answer), fd),
            Err(failure) => (NurseryReply::Failed(failure), None),
        }
    };
    helpers
        .start(connection, ids, FILE_PATIENCE, work)
        .map_err(|error| Failure::new(FailureKind::Other, format!("failed to fork: {error}")))
}
