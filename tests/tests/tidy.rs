//! The rules of the house that a compiler does not know: which crate may use which, where `unsafe` lives, how long a
//! file may be. ARCHITECTURE.md explains them.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Which of our crates each crate may use. Arrows point from programs to libraries to contracts, never back.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("file-api", &[]),
    ("agent-api", &["file-api"]),
    ("shim-api", &["file-api"]),
    ("model", &[]),
    ("instance", &["model"]),
    ("sys", &[]),
    ("cgroup", &["sys", "model"]),
    ("container", &["instance", "shim-api", "cgroup", "sys", "model"]),
    ("qemu", &["instance", "shim-api", "agent-api", "cgroup", "sys", "model"]),
    ("storage", &["sys", "model"]),
    ("network", &["sys", "model"]),
    ("device", &["instance", "model"]),
    ("image", &["sys", "model"]),
    ("store", &["model"]),
    ("journal", &["model", "sys"]),
    ("client", &["api"]),
    ("cli", &["api", "client"]),
    ("files", &["file-api", "sys"]),
    ("agent", &["agent-api", "files", "sys"]),
    ("shim", &["shim-api", "files", "cgroup", "sys"]),
    (
        "engine",
        &[
            "model",
            "instance",
            "sys",
            "cgroup",
            "container",
            "qemu",
            "storage",
            "network",
            "device",
            "image",
            "store",
            "journal",
            "shim-api",
            "agent-api",
        ],
    ),
    // The daemon converts between `api` and `model`, so it names the types of the libraries that the engine is made of.
    (
        "daemon",
        &[
            "engine",
            "api",
            "model",
            "sys",
            "image",
            "store",
            "journal",
            "instance",
            "storage",
            "network",
            "cgroup",
            "device",
            "container",
            "qemu",
        ],
    ),
    ("testkit", &["sys", "client"]),
    // The libraries whose parsers of foreign bytes the fuzz targets feed (see tests/fuzz_smoke.rs), and the drivers that
    // one test puts together without a daemon (tests/vm.rs).
    (
        "tests",
        &[
            "testkit",
            "client",
            "api",
            "sys",
            "model",
            "instance",
            "cgroup",
            "container",
            "qemu",
            "image",
            "network",
            "device",
            "shim-api",
            "agent-api",
        ],
    ),
    ("xtask", &["testkit"]),
];

/// The one program that must do system calls without our wrappers: it measures what the wrappers add.
const UNSAFE_OUTSIDE_SYS: &str = "xtask/src/bin/floor.rs";
/// Who starts a child that lives on or talks over pipes meanwhile, which `sys::exec` (run to the end, keep the words) is not
/// for: the nursery and its services, and the confined unpacker.
const CHILDREN_OF_THEIR_OWN: &[&str] = &[
    "crates/container/src/nursery.rs",
    "crates/image/src/build/debian.rs",
    "crates/image/src/disk.rs",
    "crates/image/src/unpack.rs",
    "crates/image/src/worker.rs",
    "crates/shim/src/services.rs",
];
const LONGEST_FILE: usize = 700;
const LONGEST_FUNCTION: usize = 90;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

struct Source {
    /// From the root of the repository.
    name: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let parts = ["/tests/", "/testkit/", "/fuzz/"];
        let is_module = self.name.ends_with("/tests.rs") || self.name.ends_with("_tests.rs");
        is_module || parts.iter().any(|part| format!("/{}", self.name).contains(part))
    }

    /// The lines before the tests beside the code.
    fn lines(&self) -> Vec<&str> {
        let lines: Vec<_> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod "));
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for top in ["crates", "tests", "xtask", "fuzz"] {
        collect(&root().join(top), &mut found);
    }
    assert!(found.len() > 30, "the sources are found");
    found
}

fn collect(dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_use_only_what_the_architecture_lets_them() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let table: BTreeMap<_, BTreeSet<_>> =
        MAY_USE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let short = |name: &str| name.strip_prefix("stapes-").unwrap_or(name).to_owned();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = short(package["name"].as_str().unwrap());
        let Some(allowed) = table.get(name.as_str()) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let full = dependency["name"].as_str().unwrap();
            // Tests may lean on the testkit.
            let is_dev = dependency["kind"] == "dev" && full == "stapes-testkit";
            if full.starts_with("stapes-") && !allowed.contains(short(full).as_str()) && !is_dev {
                wrong.push(format!("{name} uses {}", short(full)));
            }
        }
    }
    assert_none("a crate uses another that it may not know", &wrong);
}

#[test]
fn unsafe_code_lives_in_sys() {
    let mut wrong = Vec::new();
    for source in sources() {
        let in_sys = source.name.starts_with("crates/sys/");
        if in_sys || source.name == UNSAFE_OUTSIDE_SYS || source.name.ends_with("tidy.rs") {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code)"];
            if words.iter().any(|word| code.contains(word)) {
                wrong.push(format!("{}:{}", source.name, index + 1));
            }
        }
    }
    assert_none("unsafe outside crates/sys", &wrong);
}

#[test]
fn every_crate_forbids_unsafe_code_in_its_own_words() {
    let mut wrong = Vec::new();
    for source in sources() {
        let is_root = ["src/lib.rs", "src/main.rs"].iter().any(|end| source.name.ends_with(end));
        if is_root && !source.name.starts_with("crates/sys/") && !source.text.contains("#![forbid(unsafe_code)]") {
            wrong.push(source.name);
        }
    }
    assert_none("no #![forbid(unsafe_code)]", &wrong);
}

#[test]
fn external_programs_are_run_through_sys() {
    let mut wrong = Vec::new();
    for source in sources() {
        let may = ["crates/sys/", "crates/cli/", "crates/testkit/", "xtask/", "tests/"];
        let may_start = CHILDREN_OF_THEIR_OWN.contains(&source.name.as_str());
        if may.iter().any(|prefix| source.name.starts_with(prefix)) || may_start || source.is_test() {
            continue;
        }
        for (index, line) in source.lines().iter().enumerate() {
            if line.contains("Command::new(") && !line.trim_start().starts_with("//") {
                wrong.push(format!("{}:{}", source.name, index + 1));
            }
        }
    }
    assert_none("Command::new outside sys::exec", &wrong);
}

#[test]
fn files_and_functions_can_be_read_at_one_sitting() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.is_test() {
            continue;
        }
        let lines = source.lines();
        if lines.len() > LONGEST_FILE {
            wrong.push(format!("{} has {} lines", source.name, lines.len()));
        }
        let mut open: Option<(usize, String)> = None;
        for (index, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            let is_function = head.starts_with("fn ") || head.split(" fn ").next().is_some_and(is_qualifiers);
            if is_function && head.contains("fn ") {
                open = Some((index, format!("{}}}", " ".repeat(indent))));
            } else if let Some((start, end)) = &open
                && line == end
            {
                if index - start + 1 > LONGEST_FUNCTION {
                    wrong.push(format!("{}:{} is {} lines long", source.name, start + 1, index - start + 1));
                }
                open = None;
            }
        }
    }
    assert_none("too long", &wrong);
}

/// Words that may stand before `fn`.
fn is_qualifiers(words: &str) -> bool {
    words
        .split(' ')
        .all(|w| matches!(w, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"") || w.starts_with("pub("))
}

#[test]
fn nothing_is_left_to_do_and_no_path_of_a_developers_machine_is_in_the_code() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| !source.name.ends_with("tidy.rs")) {
        for (index, line) in source.text.lines().enumerate() {
            let words = ["todo!(", "unimplemented!(", "dbg!(", "/work/"];
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: {word}", source.name, index + 1));
            }
        }
    }
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SPECIFICATION.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        if text.contains("/work/") {
            wrong.push(name.to_owned());
        }
    }
    assert_none("left over", &wrong);
}

#[test]
fn every_crate_has_a_line_in_the_architecture() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !text.contains(&format!("`{name}`")) {
            missing.push(name);
        }
    }
    assert_none("not in ARCHITECTURE.md", &missing);
}
