//! Putting the release programs where a system expects them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    programs::{self, Profile, place},
    shell::{root, run, target_dir},
};

const UNIT: &str = "\
[Unit]
Description=Stapes, manager of system containers and virtual machines
Documentation=man:stapes(1)
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart=@PREFIX@/libexec/stapes/stapesd
ExecStop=@PREFIX@/bin/stapes admin shutdown
# Instances live on when the daemon ends, by plan or by accident: only the daemon's own process is the service.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitMEMLOCK=infinity
TasksMax=infinity
Restart=on-failure
TimeoutStopSec=600

[Install]
WantedBy=multi-user.target
";

pub fn install(args: &[&str]) -> Result<()> {
    let prefix = match args {
        [] => "/usr/local",
        ["--prefix", dir] => dir,
        other => bail!("install: unknown arguments {other:?}"),
    };
    let bin = programs::build(Profile::Release)?;
    lay_out(&bin, Path::new(prefix), prefix)?;
    println!("Installed beneath {prefix}: bin/stapes, libexec/stapes/, lib/systemd/system/stapes.service");
    Ok(())
}

/// The tree of an installation at `to` that will run at `prefix`.
fn lay_out(bin: &Path, to: &Path, prefix: &str) -> Result<()> {
    let libexec = to.join("libexec/stapes");
    let units = to.join("lib/systemd/system");
    for dir in [&to.join("bin"), &libexec, &units] {
        fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    }
    place(&bin.join("stapes"), &to.join("bin/stapes"))?;
    // The daemon looks for its shim and the agent of its guests beside itself.
    for name in ["stapesd", "stapes-shim", "stapes-agent"] {
        place(&bin.join(name), &libexec.join(name))?;
    }
    fs::write(units.join("stapes.service"), UNIT.replace("@PREFIX@", prefix))?;
    Ok(())
}

pub fn dist() -> Result<()> {
    let bin = programs::build(Profile::Release)?;
    let name = format!("stapes-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let dir = target_dir().join("dist");
    let tree = dir.join(&name);
    let _ = fs::remove_dir_all(&tree);
    lay_out(&bin, &tree, "/usr/local")?;
    for file in ["LICENSE", "README.md", "CHANGELOG.md"] {
        place(&root().join(file), &tree.join(file))?;
    }
    let archive = dir.join(format!("{name}.tar.gz"));
    run(Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-C"])
        .arg(&dir)
        .arg("-czf")
        .arg(&archive)
        .arg(&name))?;
    println!("{}", archive.display());
    Ok(())
}
