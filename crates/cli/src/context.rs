//! What every command needs: the client, the remotes, how to wait.

use std::cell::RefCell;
use std::io::IsTerminal;

use stapes_api::Operation;
use stapes_client::{Client, ErrorKind, Target};

use crate::failure::{Failure, Result, fail};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::suggest;

/// Where an image or object lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// This host's daemon.
    Local,
    /// Built by the daemon from the distribution's archive.
    Debian,
}

/// Remotes known by name whose protocol is not spoken yet.
pub const IMAGE_SERVERS: &[(&str, &str)] = &[
    ("images", "https://images.linuxcontainers.org"),
    ("ubuntu", "https://cloud-images.ubuntu.com/releases"),
    ("ubuntu-daily", "https://cloud-images.ubuntu.com/daily"),
];

#[derive(Debug)]
pub struct Ctx {
    pub client: Client,
    pub settings: Settings,
    pub quiet: bool,
    /// `--project` as given.
    pub project_flag: Option<String>,
    /// What a "not found" is probably about, for "did you mean".
    subject: RefCell<Option<(&'static str, String)>>,
}

impl Ctx {
    pub fn new(quiet: bool, project_flag: Option<String>) -> Result<Self> {
        let settings = Settings::load()?;
        let from_env = std::env::var("STAPES_PROJECT").ok().filter(|p| !p.is_empty());
        let project = project_flag.clone().or(from_env).or_else(|| settings.project.clone());
        let client = Client::from_env().in_project(project);
        Ok(Ctx { client, settings, quiet, project_flag, subject: RefCell::new(None) })
    }

    /// Splits `remote:name`; without a remote it is the default one.
    pub fn remote<'a>(&self, spec: &'a str) -> Result<(Remote, &'a str)> {
        let default = std::env::var("STAPES_REMOTE").ok().filter(|r| !r.is_empty());
        let default = default.or_else(|| self.settings.default_remote.clone()).unwrap_or_else(|| "local".to_owned());
        let (remote, name) = match spec.split_once(':') {
            Some((remote, name)) => (remote, name),
            None => (default.as_str(), spec),
        };
        match remote {
            "local" => Ok((Remote::Local, name)),
            "debian" => Ok((Remote::Debian, name)),
            _ if IMAGE_SERVERS.iter().any(|(known, _)| *known == remote) => {
                Err(Failure::new(format!("remote image servers are not available yet, so {remote}: cannot be asked"))
                    .hint("use `debian:12`, built on this host from Debian's archive, or `stapes image import FILE`"))
            }
            _ => Err(Failure::new(format!("there is no remote {remote:?}")).hint("see `stapes remote list`")),
        }
    }

    /// The name in `local:name`; other remotes hold images only.
    pub fn local<'a>(&self, spec: &'a str) -> Result<&'a str> {
        match self.remote(spec)? {
            (Remote::Local, name) => Ok(name),
            (Remote::Debian, _) => Err(Failure::new(format!("{spec:?} names an image; debian: holds images only"))),
        }
    }

    /// The name of an object that must be given.
    pub fn name<'a>(&self, spec: &'a str, what: &str) -> Result<&'a str> {
        match self.local(spec)? {
            "" => fail!("{spec:?} does not name {what}"),
            name => Ok(name),
        }
    }

    /// The name of an instance; a "not found" that follows is taken to be about it.
    pub fn instance<'a>(&self, spec: &'a str) -> Result<&'a str> {
        let name = self.name(spec, "an instance")?;
        self.about("/1.0/instances", name.split('/').next().unwrap_or(name));
        Ok(name)
    }

    pub fn instance_target(&self, spec: &str) -> Result<Target> {
        Ok(Target::new("/1.0/instances").join(self.instance(spec)?))
    }

    /// Remembers that the next steps are about `name` in `collection`.
    pub fn about(&self, collection: &'static str, name: &str) {
        *self.subject.borrow_mut() = Some((collection, name.to_owned()));
    }

    /// Adds "did you mean" to a failure about an object that does not exist.
    pub async fn explain(&self, failure: Failure) -> Failure {
        let subject = self.subject.borrow_mut().take();
        let (Some((collection, name)), Some(ErrorKind::NotFound), None) = (subject, failure.kind, &failure.hint) else {
            return failure;
        };
        let Ok(paths) = self.client.get::<Vec<String>>(collection).await else { return failure };
        let names: Vec<&str> = paths.iter().filter_map(|path| last_segment(path)).collect();
        if names.contains(&name.as_str()) {
            return failure;
        }
        let what = collection.rsplit('/').next().unwrap_or_default();
        match suggest::nearest(&name, names.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None if collection.starts_with("/1.0/images") => failure
                .hint("`stapes image list` shows what is here; `debian:12` is built on this host when it is asked for"),
            None if names.is_empty() => failure.hint(format!("there are no {what}")),
            None => failure.hint(format!("{what} are: {}", shorten(&names))),
        }
    }

    /// Waits for an operation and shows its progress. Ctrl-C asks the daemon to cancel it; the third one leaves it alone.
    pub async fn wait(&self, operation: &Operation, label: &str) -> Result<Operation> {
        let mut progress = Progress::new(self.quiet, label);
        let mut interrupts = 0;
        let result = {
            let follow = self.client.follow(&operation.id, |now| progress.show(&now.text));
            tokio::pin!(follow);
            loop {
                tokio::select! {
                    done = &mut follow => break done.map_err(Failure::from),
                    _ = tokio::signal::ctrl_c() => {
                        interrupts += 1;
                        match self.client.cancel(&operation.id).await {
                            Ok(()) => break Err(Failure::new("cancelled; the daemon was asked to undo it")),
                            Err(_) if interrupts >= 3 => {
                                break Err(Failure::new("left at the third interrupt; the operation goes on")
                                    .hint(format!("see `stapes operation show {}`", operation.id)));
                            }
                            Err(cause) => eprintln!("\r{cause} (interrupt {} more to leave it)", 3 - interrupts),
                        }
                    }
                }
            }
        };
        progress.clear();
        result
    }

    /// Talk about what was done; silent with `--quiet`.
    pub fn say(&self, text: impl AsRef<str>) -> Result<()> {
        if self.quiet { Ok(()) } else { crate::out::line(text) }
    }
}

/// The last segment of an object's path, without its query.
pub fn last_segment(path: &str) -> Option<&str> {
    path.split('?').next()?.rsplit('/').next()
}

fn shorten(names: &[&str]) -> String {
    let shown = names.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 8 { format!("{shown}, and {} more", names.len() - 8) } else { shown }
}

/// Standard input, where it is no terminal: commands that take YAML read it.
pub fn piped_input() -> Result<Option<String>> {
    use crate::failure::About;
    if std::io::stdin().is_terminal() {
        return Ok(None);
    }
    std::io::read_to_string(std::io::stdin()).about(|| "cannot read standard input".to_owned()).map(Some)
}

/// `key=value` pairs.
pub fn pairs(args: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |arg: &String| match arg.split_once('=') {
        Some((key, "-")) => Ok((key.to_owned(), read_value()?)),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Failure::new(format!("{arg:?} is not of the form key=value"))),
    };
    args.iter().map(pair).collect()
}

/// `key=value…`, or the older `key value`.
pub fn settings_of(args: &[String]) -> Result<Vec<(String, String)>> {
    if let [key, value] = args
        && !key.contains('=')
    {
        let value = if value == "-" { read_value()? } else { value.clone() };
        return Ok(vec![(key.clone(), value)]);
    }
    pairs(args)
}

/// The value `-` is read from standard input.
fn read_value() -> Result<String> {
    use crate::failure::About;
    std::io::read_to_string(std::io::stdin()).about(|| "cannot read the value from standard input".to_owned())
}
