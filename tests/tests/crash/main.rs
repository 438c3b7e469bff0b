//! The daemon is killed at every step and at random moments; the next one finds a consistent host and has lost nothing
//! that was acknowledged.
//!
//! Wants a daemon built with the feature `failpoints` (`cargo xtask test` does). `STAPES_CRASH_SEED` repeats a random
//! run, `STAPES_CRASH_KILLS` makes it longer.
#![forbid(unsafe_code)]

mod audit;
mod steps;
mod storm;
mod world;

use stapes_testkit::{Need, host_with};

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox, Need::Tool("dnsmasq"), Need::Tool("nft")];

#[test]
fn killed_at_every_step_of_an_instances_life() {
    let Some(_host) = host_with(NEEDS) else { return };
    steps::kill_at_every_step("dir", steps::INSTANCE_VERBS);
}

#[test]
fn killed_at_every_step_of_a_reboot_from_inside() {
    let Some(_host) = host_with(NEEDS) else { return };
    steps::kill_at_every_step_of_a_reboot();
}

#[test]
fn killed_at_every_step_of_making_profiles_networks_and_pools() {
    let Some(_host) = host_with(NEEDS) else { return };
    steps::kill_at_every_step("dir", steps::OTHER_VERBS);
}

#[test]
fn killed_at_every_step_on_a_btrfs_pool() {
    let Some(_host) = host_with(&[NEEDS, &[Need::Tool("mkfs.btrfs")]].concat()) else { return };
    steps::kill_at_every_step("btrfs", steps::LOOP_VERBS);
}

#[test]
fn killed_at_every_step_of_a_file_push() {
    let Some(_host) = host_with(NEEDS) else { return };
    steps::kill_at_every_step("dir", steps::FILE_VERBS);
}

#[test]
fn killed_at_every_step_of_image_imports_and_deletions() {
    let Some(_host) = host_with(NEEDS) else { return };
    steps::kill_at_every_step("dir", steps::IMAGE_VERBS);
}

#[test]
fn killed_at_random_moments_of_a_busy_life() {
    let Some(_host) = host_with(NEEDS) else { return };
    storm::storm("btrfs", world::setting("STAPES_CRASH_KILLS", 150), storm::Abilities { files: true });
}
