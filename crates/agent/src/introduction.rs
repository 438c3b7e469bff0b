//! Who this machine is: its host name, and the files that its image's templates gave it.
//!
//! The disk knows what it was introduced with before, so that a machine that was killed too early, rolled back or made of
//! another's disk gets what it needs, and nobody's later changes are written over.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use rustix::{
    fs::{CWD, MemfdFlags, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use stapes_agent_api::{FileOp, IntroducedFile, Introduction};

/// Where the disk says what it was introduced with.
const FOLDER: &str = "/var/lib/stapes";
const MARK: &str = "/var/lib/stapes/introduced";
const HOST_NAME: &str = "/etc/hostname";

/// What a disk was introduced with.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    uuid: String,
    name: String,
}

/// Follows the introduction at `path`, once a boot. What fails is said on standard error: a machine that cannot write a
/// file shall have its agent all the same.
pub fn follow(path: &Path) {
    // Beside the introduction, and so gone with this boot.
    let done = path.with_extension("done");
    if done.exists() {
        return;
    }
    let read = std::fs::read(path).and_then(|text| Ok(serde_json::from_slice::<Introduction>(&text)?));
    let introduction = match read {
        Ok(introduction) => introduction,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return eprintln!("stapes-agent: failed to read {}: {error}", path.display()),
    };
    let written = match write(Path::new("/"), &introduction) {
        Ok(written) => written,
        Err(error) => {
            eprintln!("stapes-agent: failed to write the files of {}: {error}", path.display());
            None
        }
    };
    if let Some(name) = written.or_else(|| is_unnamed().then(|| introduction.name.clone()))
        && let Err(error) = rustix::system::sethostname(name.as_bytes())
    {
        eprintln!("stapes-agent: failed to set the host name {name}: {error}");
    }
    let _ = File::create(done);
}

/// Whether this machine has nobody's name.
fn is_unnamed() -> bool {
    let uname = rustix::system::uname();
    matches!(uname.nodename().to_bytes(), b"" | b"(none)" | b"localhost" | b"localhost.localdomain")
}

/// Writes what is due beneath `root`; the host name, if it was among it.
fn write(root: &Path, introduction: &Introduction) -> io::Result<Option<String>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let own_files = stapes_files::own_files()?;
    let apply = |op: &FileOp, content: Option<&str>| {
        let content = content.map(in_memory).transpose()?;
        stapes_files::apply(root.as_fd(), op, content, own_files.as_fd())
    };
    let before = match apply(&FileOp::Read { path: MARK.to_owned() }, None) {
        Ok((_, Some(file))) => serde_json::from_reader(rewound(file)?).ok(),
        _ => None,
    };
    let mut name = None;
    for file in due(introduction, before.as_ref()) {
        let IntroducedFile { path, content, uid, gid, mode, create_only } = file;
        if *create_only && apply(&FileOp::Stat { path: path.clone() }, None).is_ok() {
            continue;
        }
        let replace = FileOp::Replace { path: path.clone(), uid: *uid, gid: *gid, mode: *mode };
        match apply(&replace, Some(content)) {
            Ok(_) if path == HOST_NAME => name = host_name(content),
            Ok(_) => {}
            // Nothing is noted then: the next boot may have a root that can be written.
            Err(error) if error.raw_os_error() == Some(Errno::ROFS.raw_os_error()) => return Err(error),
            Err(error) => eprintln!("stapes-agent: failed to write {path}: {error}"),
        }
    }
    let mark = Mark { uuid: introduction.uuid.clone(), name: introduction.name.clone() };
    if before.as_ref() != Some(&mark) {
        let folder = FileOp::MakeDirectory { path: FOLDER.to_owned(), uid: None, gid: None, mode: Some(0o755) };
        match apply(&folder, None) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let replace = FileOp::Replace { path: MARK.to_owned(), uid: 0, gid: 0, mode: 0o644 };
        apply(&replace, Some(&serde_json::to_string(&mark)?))?;
    }
    Ok(name)
}

/// What a disk that was introduced so before still needs.
fn due<'a>(introduction: &'a Introduction, before: Option<&Mark>) -> impl Iterator<Item = &'a IntroducedFile> {
    let Introduction { uuid, name, create, rename, start } = introduction;
    let first = match before {
        Some(mark) if mark.uuid != *uuid => &create[..],
        Some(mark) if mark.name != *name => &rename[..],
        Some(_) => &[],
        None => &create[..],
    };
    first.iter().chain(start)
}

/// As hostname(5) has it: the first line that is no comment.
fn host_name(content: &str) -> Option<String> {
    let line = content.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    Some(line.to_owned())
}

fn in_memory(text: &str) -> io::Result<OwnedFd> {
    let file = File::from(rustix::fs::memfd_create("content", MemfdFlags::CLOEXEC)?);
    file.write_all_at(text.as_bytes(), 0)?;
    Ok(file.into())
}

fn rewound(file: OwnedFd) -> io::Result<File> {
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    fn file(path: &str, content: &str, create_only: bool) -> IntroducedFile {
        let own = rustix::process::geteuid().as_raw();
        IntroducedFile { path: path.into(), content: content.into(), uid: own, gid: own, mode: 0o640, create_only }
    }

    fn introduction(uuid: &str, name: &str) -> Introduction {
        Introduction {
            uuid: uuid.into(),
            name: name.into(),
            create: vec![file(HOST_NAME, &format!("# made\n{name}\n"), false), file("/etc/kept", "new", true)],
            rename: vec![file(HOST_NAME, &format!("{name}\n"), false)],
            start: vec![file("/etc/start", name, false)],
        }
    }

    #[test]
    fn a_disk_gets_what_is_new_to_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc", "var/lib"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        let change = |path: &str| fs::write(root.path().join(path), "changed").unwrap();
        fs::write(root.path().join("etc/kept"), "old").unwrap();
        let written = |uuid: &str, name: &str| write(root.path(), &introduction(uuid, name)).unwrap();

        assert_eq!(written("1", "v1").as_deref(), Some("v1"));
        assert_eq!((read("etc/hostname").as_str(), read("etc/kept").as_str()), ("# made\nv1\n", "old"));
        assert_eq!(fs::metadata(root.path().join("etc/hostname")).unwrap().mode() & 0o777, 0o640);
        change("etc/hostname");
        change("etc/start");
        assert_eq!(written("1", "v1"), None, "the second boot changes no name");
        assert_eq!((read("etc/hostname").as_str(), read("etc/start").as_str()), ("changed", "v1"));
        assert_eq!(written("1", "v2").as_deref(), Some("v2"), "a new name");
        assert_eq!(read("etc/hostname"), "v2\n");
        assert_eq!(written("2", "v2").as_deref(), Some("v2"), "another machine with this disk");
        assert_eq!(read("etc/hostname"), "# made\nv2\n");
        fs::write(root.path().join(&MARK[1..]), "garbage").unwrap();
        assert_eq!(written("2", "v2").as_deref(), Some("v2"));
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_no_other_from_it() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc", "var/lib"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let mut introduction = introduction("1", "v1");
        introduction.create.insert(0, file("/no/such/folder", "", false));
        if rustix::process::geteuid().is_root() {
            assert_eq!(write(root.path(), &introduction).unwrap().as_deref(), Some("v1"));
        }
    }
}
