//! Every check and every test, with the skips counted and named.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    programs::{self, Profile},
    setup,
    shell::{Step, cargo, find, root, run, target_dir},
};

/// Built from its package once where it is missing and CI asks for it: it takes minutes, and every run after finds it.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

struct Options<'a> {
    require_all: bool,
    filter: Vec<&'a str>,
}

/// What came out, in the end's words.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    /// Failed, and passed when they were run again: each is a fault, of the test or of ours, that is still to be found.
    flaky: Vec<String>,
    skipped: Vec<String>,
}

/// What nextest reported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    total: usize,
    failed: Vec<String>,
    flaky: Vec<String>,
}

pub fn main(args: &[&str]) -> Result<()> {
    let options = Options {
        require_all: args.contains(&"--require-all"),
        filter: args.iter().copied().filter(|arg| *arg != "--require-all").collect(),
    };
    // A machine out of the archive's reach can still run what needs nothing from it; the rest is a reported skip.
    if let Err(error) = setup::ensure(true) {
        println!("setup: {error:#}");
        if options.require_all {
            return Err(error);
        }
    }
    let mut tally = Tally::default();
    if options.filter.is_empty() {
        checks(&options, &mut tally);
    }
    tests(&options, &mut tally)?;
    report(&options, &tally)
}

fn checks(options: &Options, tally: &mut Tally) {
    let mut check = |name: &str, done: Result<()>| match done {
        Ok(()) => tally.passed += 1,
        Err(error) => {
            println!("    {error:#}");
            tally.failed.push(format!("check {name}"));
        }
    };
    Step::begin("Formatting");
    check("fmt", run(cargo().args(["fmt", "--all", "--check"])));
    Step::begin("Lints");
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--quiet"];
    check("clippy", run(cargo().args(clippy).args(["--", "--deny", "warnings"])));
    Step::begin("Documentation");
    let doc = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    check("doc", run(cargo().args(doc).env("RUSTDOCFLAGS", "--deny warnings")));
    Step::begin("Dependencies: licences, sources, bans");
    match ensure_cargo_deny(options) {
        Some(program) => {
            let mut deny = Command::new(program);
            deny.current_dir(root()).args(["--offline", "check", "--hide-inclusion-graph"]);
            check("deny", run(deny.args(["bans", "licenses", "sources"])));
        }
        None => {
            tally.skipped.push("SKIP: check deny: needs cargo-deny: run `cargo install --locked cargo-deny`".into())
        }
    }
}

fn ensure_cargo_deny(options: &Options) -> Option<PathBuf> {
    if let Some(program) = find("cargo-deny") {
        return Some(program);
    }
    let tools = target_dir().join("tools");
    let built = tools.join("bin/cargo-deny");
    if !built.exists() && (options.require_all || std::env::var_os("CI").is_some()) {
        println!("    building {CARGO_DENY} once");
        let mut install = cargo();
        install.args(["install", "--locked", "--quiet", "--no-default-features", "--root"]).arg(&tools).arg(CARGO_DENY);
        // The quickest build of it: it runs for a second.
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        install.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        if let Err(error) = run(&mut install) {
            println!("    {error:#}");
        }
    }
    built.exists().then_some(built)
}

fn tests(options: &Options, tally: &mut Tally) -> Result<()> {
    let step = Step::begin("Programs under test");
    let programs = programs::build(Profile::Dev)?;
    step.done("built");

    Step::begin("Tests");
    let skip_log = target_dir().join("skipped-tests.txt");
    let _ = fs::remove_file(&skip_log);
    let junit = target_dir().join("nextest/ci/junit.xml");
    let _ = fs::remove_file(&junit);
    let mut nextest = cargo();
    nextest
        .args(["nextest", "run", "--locked", "--workspace", "--profile", "ci"])
        .arg("--no-fail-fast")
        .arg("--no-tests=fail")
        .args(filters(&options.filter))
        .env("STAPES_TEST_BIN", &programs)
        .env("STAPES_SKIP_LOG", &skip_log)
        // Errors carry a backtrace otherwise, and nobody finds the message in it.
        .env("RUST_LIB_BACKTRACE", "0");
    if options.require_all {
        nextest.env("STAPES_REQUIRE_ALL", "1");
    }
    let ran = run(&mut nextest);
    let Report { total, failed, flaky } =
        read_junit(&junit).with_context(|| format!("nextest left no report in {}: {ran:?}", junit.display()))?;
    let skipped: Vec<String> = fs::read_to_string(&skip_log).unwrap_or_default().lines().map(str::to_owned).collect();
    // With --require-all a missing need has failed its test; otherwise the test returned early and counts as passed.
    let early = if options.require_all { 0 } else { skipped.len() };
    tally.passed += total - failed.len().min(total) - early.min(total);
    tally.failed.extend(failed);
    tally.flaky.extend(flaky);
    if !options.require_all {
        tally.skipped.extend(skipped);
    }
    if ran.is_err() && tally.failed.is_empty() {
        tally.failed.push("nextest itself".to_owned());
    }
    Ok(())
}

/// A word is part of a test's name, or the name of a whole file of system tests; the rest is nextest's own.
fn filters(words: &[&str]) -> Vec<String> {
    if words.iter().any(|word| word.starts_with('-')) {
        return words.iter().map(|word| (*word).to_owned()).collect();
    }
    let mut filters = Vec::new();
    for word in words {
        let is_file = root().join(format!("tests/tests/{word}.rs")).is_file();
        filters.push("-E".to_owned());
        filters.push(if is_file { format!("binary(={word}) + test({word})") } else { format!("test({word})") });
    }
    filters
}

/// How many tests ran, and the names of those that failed.
fn read_junit(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path)?;
    let mut report = Report::default();
    for case in text.split("<testcase ").skip(1) {
        report.total += 1;
        let name = case.split("name=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("?");
        let suite = case.split("classname=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("?");
        let body = case.split("</testcase>").next().unwrap_or("");
        if body.contains("<failure") || body.contains("<error") {
            report.failed.push(format!("{suite} {name}"));
        } else if body.contains("<flakyFailure") || body.contains("<flakyError") {
            report.flaky.push(format!("{suite} {name}"));
        }
    }
    if report.total == 0 {
        bail!("no test in {}", path.display());
    }
    Ok(report)
}

fn report(options: &Options, tally: &Tally) -> Result<()> {
    println!();
    for line in &tally.skipped {
        println!("{line}");
    }
    for name in &tally.flaky {
        println!("FLAKY: {name}: failed once and passed when run again; what it printed stands above");
    }
    for name in &tally.failed {
        println!("FAILED: {name}");
    }
    let flaky = if tally.flaky.is_empty() { String::new() } else { format!(" ({} flaky)", tally.flaky.len()) };
    println!("{} passed{flaky}, {} failed, {} skipped", tally.passed, tally.failed.len(), tally.skipped.len());
    let must_not_skip = options.require_all && !tally.skipped.is_empty();
    if !tally.failed.is_empty() || must_not_skip {
        bail!("{} failed, {} skipped", tally.failed.len(), tally.skipped.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_nextest_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junit.xml");
        let text = r#"<testsuites name="x" tests="2"><testsuite name="s">
            <testcase name="a" classname="s" time="0.1"/>
            <testcase name="b" classname="s" time="0.2"><failure type="x">no</failure><rerunFailure/></testcase>
            <testcase name="c" classname="s" time="0.2"><flakyFailure type="x">once</flakyFailure></testcase>
            </testsuite></testsuites>"#;
        fs::write(&path, text).unwrap();
        let expected = Report { total: 3, failed: vec!["s b".to_owned()], flaky: vec!["s c".to_owned()] };
        assert_eq!(read_junit(&path).unwrap(), expected);
        fs::write(&path, "<testsuites/>").unwrap();
        assert!(read_junit(&path).is_err());
    }
}
