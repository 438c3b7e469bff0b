use serde_json::json;
use stapes_engine::operations::Status;
use stapes_journal::Intent;
use stapes_model::{InstanceId, state};
use stapes_storage::VolumeRef;

use crate::{
    Host, config,
    fake::{lock, until},
};

impl Host {
    /// An operation that was killed after its intent.
    fn interrupted(&self, kind: &str, plan: serde_json::Value) -> String {
        let operation = format!("interrupted-{kind}");
        let intent = Intent { operation: operation.clone(), kind: kind.to_owned(), plan, durable: true };
        self.engine.journal.begin(&intent).unwrap();
        operation
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_creation_is_undone_and_its_result_can_be_asked() {
    let host = Host::new().await;
    let id = InstanceId::from_bits(99);
    let pool = host.engine.pool(&"p".parse().unwrap()).unwrap();
    pool.ensure_volume(&VolumeRef::instance(&id)).unwrap();
    let operation = host.interrupted("create", json!({ "id": id, "pool": "p", "project": "default", "name": "c1" }));
    let host = host.restarted();
    let (report, _) = host.engine.reconcile().unwrap();
    assert_eq!((report.undone, host.volumes()), (1, Vec::new()));
    assert!(host.engine.journal.open_intents().unwrap().is_empty());
    let result = host.engine.operations.snapshot(&operation).unwrap();
    assert_eq!(result.status, Status::Failure);
    assert!(result.err.contains("stopped while this was under way"), "{}", result.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_killed_after_its_record_is_kept() {
    let host = Host::new().await;
    host.create("c1").await;
    let id = host.instance("c1").id;
    host.interrupted("create", json!({ "id": id, "pool": "p", "project": "default", "name": "c1" }));
    let host = host.restarted();
    host.engine.reconcile().unwrap();
    assert_eq!(host.volumes(), [id.to_string()]);
    host.start("c1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_deletion_is_finished_once_its_record_is_gone_and_else_forgotten() {
    let host = Host::new().await;
    host.create("kept").await;
    let kept = host.instance("kept").id;
    let gone = InstanceId::from_bits(98);
    host.engine.pool(&"p".parse().unwrap()).unwrap().ensure_volume(&VolumeRef::instance(&gone)).unwrap();
    host.interrupted("delete", json!({ "id": gone, "pool": "p" }));
    let host = host.restarted();
    host.interrupted("delete-image", json!({ "fingerprint": "ab".repeat(32) }));
    host.interrupted("start", json!({ "id": kept }));
    let host = host.restarted();
    host.engine.reconcile().unwrap();
    assert_eq!(host.volumes(), [kept.to_string()]);
    assert!(host.engine.journal.open_intents().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_outlive_the_engine_and_are_followed_by_the_next() {
    let host = Host::new().await;
    host.launch("c1").await;
    let host = host.restarted();
    let (report, adopted) = host.engine.reconcile().unwrap();
    assert_eq!(report.adopted, 1);
    host.engine.resume(adopted);
    assert_eq!((host.status("c1"), host.driver.started("c1")), (state::Status::Running, 1));
    host.driver.guest("c1").halt();
    until("its end was seen", || host.status("c1") == state::Status::Stopped).await;
    until("and recorded", || host.value("c1", "volatile.last_state.power") == "STOPPED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_boot_what_ran_or_wants_to_is_started_by_priority() {
    let host = Host::new().await;
    for (name, pairs) in [
        ("a", vec![("boot.autostart", "true"), ("boot.autostart.priority", "1")]),
        ("b", vec![("boot.autostart", "1"), ("boot.autostart.priority", "20")]),
        ("c", vec![("boot.autostart", "last-state"), ("boot.autostart.priority", "3")]),
        ("d", vec![("boot.autostart", "false")]),
        ("e", vec![("boot.autostart.priority", "-4")]),
        ("f", vec![]),
    ] {
        host.create_with(name, &pairs).await;
    }
    for name in ["c", "d", "e"] {
        host.start(name).await;
    }
    // The host loses power: nothing runs, and nobody could record it.
    let mut records = Vec::new();
    for name in ["c", "d", "e"] {
        records.push(host.value(name, "volatile.last_state.power"));
        host.driver.guest(name).lose_power();
    }
    assert_eq!(records, ["RUNNING"; 3]);
    lock(&host.driver.starts).clear();
    // A reboot erases the run directory.
    std::fs::remove_dir_all(&host.engine.paths.run).unwrap();
    let host = host.restarted();
    let (_, adopted) = host.engine.reconcile().unwrap();
    host.engine.resume(adopted);
    until("four are started", || lock(&host.driver.starts).len() == 4).await;
    assert_eq!(*lock(&host.driver.starts), ["b", "c", "a", "e"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_no_daemon_looked_is_recorded_as_stopped() {
    let host = Host::new().await;
    host.launch("c1").await;
    host.driver.guest("c1").lose_power();
    let host = host.restarted();
    let (_, adopted) = host.engine.reconcile().unwrap();
    host.engine.resume(adopted);
    until("recorded", || host.value("c1", "volatile.last_state.power") == "STOPPED").await;
    assert_eq!((host.status("c1"), host.driver.started("c1")), (state::Status::Stopped, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_that_was_noted_and_not_come_to_is_made_up_for_once() {
    let host = Host::new().await;
    host.launch("c1").await;
    let id = host.instance("c1").id;
    host.interrupted("reboot", json!({ "id": id }));
    host.driver.guest("c1").lose_power();
    let host = host.restarted();
    let (_, adopted) = host.engine.reconcile().unwrap();
    assert_eq!(host.engine.journal.open_intents().unwrap().len(), 1, "open until it runs");
    host.engine.resume(adopted);
    until("closed", || host.engine.journal.open_intents().unwrap().is_empty()).await;
    assert_eq!((host.status("c1"), host.driver.started("c1")), (state::Status::Running, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_follows_the_name_and_ends_with_the_instance() {
    let host = Host::new().await;
    host.create("c1").await;
    let hosts = host.engine.paths.network(&"br0".parse().unwrap()).join("dnsmasq.hosts");
    let names = || -> Vec<String> {
        let files = std::fs::read_dir(&hosts).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    };
    assert!(names()[0].contains("c1.incus"), "{:?}", names());
    let to = crate::name("c2");
    crate::done(host.engine.rename_instance(&crate::project(), &crate::name("c1"), to, None)).await;
    assert!(names()[0].contains("c2.incus"));
    host.edit("c2", |edit| drop(edit.devices.insert("eth0".into(), config(&[("type", "none")])))).unwrap();
    assert!(names().is_empty(), "{:?}", names());
}
