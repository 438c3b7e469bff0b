//! AppArmor policy on this host: compiled once, then loaded and removed by two files of the kernel's.
//!
//! The compiler takes tens of milliseconds, so its output is kept by content, for all instances of a kind; a start puts its
//! id in and writes the result to `.replace`. What was loaded is noted in a directory that a reboot erases like the policy
//! itself: only noted profiles are ever removed, since another daemon may serve the same host.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use stapes_model::InstanceId;
use stapes_sys::exec::Exec;

use super::{
    LsmError,
    profile::{self, ProfileSpec, STAND_IN, profile_name},
};

/// AppArmor's directory in securityfs.
pub const KERNEL: &str = "/sys/kernel/security/apparmor";
const PARSER: &str = "apparmor_parser";
const PATIENCE: Duration = Duration::from_secs(20);

/// The directories that policy lives in.
#[derive(Debug)]
pub struct Policies {
    /// The kernel's: `.replace` and `.remove`.
    kernel: PathBuf,
    parser: PathBuf,
    /// Compiled profiles, by content.
    cache: PathBuf,
    /// One empty file for each profile that is loaded.
    marks: PathBuf,
    compiled: Mutex<HashMap<u64, Arc<[u8]>>>,
}

impl Policies {
    /// The reason, where this host cannot confine by AppArmor.
    pub fn open(cache: &Path, run_dir: &Path) -> Result<Self, String> {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if !enabled.starts_with('Y') {
            return Err("not on in this kernel".to_owned());
        }
        let replace = Path::new(KERNEL).join(".replace");
        match fs::OpenOptions::new().write(true).open(&replace) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err("on, but securityfs is not mounted on /sys/kernel/security".to_owned());
            }
            Err(error) => {
                return Err(format!("on, but profiles cannot be loaded here: {}: {error}", replace.display()));
            }
        }
        let parser = find(PARSER).ok_or("on, but apparmor_parser (package apparmor) is not installed")?;
        Ok(Self {
            kernel: KERNEL.into(),
            parser,
            cache: cache.join("apparmor"),
            marks: run_dir.join("apparmor"),
            compiled: Mutex::default(),
        })
    }

    /// Loads the instance's profile, in the place of one of the same name.
    pub fn load(&self, id: &InstanceId, spec: &ProfileSpec<'_>) -> Result<(), LsmError> {
        let text = profile::render(spec)?;
        let failed = |source: io::Error| LsmError::Load { profile: profile_name(id), source };
        let binary = self.compiled(&text)?;
        fs::create_dir_all(&self.marks).and_then(|()| fs::write(self.mark(id), "")).map_err(failed)?;
        let attempt = |binary: &[u8]| match with_id(binary, id) {
            Some(policy) => write_once(&self.kernel.join(".replace"), &policy),
            None => Err(io::Error::other("the compiled profile has another name")),
        };
        attempt(&binary).or_else(|error| {
            // A file cut short by a power cut, or of a kernel that was: compile it again, once.
            tracing::warn!(%id, %error, "the kernel refused a cached AppArmor profile; compiling it anew");
            attempt(&self.compile(&text)?).map_err(failed)
        })
    }

    /// Removes the instance's profile: whoever is still confined by it is not any more. One that is not loaded is success.
    pub fn unload(&self, id: &InstanceId) -> Result<(), LsmError> {
        let failed = |source: io::Error| LsmError::Unload { profile: profile_name(id), source };
        let mark = self.mark(id);
        if !mark.exists() {
            return Ok(());
        }
        match write_once(&self.kernel.join(".remove"), profile_name(id).as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::remove_file(mark).map_err(failed)
    }

    /// The instances whose profiles are noted as loaded.
    pub fn loaded(&self) -> HashSet<InstanceId> {
        let entries = fs::read_dir(&self.marks).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Compiles what containers without rules of their own need, so that no start has to.
    pub fn prepare(&self) {
        for (privileged, nesting) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = profile::render(&ProfileSpec { privileged, nesting, raw: "" });
            if let Err(error) = text.and_then(|text| self.compiled(&text)) {
                tracing::warn!(error = &error as &dyn std::error::Error, "the AppArmor profile cannot be compiled");
                return;
            }
        }
    }

    fn mark(&self, id: &InstanceId) -> PathBuf {
        self.marks.join(id.as_str())
    }

    fn compiled(&self, text: &str) -> Result<Arc<[u8]>, LsmError> {
        let key = key(text);
        let remembered = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(binary) = remembered() {
            return Ok(binary);
        }
        match fs::read(self.cached(key)) {
            Ok(binary) => Ok(self.remember(key, binary)),
            Err(_) => self.compile(text),
        }
    }

    fn compile(&self, text: &str) -> Result<Arc<[u8]>, LsmError> {
        let binary = compile(&self.parser, text)?;
        let key = key(text);
        // Without the file the next daemon compiles again.
        let (path, beside) = (self.cached(key), self.cache.join(format!(".{key:016x}.new")));
        let kept = fs::create_dir_all(&self.cache)
            .and_then(|()| fs::write(&beside, &binary))
            .and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "a compiled AppArmor profile was not kept");
        }
        Ok(self.remember(key, binary))
    }

    fn remember(&self, key: u64, binary: Vec<u8>) -> Arc<[u8]> {
        let binary: Arc<[u8]> = binary.into();
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&binary));
        binary
    }

    fn cached(&self, key: u64) -> PathBuf {
        self.cache.join(format!("{key:016x}"))
    }
}

/// Content and kernel: another kernel may want other tables.
fn key(text: &str) -> u64 {
    let kernel = rustix::system::uname();
    [text.as_bytes(), kernel.release().to_bytes(), kernel.version().to_bytes()].into_iter().fold(super::FNV, super::fnv)
}

/// The parser's program; the daemon's own PATH may lack the directories of the administrator.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Without the tables of what newer parsers mediate unasked, such as user namespaces on Ubuntu.
const ABI: &str = "/etc/apparmor.d/abi/3.0";

fn compile(parser: &Path, text: &str) -> Result<Vec<u8>, LsmError> {
    let abi = if Path::new(ABI).exists() { "abi <abi/3.0>,\n" } else { "" };
    let compiler = Exec::new(parser).args(["--quiet", "--skip-cache", "--stdout"]).patience(PATIENCE);
    compiler.input(format!("{abi}{text}")).run().map_err(|source| LsmError::Compile { source })
}

/// The compiled profile under the name of `id`, which is as long as the stand-in's. `None`: its name is not in there.
fn with_id(binary: &[u8], id: &InstanceId) -> Option<Vec<u8>> {
    let (stand_in, name) = (STAND_IN.as_bytes(), profile_name(id));
    let mut policy = binary.to_vec();
    let mut found = false;
    let mut at = 0;
    while let Some(next) = policy[at..].windows(stand_in.len()).position(|window| window == stand_in) {
        at += next;
        policy[at..at + stand_in.len()].copy_from_slice(name.as_bytes());
        found = true;
    }
    found.then_some(policy)
}

/// The kernel takes a profile in one write.
fn write_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = fs::OpenOptions::new().write(true).open(path)?.write(bytes)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> InstanceId {
        "abcdefg7".parse().unwrap()
    }

    fn policies(dir: &Path) -> Option<Policies> {
        let Some(parser) = find(PARSER) else {
            eprintln!("SKIP AppArmor policy: needs apparmor_parser (package apparmor)");
            return None;
        };
        let kernel = dir.join("kernel");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(kernel.join(".replace"), "").unwrap();
        fs::write(kernel.join(".remove"), "").unwrap();
        Some(Policies {
            kernel,
            parser,
            cache: dir.join("cache"),
            marks: dir.join("marks"),
            compiled: Mutex::default(),
        })
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("stapes-policy-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn the_stand_in_is_as_long_as_any_name() {
        assert_eq!(STAND_IN.len(), profile_name(&id()).len());
    }

    #[test]
    fn every_stand_in_gets_the_id_and_a_strange_binary_is_refused() {
        let policy = with_id(b"\x04stapes-INSTANCE\0x\x04stapes-INSTANCE\0", &id()).unwrap();
        assert_eq!(policy, b"\x04stapes-abcdefg7\0x\x04stapes-abcdefg7\0");
        assert_eq!(with_id(b"profile", &id()), None);
    }

    #[test]
    fn a_profile_is_compiled_once_and_loaded_under_the_instances_name() {
        let dir = scratch("load");
        let Some(mut policies) = policies(&dir) else { return };
        policies.load(&id(), &ProfileSpec::default()).unwrap();
        let loaded = fs::read(dir.join("kernel/.replace")).unwrap();
        let has = |name: &str| loaded.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(has("stapes-abcdefg7") && !has(STAND_IN));
        assert_eq!(policies.loaded(), HashSet::from([id()]));
        // A second daemon has the file, and no need for the compiler.
        policies.compiled = Mutex::default();
        policies.parser = "/nonexistent/parser".into();
        policies.load(&"hijklmn2".parse().unwrap(), &ProfileSpec::default()).unwrap();
        assert!(policies.load(&id(), &ProfileSpec { privileged: true, ..Default::default() }).is_err());
        policies.unload(&id()).unwrap();
        policies.unload(&id()).unwrap();
        assert_eq!(fs::read_to_string(dir.join("kernel/.remove")).unwrap(), "stapes-abcdefg7");
        assert_eq!(policies.loaded().len(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_rule_that_is_none_is_refused_with_the_parsers_words() {
        let dir = scratch("raw");
        let Some(policies) = policies(&dir) else { return };
        let error = policies.load(&id(), &ProfileSpec { raw: "no such rule,", ..Default::default() }).unwrap_err();
        assert!(matches!(&error, LsmError::Compile { source } if source.to_string().contains("syntax")), "{error:?}");
        fs::remove_dir_all(dir).unwrap();
    }
}
