use std::{sync::atomic::Ordering, time::Duration};

use stapes_engine::app::{CreateInstance, StopMode};
use stapes_model::state::Status;

use crate::{
    Host, done,
    fake::{Manners, lock, until},
    name, project, refused,
};

const GRACEFUL: StopMode = StopMode::Graceful { patience: Some(Duration::from_secs(5)) };

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_made_started_stopped_and_deleted() {
    let host = Host::new().await;
    host.create("c1").await;
    assert_eq!(host.status("c1"), Status::Stopped);
    host.start("c1").await;
    assert_eq!(host.status("c1"), Status::Running);
    assert_eq!(host.value("c1", "volatile.last_state.power"), "RUNNING");
    let again = refused(host.engine.start_instance(&project(), &name("c1"), None)).await;
    assert_eq!(again, "The instance is already running");
    let running = refused(host.engine.delete_instance(&project(), &name("c1"), None)).await;
    assert_eq!(running, "Instance is running");
    done(host.engine.stop_instance(&project(), &name("c1"), GRACEFUL, None)).await;
    assert_eq!(host.status("c1"), Status::Stopped);
    assert_eq!(host.value("c1", "volatile.last_state.power"), "STOPPED");
    host.delete("c1").await;
    assert!(!host.exists("c1") && host.volumes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_hears_ahead_of_what_will_be_started_and_of_nothing_else() {
    let host = Host::new().await;
    host.create("c1").await;
    assert!(lock(&host.driver.expected).is_empty(), "it may never be started");
    host.start("c1").await;
    host.launch("c2").await;
    let expected = lock(&host.driver.expected).clone();
    let root = |name: &str| host.driver.guest(name).plan.root.clone();
    assert!(expected.iter().all(|(_, likeness, there)| !likeness.is_empty() && *there), "{expected:?}");
    let roots: Vec<_> = expected.into_iter().map(|(path, ..)| path).collect();
    assert_eq!(roots, [root("c1"), root("c2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once() {
    let host = Host::new().await;
    host.create("c1").await;
    let error = refused(host.engine.create_instance(host.request("c1"))).await;
    assert_eq!(error, "instance \"c1\" already exists");
    assert_eq!(host.volumes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_one_operation_with_two_starts() {
    let host = Host::new().await;
    host.launch("c1").await;
    done(host.engine.restart_instance(&project(), &name("c1"), GRACEFUL, None)).await;
    assert_eq!((host.status("c1"), host.driver.started("c1")), (Status::Running, 2));
    assert_eq!(host.value("c1", "volatile.last_state.power"), "RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_keeps_everything_but_the_name() {
    let host = Host::new().await;
    host.create("c1").await;
    let before = host.instance("c1");
    done(host.engine.rename_instance(&project(), &name("c1"), name("c2"), None)).await;
    let after = host.instance("c2");
    assert!(!host.exists("c1"));
    assert_eq!((before.id, &before.config), (after.id, &after.config));
    host.create("c1").await;
    let taken = refused(host.engine.rename_instance(&project(), &name("c1"), name("c2"), None)).await;
    assert!(taken.contains("already exists"), "{taken}");
    host.start("c2").await;
    let running = refused(host.engine.rename_instance(&project(), &name("c2"), name("c3"), None)).await;
    assert_eq!(running, "Renaming of running instance not allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instance_is_thawed_or_killed_but_not_asked() {
    let host = Host::new().await;
    host.launch("c1").await;
    done(host.engine.freeze_instance(&project(), &name("c1"), None)).await;
    assert_eq!(host.status("c1"), Status::Frozen);
    let asked = refused(host.engine.stop_instance(&project(), &name("c1"), GRACEFUL, None)).await;
    assert!(asked.contains("frozen"), "{asked}");
    done(host.engine.thaw_instance(&project(), &name("c1"), None)).await;
    assert_eq!(host.status("c1"), Status::Running);
    done(host.engine.freeze_instance(&project(), &name("c1"), None)).await;
    host.stop("c1").await;
    assert_eq!(host.status("c1"), Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_verbs_is_told_who_holds_the_instance() {
    let host = Host::new().await;
    *lock(&host.driver.manners) = Manners::Ignores;
    host.launch("c1").await;
    let patience = Some(Duration::from_millis(150));
    let stop = host.engine.stop_instance(&project(), &name("c1"), StopMode::Graceful { patience }, None);
    let busy = "instance \"default/c1\" is busy: stop is under way";
    assert_eq!(refused(host.engine.restart_instance(&project(), &name("c1"), GRACEFUL, None)).await, busy);
    assert_eq!(refused(host.engine.delete_instance(&project(), &name("c1"), None)).await, busy);
    assert_eq!(host.edit("c1", |edit| edit.description.push('x')).unwrap_err().to_string(), busy);
    let late = refused(stop).await;
    assert!(late.contains("did not shut down within"), "{late}");
    assert_eq!(host.status("c1"), Status::Running, "an unanswered request leaves it running");
    host.stop("c1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_too_young_to_listen_is_asked_again() {
    let host = Host::new().await;
    *lock(&host.driver.manners) = Manners::WakesLate;
    host.launch("c1").await;
    let patience = Some(Duration::from_secs(20));
    done(host.engine.stop_instance(&project(), &name("c1"), StopMode::Graceful { patience }, None)).await;
    assert_eq!(host.status("c1"), Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_instance_is_deleted_once_it_is_stopped() {
    let host = Host::new().await;
    host.launch_ephemeral("c1").await;
    host.stop("c1").await;
    assert!(!host.exists("c1") && host.volumes().is_empty() && host.claims().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_instance_that_halts_from_inside_is_deleted() {
    let host = Host::new().await;
    host.launch_ephemeral("c1").await;
    host.driver.guest("c1").halt();
    until("deleted", || !host.exists("c1")).await;
    until("its volume too", || host.volumes().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_from_inside_is_answered_though_another_verb_holds_the_instance() {
    let host = Host::new().await;
    host.launch_ephemeral("c1").await;
    host.launch("c2").await;
    let held: Vec<_> =
        ["default/c1", "default/c2"].map(|key| host.engine.locks.take("instance", key, "update").unwrap()).into();
    host.driver.guest("c1").halt();
    host.driver.guest("c2").reboot();
    until("both ended", || host.status("c1") == Status::Stopped && host.status("c2") == Status::Stopped).await;
    drop(held);
    until("the ephemeral one is gone", || !host.exists("c1")).await;
    until("the other one is back", || host.driver.started("c2") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_from_inside_starts_it_again() {
    let host = Host::new().await;
    host.launch("c1").await;
    host.driver.guest("c1").reboot();
    until("started again", || host.driver.started("c1") == 2).await;
    until("running", || host.status("c1") == Status::Running).await;
    host.driver.guest("c1").halt();
    until("stopped", || host.value("c1", "volatile.last_state.power") == "STOPPED").await;
    assert_eq!(host.status("c1"), Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_acknowledged_once_it_is_recorded_and_a_reboot_once_it_failed() {
    let host = Host::new().await;
    host.launch("c1").await;
    let guest = host.driver.guest("c1");
    guest.halt();
    until("acknowledged", || guest.is_acknowledged()).await;
    assert_eq!(host.value("c1", "volatile.last_state.power"), "STOPPED");
    host.start("c1").await;
    let guest = host.driver.guest("c1");
    host.driver.broken.store(true, Ordering::SeqCst);
    guest.reboot();
    until("acknowledged", || guest.is_acknowledged()).await;
    assert_eq!(host.value("c1", "volatile.last_state.power"), "STOPPED");
    assert_eq!(host.status("c1"), Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_leaves_it_stopped_and_says_which_step() {
    let host = Host::new().await;
    host.create("c1").await;
    host.driver.broken.store(true, Ordering::SeqCst);
    let error = refused(host.engine.start_instance(&project(), &name("c1"), None)).await;
    assert!(error.ends_with("mount /proc"), "{error}");
    assert_eq!(host.status("c1"), Status::Stopped);
    assert_eq!(host.value("c1", "volatile.last_state.power"), "STOPPED");
    let request = CreateInstance { start: true, ..host.request("c2") };
    assert!(refused(host.engine.create_instance(request)).await.ends_with("mount /proc"));
    assert!(host.exists("c2"), "made, and kept to look at");
    host.driver.broken.store(false, Ordering::SeqCst);
    host.start("c1").await;
    host.start("c2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protection_holds_in_every_spelling_of_true() {
    let host = Host::new().await;
    for spelling in ["true", "1", "yes", "On"] {
        host.create_with("c1", &[("security.protection.delete", spelling), ("security.protection.start", spelling)])
            .await;
        assert!(refused(host.engine.delete_instance(&project(), &name("c1"), None)).await.contains("protected"));
        assert!(refused(host.engine.start_instance(&project(), &name("c1"), None)).await.contains("protected"));
        host.edit("c1", |edit| edit.config.clear()).unwrap();
        host.delete("c1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_of_the_host_stops_all_and_remembers_what_ran() {
    let host = Host::new().await;
    host.launch("c1").await;
    host.launch_ephemeral("c2").await;
    host.create("c3").await;
    host.engine.shut_down_host(false).await.unwrap();
    assert!(!host.driver.runs("c1") && !host.exists("c2"));
    assert_eq!(host.value("c1", "volatile.last_state.power"), "RUNNING");
    assert_eq!(host.value("c3", "volatile.last_state.power"), "STOPPED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_range_grows_at_a_start_and_its_old_blocks_are_free_again() {
    let host = Host::new().await;
    host.create("c1").await;
    let before = host.instance("c1").ids.unwrap();
    host.edit("c1", |edit| drop(edit.config.insert("security.nesting".into(), "true".into()))).unwrap();
    host.start("c1").await;
    let after = host.instance("c1").ids.unwrap();
    assert_eq!((before.size, after.size), (65_536, 4 * 65_536));
    assert_eq!(host.value("c1", "volatile.idmap.base"), after.base.to_string());
    let ranges = || host.claims().into_iter().filter(|claim| claim.starts_with("claim/id-range/")).count();
    assert_eq!(ranges(), 4);
    host.stop("c1").await;
    host.start("c1").await;
    assert_eq!(host.instance("c1").ids.unwrap(), after);
    host.stop("c1").await;
    host.delete("c1").await;
    assert_eq!(ranges(), 0);
}
