//! Images: both formats, aliases, and archives that mean harm.
#![forbid(unsafe_code)]

use serde_json::json;
use stapes_testkit::{Daemon, ImageBuilder, Need, host_with, launch_body};
use tar::EntryType;

const NEEDS: &[Need] = &[Need::Root, Need::Programs, Need::StaticBusybox];

#[test]
fn a_unified_image_is_listed_found_by_alias_and_deleted() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let fingerprint = daemon.api().get("/1.0/images/aliases/busybox").unwrap()["target"].as_str().unwrap().to_owned();
    let image = daemon.api().get(&format!("/1.0/images/{fingerprint}")).unwrap();
    assert_eq!(image["architecture"], "x86_64");
    assert_eq!(image["type"], "container");
    assert_eq!(image["properties"]["description"], "busybox for tests");
    assert_eq!(image["aliases"][0]["name"], "busybox");
    assert!(image["size"].as_i64().unwrap() > 100_000);
    assert_eq!(daemon.api().get("/1.0/images").unwrap(), json!([format!("/1.0/images/{fingerprint}")]));
    daemon.api().operation("DELETE", &format!("/1.0/images/{fingerprint}"), &json!(null)).unwrap();
    assert_eq!(daemon.api().get("/1.0/images").unwrap(), json!([]));
    assert_eq!(daemon.api().get("/1.0/images/aliases").unwrap(), json!([]));
}

#[test]
fn an_image_that_is_there_already_is_said_to_be_there() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let archive = ImageBuilder::unified("busybox for tests").busybox().gzip();
    let refused = daemon.import(&archive, "again").unwrap_err();
    assert!(format!("{refused:#}").contains("exists"), "{refused:#}");
}

#[test]
fn a_split_image_runs() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let meta = ImageBuilder::metadata_only("split").gzip();
    let rootfs = ImageBuilder::rootfs().busybox().gzip();
    let boundary = "----stapes-test-boundary";
    let mut body = Vec::new();
    for (name, content) in [("metadata", &meta), ("rootfs", &rootfs)] {
        body.extend(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}.tar.gz\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
            )
            .bytes(),
        );
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    let kind = format!("multipart/form-data; boundary={boundary}");
    let answer = daemon.api().raw("POST", "/1.0/images", &[("Content-Type", &kind)], &body).unwrap().json().unwrap();
    let ended = daemon.api().wait(answer["operation"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap();
    let mut request = launch_body("c1");
    request["source"] = json!({ "type": "image", "fingerprint": ended["metadata"]["fingerprint"] });
    daemon.api().operation("POST", "/1.0/instances", &request).unwrap();
    daemon.await_boot("c1");
}

#[test]
fn an_upload_that_is_no_image_is_refused_and_leaves_no_file() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let whole = ImageBuilder::unified("whole").busybox().gzip();
    let no_metadata = ImageBuilder::rootfs().busybox().gzip();
    let cases = [("nonsense", &b"no image at all"[..]), ("without metadata", &no_metadata), ("empty", &[])];
    for (what, bytes) in cases {
        assert!(daemon.import(bytes, "bad").is_err(), "{what} was accepted");
    }
    let wrong_sum = daemon.api().raw("POST", "/1.0/images", &[("X-Incus-fingerprint", &"0".repeat(64))], &whole);
    let wrong_sum = wrong_sum.unwrap().json().unwrap();
    let accepted = wrong_sum["operation"].as_str().is_some_and(|url| daemon.api().wait(url).is_ok());
    assert!(!accepted, "a fingerprint that does not fit was accepted");
    assert_eq!(daemon.api().get("/1.0/images").unwrap().as_array().unwrap().len(), 1);
}

/// Incus stores and hashes, and fails at the first use; a broken download is better known at once.
#[test]
fn an_archive_cut_short_is_refused_and_leaves_nothing() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let whole = ImageBuilder::unified("whole").busybox().gzip();
    let error = daemon.import(&whole[..whole.len() / 2], "cut").unwrap_err();
    assert!(format!("{error:#}").contains("cut short"), "{error:#}");
    assert_eq!(daemon.api().get("/1.0/images").unwrap().as_array().unwrap().len(), 1, "only what was there");
    let files = || std::fs::read_dir(daemon.state_dir().join("images")).unwrap().count();
    assert_eq!(files(), 1, "no file of it is left");
}

/// Every way out of the root that an archive has; none may touch the host.
#[test]
fn an_archive_cannot_leave_its_root() {
    let Some(_host) = host_with(NEEDS) else { return };
    let daemon = Daemon::start();
    let target = daemon.scratch().join("target");
    std::fs::create_dir(&target).unwrap();
    let precious = target.join("precious");
    std::fs::write(&precious, "untouched").unwrap();
    let (dir, file) = (target.to_str().unwrap(), precious.to_str().unwrap());
    let up = "../".repeat(12);
    let up = up.trim_end_matches('/');
    let evil = |name: &str, add: &dyn Fn(&mut ImageBuilder)| {
        let mut image = ImageBuilder::unified(name).busybox();
        add(&mut image);
        (name.to_owned(), image.gzip())
    };
    let images = [
        evil("dotdot", &|i| _ = i.file(&format!("{up}{dir}/new"), 0o644, b"evil")),
        evil("absolute", &|i| _ = i.file(&format!("{dir}/new"), 0o644, b"evil")),
        evil("through a link", &|i| _ = i.symlink("out", dir).file("out/new", 0o644, b"evil")),
        evil("through a relative link", &|i| _ = i.symlink("out", &format!("{up}{dir}")).file("out/new", 0o644, b"")),
        evil("hard link", &|i| _ = i.hardlink("steal", file)),
        evil("over a link", &|i| _ = i.symlink("over", file).file("over", 0o644, b"evil")),
        evil("metadata", &|i| _ = i.entry(EntryType::Symlink, "/metadata.yaml", 0o777, file, &[])),
        evil("device", &|i| _ = i.char_device("dev/mem2", 1, 1)),
    ];
    for (name, bytes) in images {
        // To refuse it and to unpack it harmlessly are both right.
        let alias = name.replace(' ', "-");
        if daemon.import(&bytes, &alias).is_ok() {
            let mut body = launch_body(&format!("c-{alias}"));
            body["source"]["alias"] = json!(alias);
            if daemon.api().operation("POST", "/1.0/instances", &body).is_ok() {
                let probe = "[ -c /dev/mem2 ] && dd if=/dev/mem2 of=/dev/null bs=1 count=1 && echo opened; cat /steal";
                let (_, out, _) = daemon.api().exec(&format!("c-{alias}"), &["sh", "-c", probe]).unwrap();
                assert!(!out.contains("opened"), "{name}: a device of the host's opens");
                assert!(!out.contains("untouched"), "{name}: a file of the host's is read");
            }
        }
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "untouched", "{name}");
        let names: Vec<_> = std::fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["precious"], "{name}");
    }
}
