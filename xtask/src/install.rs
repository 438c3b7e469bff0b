//! Putting the release programs where a system expects them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    programs::{self, Profile, place},
    shell::{output, root, run, target_dir},
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
# Instances live on when the daemon ends, by plan or by accident: only the daemon's own process is the service.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitMEMLOCK=infinity
TasksMax=infinity
Restart=on-failure

[Install]
WantedBy=multi-user.target
Also=stapes-instances.service
";

/// Of its own, so that stopping or restarting the daemon for an upgrade stops no instance.
const INSTANCES_UNIT: &str = "\
[Unit]
Description=Instances of Stapes: stopped in good order when the host goes down
After=stapes.service
Wants=stapes.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=@PREFIX@/bin/stapes admin waitready --timeout=600
ExecStop=@PREFIX@/bin/stapes admin shutdown
TimeoutStartSec=600
TimeoutStopSec=600

[Install]
WantedBy=multi-user.target
";

/// Shells, and where beneath the prefix each looks for completions.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "share/bash-completion/completions/stapes"),
    ("zsh", "share/zsh/site-functions/_stapes"),
    ("fish", "share/fish/vendor_completions.d/stapes.fish"),
];

pub fn install(args: &[&str]) -> Result<()> {
    let prefix = match args {
        [] => "/usr/local",
        ["--prefix", dir] => dir,
        other => bail!("install: unknown arguments {other:?}"),
    };
    // The unit and systemd take no relative path.
    let prefix = std::path::absolute(prefix).with_context(|| format!("install: --prefix {prefix}"))?;
    let bin = programs::build(Profile::Release)?;
    lay_out(&bin, &prefix, &prefix)?;
    println!(
        "Installed beneath {}: bin/stapes, libexec/stapes/, lib/systemd/system/stapes*.service, and in share/ manual \
         pages, completions and documents",
        prefix.display()
    );
    Ok(())
}

/// The tree of an installation at `to` that will run at `prefix`.
fn lay_out(bin: &Path, to: &Path, prefix: &Path) -> Result<()> {
    let put = |from: &Path, name: &str| -> Result<()> {
        let path = to.join(name);
        make_parent(&path)?;
        place(from, &path)
    };
    let write = |name: &str, text: &str| -> Result<()> {
        let path = to.join(name);
        make_parent(&path)?;
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    };
    put(&bin.join("stapes"), "bin/stapes")?;
    // The daemon looks for its shim and the agent of its guests beside itself.
    for name in ["stapesd", "stapes-shim", "stapes-agent"] {
        put(&bin.join(name), &format!("libexec/stapes/{name}"))?;
    }
    let at_prefix = |unit: &str| unit.replace("@PREFIX@", &prefix.to_string_lossy());
    write("lib/systemd/system/stapes.service", &at_prefix(UNIT))?;
    write("lib/systemd/system/stapes-instances.service", &at_prefix(INSTANCES_UNIT))?;
    for name in ["LICENSE", "README.md", "CHANGELOG.md"] {
        put(&root().join(name), &format!("share/doc/stapes/{name}"))?;
    }
    for (shell, name) in COMPLETIONS {
        write(name, &output(Command::new(bin.join("stapes")).args(["completion", shell]))?)?;
    }
    output(Command::new(bin.join("stapes")).arg("manpage").arg(to.join("share/man/man1")))?;
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))
}

pub fn dist() -> Result<()> {
    let bin = programs::build(Profile::Release)?;
    let name = format!("stapes-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let dir = target_dir().join("dist");
    let tree = dir.join(&name);
    let _ = fs::remove_dir_all(&tree);
    lay_out(&bin, &tree, Path::new("/usr/local"))?;
    let archive = dir.join(format!("{name}.tar.gz"));
    run(Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-C"])
        .arg(&dir)
        .arg("-czf")
        .arg(&archive)
        .arg(&name))?;
    println!("{}", archive.display());
    println!("to install it: tar -C /usr/local --strip-components=1 -xzf {name}.tar.gz");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_installation_has_its_programs_units_and_documents_in_place() {
        let (bin, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["stapes", "stapesd", "stapes-shim", "stapes-agent"] {
            // What `stapes` prints or writes is its own tests' matter.
            fs::write(bin.path().join(name), "#!/bin/sh\necho \"$@\"\n").unwrap();
            fs::set_permissions(bin.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        lay_out(bin.path(), to.path(), Path::new("/opt/s")).unwrap();
        // Again, over what is there.
        lay_out(bin.path(), to.path(), Path::new("/opt/s")).unwrap();
        let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
        let mode = |name: &str| fs::metadata(to.path().join(name)).unwrap().permissions().mode() & 0o777;
        for name in
            ["bin/stapes", "libexec/stapes/stapesd", "libexec/stapes/stapes-shim", "libexec/stapes/stapes-agent"]
        {
            assert_eq!(mode(name), 0o755, "{name}");
        }
        assert!(read("lib/systemd/system/stapes.service").contains("ExecStart=/opt/s/libexec/stapes/stapesd\n"));
        let instances = read("lib/systemd/system/stapes-instances.service");
        assert!(instances.contains("ExecStop=/opt/s/bin/stapes admin shutdown\n"), "{instances}");
        assert_eq!(read("share/fish/vendor_completions.d/stapes.fish"), "completion fish\n");
        assert_eq!(read("share/doc/stapes/LICENSE"), fs::read_to_string(root().join("LICENSE")).unwrap());
    }
}
