//! What a test needs of the machine, and the skip that is reported where it is missing.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    thread,
};

/// Something a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Root,
    /// `stapesd`, `stapes`, `stapes-shim` and the test bed's process 1, built beside the test.
    Programs,
    /// A busybox without a dynamic loader, to make images of.
    StaticBusybox,
    /// The official client of Incus.
    IncusClient,
    /// The official client of LXD.
    LxcClient,
    /// `mmdebstrap` and a Debian archive to take packages from.
    DebianArchive,
    Tool(&'static str),
    /// A file, and the package that has it.
    File(&'static str, &'static str),
}

impl Need {
    /// `None` where the machine has it; else what is missing and how to get it.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "root: run as root".to_owned()),
            Self::Programs => missing_program(),
            Self::StaticBusybox => {
                crate::image::static_busybox().is_none().then(|| "a static busybox: install busybox-static".to_owned())
            }
            Self::IncusClient => Self::Tool("incus").missing(),
            Self::LxcClient => Self::Tool("lxc").missing(),
            Self::DebianArchive => {
                if env::var_os("STAPES_TEST_OFFLINE").is_some() {
                    return Some("a Debian archive: STAPES_TEST_OFFLINE is set".to_owned());
                }
                Self::Tool("mmdebstrap").missing()
            }
            Self::File(path, package) => (!Path::new(path).exists()).then(|| format!("{path}: install {package}")),
            Self::Tool(name) => find_program(name).is_none().then(|| format!("{name}: run `cargo xtask setup`")),
        }
    }
}

/// Proof that the machine has what was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Host(());

/// The machine, if it has all of `needs`; else prints `SKIP: <test>: <need>`, so that the run's report names it.
///
/// `STAPES_REQUIRE_ALL=1` turns a skip into a failure; `STAPES_SKIP_LOG` names a file that collects the lines, since
/// test runners hide what a passing test printed.
pub fn host_with(needs: &[Need]) -> Option<Host> {
    let missing: Vec<_> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return Some(Host(()));
    }
    let test = test_name();
    let suite = env::current_exe().ok().and_then(|p| Some(p.file_stem()?.to_string_lossy().into_owned()));
    let suite = suite.as_deref().and_then(|s| s.rsplit_once('-')).map_or("?", |(name, _)| name).to_owned();
    let line = format!("SKIP: {suite}::{test}: needs {}", missing.join("; "));
    println!("{line}");
    if let Some(path) = env::var_os("STAPES_SKIP_LOG")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{line}");
    }
    assert!(env::var_os("STAPES_REQUIRE_ALL").is_none(), "{line} (and every test was required to run)");
    None
}

/// A runner that runs one test a process may run it on the main thread, and names it on the command line.
fn test_name() -> String {
    match thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_else(|| "?".to_owned()),
    }
}

/// Where the programs under test are: `STAPES_TEST_BIN`, else beside the test's own executable.
pub fn binaries_dir() -> PathBuf {
    if let Some(dir) = env::var_os("STAPES_TEST_BIN") {
        return dir.into();
    }
    let exe = env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new(".")).to_owned();
    match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().unwrap_or(&dir).to_owned(),
        _ => dir,
    }
}

fn missing_program() -> Option<String> {
    let dir = binaries_dir();
    let names = ["stapesd", "stapes", "stapes-shim", "stapes-testbed"];
    let missing: Vec<_> = names.into_iter().filter(|name| !dir.join(name).is_file()).collect();
    (!missing.is_empty()).then(|| format!("{} in {}: run `cargo xtask test`", missing.join(", "), dir.display()))
}

/// The first executable of this name on `PATH`, with the administrator's directories added.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(extra).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}
