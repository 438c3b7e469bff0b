use stapes_model::{ByteSize, ErrorKind};

use crate::{Host, config, edit_of, fake::lock};

#[tokio::test(flavor = "multi_thread")]
async fn a_live_key_reaches_the_driver() {
    let host = Host::new().await;
    host.launch("c1").await;
    host.edit("c1", |edit| drop(edit.config.insert("limits.memory".into(), "64MiB".into()))).unwrap();
    host.edit("c1", |edit| drop(edit.config.remove("limits.memory"))).unwrap();
    let guest = host.driver.guest("c1");
    let memory: Vec<_> = lock(&guest.limits).iter().map(|limits| limits.memory).collect();
    assert_eq!(memory, [Some(ByteSize::mib(64)), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profiles_limit_reaches_its_running_users() {
    let host = Host::new().await;
    host.launch("c1").await;
    let mut profile = host.profile();
    profile.config.insert("limits.processes".into(), "100".into());
    host.engine.update_profile(&profile).unwrap();
    assert_eq!(lock(&host.driver.guest("c1").limits).last().unwrap().processes, Some(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_while_it_runs_is_refused_by_name() {
    let host = Host::new().await;
    host.launch("c1").await;
    let before = host.instance("c1");
    let error = host.edit("c1", |edit| drop(edit.config.insert("security.privileged".into(), "true".into())));
    assert!(error.unwrap_err().to_string().starts_with("security.privileged: cannot be changed while"));
    let disk = config(&[("type", "disk"), ("source", "/srv"), ("path", "/srv")]);
    let error = host.edit("c1", |edit| drop(edit.devices.insert("data".into(), disk)));
    assert!(error.unwrap_err().to_string().starts_with("devices.data: "));
    let mac = "10:66:6a:00:00:99".to_owned();
    let error = host.edit("c1", |edit| drop(edit.config.insert("volatile.eth0.hwaddr".into(), mac)));
    assert!(error.unwrap_err().to_string().contains("MAC or address cannot change"));
    assert_eq!(*before.value, *host.instance("c1").value);
    for (key, value) in [("boot.autostart", "true"), ("snapshots.expiry", "1d"), ("user.x", "y"), ("image.os", "z")] {
        host.edit("c1", |edit| drop(edit.config.insert(key.into(), value.into()))).unwrap();
        assert_eq!(host.value("c1", key), value, "the daemon's to read later");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_was_changed_since_is_refused() {
    let host = Host::new().await;
    host.create("c1").await;
    let stored = host.instance("c1");
    host.edit("c1", |edit| edit.description = "first".into()).unwrap();
    let mut edit = edit_of(&stored);
    edit.description = "second".into();
    edit.devices.insert("eth0".into(), config(&[("type", "none")]));
    let (claims, error) = (host.claims(), host.engine.update_instance(&stored, edit).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!((host.instance("c1").description.as_str(), host.claims()), ("first", claims));
}

#[tokio::test(flavor = "multi_thread")]
async fn volatile_keys_that_a_client_leaves_out_are_kept() {
    let host = Host::new().await;
    host.create("c1").await;
    let before = host.instance("c1");
    host.edit("c1", |edit| edit.config.clear()).unwrap();
    assert_eq!(before.config, host.instance("c1").config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_would_break_a_user_is_refused_and_changes_nothing() {
    let host = Host::new().await;
    host.create("c1").await;
    let before = host.profile();
    let mut broken = vec![before.clone(), before.clone(), before.clone()];
    broken[0].devices.remove("root");
    broken[1].devices.get_mut("eth0").unwrap().insert("network".into(), "gone".into());
    broken[2].devices.get_mut("root").unwrap().insert("pool".into(), "other".into());
    for profile in broken {
        let error = host.engine.update_profile(&profile).unwrap_err().to_string();
        assert!(error.starts_with("profile default: instance c1 uses it: "), "{error}");
        assert_eq!(host.profile(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_the_pool_cannot_keep_is_refused_and_changes_nothing() {
    let host = Host::new().await;
    host.create("c1").await;
    let root = config(&[("type", "disk"), ("path", "/"), ("pool", "p"), ("size", "1GiB")]);
    let before = host.instance("c1");
    let error = host.edit("c1", |edit| drop(edit.devices.insert("root".into(), root.clone()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(*before.value, *host.instance("c1").value);
    let (mut profile, before) = (host.profile(), host.profile());
    profile.devices.insert("root".into(), root);
    assert_eq!(host.engine.update_profile(&profile).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(before, host.profile());
}
