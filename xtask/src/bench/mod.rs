//! The figures of SPECIFICATION.md: floor, Stapes and Incus in one run, on one machine, by one method.
//!
//! Absolute times are noise on a shared machine; ratios within a run are what counts. A figure never decides a test.

mod peer;
mod rows;
mod stats;
mod subject;
mod table;

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    programs::{self, Profile},
    setup,
    shell::{Step, cargo, output, require_root, target_dir},
};
use stats::Figure;
use subject::Subject;
use table::Row;

/// How much of it to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Repetitions of a row.
    pub rounds: usize,
    /// Instances in the rows that list many.
    pub count: usize,
    /// Running containers in the rows about density.
    pub density: usize,
    pub with_ours: bool,
    pub with_peer: bool,
    pub with_debian: bool,
}

pub fn main(args: &[&str]) -> Result<()> {
    require_root("bench")?;
    let options = parse(args)?;
    setup::ensure(false)?;
    let step = Step::begin("Release build");
    if options.with_ours {
        programs::build(Profile::Release)?;
    }
    crate::shell::run(cargo().args(["build", "--locked", "--release", "--package", "xtask", "--bin", "floor"]))?;
    step.done("built");
    let load_before = load();

    let step = Step::begin("The floor: bare system calls");
    let floor = floor(&options)?;
    step.done("measured");

    let mut ours = BTreeMap::new();
    if options.with_ours {
        let step = Step::begin("Stapes");
        let mut subject = Subject::stapes(&target_dir().join("release"))?;
        ours = rows::measure(&mut subject, &options);
        subject.end()?;
        step.done("measured, and everything it made is gone");
    }

    let theirs = match peer::installed() {
        Some(daemon) if options.with_peer => {
            let step = Step::begin("Incus, by the same method");
            let theirs = peer::start(&daemon).and_then(|mut subject| {
                let rows = rows::measure(&mut subject, &options);
                subject.end()?;
                Ok(rows)
            });
            step.done("measured");
            theirs.unwrap_or_else(|error| {
                println!("    Incus could not be measured: {error:#}");
                BTreeMap::new()
            })
        }
        Some(_) => BTreeMap::new(),
        None => {
            println!("==> Incus is not installed (`cargo xtask setup --peer`): its column stays empty");
            BTreeMap::new()
        }
    };
    table::print(&options, &floor, &ours, &theirs, &load_before, &load());
    Ok(())
}

fn parse(args: &[&str]) -> Result<Options> {
    let mut options =
        Options { rounds: 40, count: 200, density: 100, with_ours: true, with_peer: true, with_debian: true };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut number = || -> Result<usize> {
            let text = rest.next().with_context(|| format!("{arg} wants a number"))?;
            text.parse().with_context(|| format!("{arg} {text}"))
        };
        match *arg {
            "--quick" => options = Options { rounds: 12, count: 30, density: 30, ..options },
            "--density" => options.density = number()?,
            "--count" => options.count = number()?,
            "--rounds" => options.rounds = number()?,
            "--only-peer" => options.with_ours = false,
            "--no-peer" => options.with_peer = false,
            "--no-debian" => options.with_debian = false,
            other => bail!("bench: unknown argument {other:?}"),
        }
    }
    Ok(options)
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Runs the floor program; its figures by row.
fn floor(options: &Options) -> Result<BTreeMap<Row, Figure>> {
    let program: PathBuf = target_dir().join("release/floor");
    let said = output(Command::new(program).arg(options.rounds.to_string()))?;
    let mut figures = BTreeMap::new();
    for line in said.lines() {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            println!("    {line}");
            continue;
        };
        let samples = value["ms"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let figure = Figure::of(samples);
        let row = match value["row"].as_str() {
            Some("start") => Row::Start,
            Some("exec") => Row::ExecApi,
            Some("stop") => Row::ForceStop,
            Some("clone") => Row::CreateStopped,
            _ => continue,
        };
        if let Some(figure) = figure {
            figures.insert(row, figure);
        }
    }
    Ok(figures)
}
