use stapes_engine::{
    Error,
    app::bulk_task,
    operations::{Operation, Status},
};

use crate::{Host, done, name, project, refused};

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_while_it_runs() {
    let host = Host::new().await;
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let operation =
        host.engine.operations.run(bulk_task("Testing", &project(), None), move |operation: Operation| async move {
            operation.progress("unpack", "Unpacking: 40%", Some(40));
            let _ = wait.await;
            Ok(())
        });
    crate::fake::until("progress", || operation.snapshot().metadata.is_some()).await;
    let seen = operation.snapshot().metadata.unwrap();
    assert_eq!((&seen["unpack_progress"], &seen["progress"]["percent"]), (&"Unpacking: 40%".into(), &"40".into()));
    assert_eq!(host.engine.operations.list().len(), 1);
    go.send(()).unwrap();
    assert_eq!(operation.finished().await.status, Status::Success);
    assert!(host.engine.operations.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_canceled_says_so_and_what_can_ends() {
    let host = Host::new().await;
    let operation = host.engine.create_instance(host.request("c1")).unwrap();
    assert_eq!(operation.cancel().unwrap_err().to_string(), "This operation can't be cancelled");
    assert_eq!(operation.finished().await.status, Status::Success);
    let spec = stapes_engine::operations::Spec { may_cancel: true, ..bulk_task("Testing", &project(), None) };
    let operation = host.engine.operations.run(spec, |operation: Operation| async move {
        operation.canceled().await;
        Err(Error::Canceled)
    });
    operation.cancel().unwrap();
    assert_eq!(operation.finished().await.status, Status::Cancelled);
    assert_eq!(operation.cancel().unwrap_err().to_string(), "Only running operations can be cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_readable_after_a_restart() {
    let host = Host::new().await;
    let good = done(host.engine.create_instance(host.request("c1"))).await;
    let bad = host.engine.rename_instance(&project(), &name("c1"), name("c2"), None).unwrap();
    let bad = bad.finished().await;
    let host = host.restarted();
    for before in [good, bad] {
        let after = host.engine.operations.snapshot(&before.id).unwrap();
        assert_eq!((after.status, &after.err, &after.resources), (before.status, &before.err, &before.resources));
    }
    assert!(host.engine.operations.snapshot("0-0").unwrap_err().to_string().contains("not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_operation_and_no_other() {
    let host = Host::new().await;
    let spec = bulk_task("Testing", &project(), None);
    let operation = host.engine.operations.run(spec, |_| async { panic!("a bug") });
    assert!(refused(Ok(operation)).await.contains("programming error"));
    host.create("c1").await;
}
