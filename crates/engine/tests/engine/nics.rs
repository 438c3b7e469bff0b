use std::collections::HashSet;

use stapes_engine::app::CreateInstance;

use crate::{FOUR_RANGES, Host, config, done, fake::lock, nic, refused};

const ADDRESS: &str = "volatile.eth0.ipv4.address";
const MAC: &str = "volatile.eth0.hwaddr";

#[tokio::test(flavor = "multi_thread")]
async fn no_two_of_a_hundred_creations_at_once_get_the_same() {
    let host = Host::new().await;
    // Each random number comes three times over: uniqueness must not be luck.
    host.world.stutter.store(3, std::sync::atomic::Ordering::SeqCst);
    let begun: Vec<_> = (0..100).map(|n| host.engine.create_instance(host.request(&format!("c{n}")))).collect();
    for operation in begun {
        done(operation).await;
    }
    let (mut ids, mut macs, mut addresses, mut ranges) = <(HashSet<_>, HashSet<_>, HashSet<_>, HashSet<_>)>::default();
    for n in 0..100 {
        let (name, instance) = (format!("c{n}"), host.instance(&format!("c{n}")));
        assert!(ids.insert(instance.id) && macs.insert(host.value(&name, MAC)), "{name}");
        assert!(addresses.insert(host.value(&name, ADDRESS)), "{name}");
        assert!(ranges.insert(instance.ids.unwrap().base), "{name}");
    }
    assert!(!addresses.contains("") && !macs.contains(""));
    assert_eq!((host.claims().len(), host.volumes().len()), (300, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_gives_every_claim_back() {
    let host = Host::new().await;
    host.create_with("c1", &[("security.nesting", "yes")]).await;
    assert_eq!(host.claims().len(), 4 + 2, "four id blocks, a MAC and an address");
    host.delete("c1").await;
    assert_eq!(host.claims(), Vec::<String>::new());
    assert_eq!(lock(&host.network.released).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_run_out_with_a_remedy_and_come_back_with_a_deletion() {
    let host = Host::with_ids(FOUR_RANGES).await;
    for n in 0..4 {
        host.create(&format!("c{n}")).await;
    }
    let error = refused(host.engine.create_instance(host.request("c4"))).await;
    assert!(error.contains("/etc/subuid"), "{error}");
    assert!(!host.exists("c4") && host.volumes().len() == 4);
    host.delete("c2").await;
    host.create("c4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_nic_keeps_its_mac_and_on_the_same_network_its_address() {
    let host = Host::new().await;
    host.add_network("br1", &[("ipv4.address", "10.9.9.1/24"), ("ipv6.address", "none")]);
    host.create("c1").await;
    let (mac, address) = (host.value("c1", MAC), host.value("c1", ADDRESS));
    let mut device = nic("br0");
    device.insert("name".into(), "lan0".into());
    host.edit("c1", |edit| drop(edit.devices.insert("eth0".into(), device))).unwrap();
    assert_eq!((host.value("c1", MAC), host.value("c1", ADDRESS)), (mac.clone(), address.clone()));

    host.edit("c1", |edit| drop(edit.devices.insert("eth0".into(), nic("br1")))).unwrap();
    assert_eq!(host.value("c1", MAC), mac);
    assert!(host.value("c1", ADDRESS).starts_with("10.9.9."));
    assert!(host.claims().iter().all(|claim| !claim.contains("/br0/")), "{:?}", host.claims());
    assert_eq!(host.claims().len(), 3);

    host.create("c2").await;
    assert_eq!(host.value("c2", ADDRESS), address, "what was given back is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nic_that_comes_is_given_its_own_and_one_that_goes_gives_it_back() {
    let host = Host::new().await;
    host.create("c1").await;
    host.edit("c1", |edit| drop(edit.devices.insert("eth1".into(), nic("br0")))).unwrap();
    assert_eq!(host.claims().len(), 5);
    assert_ne!(host.value("c1", "volatile.eth1.ipv4.address"), host.value("c1", ADDRESS));
    host.edit("c1", |edit| drop(edit.devices.remove("eth1"))).unwrap();
    assert_eq!((host.claims().len(), host.value("c1", "volatile.eth1.hwaddr")), (3, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_address_or_mac_of_anothers_is_refused_and_changes_nothing() {
    let host = Host::new().await;
    host.create("c1").await;
    host.create("c2").await;
    let (mac, address) = (host.value("c1", MAC), host.value("c1", ADDRESS));
    for (key, value, expected) in [("hwaddr", &mac, "in use"), ("ipv4.address", &address, "taken")] {
        let mut device = nic("br0");
        device.insert(key.into(), value.clone());
        let (before, claims) = (host.instance("c2"), host.claims());
        let error = host.edit("c2", |edit| drop(edit.devices.insert("eth0".into(), device.clone()))).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!((&*before.value, claims), (&*host.instance("c2").value, host.claims()));
        let devices = [("eth0".to_owned(), device)].into();
        let error = refused(host.engine.create_instance(CreateInstance { devices, ..host.request("c3") })).await;
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(host.volumes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nic_of_a_profile_is_given_to_its_users_and_taken_from_them() {
    let host = Host::new().await;
    host.create("c1").await;
    let mut profile = host.profile();
    profile.devices.insert("eth1".into(), nic("br0"));
    host.engine.update_profile(&profile).unwrap();
    assert_ne!(host.value("c1", "volatile.eth1.hwaddr"), "");
    host.start("c1").await;
    profile.devices.remove("eth1");
    let error = host.engine.update_profile(&profile).unwrap_err().to_string();
    assert!(error.contains("instance c1 uses it: it runs"), "{error}");
    host.stop("c1").await;
    host.engine.update_profile(&profile).unwrap();
    assert_eq!((host.claims().len(), host.value("c1", "volatile.eth1.hwaddr")), (3, String::new()));
    profile.devices.remove("eth0");
    host.engine.update_profile(&profile).unwrap();
    assert_eq!(host.claims().len(), 1, "the id range");
    host.delete("c1").await;
    assert!(host.claims().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_address_in_a_profile_is_for_one_user_only() {
    let host = Host::new().await;
    host.create("c1").await;
    host.create("c2").await;
    let mut profile = host.profile();
    let fixed = config(&[("type", "nic"), ("network", "br0"), ("ipv4.address", "10.1.2.200")]);
    profile.devices.insert("eth0".into(), fixed);
    let (before, claims) = (host.profile(), host.claims());
    let error = host.engine.update_profile(&profile).unwrap_err().to_string();
    assert!(error.contains("uses it") && error.contains("10.1.2.200"), "{error}");
    assert_eq!((before, claims), (host.profile(), host.claims()));
}
