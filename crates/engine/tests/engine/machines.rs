//! Virtual machines through the same workflows as containers.

use std::{collections::BTreeMap, net::IpAddr, os::unix::fs::MetadataExt, path::PathBuf};

use stapes_engine::{
    app::{CreateInstance, CreateSource, InstanceState},
    records::{self, Record},
};
use stapes_instance::{DiskBus, Firmware, GuestLink, GuestReport};
use stapes_model::{ErrorKind, Fingerprint, IdMap, InstanceType, state::Status};
use stapes_storage::VolumeRef;
use stapes_store::Transaction;

use crate::{Host, config, done, fake::lock, project, refused};

const KIND: InstanceType = InstanceType::VirtualMachine;
const GIB: u64 = 1 << 30;

impl Host {
    fn machine(&self, name: &str) -> CreateInstance {
        CreateInstance { kind: KIND, ..self.request(name) }
    }

    async fn launch_machine(&self, name: &str, pairs: &[(&str, &str)]) {
        let request = CreateInstance { start: true, config: config(pairs), ..self.machine(name) };
        done(self.engine.create_instance(request)).await;
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.engine.pool(&"p".parse().unwrap()).unwrap().volume_path(&VolumeRef::instance(&self.instance(name).id))
    }

    fn disk(&self, name: &str) -> std::fs::Metadata {
        std::fs::metadata(self.volume(name).join("root.img")).unwrap()
    }

    fn state(&self, name: &str) -> InstanceState {
        let instance = self.instance(name);
        let expanded = self.engine.expanded(&instance);
        self.engine.states(&[(&*instance.value, &expanded)]).unwrap().remove(0)
    }

    /// An image of each type from one source, unpacked in the pool already: the disk has `size` bytes.
    fn add_image(&self, kind: InstanceType, digit: char, size: u64) -> Fingerprint {
        let fingerprint: Fingerprint = digit.to_string().repeat(64).parse().unwrap();
        let source = records::ImageSource { protocol: "debian".into(), server: "debian".into(), alias: "12".into() };
        let record = records::Image {
            project: project(),
            fingerprint: fingerprint.clone(),
            kind,
            architecture: "x86_64".into(),
            filename: "debian-12".into(),
            size: 1,
            public: false,
            auto_update: false,
            cached: false,
            properties: BTreeMap::new(),
            profiles: Vec::new(),
            created_at: None,
            expires_at: None,
            uploaded_at: chrono::DateTime::UNIX_EPOCH,
            last_used_at: None,
            source: Some(source),
        };
        self.store.commit(Transaction::new().put(record.key(), record.to_bytes())).unwrap();
        let (pool, volume) = (self.engine.pool(&"p".parse().unwrap()).unwrap(), VolumeRef::image(&fingerprint));
        let directory = pool.ensure_volume(&volume).unwrap();
        match kind {
            InstanceType::Container => std::fs::create_dir(directory.join("rootfs")).unwrap(),
            InstanceType::VirtualMachine => {
                std::fs::File::create(directory.join("root.img")).unwrap().set_len(size).unwrap();
            }
        }
        pool.seal(&volume).unwrap();
        fingerprint
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_started_by_its_own_driver_with_hardware_in_its_plan() {
    let host = Host::new().await;
    host.launch_machine("v1", &[("limits.cpu", "2"), ("limits.memory", "512MiB"), ("raw.qemu", "-cpu 'max,-x'")]).await;
    host.launch("c1").await;
    assert!(host.machines.runs("v1") && !host.machines.runs("c1") && host.driver.runs("c1"));
    let guest = host.machines.guest("v1");
    let machine = guest.plan.machine.as_ref().unwrap();
    assert_eq!((machine.cpus, machine.memory.as_bytes()), (2, 512 << 20));
    assert_eq!(machine.firmware, Firmware::Uefi { secure_boot: true });
    assert_eq!(machine.raw_arguments, ["-cpu", "max,-x"]);
    assert_eq!(machine.uuid, host.value("v1", "volatile.uuid"));
    let [disk] = &machine.disks[..] else { panic!() };
    assert_eq!((disk.device.as_str(), disk.bus), ("root", DiskBus::VirtioScsi));
    assert_eq!(disk.source, host.volume("v1").join("root.img"));
    assert_eq!(guest.plan.root, host.volume("v1"));
    assert!(matches!(guest.plan.idmap, IdMap::Range(range) if range.size == 65_536));
    // QEMU needs more memory than its guest, and a number of processors is hardware.
    assert_eq!(guest.plan.limits, stapes_model::Limits::default());
    let [link] = &guest.plan.links[..] else { panic!() };
    assert_eq!((link.guest_name.as_str(), link.bridge.as_deref()), ("eth0", Some("br0")));
    assert_eq!(host.driver.guest("c1").plan.machine, None);
    host.stop("v1").await;
    host.delete("v1").await;
    assert_eq!(host.volumes(), [host.instance("c1").id.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_bus_and_boot_order_come_from_keys() {
    let host = Host::new().await;
    let root = config(&[
        ("type", "disk"),
        ("path", "/"),
        ("pool", "p"),
        ("io.bus", "nvme"),
        ("boot.priority", "3"),
        ("size", "1GiB"),
    ]);
    let mut nic = crate::nic("br0");
    nic.insert("boot.priority".into(), "7".into());
    let request = CreateInstance {
        config: config(&[("security.csm", "true"), ("security.secureboot", "false")]),
        devices: BTreeMap::from([("root".to_owned(), root), ("eth0".to_owned(), nic)]),
        start: true,
        ..host.machine("v1")
    };
    done(host.engine.create_instance(request)).await;
    let guest = host.machines.guest("v1");
    let machine = guest.plan.machine.as_ref().unwrap();
    assert_eq!((machine.cpus, machine.memory.as_bytes()), (1, GIB));
    assert_eq!(machine.firmware, Firmware::Bios);
    assert_eq!((machine.disks[0].bus, machine.disks[0].boot_priority), (DiskBus::Nvme, Some(3)));
    assert_eq!(machine.boot_nics, BTreeMap::from([("eth0".to_owned(), 7)]));
    assert_eq!(host.disk("v1").len(), GIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_cannot_have_is_refused_by_its_name() {
    let host = Host::new().await;
    let device = |pairs: &[(&str, &str)]| BTreeMap::from([("x".to_owned(), config(pairs))]);
    let shared = device(&[("type", "disk"), ("source", "/tmp"), ("path", "/mnt")]);
    let node = device(&[("type", "unix-char"), ("source", "/dev/null"), ("path", "/dev/y")]);
    for (devices, told) in [(shared, "shared-directories"), (node, "unix-devices")] {
        let error = host.engine.create_instance(CreateInstance { devices, ..host.machine("v1") }).err().unwrap();
        assert!(error.to_string().starts_with(&format!("device x: {told} of a virtual-machine is not")), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    for (key, value) in [
        ("security.privileged", "true"),
        ("limits.kernel.nofile", "100"),
        ("limits.cpu", "sockets=1,cores=2,threads=1"),
        ("security.csm", "true"),
        ("agent.nic_config", "true"),
        ("raw.apparmor", "deny /x r,"),
        ("security.nesting", "false"),
    ] {
        let request = CreateInstance { config: config(&[(key, value)]), ..host.machine("v1") };
        let error = host.engine.create_instance(request).err().unwrap().to_string();
        assert!(error.contains(key), "{error}");
    }
    let error =
        refused(host.engine.create_instance(CreateInstance {
            config: config(&[("security.secureboot", "false")]),
            ..host.request("c1")
        }));
    assert!(error.await.contains("it is for virtual machines only"));
    assert!(host.volumes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_may_carry_keys_of_the_other_type() {
    let host = Host::new().await;
    let mut profile = host.profile();
    let both = [("security.privileged", "true"), ("limits.processes", "100"), ("security.secureboot", "false")];
    profile.config = config(&both);
    host.engine.update_profile(&profile).unwrap();
    host.launch_machine("v1", &[]).await;
    let plan = &host.machines.guest("v1").plan;
    assert!(matches!(plan.idmap, IdMap::Range(_)) && plan.limits.processes.is_none());
    assert_eq!(plan.machine.as_ref().unwrap().firmware, Firmware::Uefi { secure_boot: false });
    host.launch("c1").await;
    assert_eq!(host.driver.guest("c1").plan.idmap, IdMap::Privileged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_the_image_s_and_grows_but_never_shrinks() {
    let host = Host::new().await;
    let image = host.add_image(KIND, 'a', 2 * GIB);
    let source = CreateSource::Image(image.to_string());
    done(host.engine.create_instance(CreateInstance { source: source.clone(), ..host.machine("v1") })).await;
    assert_eq!((host.disk("v1").len(), host.disk("v1").blocks()), (10 * GIB, 0), "sparse, and as large as Incus's");
    let size = |size: &str| config(&[("type", "disk"), ("path", "/"), ("pool", "p"), ("size", size)]);
    host.edit("v1", |edit| drop(edit.devices.insert("root".into(), size("12GiB")))).unwrap();
    assert_eq!(host.disk("v1").len(), 12 * GIB);
    assert_eq!(host.state("v1").root_size, Some(12 * GIB));
    let error = host.edit("v1", |edit| drop(edit.devices.insert("root".into(), size("11GiB")))).unwrap_err();
    assert!(error.to_string().contains("a disk cannot shrink"), "{error}");
    assert_eq!(host.instance("v1").devices["root"]["size"], "12GiB");
    host.edit("v1", |edit| drop(edit.devices.remove("root"))).unwrap();
    assert_eq!(host.disk("v1").len(), 12 * GIB, "nothing is asked for, so it keeps what it has");
    let devices = BTreeMap::from([("root".to_owned(), size("1GiB"))]);
    let small = host.engine.create_instance(CreateInstance { source, devices, ..host.machine("v2") });
    assert!(refused(small).await.contains("the disk has 2GiB already"));
    let large = CreateSource::Image(host.add_image(KIND, 'b', 20 * GIB).to_string());
    done(host.engine.create_instance(CreateInstance { source: large, ..host.machine("v3") })).await;
    assert_eq!(host.disk("v3").len(), 20 * GIB);
    host.delete("v3").await;
    assert_eq!(host.volumes().len(), 1);
    host.start("v1").await;
    let error = host.edit("v1", |edit| drop(edit.devices.insert("root".into(), size("13GiB")))).unwrap_err();
    assert!(error.to_string().starts_with("disk.resize.live of a virtual-machine"), "{error}");
    let error = host.edit("v1", |edit| drop(edit.config.insert("limits.memory".into(), "2GiB".into()))).unwrap_err();
    assert!(error.to_string().starts_with("limits.memory: limits.live of a virtual-machine"), "{error}");
    host.edit("v1", |edit| drop(edit.config.insert("user.x".into(), "y".into()))).unwrap();
    host.stop("v1").await;
    host.edit("v1", |edit| drop(edit.config.insert("limits.memory".into(), "2GiB".into()))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_of_a_source_is_an_image_for_each_type() {
    let host = Host::new().await;
    let images = [host.add_image(InstanceType::Container, 'c', 0), host.add_image(KIND, 'd', GIB)];
    let source = CreateSource::Debian("12".into());
    for request in [host.request("c1"), host.machine("v1")] {
        done(host.engine.create_instance(CreateInstance { source: source.clone(), ..request })).await;
    }
    assert_eq!(["c1", "v1"].map(|name| host.value(name, "volatile.base_image")), images.map(|image| image.to_string()));
    let wrong = CreateInstance { source: CreateSource::Image("d".repeat(64)), ..host.request("c2") };
    assert!(
        refused(host.engine.create_instance(wrong)).await.contains("is for a virtual-machine, not for a container")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_what_the_agent_says() {
    let host = Host::new().await;
    host.launch_machine("v1", &[("limits.memory", "512MiB")]).await;
    let silent = host.state("v1");
    assert_eq!((silent.status, silent.processes, silent.os), (Status::Running, None, None));
    assert_eq!((silent.memory_total, &silent.facts["accelerator"][..]), (512 << 20, "tcg"));
    let eth0 = GuestLink {
        name: "enp5s0".into(),
        mac: Some([2; 6]),
        is_up: true,
        addresses: vec![("10.1.2.3".parse::<IpAddr>().unwrap(), 24), ("fe80::1".parse().unwrap(), 64)],
        ..GuestLink::default()
    };
    let report = GuestReport {
        hostname: "v1".into(),
        os: "Debian".into(),
        processes: 42,
        memory_used: 100,
        memory_total: 500,
        links: vec![eth0],
        ..GuestReport::default()
    };
    *lock(&host.machines.guest("v1").report) = Some(report);
    let told = host.state("v1");
    assert_eq!((told.processes, told.usage.memory_bytes, told.memory_total), (Some(42), 100, 500));
    let scopes: Vec<_> = told.nics["enp5s0"].addresses.iter().map(|address| address.scope).collect();
    assert_eq!(scopes, ["global", "link"]);
    assert_eq!(told.os.unwrap().name, "Debian");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_adopts_a_machine_by_its_own_driver() {
    let host = Host::new().await;
    host.launch_machine("v1", &[]).await;
    let next = host.restarted();
    let (report, adopted) = next.engine.reconcile().unwrap();
    assert_eq!((report.adopted, report.undone), (1, 0));
    next.engine.resume(adopted);
    assert_eq!(next.status("v1"), Status::Running);
    next.stop("v1").await;
    assert!(!next.machines.runs("v1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_machine_is_what_qemu_said_and_what_became_of_it() {
    let host = Host::new().await;
    host.launch_machine("v1", &[]).await;
    let log =
        || String::from_utf8(host.engine.instance_log(&project(), &crate::name("v1"), "qemu.log").unwrap()).unwrap();
    assert_eq!(host.engine.instance_logs(&project(), &crate::name("v1")).unwrap(), ["qemu.log"]);
    assert_eq!(log(), "");
    std::fs::write(host.engine.paths.instance_log(&host.instance("v1").id).join("qemu.log"), "qemu: hm\n").unwrap();
    host.machines.guest("v1").halt();
    crate::fake::until("its end is noted", || log().contains("power-off from inside")).await;
    assert!(log().starts_with("qemu: hm\n"));
    assert!(host.engine.instance_log(&project(), &crate::name("v1"), "lxc.log").is_err());
}
