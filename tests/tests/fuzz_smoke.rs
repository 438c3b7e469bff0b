//! Every fuzz target on a few thousand seeded inputs: random ones, and mutations of what its parser takes. libFuzzer finds
//! more, and needs a compiler and a patience that a test run has not.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use targets::{TARGETS, Target};

const ROUNDS: u64 = 3000;
/// Bytes that mean something to one parser or another.
const TELLING: &[u8] = b"\0\n\r\t =:,.;/%&+-_{}[]()<>'\"\\#|*019azAZ\x7f\x80\xc3\xff";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        if self.below(3) == 0 { self.next() as u8 } else { TELLING[self.below(TELLING.len())] }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.byte()).collect()
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(7) {
            0 if at < bytes.len() => bytes[at] = self.byte(),
            1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 => bytes.insert(at, self.byte()),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..bytes.len().min(at + 1 + self.below(8)))),
            5 => {
                let piece = bytes[at..bytes.len().min(at + self.below(24))].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            _ => {
                let piece = self.bytes(8);
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// A small archive of every kind of entry, which nobody wants to write down as bytes.
fn tar_example() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_424_284_563);
        if kind == tar::EntryType::Symlink || kind == tar::EntryType::Link {
            builder.append_link(&mut header, path, "rootfs/a").unwrap();
        } else {
            builder.append_data(&mut header, path, content).unwrap();
        }
    };
    add("rootfs/", tar::EntryType::Directory, b"");
    add("rootfs/a", tar::EntryType::Regular, b"content");
    add(&format!("rootfs/{}", "long/".repeat(40)), tar::EntryType::Directory, b"");
    add("rootfs/b", tar::EntryType::Symlink, b"");
    add("rootfs/c", tar::EntryType::Link, b"");
    add("rootfs/null", tar::EntryType::Char, b"");
    builder.into_inner().unwrap()
}

fn smoke(target: &Target, seed: u64, examples: &[Vec<u8>]) {
    let mut random = Random(seed);
    for round in 0..ROUNDS {
        let mut input = if examples.is_empty() || random.below(8) == 0 {
            random.bytes(200)
        } else {
            examples[random.below(examples.len())].clone()
        };
        for _ in 0..round.min(random.next() % 12) {
            random.mutate(&mut input);
        }
        let run = std::panic::catch_unwind(|| (target.run)(&input));
        assert!(run.is_ok(), "{} died in round {round} of {:?}", target.name, String::from_utf8_lossy(&input));
    }
}

#[test]
fn no_parser_of_foreign_bytes_dies_of_them() {
    std::thread::scope(|scope| {
        for (number, target) in TARGETS.iter().enumerate() {
            let mut examples: Vec<_> = target.examples.iter().map(|example| example.to_vec()).collect();
            if target.name == "image_tar" {
                examples.push(tar_example());
            }
            scope.spawn(move || smoke(target, number as u64, &examples));
        }
    });
}

#[test]
fn every_target_is_a_program_for_the_fuzzer_and_stands_in_its_readme() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let (manifest, readme) = (read("Cargo.toml"), read("README.md"));
    for target in TARGETS {
        assert!(folder.join(format!("fuzz_targets/{}.rs", target.name)).is_file(), "{}", target.name);
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        assert!(readme.contains(&format!("`{}`", target.name)), "{}", target.name);
    }
    assert_eq!(std::fs::read_dir(folder.join("fuzz_targets")).unwrap().count(), TARGETS.len());
}
