//! Reading ahead what an init needs before its first instruction: its program, the loader that this names, and the
//! libraries that they need.
//!
//! A clone shares its data with the image on the disk but not in the page cache, so a first start would wait for each of
//! these files in turn: 3 ms for a static init, 35 ms for systemd. The kernel reads them all at once while the start does
//! its other work. It is a hint: whatever goes wrong here, a start only takes longer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    num::NonZero,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use elf::{
    ElfStream,
    abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, PT_DYNAMIC, PT_INTERP, PT_LOAD},
    dynamic::DynamicTable,
    endian::AnyEndian,
};
use rustix::fs::{Advice, Mode, OFlags};
use stapes_sys::{fs, socket};

/// Files of one init; systemd has some 30.
const MOST_FILES: usize = 64;
/// Read of each ahead: what links a library lies at its beginning. The whole of them would keep the disk busy while the
/// start waits for it.
const HEAD_BYTES: u64 = 512 << 10;
/// A larger one is not read, neither ahead nor for what it needs.
const MOST_BYTES: u64 = 32 << 20;
/// Roots that wait for their turn. With more, reading ahead would come too late.
const MOST_WAITING: usize = 32;

const INIT: &str = "/sbin/init";

/// A root that is about to be started from.
struct Root {
    path: PathBuf,
    likeness: String,
}

/// Reads ahead on a thread of its own, which ends with this.
#[derive(Debug)]
pub struct ReadAhead(Option<mpsc::SyncSender<Root>>);

impl ReadAhead {
    pub fn new() -> Self {
        let (sender, roots) = mpsc::sync_channel(MOST_WAITING);
        let thread = std::thread::Builder::new().name("read ahead".to_owned()).spawn(move || serve(&roots));
        Self(thread.is_ok().then_some(sender))
    }

    /// Begins to read what an init beneath `path` needs. Roots of one likeness have the same files in the same places.
    pub fn begin(&self, path: &Path, likeness: &str) {
        if let Some(roots) = &self.0 {
            let _ = roots.try_send(Root { path: path.to_owned(), likeness: likeness.to_owned() });
        }
    }
}

fn serve(roots: &mpsc::Receiver<Root>) {
    /// Images whose files are remembered.
    const MOST_KNOWN: usize = 256;
    let mut known: HashMap<String, Arc<[String]>> = HashMap::new();
    for Root { path, likeness } in roots {
        let Ok(root) = socket::open_directory(&path) else { continue };
        if let Some(files) = known.get(&likeness) {
            for file in files.iter() {
                let _ = open(root.as_fd(), file);
            }
            continue;
        }
        let files = needed(root.as_fd(), INIT);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(likeness, files.into());
    }
}

/// Opens a regular file beneath the root and has the kernel begin to read it. Nothing else is opened: a fifo or a device
/// of an image would notice.
fn open(root: BorrowedFd<'_>, path: &str) -> io::Result<File> {
    let place = fs::open_in_root(root, path, OFlags::PATH, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    if !is_file || u64::try_from(stat.st_size).is_ok_and(|size| size > MOST_BYTES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    rustix::fs::fadvise(&file, 0, NonZero::new(HEAD_BYTES), Advice::WillNeed)?;
    Ok(file)
}

/// The files that a program is made of, itself first, as paths beneath the root. Each is being read from then on.
fn needed(root: BorrowedFd<'_>, program: &str) -> Vec<String> {
    let (mut found, mut seen, mut tried) = (Vec::new(), HashSet::new(), HashSet::new());
    let mut next = VecDeque::from([vec![program.to_owned()]]);
    while let Some(places) = next.pop_front() {
        // Another one needs it too.
        if found.len() >= MOST_FILES || !tried.insert(places.clone()) {
            continue;
        }
        let Some((path, file)) = places.into_iter().find_map(|path| Some((path.clone(), open(root, &path).ok()?)))
        else {
            continue;
        };
        if file.metadata().is_ok_and(|meta| !seen.insert((meta.dev(), meta.ino()))) {
            continue;
        }
        if let Some(links) = Links::read(&file) {
            next.extend(links.interpreter.iter().map(|interpreter| vec![interpreter.clone()]));
            next.extend(links.libraries.iter().map(|name| links.places(name, &path)));
        }
        found.push(path);
    }
    found
}

/// What an ELF file says of the others that it needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Links {
    interpreter: Option<String>,
    libraries: Vec<String>,
    run_paths: Vec<String>,
}

impl Links {
    /// `None`: it is no ELF file, or not a whole one.
    fn read(mut file: impl Read + Seek) -> Option<Self> {
        let mut elf = ElfStream::<AnyEndian, _>::open_stream(&mut file).ok()?;
        let (endianness, class) = (elf.ehdr.endianness, elf.ehdr.class);
        let segments = elf.segments().clone();
        let mut links = Self::default();
        if let Some(segment) = segments.iter().find(|segment| segment.p_type == PT_INTERP) {
            links.interpreter = elf.segment_data(segment).ok().and_then(text);
        }
        let Some(segment) = segments.iter().find(|segment| segment.p_type == PT_DYNAMIC) else { return Some(links) };
        let entries: Vec<_> = DynamicTable::new(endianness, class, elf.segment_data(segment).ok()?).iter().collect();
        let value = |tag| entries.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val());
        let (address, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
        let held = segments.iter().find(|segment| {
            segment.p_type == PT_LOAD && address.checked_sub(segment.p_vaddr).is_some_and(|at| at < segment.p_filesz)
        })?;
        let offset = held.p_offset.checked_add(address - held.p_vaddr)?;
        let mut strings = vec![0; usize::try_from(size.min(held.p_filesz).min(MOST_BYTES)).ok()?];
        file.seek(SeekFrom::Start(offset)).ok()?;
        file.read_exact(&mut strings).ok()?;
        let string = |at: u64| text(strings.get(usize::try_from(at).ok()?..)?);
        for entry in &entries {
            match entry.d_tag {
                DT_NEEDED => links.libraries.extend(string(entry.d_val())),
                DT_RPATH | DT_RUNPATH => {
                    links
                        .run_paths
                        .extend(string(entry.d_val()).iter().flat_map(|paths| paths.split(':').map(str::to_owned)));
                }
                _ => {}
            }
        }
        Some(links)
    }

    /// Where the loader looks for a library, as far as the usual systems have it; ld.so(8).
    fn places(&self, library: &str, of: &str) -> Vec<String> {
        if library.contains('/') {
            return vec![library.to_owned()];
        }
        let origin = of.rsplit_once('/').map_or("/", |(directory, _)| directory);
        let own = self.run_paths.iter().map(|path| path.replace("$ORIGIN", origin).replace("${ORIGIN}", origin));
        let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let usual = [&multiarch, "/usr/lib64", "/usr/lib", "/lib64", "/lib"].map(str::to_owned);
        own.chain(usual).map(|directory| format!("{directory}/{library}")).collect()
    }
}

/// An entrance for a fuzz target: whatever the bytes are, this returns.
pub fn read_links(bytes: &[u8]) {
    if let Some(links) = Links::read(io::Cursor::new(bytes)) {
        links.libraries.iter().for_each(|library| drop(links.places(library, INIT)));
    }
}

/// Up to the NUL that must be there.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(std::str::from_utf8(&bytes[..end]).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file of the system that runs the test.
    fn of_this_host(path: &str) -> Vec<String> {
        needed(socket::open_directory(Path::new("/")).unwrap().as_fd(), path)
    }

    #[test]
    fn a_dynamic_program_has_its_loader_and_its_libraries() {
        let files = of_this_host("/proc/self/exe");
        assert!(files.is_empty(), "a magic link leads out of a root: {files:?}");
        let files = of_this_host(std::env::current_exe().unwrap().to_str().unwrap());
        let has = |part: &str| files.iter().any(|file| file.contains(part));
        assert!(has("libc.so.6") && has("ld-linux") && has("libgcc_s.so.1"), "{files:?}");
    }

    #[test]
    fn what_is_no_program_is_read_alone_and_what_is_no_file_is_not_opened() {
        assert_eq!(of_this_host("/etc/passwd"), ["/etc/passwd"]);
        for path in ["/dev/null", "/etc", "/nowhere"] {
            assert!(of_this_host(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn no_truncation_of_a_program_panics() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 4, 16, 63, 64, 65, 500, 1000, 4096, 100_000] {
            read_links(&program[..length.min(program.len())]);
        }
        // Every byte of the header and of the first program headers, wrong.
        for at in 0..600 {
            let mut wrong = program[..100_000.min(program.len())].to_vec();
            wrong[at] ^= 0xff;
            read_links(&wrong);
        }
    }

    /// One library, one run path, a loader, and nothing else.
    fn a_small_program() -> Vec<u8> {
        let (interpreter, strings) = (b"/lib64/ld.so\0", b"\0libc.so.6\0/opt/x:$ORIGIN/../lib\0");
        let (at, dynamic_at) = (64 + 3 * 56_u64, 64 + 3 * 56 + 16_u64);
        let strings_at = dynamic_at + 5 * 16;
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
        let words = |bytes: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        words(&mut bytes, &[0, 64, 0]);
        bytes.extend(b"\0\0\0\0\x40\0\x38\0\x03\0\0\0\0\0\0\0");
        let end = strings_at + strings.len() as u64;
        for (kind, at, size) in [(PT_INTERP, at, 13), (PT_LOAD, 0, end), (PT_DYNAMIC, dynamic_at, 80)] {
            words(&mut bytes, &[u64::from(kind) | 4 << 32, at, at, at, size, size, 8]);
        }
        bytes.extend(interpreter);
        bytes.resize(dynamic_at as usize, 0);
        let entries =
            [(DT_NEEDED, 1), (DT_RUNPATH, 11), (DT_STRTAB, strings_at), (DT_STRSZ, strings.len() as u64), (0, 0)];
        entries.iter().for_each(|(tag, value)| words(&mut bytes, &[*tag as u64, *value]));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn what_a_program_needs_is_read_from_its_segments() {
        let links = Links::read(io::Cursor::new(a_small_program())).unwrap();
        assert_eq!(links.interpreter.as_deref(), Some("/lib64/ld.so"));
        assert_eq!(links.libraries, ["libc.so.6"]);
        assert_eq!(links.run_paths, ["/opt/x", "$ORIGIN/../lib"]);
    }

    #[test]
    fn a_library_is_looked_for_where_its_user_says_first() {
        let links = Links { run_paths: vec!["$ORIGIN/../private".to_owned()], ..Links::default() };
        let places = links.places("libx.so", "/opt/x/bin/x");
        assert_eq!(places[0], "/opt/x/bin/../private/libx.so");
        assert!(places.contains(&"/usr/lib/libx.so".to_owned()));
        assert_eq!(links.places("/a/b.so", "/x"), ["/a/b.so"]);
    }
}
