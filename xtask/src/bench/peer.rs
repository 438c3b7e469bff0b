//! Debian's packaged Incus, started by hand in a directory of its own, on a machine with or without systemd.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use stapes_testkit::Api;

use super::subject::{Kind, Subject};
use crate::shell::{find, output, run};

/// The daemon's program, if the package and its client are installed.
pub fn installed() -> Option<PathBuf> {
    let places = ["/usr/libexec/incus/incusd", "/opt/incus/bin/incusd"].map(PathBuf::from);
    places.into_iter().find(|path| path.exists()).filter(|_| find("incus").is_some())
}

pub fn start(daemon: &Path) -> Result<Subject> {
    let dir = tempfile::Builder::new().prefix("incus-bench-").tempdir()?;
    let state = dir.path().join("s");
    fs::create_dir(&state)?;
    // Incus moves mounts beneath its directory, which needs a shared mount there; nothing makes one without systemd.
    run(Command::new("mount").arg("--bind").arg(&state).arg(&state))?;
    run(Command::new("mount").arg("--make-shared").arg(&state))?;
    grant_id_range("/etc/subuid")?;
    grant_id_range("/etc/subgid")?;
    let mut subject = Subject {
        kind: Kind::Incus,
        api: Api::new(state.join("unix.socket")),
        cli: "incus".into(),
        environment: vec![
            ("INCUS_DIR", state.clone()),
            ("INCUS_SOCKET", state.join("unix.socket")),
            ("INCUS_CONF", dir.path().join("conf")),
        ],
        program: "sh".into(),
        arguments: vec![
            "-c".into(),
            format!("ulimit -n $(ulimit -Hn); exec {} --logfile {}/incus.log", daemon.display(), dir.path().display()),
        ],
        dir,
        child: None,
        ended: false,
        bridge: "incusbench",
        subnet: "10.198",
    };
    let began = subject.start();
    match began.and_then(|_| subject.furnish()) {
        Ok(()) => Ok(subject),
        Err(error) => {
            let log = output(Command::new("tail").arg("-n5").arg(subject.dir.path().join("incus.log")));
            Err(error.context(format!("Incus did not come up: {}", log.unwrap_or_default())))
        }
    }
}

/// Incus takes unprivileged ids from root's range, which its daemon package does not make.
fn grant_id_range(path: &str) -> Result<()> {
    let text = fs::read_to_string(path).unwrap_or_default();
    if !text.lines().any(|line| line.starts_with("root:")) {
        writeln!(OpenOptions::new().create(true).append(true).open(path)?, "root:1000000:1000000000")?;
        println!("    added a range for root to {path}, which Incus needs");
    }
    Ok(())
}
