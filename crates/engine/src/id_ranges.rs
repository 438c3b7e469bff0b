//! Which host ids an instance gets: 65,536 of its own (262,144 with nesting), in blocks of 65,536.
//!
//! `/etc/subuid` and `/etc/subgid` decide where they exist and name `root` or `stapes` (several lines are one supply);
//! else Stapes's own default. Blocks that hold a user of `/etc/passwd` or another user's subordinate range are left
//! alone, and so is the range of systemd-nspawn. Sources: subuid(5), systemd's "Users, Groups, UIDs and GIDs".

use std::collections::HashSet;

use stapes_model::IdRange;

use crate::{Error, Result};

/// Ids are handed out in blocks of this many.
pub const BLOCK: u32 = 65_536;

/// From the end of systemd-nspawn's range (0x6fff_ffff) to the last whole block.
const DEFAULT: IdRange = IdRange { base: 0x7000_0000, size: 0x8ffe_0000 };

/// The host's supply of id blocks.
#[derive(Debug, Clone)]
pub struct IdSupply {
    ours: Vec<IdRange>,
    foreign: Vec<IdRange>,
    users: HashSet<u32>,
}

impl IdSupply {
    /// Reads the host's files; a missing file is an empty one.
    pub fn of_host() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/etc/subuid"), &read("/etc/subgid"), &read("/etc/passwd"))
    }

    /// The same out of the files' texts.
    pub fn parse(subuid: &str, subgid: &str, passwd: &str) -> Self {
        let (uid_ours, mut foreign) = subordinate(subuid);
        let (gid_ours, gid_foreign) = subordinate(subgid);
        foreign.extend(gid_foreign);
        // One number is used as uid and gid, so it must be ours in both files.
        let ours: Vec<_> =
            uid_ours.iter().flat_map(|uid| gid_ours.iter().filter_map(|gid| intersection(*uid, *gid))).collect();
        let ours = if ours.is_empty() { vec![DEFAULT] } else { ours };
        let users = passwd.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect();
        Self { ours, foreign, users }
    }

    /// The first free run of `size` ids, a multiple of [`BLOCK`], that avoids the blocks in `taken`.
    pub fn find(&self, size: u32, taken: &HashSet<u32>) -> Result<IdRange> {
        for supply in &self.ours {
            let mut base = u64::from(supply.base);
            while base + u64::from(size) <= supply.end() {
                let Ok(start) = u32::try_from(base) else { break };
                let range = IdRange { base: start, size };
                match blocks(range).find(|block| taken.contains(block) || self.is_foreign(*block)) {
                    None => return Ok(range),
                    Some(block) => base = u64::from(block) + u64::from(BLOCK),
                }
            }
        }
        Err(Error::Exhausted(format!(
            "no {size} host ids are free; add a line for root to /etc/subuid and /etc/subgid, or delete instances"
        )))
    }

    fn is_foreign(&self, block: u32) -> bool {
        let range = IdRange { base: block, size: BLOCK };
        self.foreign.iter().any(|other| other.overlaps(range))
            || self.users.iter().any(|user| u64::from(*user) >= u64::from(block) && u64::from(*user) < range.end())
    }

    /// One line for `info`.
    pub fn describe(&self) -> String {
        let ranges: Vec<_> = self.ours.iter().map(|range| format!("{}+{}", range.base, range.size)).collect();
        ranges.join(", ")
    }
}

/// First ids of the blocks of a range.
pub fn blocks(range: IdRange) -> impl Iterator<Item = u32> {
    (0..range.size.div_ceil(BLOCK)).map(move |number| range.base.saturating_add(number * BLOCK))
}

fn intersection(a: IdRange, b: IdRange) -> Option<IdRange> {
    let (base, end) = (a.base.max(b.base), a.end().min(b.end()));
    let size = u32::try_from(end.checked_sub(u64::from(base))?).ok()?;
    (size >= BLOCK).then_some(IdRange { base, size })
}

/// Ours and others' ranges of a subuid(5) file; a line that is none is skipped.
fn subordinate(text: &str) -> (Vec<IdRange>, Vec<IdRange>) {
    let mut ours = Vec::new();
    let mut others = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(user), Some(base), Some(size)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (Ok(base), Ok(size)) = (base.parse(), size.parse()) else { continue };
        let list = if matches!(user, "root" | "0" | "stapes") { &mut ours } else { &mut others };
        list.push(IdRange { base, size });
    }
    (ours, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_files_the_default_starts_after_nspawns_range() {
        let supply = IdSupply::parse("", "", "");
        assert_eq!(supply.find(BLOCK, &HashSet::new()).unwrap().base, 0x7000_0000);
    }

    #[test]
    fn several_ranges_of_root_are_one_supply() {
        let text = "root:1000000:65536\nalice:100000:65536\nroot:3000000:131072\n";
        let supply = IdSupply::parse(text, text, "");
        let mut taken = HashSet::new();
        let mut bases = Vec::new();
        while let Ok(range) = supply.find(BLOCK, &taken) {
            bases.push(range.base);
            taken.extend(blocks(range));
        }
        assert_eq!(bases, [1_000_000, 3_000_000, 3_065_536]);
    }

    #[test]
    fn a_block_with_a_user_or_anothers_range_is_left_alone() {
        let subids = "root:1000000:327680\nbob:1065536:10\n";
        let supply = IdSupply::parse(subids, subids, "carol:x:1000005:1:::\n");
        assert_eq!(supply.find(BLOCK, &HashSet::new()).unwrap().base, 1_000_000 + 2 * BLOCK);
    }

    #[test]
    fn nesting_takes_four_neighbouring_blocks() {
        let supply = IdSupply::parse("", "", "");
        let taken = HashSet::from([0x7000_0000 + BLOCK]);
        let range = supply.find(4 * BLOCK, &taken).unwrap();
        assert_eq!(range.base, 0x7000_0000 + 2 * BLOCK);
        assert_eq!(blocks(range).count(), 4);
    }

    #[test]
    fn running_out_says_what_to_do() {
        let supply = IdSupply::parse("root:1000000:65536", "root:1000000:65536", "");
        let error = supply.find(4 * BLOCK, &HashSet::new()).unwrap_err().to_string();
        assert!(error.contains("/etc/subuid"), "{error}");
    }
}
