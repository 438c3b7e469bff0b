//! What this host's apt knows: its mirror of Debian, and its proxy. Nothing about mirrors is written in our code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use stapes_sys::exec::{Exec, ExecError};

/// One source of packages: an address and a suite of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

/// Where Debian comes from on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mirrors {
    pub main: Option<String>,
    pub security: Option<String>,
    pub updates: bool,
}

impl Mirrors {
    pub(super) fn of_host() -> Self {
        let mut texts = Vec::new();
        let list = Path::new("/etc/apt/sources.list").to_owned();
        let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
        let mut paths: Vec<_> = folder.collect();
        paths.sort();
        for path in std::iter::once(list).chain(paths) {
            let deb822 = path.extension().is_some_and(|extension| extension == "sources");
            if !deb822 && path.extension().is_none_or(|extension| extension != "list") {
                continue;
            }
            if let Ok(text) = fs::read_to_string(&path) {
                texts.push((deb822, text));
            }
        }
        Self::of(&texts.iter().flat_map(|(deb822, text)| parse(*deb822, text)).collect::<Vec<_>>())
    }

    fn of(sources: &[Source]) -> Self {
        let mut mirrors = Self::default();
        for Source { uri, suite } in sources {
            let (base, part) = match suite.split_once(['-', '/']) {
                Some((base, part)) => (base, part),
                None => (suite.as_str(), ""),
            };
            if !super::debian::is_suite(base) {
                continue;
            }
            match part {
                "" => mirrors.main = mirrors.main.take().or_else(|| Some(uri.clone())),
                "security" => mirrors.security = mirrors.security.take().or_else(|| Some(uri.clone())),
                "updates" if suite.contains('/') => {}
                "updates" => mirrors.updates = true,
                _ => {}
            }
        }
        mirrors
    }

    /// Lines of a sources.list for one release. Not every release has updates and a security archive.
    pub(super) fn lines(&self, suite: &str) -> Vec<String> {
        let Some(main) = &self.main else { return Vec::new() };
        let mut lines = vec![format!("deb {main} {suite} main")];
        if suite != "sid" {
            if self.updates {
                lines.push(format!("deb {main} {suite}-updates main"));
            }
            if let Some(security) = &self.security {
                lines.push(format!("deb {security} {suite}-security main"));
            }
        }
        lines
    }
}

fn parse(deb822: bool, text: &str) -> Vec<Source> {
    if deb822 { text.split("\n\n").flat_map(stanza).collect() } else { text.lines().filter_map(line).collect() }
}

/// `deb [options] uri suite components…`
fn line(text: &str) -> Option<Source> {
    let rest = text.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    fetchable(uri).then(|| Source { uri: uri.trim_end_matches('/').into(), suite: suite.trim_end_matches('/').into() })
}

/// A paragraph of `Key: values`, continued by indented lines; sources.list(5).
fn stanza(text: &str) -> Vec<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), value.to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    if field("enabled").trim() == "no" || !field("types").split_whitespace().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let uris = field("uris").split_whitespace().filter(|uri| fetchable(uri));
    uris.flat_map(|uri| {
        let suites = field("suites").split_whitespace();
        suites.map(|suite| Source { uri: uri.trim_end_matches('/').into(), suite: suite.trim_end_matches('/').into() })
    })
    .collect()
}

/// A mirror that an instance can reach too: not a CD-ROM or a directory of this host.
fn fetchable(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// The proxies that apt uses here, as `Acquire::…::Proxy` settings; the environment's apply where apt has none.
pub(super) fn proxies() -> Vec<(String, String)> {
    let dump = Exec::new("apt-config").args(["dump", "--format", "%F %v%n", "Acquire"]).run().unwrap_or_default();
    let dump = String::from_utf8_lossy(&dump).into_owned();
    let mut found = Vec::new();
    for scheme in ["http", "https"] {
        let key = format!("Acquire::{scheme}::Proxy");
        let configured = dump.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key);
        let value = configured.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty());
        let value = value.or_else(|| {
            [format!("{scheme}_proxy"), format!("{}_PROXY", scheme.to_ascii_uppercase())]
                .iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        });
        // A quote would end the setting and begin another.
        if let Some(value) = value.filter(|value| !value.contains(['"', '\n', ';'])) {
            found.push((key, value));
        }
    }
    found
}

/// Fetches packages as this host's apt would install them, and unpacks them into one tree that nothing is run in.
pub(super) fn download(packages: &[&str], work: &Path) -> Result<PathBuf, ExecError> {
    let script = "cd \"$1\" && shift && mkdir debs packages && cd debs && \
                  apt-get -o APT::Sandbox::User=root -q download \"$@\" >&2 && \
                  for deb in *.deb; do dpkg-deb -x \"$deb\" ../packages; done && cd .. && rm -r debs";
    let patience = std::time::Duration::from_secs(300);
    Exec::new("sh").args(["-c", script, "sh"]).arg(work).args(packages).patience(patience).run()?;
    Ok(work.join("packages"))
}

/// The package that `package` stands for, such as the newest kernel: the first that it depends on of those with this prefix.
pub(super) fn stands_for(package: &str, prefix: &str) -> Result<Option<String>, ExecError> {
    let shown = Exec::new("apt-cache").args(["show", "--no-all-versions", package]).run()?;
    Ok(first_dependency(&String::from_utf8_lossy(&shown), prefix))
}

fn first_dependency(shown: &str, prefix: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split(',').filter_map(|part| part.split_whitespace().next());
    names.map(str::to_owned).find(|name| name.starts_with(prefix))
}

/// The proxy runs on this host's own loopback, where no instance can reach it.
pub(super) fn is_local(proxy: &str) -> bool {
    let host = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_sources_are_read() {
        let old = "# x\ndeb [arch=amd64 signed-by=/k] http://mirror.example/debian/ bookworm main\n\
                   deb-src http://src.example/debian bookworm main\ndeb cdrom:[x]/ bookworm main\n\
                   deb http://mirror.example/debian-security bookworm-security main\n\
                   deb http://other.example/cloud cloud-sdk-bookworm main\n";
        let mirrors = Mirrors::of(&parse(false, old));
        assert_eq!(mirrors.main.as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(
            mirrors.lines("trixie"),
            [
                "deb http://mirror.example/debian trixie main",
                "deb http://mirror.example/debian-security trixie-security main",
            ]
        );
        let new = "Types: deb\n# note\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                   Types: deb\nEnabled: no\nURIs: http://b.example/debian\nSuites: bookworm-security\n";
        let mirrors = Mirrors::of(&parse(true, new));
        assert_eq!((mirrors.updates, mirrors.security.clone()), (true, None));
        assert_eq!(mirrors.lines("sid"), ["deb http://a.example/debian sid main"]);
    }

    #[test]
    fn the_newest_kernel_is_what_its_package_depends_on() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 6.1.1-1\nDepends: base, linux-image-6.1.0-1-cloud-amd64 (= 6.1.1-1)\n";
        assert_eq!(first_dependency(shown, "linux-image-").as_deref(), Some("linux-image-6.1.0-1-cloud-amd64"));
        assert_eq!(first_dependency("Package: x\n", "linux-image-"), None);
    }

    #[test]
    fn a_proxy_of_the_host_s_loopback_is_told_apart() {
        assert!(is_local("http://127.0.0.1:3142/"));
        assert!(is_local("http://me:x@localhost:1"));
        assert!(!is_local("http://10.0.0.1:3142"));
    }
}
