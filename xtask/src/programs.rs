//! Building the programs: the daemon and the command line as usual, the shim and the guest agent as static executables.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::shell::{cargo, output, run, target_dir};

/// A cargo profile and the directory it builds into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Release,
    /// Quick to build, checks on, shared with everyone's `cargo build`: what tests run.
    Dev,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    /// Beneath the target directory.
    fn dir(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// Builds `stapesd`, `stapes` and the static `stapes-shim` and `stapes-agent`; the directory where they lie side by side.
pub fn build(profile: Profile) -> Result<PathBuf> {
    let mut build = cargo();
    build.args([
        "build",
        "--locked",
        "--profile",
        profile.name(),
        "--package",
        "stapes-daemon",
        "--package",
        "stapes-cli",
    ]);
    if profile == Profile::Dev {
        // Lets a test kill the daemon at a chosen step; without its environment variable it does nothing.
        build.args(["--features", "stapes-engine/failpoints"]);
    }
    run(&mut build)?;
    let built = target_dir().join(profile.dir());
    let shim = build_static("stapes-shim", profile)?;
    let agent = build_static("stapes-agent", profile)?;
    // Tests get a directory of their own, because cargo would put a dynamic shim and agent beside the others when it builds all
    // of the workspace's programs.
    let dir = match profile {
        Profile::Release => built,
        Profile::Dev => {
            let dir = target_dir().join("test-programs");
            fs::create_dir_all(&dir)?;
            run(cargo().args(["build", "--locked", "--package", "stapes-tests", "--bins"]))?;
            for name in ["stapesd", "stapes", "stapes-testbed"] {
                place(&built.join(name), &dir.join(name))?;
            }
            dir
        }
    };
    place(&shim, &dir.join("stapes-shim"))?;
    place(&agent, &dir.join("stapes-agent"))?;
    Ok(dir)
}

/// Builds a program without a dynamic loader, at a fixed address. The shim lives as long as its instance does, and takes
/// 32 KiB of its own memory each this way (docs/adr/0001-shim-nursery-embryo.md); the agent runs in guests that have any C
/// library or none.
fn build_static(program: &str, profile: Profile) -> Result<PathBuf> {
    let host = host_triple()?;
    let static_dir = target_dir().join("static");
    let (profile, dir) = match profile {
        Profile::Release => ("small", "small"),
        Profile::Dev => (profile.name(), profile.dir()),
    };
    let mut command = cargo();
    command
        .args(["build", "--locked", "--package", program, "--profile", profile, "--target", &host])
        .arg("--target-dir")
        .arg(&static_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut command)?;
    Ok(static_dir.join(host).join(dir).join(program))
}

fn host_triple() -> Result<String> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Copies under another name first: the old program may be running.
pub fn place(from: &Path, to: &Path) -> Result<()> {
    let part = to.with_extension("part");
    fs::copy(from, &part).with_context(|| format!("failed to copy {} to {}", from.display(), part.display()))?;
    fs::rename(&part, to).with_context(|| format!("failed to put {} in place", to.display()))
}
