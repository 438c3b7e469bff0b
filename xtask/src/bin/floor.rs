//! The floor: what the kernel alone takes for a container's start, an exec, a stop and a clone of its root.
//!
//! Bare system calls, without our wrappers on purpose: the benchmark compares the wrappers (and all above them) with
//! this. Prints one JSON line a row, samples in milliseconds. `floor [ROUNDS]`, as root; leaves nothing behind.
//!
//! A start is: a cgroup (v2, where mounted), an idmapped mount of the root, clone3 with seven namespaces, the id maps, a
//! veth pair on a bridge, proc, sysfs, a small /dev, pivot_root, a seccomp filter, and execve of a static busybox until
//! its first byte is read.
#![allow(unsafe_code)]

use std::{
    env,
    ffi::{CStr, CString},
    fs, io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const BRIDGE: &str = "stpfloor0";
const MAP: &str = "0 1500000 65536\n";
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Wider than the type libc gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn main() -> ExitCode {
    let rounds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(40);
    match measure(rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(rounds: usize) -> Result<()> {
    let stage = Stage::build()?;
    let (mut starts, mut execs, mut stops) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds + 2 {
        // As in life: the kernel has been idle for a moment.
        std::thread::sleep(Duration::from_millis(60));
        let (container, start) = stage.start(round)?;
        std::thread::sleep(Duration::from_millis(20));
        let exec = stage.exec(&container)?;
        let stop = container.stop()?;
        // The first rounds warm up caches.
        if round >= 2 {
            starts.push(start);
            execs.push(exec);
            stops.push(stop);
        }
    }
    print_row("start", &starts);
    print_row("exec", &execs);
    print_row("stop", &stops);
    match clones(&stage.dir, rounds) {
        Ok(samples) => print_row("clone", &samples),
        Err(error) => println!("the clone was not measured: {error:#}"),
    }
    Ok(())
}

fn print_row(row: &str, samples: &[Duration]) {
    let ms: Vec<f64> = samples.iter().map(|d| d.as_secs_f64() * 1000.0).collect();
    println!("{}", serde_json::json!({ "row": row, "ms": ms }));
}

/// An error of the last system call.
fn last(call: &str) -> anyhow::Error {
    anyhow::Error::new(io::Error::last_os_error()).context(call.to_owned())
}

fn check(call: &str, ret: libc::c_long) -> Result<RawFd> {
    if ret < 0 { Err(last(call)) } else { Ok(RawFd::try_from(ret)?) }
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with a descriptor that a system call has just returned to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    check("pipe2", unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    Ok((own(ends[0]), own(ends[1])))
}

fn reap(pid: libc::pid_t) -> Result<i32> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let ret = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    check("waitpid", ret.into())?;
    Ok(status)
}

/// What every round uses: a root directory, a user namespace to idmap it by, a bridge, a parent group.
struct Stage {
    dir: tempfile::TempDir,
    root: CString,
    target: CString,
    id_holder: libc::pid_t,
    id_namespace: OwnedFd,
    route: Route,
    bridge: u32,
    cgroup: Option<PathBuf>,
}

impl Stage {
    fn build() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("stapes-floor-").tempdir()?;
        let (root, target) = (dir.path().join("root"), dir.path().join("target"));
        for part in ["bin", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(part))?;
        }
        fs::create_dir(&target)?;
        set_mode(dir.path(), 0o755)?;
        let busybox = stapes_testkit::image::static_busybox().context("a static busybox: install busybox-static")?;
        fs::copy(busybox, root.join("bin/busybox"))?;
        let (id_holder, id_namespace) = id_namespace()?;
        let route = Route::open()?;
        route.add_bridge()?;
        Ok(Self {
            root: c_path(&root)?,
            target: c_path(&target)?,
            id_holder,
            id_namespace,
            route,
            bridge: index_of(BRIDGE)?,
            cgroup: parent_group(),
            dir,
        })
    }

    fn start(&self, round: usize) -> Result<(Container, Duration)> {
        let (go_read, go_write) = pipe()?;
        let (out_read, out_write) = pipe()?;
        let began = Instant::now();
        let cgroup = self.cgroup.as_ref().map(|parent| parent.join(format!("c{round}")));
        let cgroup_fd = cgroup.as_ref().map(|path| fs::create_dir(path).and_then(|()| fs::File::open(path)));
        let cgroup_fd = cgroup_fd.transpose().context("cgroup")?;
        let tree = self.idmapped_root()?;
        let mut pidfd: RawFd = -1;
        // SAFETY: an all-zero clone_args is valid: no flags, no stack, no signal.
        let mut args: libc::clone_args = unsafe { mem::zeroed() };
        args.flags = u64::try_from(NAMESPACES | libc::CLONE_PIDFD)?;
        args.pidfd = (&raw mut pidfd) as u64;
        args.exit_signal = u64::try_from(libc::SIGCHLD)?;
        if let Some(group) = &cgroup_fd {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::try_from(group.as_raw_fd())?;
        }
        // SAFETY: this program has one thread, so that the child of a clone without a stack (a fork) may run on; the
        // child only makes system calls and then executes or exits.
        let pid =
            check("clone3", unsafe { libc::syscall(libc::SYS_clone3, &raw const args, mem::size_of_val(&args)) })?;
        if pid == 0 {
            let fds = Inside { go: go_read.as_raw_fd(), out: out_write.as_raw_fd(), tree: tree.as_raw_fd() };
            inside(&fds, &self.target);
        }
        let container = Container { pid, pidfd: own(pidfd), cgroup, output: out_read };
        fs::write(format!("/proc/{pid}/uid_map"), MAP).context("uid_map")?;
        fs::write(format!("/proc/{pid}/gid_map"), MAP).context("gid_map")?;
        self.route.add_veth(round, u32::try_from(pid)?, self.bridge)?;
        drop((go_read, out_write));
        write_byte(go_write.as_raw_fd())?;
        let mut byte = 0_u8;
        // SAFETY: one byte is read into a variable of one byte.
        let read = unsafe { libc::read(container.output.as_raw_fd(), (&raw mut byte).cast(), 1) };
        let took = began.elapsed();
        if read != 1 {
            bail!("the container ended ({:#x}) before it said a word", reap(pid)?);
        }
        Ok((container, took))
    }

    fn idmapped_root(&self) -> Result<OwnedFd> {
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
        // SAFETY: the path is a C string that outlives the call.
        let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, self.root.as_ptr(), flags) };
        let tree = own(check("open_tree", tree)?);
        // SAFETY: an all-zero mount_attr is valid.
        let mut attr: libc::mount_attr = unsafe { mem::zeroed() };
        attr.attr_set = libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(self.id_namespace.as_raw_fd())?;
        // SAFETY: the empty path with AT_EMPTY_PATH names the tree itself; `attr` outlives the call.
        let ret = unsafe {
            let (fd, size) = (tree.as_raw_fd(), mem::size_of_val(&attr));
            libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, &raw const attr, size)
        };
        check("mount_setattr(IDMAP)", ret)?;
        Ok(tree)
    }

    /// Joins the container's namespaces and runs busybox's `true`, until it is reaped.
    fn exec(&self, container: &Container) -> Result<Duration> {
        let _ = self;
        let began = Instant::now();
        // SAFETY: one thread; the child makes system calls only.
        let helper = unsafe { libc::fork() };
        check("fork", helper.into())?;
        if helper == 0 {
            join_and_run(container.pidfd.as_raw_fd());
        }
        let status = reap(helper)?;
        let took = began.elapsed();
        if status != 0 {
            bail!("exec in the container: status {status:#x}");
        }
        Ok(took)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: the holder is our own child, not yet reaped.
        unsafe { libc::kill(self.id_holder, libc::SIGKILL) };
        let _ = reap(self.id_holder);
        let _ = Command::new("ip").args(["link", "del", BRIDGE]).output();
        if let Some(parent) = &self.cgroup {
            let _ = fs::remove_dir(parent);
        }
    }
}

struct Container {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    cgroup: Option<PathBuf>,
    /// Open as long as the container runs: `yes` blocks on a full pipe.
    output: OwnedFd,
}

impl Container {
    fn stop(&self) -> Result<Duration> {
        let began = Instant::now();
        let no_info: *const libc::siginfo_t = ptr::null();
        // SAFETY: the pidfd is ours, and without a siginfo the kernel reads none of our memory.
        let ret =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, no_info, 0) };
        check("pidfd_send_signal", ret)?;
        reap(self.pid)?;
        let took = began.elapsed();
        if let Some(group) = &self.cgroup {
            let _ = fs::remove_dir(group);
        }
        Ok(took)
    }
}

fn write_byte(fd: RawFd) -> Result<()> {
    // SAFETY: one byte of a static string.
    check("write", unsafe { libc::write(fd, c"x".as_ptr().cast(), 1) } as libc::c_long).map(drop)
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// A process that sleeps in a user namespace with our id map, and that namespace.
fn id_namespace() -> Result<(libc::pid_t, OwnedFd)> {
    let (ready_read, ready_write) = pipe()?;
    // SAFETY: one thread; the child makes system calls only.
    let pid = unsafe { libc::fork() };
    check("fork", pid.into())?;
    if pid == 0 {
        // SAFETY: plain system calls; the parent kills us.
        unsafe {
            if libc::unshare(libc::CLONE_NEWUSER) != 0 {
                libc::_exit(1);
            }
            libc::write(ready_write.as_raw_fd(), c"x".as_ptr().cast(), 1);
            loop {
                libc::pause();
            }
        }
    }
    drop(ready_write);
    let mut byte = 0_u8;
    // SAFETY: one byte is read into a variable of one byte.
    let read = unsafe { libc::read(ready_read.as_raw_fd(), (&raw mut byte).cast(), 1) };
    if read != 1 {
        bail!("user namespaces cannot be made here");
    }
    fs::write(format!("/proc/{pid}/uid_map"), MAP).context("uid_map")?;
    fs::write(format!("/proc/{pid}/gid_map"), MAP).context("gid_map")?;
    Ok((pid, fs::File::open(format!("/proc/{pid}/ns/user"))?.into()))
}

/// A group of ours at the top of the unified hierarchy, where one is mounted.
fn parent_group() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.contains(" - cgroup2 "))?;
    let parent = Path::new(line.split(' ').nth(4)?).join("stapes-floor");
    fs::create_dir_all(&parent).ok()?;
    Some(parent)
}

struct Inside {
    go: RawFd,
    out: RawFd,
    tree: RawFd,
}

/// The child's way to its program; never returns. The exit code tells which step failed.
fn inside(fds: &Inside, target: &CStr) -> ! {
    // SAFETY: system calls on descriptors and C strings that live as long as this process.
    unsafe {
        let mut byte = 0_u8;
        libc::read(fds.go, (&raw mut byte).cast(), 1);
        if libc::setresgid(0, 0, 0) != 0 || libc::setresuid(0, 0, 0) != 0 {
            libc::_exit(2);
        }
        let none: *const libc::c_void = ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        libc::mount(c"none".as_ptr(), c"/".as_ptr(), c"".as_ptr(), private, none);
        let (empty, flags) = (c"".as_ptr(), libc::MOVE_MOUNT_F_EMPTY_PATH);
        if libc::syscall(libc::SYS_move_mount, fds.tree, empty, libc::AT_FDCWD, target.as_ptr(), flags) != 0 {
            libc::_exit(3);
        }
        if libc::chdir(target.as_ptr()) != 0 {
            libc::_exit(4);
        }
        furnish();
        if libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) != 0 {
            libc::_exit(8);
        }
        libc::umount2(c".".as_ptr(), libc::MNT_DETACH);
        libc::chdir(c"/".as_ptr());
        if !filter() {
            libc::_exit(9);
        }
        libc::dup2(fds.out, 1);
        let argv = [c"busybox".as_ptr(), c"yes".as_ptr(), ptr::null()];
        libc::execve(c"/bin/busybox".as_ptr(), argv.as_ptr(), [ptr::null()].as_ptr());
        libc::_exit(10)
    }
}

/// proc, sysfs and a small /dev beneath the working directory.
fn furnish() {
    const NODES: [(&CStr, &CStr); 6] = [
        (c"/dev/null", c"dev/null"),
        (c"/dev/zero", c"dev/zero"),
        (c"/dev/full", c"dev/full"),
        (c"/dev/random", c"dev/random"),
        (c"/dev/urandom", c"dev/urandom"),
        (c"/dev/tty", c"dev/tty"),
    ];
    let mount = |kind: &CStr, at: &CStr, data: &CStr| {
        // SAFETY: C strings that outlive the call.
        let ret = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
        if ret != 0 {
            // SAFETY: ends this process.
            unsafe { libc::_exit(5) };
        }
    };
    let make_dir = |at: &CStr| {
        // SAFETY: a C string that outlives the call.
        unsafe { libc::mkdir(at.as_ptr(), 0o755) }
    };
    mount(c"proc", c"proc", c"");
    mount(c"sysfs", c"sys", c"");
    mount(c"tmpfs", c"dev", c"mode=755");
    for (dir, kind, data) in [
        (c"dev/pts", c"devpts", c"newinstance,ptmxmode=0666"),
        (c"dev/shm", c"tmpfs", c""),
        (c"dev/mqueue", c"mqueue", c""),
    ] {
        make_dir(dir);
        mount(kind, dir, data);
    }
    for (from, to) in NODES {
        // SAFETY: C strings that outlive the calls.
        unsafe {
            libc::close(libc::open(to.as_ptr(), libc::O_CREAT | libc::O_RDONLY | libc::O_CLOEXEC, 0o666));
            if libc::mount(from.as_ptr(), to.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null()) != 0 {
                libc::_exit(6);
            }
        }
    }
}

/// A filter of twenty comparisons, each of a number that nothing here uses.
fn filter() -> bool {
    let mut code: Vec<libc::sock_filter> = Vec::with_capacity(24);
    // ld [0]: the number of the system call.
    code.push(libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 });
    for number in 0..20_u32 {
        // jeq #number, to the end; the last instructions allow everything.
        code.push(libc::sock_filter { code: 0x15, jt: 0, jf: 0, k: 0x4000_0000 + number });
    }
    code.push(libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 });
    let program = libc::sock_fprog { len: u16::try_from(code.len()).unwrap_or(0), filter: code.as_mut_ptr() };
    // SAFETY: `program` and what it points to outlive the calls.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) == 0
    }
}

/// The helper of an exec: joins, forks once more to be in the PID namespace, runs, and passes the status on.
fn join_and_run(pidfd: RawFd) -> ! {
    // SAFETY: system calls only, on a descriptor and C strings that live as long as this process.
    unsafe {
        if libc::setns(pidfd, NAMESPACES) != 0 || libc::setresuid(0, 0, 0) != 0 {
            libc::_exit(21);
        }
        let child = libc::fork();
        if child == 0 {
            let argv = [c"busybox".as_ptr(), c"true".as_ptr(), ptr::null()];
            libc::execve(c"/bin/busybox".as_ptr(), argv.as_ptr(), [ptr::null()].as_ptr());
            libc::_exit(22);
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        libc::_exit(libc::c_int::from(status != 0))
    }
}

fn index_of(name: &str) -> Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    Ok(text.trim().parse()?)
}

/// rtnetlink, by hand.
struct Route(OwnedFd);

/// A netlink message being written: attributes nest by offset.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, up: bool) -> Self {
        let mut bytes = vec![0; 32];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        // ifinfomsg starts at 16; flags and change mask are its third and fourth words.
        if up {
            bytes[24..28].copy_from_slice(&1_u32.to_ne_bytes());
            bytes[28..32].copy_from_slice(&1_u32.to_ne_bytes());
        }
        Self(bytes)
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(0);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.put(kind, &[]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(0);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;

impl Route {
    fn open() -> Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no memory of ours is passed.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        Ok(Self(own(check("socket(AF_NETLINK)", fd.into())?)))
    }

    /// Sends, and reads the acknowledgement.
    fn ask(&self, what: &str, mut message: Message) -> Result<()> {
        let length = u32::try_from(message.0.len())?;
        message.0[0..4].copy_from_slice(&length.to_ne_bytes());
        let mut answer = [0_u8; 4096];
        // SAFETY: both buffers outlive the calls and their lengths are theirs.
        let read = unsafe {
            let sent = libc::send(self.0.as_raw_fd(), message.0.as_ptr().cast(), message.0.len(), 0);
            check(what, sent as libc::c_long)?;
            libc::recv(self.0.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        check(what, read as libc::c_long)?;
        let code = i32::from_ne_bytes(answer[16..20].try_into()?);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(-code)).with_context(|| what.to_owned());
        }
        Ok(())
    }

    fn new_link(up: bool) -> Message {
        // NLM_F_REQUEST, ACK, EXCL, CREATE.
        Message::new(RTM_NEWLINK, 0x1 | 0x4 | 0x200 | 0x400, up)
    }

    fn add_bridge(&self) -> Result<()> {
        let mut message = Self::new_link(true);
        message.put(IFLA_IFNAME, BRIDGE.as_bytes());
        message.nest(IFLA_LINKINFO, |info| info.put(1, b"bridge"));
        self.ask("add the bridge", message)
    }

    /// A pair in one message: our end up and on the bridge, the other in the namespace of process `pid`.
    fn add_veth(&self, round: usize, pid: u32, bridge: u32) -> Result<()> {
        let mut message = Self::new_link(true);
        message.put(IFLA_IFNAME, format!("stpf{round}\0").as_bytes());
        message.put(IFLA_MASTER, &bridge.to_ne_bytes());
        message.nest(IFLA_LINKINFO, |info| {
            info.put(1, b"veth");
            info.nest(2, |data| {
                data.nest(1, |peer| {
                    peer.0.extend([0; 16]);
                    peer.put(IFLA_IFNAME, b"eth0\0");
                    peer.put(IFLA_NET_NS_PID, &pid.to_ne_bytes());
                });
            });
        });
        self.ask("add the veth pair", message)
    }
}

/// Snapshots of a small tree on a btrfs of our own on a loop file.
fn clones(dir: &tempfile::TempDir, rounds: usize) -> Result<Vec<Duration>> {
    let (file, at) = (dir.path().join("btrfs.img"), dir.path().join("btrfs"));
    fs::create_dir(&at)?;
    fs::File::create(&file)?.set_len(512 << 20)?;
    command("mkfs.btrfs", &["-q", &file.to_string_lossy()])?;
    command("mount", &["-o", "loop,noatime", &file.to_string_lossy(), &at.to_string_lossy()])?;
    let samples = snapshots(&at, rounds);
    command("umount", &[&at.to_string_lossy()])?;
    samples
}

fn snapshots(at: &Path, rounds: usize) -> Result<Vec<Duration>> {
    const SNAP_CREATE: libc::c_ulong = 0x5000_9401;
    const SNAP_DESTROY: libc::c_ulong = 0x5000_940f;
    const SUBVOL_CREATE: libc::c_ulong = 0x5000_940e;
    let dir = fs::File::open(at)?;
    let ioctl = |request: libc::c_ulong, name: &str, source: i64| -> Result<()> {
        // struct btrfs_ioctl_vol_args: a descriptor and a name of up to 4,087 bytes.
        let mut args = vec![0_u8; 4096];
        args[0..8].copy_from_slice(&source.to_ne_bytes());
        args[8..8 + name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the structure has the size that the request's number says.
        let ret = unsafe { libc::ioctl(dir.as_raw_fd(), request, args.as_mut_ptr()) };
        check(&format!("ioctl({request:#x}, {name})"), ret.into()).map(drop)
    };
    ioctl(SUBVOL_CREATE, "source", 0)?;
    for n in 0..500 {
        fs::write(at.join(format!("source/file{n}")), vec![b'x'; 3000])?;
    }
    let source = fs::File::open(at.join("source"))?;
    let mut samples = Vec::new();
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(30));
        let name = format!("s{round}");
        let began = Instant::now();
        ioctl(SNAP_CREATE, &name, i64::from(source.as_raw_fd()))?;
        samples.push(began.elapsed());
        ioctl(SNAP_DESTROY, &name, 0)?;
    }
    Ok(samples)
}

fn command(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("failed to run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
