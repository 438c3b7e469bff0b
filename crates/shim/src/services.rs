//! Helpers of the daemon's that outlive it, each in a session of its own.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
    time::{Duration, Instant},
};

use stapes_sys::process::{self, Forked};

/// How long a service may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Services(BTreeMap<String, Service>);

#[derive(Debug)]
struct Service {
    pid: i32,
    argv: Vec<String>,
}

impl Services {
    /// Returns its pid. Another command line than the running one's restarts it.
    pub fn ensure(&mut self, name: &str, argv: &[String]) -> io::Result<i32> {
        if let Some(service) = self.0.get(name) {
            if service.argv == argv {
                return Ok(service.pid);
            }
            self.stop(name);
        }
        end_orphans(argv);
        let pid = spawn(argv)?;
        self.0.insert(name.to_owned(), Service { pid, argv: argv.to_vec() });
        Ok(pid)
    }

    pub fn stop(&mut self, name: &str) {
        let Some(service) = self.0.remove(name) else { return };
        let _ = process::kill(service.pid, 15);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // Reaps others' ends too, which only concern this table.
            while let Some((pid, _)) = process::reap_any() {
                if pid == service.pid {
                    return;
                }
                self.ended(pid);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = process::kill(service.pid, 9);
        let _ = process::reap(service.pid);
    }

    pub fn stop_all(&mut self) {
        while let Some(name) = self.0.keys().next().cloned() {
            self.stop(&name);
        }
    }

    pub fn signal(&self, name: &str, signal: i32) -> io::Result<()> {
        let service = self.0.get(name);
        let service = service.ok_or_else(|| io::Error::other(format!("service {name} does not run")))?;
        process::kill(service.pid, signal)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    pub fn ended(&mut self, pid: i32) {
        self.0.retain(|_, service| service.pid != pid);
    }
}

/// Ends what a nursery that was killed left running with the same command line: it holds the sockets that the new one
/// wants.
fn end_orphans(argv: &[String]) {
    let wanted: Vec<u8> = argv.iter().flat_map(|word| word.bytes().chain([0])).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let runs = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == wanted);
    let orphans: Vec<i32> = pids.filter(runs).collect();
    orphans.iter().for_each(|pid| drop(process::kill(*pid, 9)));
    let deadline = Instant::now() + PATIENCE;
    // Its memory goes before its sockets do, so an empty command line is not the end yet.
    let lives = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ") && !stat.contains(") X ")
    };
    while orphans.iter().any(lives) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a program, and knows that it was executed: the pipe closes by `execve` or carries the reason.
fn spawn(argv: &[String]) -> io::Result<i32> {
    let [program, arguments @ ..] = argv else { return Err(io::ErrorKind::InvalidInput.into()) };
    let (mut said, mut say) = io::pipe()?;
    match process::fork()? {
        Forked::Parent { pid } => {
            drop(say);
            let mut errno = [0; 4];
            if said.read_exact(&mut errno).is_err() {
                return Ok(pid);
            }
            let _ = process::reap(pid);
            Err(io::Error::from_raw_os_error(i32::from_le_bytes(errno)))
        }
        Forked::Child => {
            let _ = process::close_all_but(&[say.as_raw_fd()]);
            let _ = rustix::process::setsid();
            process::reset_signals([crate::SIGPIPE]);
            let error = Command::new(program).args(arguments).exec();
            let _ = say.write_all(&error.raw_os_error().unwrap_or(22).to_le_bytes());
            process::exit_now(127)
        }
    }
}
