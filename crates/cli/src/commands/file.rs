//! `file`: files of instances, streamed both ways.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use stapes_client::{FileAttributes, FileKind, PulledFile, Upload};
use tokio::io::AsyncWriteExt;

use crate::context::Ctx;
use crate::failure::{About, Failure, Result, fail};
use crate::progress::Progress;
use crate::{editor, units};

#[derive(Debug, Subcommand)]
pub enum File {
    /// Create an empty file, a directory or a symlink
    Create(Create),
    /// Create a directory
    #[command(hide = true)]
    Mkdir {
        #[arg(value_name = "INSTANCE/PATH")]
        place: String,
        #[arg(long, short = 'p')]
        create_dirs: bool,
        #[command(flatten)]
        owner: Owner,
    },
    /// Delete files
    #[command(visible_aliases = ["rm", "remove"])]
    Delete {
        #[arg(required = true, value_name = "INSTANCE/PATH")]
        places: Vec<String>,
        /// Directories too, with all they hold
        #[arg(long, short)]
        force: bool,
    },
    /// Edit a file in the editor
    Edit {
        #[arg(value_name = "INSTANCE/PATH")]
        place: String,
    },
    /// Copy files from an instance
    Pull(Pull),
    /// Copy files to an instance
    Push(Push),
}

#[derive(Args, Debug, Default)]
pub struct Owner {
    /// Owner
    #[arg(long, allow_negative_numbers = true)]
    uid: Option<i64>,
    /// Group
    #[arg(long, allow_negative_numbers = true)]
    gid: Option<i64>,
    /// Permissions, octal
    #[arg(long)]
    mode: Option<String>,
}

impl Owner {
    fn attributes(&self) -> Result<FileAttributes> {
        let mode = self.mode.as_deref().map(|text| {
            let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o7777);
            mode.ok_or_else(|| Failure::new(format!("--mode {text:?} is not octal permissions, such as 0644")))
        });
        let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
        Ok(FileAttributes { uid: id(self.uid), gid: id(self.gid), mode: mode.transpose()? })
    }

    fn is_given(&self) -> bool {
        self.uid.is_some_and(|id| id >= 0) || self.gid.is_some_and(|id| id >= 0) || self.mode.is_some()
    }
}

#[derive(Args, Debug)]
pub struct Create {
    #[arg(value_name = "INSTANCE/PATH")]
    place: String,
    /// Where a symlink points
    #[arg(value_name = "TARGET")]
    points_to: Option<String>,
    /// Create missing parents
    #[arg(long, short = 'p')]
    create_dirs: bool,
    /// Replace what exists
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    owner: Owner,
    /// file, symlink or directory
    #[arg(long = "type", default_value = "file", value_parser = ["file", "symlink", "directory"])]
    kind: String,
}

#[derive(Args, Debug)]
pub struct Pull {
    /// Files, and where they go; - is stdout
    #[arg(required = true, num_args = 2.., value_name = "INSTANCE/PATH> <TARGET")]
    words: Vec<String>,
    /// Create missing parents
    #[arg(long, short = 'p')]
    create_dirs: bool,
    /// Directories too
    #[arg(long, short)]
    recursive: bool,
}

#[derive(Args, Debug)]
pub struct Push {
    /// Files (- is stdin), and where they go
    #[arg(required = true, num_args = 2.., value_name = "SOURCE> <INSTANCE/PATH")]
    words: Vec<String>,
    /// Create missing parents
    #[arg(long, short = 'p')]
    create_dirs: bool,
    /// Directories too
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    owner: Owner,
}

/// A path in an instance, absolute; a trailing slash says that it is a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    instance: String,
    path: String,
    is_directory: bool,
}

impl Place {
    fn parse(ctx: &Ctx, spec: &str) -> Result<Place> {
        let Some((instance, path)) = spec.split_once('/') else {
            return Err(Failure::new(format!("{spec:?} is no path in an instance")).hint("write it as INSTANCE/PATH"));
        };
        let instance = ctx.instance(instance)?.to_owned();
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let is_directory = path.ends_with('/') || parts.is_empty();
        Ok(Place { instance, path: format!("/{}", parts.join("/")), is_directory })
    }

    fn child(&self, name: &str) -> Place {
        let path = format!("{}/{name}", self.path.trim_end_matches('/'));
        Place { instance: self.instance.clone(), path, is_directory: false }
    }

    fn parent(&self) -> Place {
        let path = self.path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
        Place { instance: self.instance.clone(), path: path.to_owned(), is_directory: true }
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    async fn open(&self, ctx: &Ctx) -> Result<PulledFile> {
        Ok(ctx.client.pull_file(&self.instance, &self.path).await?)
    }

    async fn write(&self, ctx: &Ctx, kind: FileKind, attributes: FileAttributes, content: Upload) -> Result<()> {
        Ok(ctx.client.push_file(&self.instance, &self.path, kind, attributes, content).await?)
    }

    /// Creates the directory with its parents; what is there stays as it is.
    async fn make_directories(&self, ctx: &Ctx, attributes: FileAttributes) -> Result<()> {
        let mut missing = Vec::new();
        let mut at = self.clone();
        while at.path != "/" {
            match ctx.client.pull_file(&at.instance, &at.path).await {
                Ok(file) if file.kind == FileKind::File => fail!("{} in {} is no directory", at.path, at.instance),
                Ok(_) => break,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
            let parent = at.parent();
            missing.push(std::mem::replace(&mut at, parent));
        }
        for place in missing.iter().rev() {
            place.write(ctx, FileKind::Directory, attributes, Upload::empty()).await?;
        }
        Ok(())
    }
}

impl File {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            File::Create(create) => create.run(ctx).await,
            File::Pull(pull) => pull.run(ctx).await,
            File::Push(push) => push.run(ctx).await,
            File::Edit { place } => edit(ctx, &Place::parse(ctx, &place)?).await,
            File::Delete { places, force } => {
                for place in &places {
                    let place = Place::parse(ctx, place)?;
                    ctx.client.delete_file(&place.instance, &place.path, force).await?;
                }
                Ok(())
            }
            File::Mkdir { place, create_dirs, owner } => {
                let create =
                    Create { place, points_to: None, create_dirs, force: false, owner, kind: "directory".to_owned() };
                create.run(ctx).await
            }
        }
    }
}

impl Create {
    async fn run(self, ctx: &Ctx) -> Result<()> {
        let place = Place::parse(ctx, &self.place)?;
        let given = self.owner.attributes()?;
        let (kind, mode, content) = match (self.kind.as_str(), self.points_to) {
            ("symlink", Some(target)) => (FileKind::Symlink, None, Upload::bytes(target)),
            ("symlink", None) => fail!("a symlink needs a target"),
            (_, Some(_)) => fail!("only a symlink has a target; add --type symlink"),
            ("directory", None) => (FileKind::Directory, Some(0o755), Upload::empty()),
            _ if place.is_directory => (FileKind::Directory, Some(0o755), Upload::empty()),
            _ => (FileKind::File, Some(0o644), Upload::empty()),
        };
        if self.create_dirs {
            place.parent().make_directories(ctx, FileAttributes { mode: None, ..given }).await?;
        }
        if !self.force
            && kind != FileKind::Directory
            && ctx.client.pull_file(&place.instance, &place.path).await.is_ok()
        {
            return Err(Failure::new(format!("{} exists already in {}", place.path, place.instance))
                .hint("--force replaces it"));
        }
        let attributes =
            FileAttributes { uid: given.uid.or(Some(0)), gid: given.gid.or(Some(0)), mode: given.mode.or(mode) };
        place.write(ctx, kind, attributes, content).await
    }
}

impl Pull {
    async fn run(self, ctx: &Ctx) -> Result<()> {
        let [sources @ .., last] = self.words.as_slice() else { fail!("a source and a target are needed") };
        let target = PathBuf::from(last);
        let sources = sources.iter().map(|spec| Place::parse(ctx, spec)).collect::<Result<Vec<_>>>()?;
        let mut is_directory = target.is_dir();
        if target.exists() && !is_directory && sources.len() > 1 {
            fail!("several files cannot go to {last}, which is no directory");
        }
        if !target.exists() && last != "-" {
            if last.ends_with('/') || sources.len() > 1 {
                fs::create_dir_all(&target).about(|| format!("cannot create {last}"))?;
                is_directory = true;
            } else if self.create_dirs
                && let Some(parent) = target.parent()
            {
                fs::create_dir_all(parent).about(|| format!("cannot create {}", parent.display()))?;
            }
        }
        for source in &sources {
            let file = source.open(ctx).await?;
            if file.kind == FileKind::Directory {
                if !self.recursive {
                    return Err(
                        Failure::new(format!("{} is a directory", source.path)).hint("--recursive takes it along")
                    );
                }
                fs::create_dir_all(&target).about(|| format!("cannot create {last}"))?;
                pull_tree(ctx, source, file, &target.join(source.name())).await?;
                continue;
            }
            let to = if is_directory { target.join(source.name()) } else { target.clone() };
            pull_file(ctx, source, file, &to).await?;
        }
        Ok(())
    }
}

/// Copies a directory; a directory that exists is filled.
async fn pull_tree(ctx: &Ctx, source: &Place, directory: PulledFile, target: &Path) -> Result<()> {
    let mode = directory.attributes.mode.unwrap_or(0o755);
    if !target.is_dir() {
        fs::create_dir(target).about(|| format!("cannot create {}", target.display()))?;
    }
    for name in directory.entries().await? {
        // A name is one path component, whatever the instance says.
        if name.is_empty() || name == "." || name == ".." || name.contains('/') {
            fail!("{} in {} has an entry with the impossible name {name:?}", source.path, source.instance);
        }
        let (child, to) = (source.child(&name), target.join(&name));
        let file = child.open(ctx).await?;
        match file.kind {
            FileKind::Directory => Box::pin(pull_tree(ctx, &child, file, &to)).await?,
            _ => pull_file(ctx, &child, file, &to).await?,
        }
    }
    let permissions = fs::Permissions::from_mode(mode & 0o777);
    fs::set_permissions(target, permissions).about(|| format!("cannot set the mode of {}", target.display()))
}

/// Copies a file or a symlink.
async fn pull_file(ctx: &Ctx, source: &Place, file: PulledFile, target: &Path) -> Result<()> {
    let problem = || format!("cannot write {}", target.display());
    let mut content = file.content;
    if target == Path::new("-") {
        while let Some(chunk) = content.chunk().await? {
            crate::out::put(chunk)?;
        }
        return Ok(());
    }
    if file.kind == FileKind::Symlink {
        let points_to = content.bytes().await?;
        return symlink(String::from_utf8_lossy(&points_to).trim_end(), target).about(problem);
    }
    let mut progress = Progress::new(ctx.quiet, &format!("Pulling {} from {}", source.path, source.instance));
    let mut out = tokio::fs::File::create(target).await.about(problem)?;
    out.set_max_buf_size(1 << 20);
    let mut total = 0;
    while let Some(chunk) = content.chunk().await? {
        out.write_all(&chunk).await.about(problem)?;
        total += chunk.len() as i64;
        progress.show(&units::decimal(total));
    }
    out.flush().await.about(problem)?;
    let mode = file.attributes.mode.unwrap_or(0o644) & 0o777;
    out.set_permissions(fs::Permissions::from_mode(mode)).await.about(problem)
}

impl Push {
    async fn run(self, ctx: &Ctx) -> Result<()> {
        let [sources @ .., last] = self.words.as_slice() else { fail!("a source and a target are needed") };
        let target = Place::parse(ctx, last)?;
        if self.recursive {
            return self.push_trees(ctx, sources, &target).await;
        }
        if sources.len() > 1 && !target.is_directory {
            return Err(Failure::new(format!("several files cannot go to {last}"))
                .hint(format!("if it is a directory, write {last}/")));
        }
        let given = self.owner.attributes()?;
        for source in sources {
            let path = Path::new(source);
            let name = path.file_name().map_or("stdin".into(), |name| name.to_string_lossy());
            let place = if target.is_directory { target.child(&name) } else { target.clone() };
            if self.create_dirs {
                place.parent().make_directories(ctx, FileAttributes { mode: None, ..given }).await?;
            }
            if source == "-" {
                let attributes = FileAttributes {
                    uid: given.uid.or(Some(0)),
                    gid: given.gid.or(Some(0)),
                    mode: given.mode.or(Some(0o644)),
                };
                place.write(ctx, FileKind::File, attributes, Upload::reader(tokio::io::stdin(), None)).await?;
            } else {
                push_file(ctx, path, &place, given).await?;
            }
        }
        Ok(())
    }

    async fn push_trees(&self, ctx: &Ctx, sources: &[String], target: &Place) -> Result<()> {
        if self.owner.is_given() {
            fail!("--uid, --gid and --mode do not go with --recursive, which keeps what each file has");
        }
        if self.create_dirs {
            target.make_directories(ctx, FileAttributes::default()).await?;
        }
        for source in sources {
            let path = fs::canonicalize(source).about(|| format!("cannot read {source}"))?;
            // As `incus`: the directory itself is created below the target.
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let place = name.map_or_else(|| target.clone(), |name| target.child(&name));
            push_tree(ctx, Path::new(source), &place).await?;
        }
        Ok(())
    }
}

async fn push_tree(ctx: &Ctx, source: &Path, place: &Place) -> Result<()> {
    let problem = || format!("cannot read {}", source.display());
    let found = fs::symlink_metadata(source).about(problem)?;
    let attributes = FileAttributes {
        uid: Some(found.uid()),
        gid: Some(found.gid()),
        mode: Some(found.permissions().mode() & 0o7777),
    };
    let kind = found.file_type();
    if kind.is_symlink() {
        let points_to = fs::read_link(source).about(problem)?;
        let content = Upload::bytes(points_to.to_string_lossy().into_owned());
        place.write(ctx, FileKind::Symlink, attributes, content).await
    } else if kind.is_dir() {
        place.write(ctx, FileKind::Directory, attributes, Upload::empty()).await?;
        let entries = fs::read_dir(source).about(problem)?;
        let mut entries = entries.collect::<std::io::Result<Vec<_>>>().about(problem)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let child = place.child(&entry.file_name().to_string_lossy());
            Box::pin(push_tree(ctx, &entry.path(), &child)).await?;
        }
        Ok(())
    } else if kind.is_file() {
        push_file(ctx, source, place, attributes).await
    } else {
        fail!("{} is neither a file nor a directory nor a symlink", source.display());
    }
}

/// Sends one file; what `given` leaves open is taken from the file.
async fn push_file(ctx: &Ctx, source: &Path, place: &Place, given: FileAttributes) -> Result<()> {
    let problem = || format!("cannot read {}", source.display());
    let mut file = tokio::fs::File::open(source).await.about(problem)?;
    let found = file.metadata().await.about(problem)?;
    if found.is_dir() {
        return Err(Failure::new(format!("{} is a directory", source.display())).hint("--recursive takes it along"));
    }
    file.set_max_buf_size(1 << 20);
    let attributes = FileAttributes {
        uid: given.uid.or(Some(found.uid())),
        gid: given.gid.or(Some(found.gid())),
        mode: given.mode.or(Some(found.permissions().mode() & 0o7777)),
    };
    let length = found.is_file().then_some(found.len());
    let mut progress = Progress::new(ctx.quiet, &format!("Pushing {}", source.display()));
    let counted = Counted { file, sent: 0, total: length, report: Box::new(move |text| progress.show(text)) };
    place.write(ctx, FileKind::File, attributes, Upload::reader(counted, length)).await
}

/// A file that tells how much of it was read.
struct Counted {
    file: tokio::fs::File,
    sent: u64,
    total: Option<u64>,
    report: Box<dyn FnMut(&str) + Send + Sync>,
}

impl tokio::io::AsyncRead for Counted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let poll = std::pin::Pin::new(&mut self.file).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        if read > 0 {
            self.sent += read;
            let text = match self.total {
                Some(total) if total > 0 => format!("{}%", self.sent * 100 / total),
                _ => units::decimal(self.sent as i64),
            };
            (self.report)(&text);
        }
        poll
    }
}

/// Pulls a file, opens the editor, and pushes it back with its attributes.
async fn edit(ctx: &Ctx, place: &Place) -> Result<()> {
    let file = place.open(ctx).await?;
    if file.kind != FileKind::File {
        fail!("{} in {} is no file", place.path, place.instance);
    }
    let attributes = file.attributes;
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return place.write(ctx, FileKind::File, attributes, Upload::reader(tokio::io::stdin(), None)).await;
    }
    let suffix = Path::new(place.name()).extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    let copy = tempfile::Builder::new().prefix("stapes-").suffix(&suffix).tempfile();
    let copy = copy.about(|| "cannot create a temporary file".to_owned())?.into_temp_path();
    pull_file(ctx, place, file, &copy).await?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).about(|| "cannot protect the copy".to_owned())?;
    editor::open(&copy)?;
    push_file(ctx, &copy, place, attributes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_instance_and_a_clean_path() {
        let ctx = Ctx::new(true, None).unwrap();
        let place = Place::parse(&ctx, "local:c1/etc//./hosts").unwrap();
        assert_eq!((place.instance.as_str(), place.path.as_str(), place.is_directory), ("c1", "/etc/hosts", false));
        assert_eq!((place.name(), place.parent().path.as_str()), ("hosts", "/etc"));
        assert!(Place::parse(&ctx, "c1/").unwrap().is_directory);
        assert_eq!(Place::parse(&ctx, "c1/").unwrap().child("x").path, "/x");
        assert!(Place::parse(&ctx, "c1").is_err());
    }

    #[test]
    fn modes_are_octal() {
        let mode = |mode: &str| Owner { mode: Some(mode.to_owned()), ..Owner::default() }.attributes().map(|a| a.mode);
        assert_eq!(mode("644").unwrap(), Some(0o644));
        assert_eq!(mode("0755").unwrap(), Some(0o755));
        assert!(mode("9").is_err());
    }
}
