//! One function a parser of foreign bytes: whatever the bytes are, it returns; where what was read can be written, that
//! reads back the same.

use std::collections::BTreeMap;

use stapes_agent_api::{Decoder, Frame, GuestMessage, HostMessage, KEY_BYTES, MAX_FRAME, Nonce, Role, VERSION, prove};
use stapes_image::metadata::ImageMetadata;
use stapes_model::{
    AliasName, ByteSize, DeviceName, Fingerprint, InstanceId, InstanceName, InstanceType, NetworkName,
    filter::Filter,
    keys::{self, GROUPS, Host},
};
use stapes_network::{Bridge, NetworkConfig};
use stapes_shim_api::{Event, NurseryReply, NurseryRequest, Reply, Request, decode, encode};

// So is the guest agent a program.
#[allow(dead_code)]
#[path = "../../crates/agent/src/session.rs"]
mod agent;
// The daemon is a program and no library; these of its files need nothing else of it.
#[path = "../../crates/daemon/src/multipart.rs"]
mod multipart;
#[path = "../../crates/daemon/src/percent.rs"]
mod percent;
#[allow(dead_code)]
#[path = "../../crates/daemon/src/streams/sftp/request.rs"]
mod sftp;

/// A target by its name, with examples of what its parser takes: what random bytes never reach is near to them.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub examples: &'static [&'static [u8]],
}

const fn target(name: &'static str, run: fn(&[u8]), examples: &'static [&'static [u8]]) -> Target {
    Target { name, run, examples }
}

pub const TARGETS: &[Target] = &[
    target("agent_frames", agent_frames, &[
        b"\x01\x4d\0{\"hello\":{\"version\":1,\"host\":\"a\",\"nonce\":\"b\",\"proof\":\"c\",\"build\":\"\",\"boot\":\"\"}}",
        b"\x01\x1b\0{\"reply\":{\"id\":1,\"reply\":{\"file\":{\"answer\":\"done\"}}}}\n\x03\x05\0\0\0",
        b"\x01\x36\0{\"event\":{\"exec_exited\":{\"exec\":1,\"status\":{\"code\":0}}}}\n\x02\x05\0\0\0data\n\x04\x05\0\0\0\x09\0\0\0",
        b"{\"reply\":{\"id\":7,\"reply\":{\"state\":{\"hostname\":\"v1\",\"interfaces\":[{\"name\":\"lo\",\"addresses\":[{\"address\":\"::1\",\"prefix\":128}]}]}}}}",
    ]),
    target("agent_session", agent_session, &[
        b"{\"request\":{\"id\":1,\"request\":{\"exec\":{\"exec\":1,\"command\":[\"true\"],\"pty\":[80,25]}}}}",
        b"{\"request\":{\"id\":2,\"request\":{\"file\":{\"op\":{\"read\":{\"path\":\"/etc\"}}}}}}\n{\"request\":{\"id\":3,\"request\":{\"dance\":1}}}",
        b"{\"hello\":{\"version\":1,\"nonce\":\"00112233445566778899aabbccddeeff\"}}\n{\"prove\":{\"proof\":\"00\"}}",
    ]),
    target("container_program", stapes_container::fuzzing::read_links, &[
        // One library, one run path, a loader.
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0>\0\x01\0\0\0\0\0\0\0\0\0\0\0@\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0@\08\0\x03\0\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0\xe8\0\0\0\0\0\0\0\xe8\0\0\0\0\0\0\0\xe8\0\0\0\0\0\0\0\x0d\0\0\0\0\0\0\0\x0d\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0i\x01\0\0\0\0\0\0i\x01\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\xf8\0\0\0\0\0\0\0\xf8\0\0\0\0\0\0\0\xf8\0\0\0\0\0\0\0P\0\0\0\0\0\0\0P\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0/lib64/ld.so\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x1d\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0H\x01\0\0\0\0\0\0\n\0\0\0\0\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0libc.so.6\0/opt/x:$ORIGIN/../lib\0",
    ]),
    target("daemon_multipart", daemon_multipart, &[
        b"--XyZ\r\nContent-Disposition: form-data; name=\"rootfs\"; filename=\"a.squashfs\"\r\nX: y\r\n\r\nbytes\r\n--Xy\r\n--XyZ--\r\n",
    ]),
    target("daemon_query", daemon_query, &[b"filter=name%20eq%20c1&path=%2Fetc%2F%2541&a+b=c+d&=x&flag&bad=%zz"]),
    target("daemon_sftp", daemon_sftp, &[
        b"\0\0\0\x17\x03\0\0\0\x07\0\0\0\x02/a\0\0\0\x1a\0\0\0\x04\0\0\x81\x80\0\0\0\x0d\x04\0\0\0\x08\0\0\0\x04\0\0\0\x01",
        b"\0\0\0\x1d\x06\0\0\0\x07\0\0\0\x04\0\0\0\x01\0\0\0\0\0\0\0\x05\0\0\0\x04data",
    ]),
    target("device", device, &[
        b"type=nic\nnetwork=br0\nipv4.address=10.1.2.3\nhwaddr=10:66:6a:00:00:01\nmtu=1500",
        b"type=disk\npath=/\npool=p\nsize=10GiB",
        b"type=disk\nsource=/srv\npath=/srv/../x\nreadonly=true",
        b"type=unix-char\nsource=/dev/null\nmode=0660\nuid=1\nmajor=1\nminor=3",
        b"type=proxy\nlisten=tcp:0.0.0.0:80\nconnect=tcp:127.0.0.1:80",
    ]),
    target("image_metadata", image_metadata, &[
        b"architecture: x86_64\ncreation_date: 1424284563\nproperties:\n  os: debian\ntemplates:\n  /etc/hosts:\n    when: [create, copy]\n    template: hosts.tpl\n    properties: {a: b}\n",
    ]),
    target("image_pax", stapes_image::fuzzing::pax, &[
        b"30 mtime=1321711775.972059463\n18 path=a/b/c.txt\n31 SCHILY.xattr.user.mime=text/p\n22 GNU.sparse.major=1\n",
    ]),
    target("image_qcow2", stapes_image::fuzzing::qcow2, &[
        b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0\0\x80\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ]),
    target("image_tar", stapes_image::fuzzing::tar, &[]),
    target("image_template", stapes_image::fuzzing::template, &[
        b"{% if container.privileged == \"true\" %}{{ container.name|lower }}{% else %}{% for k in properties %}{{ k }}{% endfor %}{% endif %}",
        b"{{ config_get(\"user.x\", properties.default)|default:\"y\" }}\n{# comment #}{% set a = 1 %}",
    ]),
    target("keys", keys_and_values, &[
        b"limits.cpu=0-2,5\nlimits.memory=50%\nlimits.cpu.allowance=25ms/100ms\nlimits.kernel.nofile=1024:unlimited",
        b"snapshots.schedule=0 6 * * mon-fri\nsnapshots.expiry=1d 12H\nvolatile.eth0.hwaddr=10:66:6a:00:00:01",
    ]),
    target("model_filter", model_filter, &[
        b"name eq c1 and (config.user.x eq y or not status eq Running) and created_at gt 2024",
    ]),
    target("netlink", stapes_sys::netlink::read_anything, &[
        // RTM_NEWLINK of an interface "lo" with an MTU.
        &[
            44, 0, 0, 0, 16, 0, 2, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 4, 3, 1, 0, 0, 0, 73, 0, 1, 0, 0, 0, 0, 0, 7, 0, 3,
            0, b'l', b'o', 0, 0, 4, 0, 4, 0,
        ],
        // NLMSG_ERROR with an explanation.
        &[
            52, 0, 0, 0, 2, 0, 0, 3, 1, 0, 0, 0, 9, 0, 0, 0, 0xea, 0xff, 0xff, 0xff, 20, 0, 0, 0, 16, 0, 5, 6, 1, 0, 0,
            0, 9, 0, 0, 0, 10, 0, 1, 0, b'w', b'h', b'y', b'!', b'?', 0, 0, 0, 4, 0, 2, 0,
        ],
    ]),
    target("network_config", network_config, &[
        b"ipv4.address=10.1.2.1/24\nipv4.dhcp.ranges=10.1.2.50-10.1.2.60, 10.1.2.70-10.1.2.80\nipv4.dhcp.routes=0.0.0.0/0,10.1.2.1",
        b"ipv6.address=fd42::1/64\nipv6.dhcp.ranges=fd42::5-fd42::9\nipv6.dhcp.stateful=true\ndns.search=a.b,c.d\nipv6.routes=fd43::/64",
    ]),
    target("network_leases", network_leases, &[
        b"1763760000 10:66:6a:00:00:05 10.1.2.5 c1 ff:00\nduid 00:01:00:01\n1763760000 1234 fd42:1:2:3::77 v6 00:01\n",
    ]),
    target("shim_frames", shim_frames, &[
        include_bytes!("../../crates/shim-api/tests/frames/v1-requests.txt"),
        include_bytes!("../../crates/shim-api/tests/frames/v1-replies.txt"),
        include_bytes!("../../crates/shim-api/tests/frames/v1-events.txt"),
        include_bytes!("../../crates/shim-api/tests/frames/v1-nursery.txt"),
    ]),
    target("sizes_and_names", sizes_and_names, &[b"10GiB", b"512kB", b"1.5", b"c1-web", b"18446744073709551615"]),
];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Lines `key=value`.
fn pairs(bytes: &[u8]) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text(bytes).lines().filter_map(pair).collect()
}

/// Lines as they are, and as what they would be in a frame: random bytes seldom become one.
fn agent_wire(bytes: &[u8]) -> Vec<u8> {
    let mut wire = bytes.to_vec();
    wire.push(0);
    for line in bytes.split(|byte| *byte == b'\n') {
        wire.extend(Frame::Message { json: line.to_vec(), bytes: vec![0, 1] }.to_bytes());
    }
    wire
}

/// What the host reads of a guest.
pub fn agent_frames(bytes: &[u8]) {
    let wire = agent_wire(bytes);
    let whole = Decoder::default().feed(&wire);
    let mut decoder = Decoder::default();
    let pieces: Vec<_> = wire.chunks(7).flat_map(|piece| decoder.feed(piece)).collect();
    assert_eq!(whole, pieces, "what comes in pieces is what comes whole");
    for frame in whole.into_iter().flatten() {
        assert!(frame.to_bytes().len() <= MAX_FRAME + MAX_FRAME / 254 + 3);
        assert_eq!(Decoder::default().feed(&frame.to_bytes()), [Ok(frame.clone())]);
        if let Frame::Message { json, .. } = &frame {
            let _ = stapes_agent_api::decode::<GuestMessage>(json);
        }
    }
}

/// What the agent reads of a host, one that knows the key.
pub fn agent_session(bytes: &[u8]) {
    let key = [0; KEY_BYTES];
    let draw = || -> Nonce { "b".repeat(32) };
    let host: Nonce = "a".repeat(32);
    let open = || {
        let mut session = agent::Session::new(key, agent::Identity::default(), draw);
        let hello = HostMessage::Hello { version: VERSION, nonce: host.clone() };
        let proved = HostMessage::Prove { proof: prove(&key, Role::Host, &host, &draw()) };
        for message in [hello, proved] {
            session.feed(&stapes_agent_api::encode(&message, Vec::new()).to_bytes());
        }
        assert!(session.is_open());
        session
    };
    let wire = agent_wire(bytes);
    let whole = format!("{:?}", open().feed(&wire));
    let mut session = open();
    let pieces: Vec<_> = wire.chunks(5).flat_map(|piece| session.feed(piece)).collect();
    assert_eq!(whole, format!("{pieces:?}"), "what comes in pieces is what comes whole");
}

/// What comes in pieces must come out as what comes whole.
pub fn daemon_multipart(bytes: &[u8]) {
    let read = |size: usize| {
        let mut parser = multipart::Multipart::for_content_type("multipart/form-data; boundary=XyZ")?.ok()?;
        let mut seen = Vec::new();
        for piece in bytes.chunks(size.max(1)) {
            parser.feed(piece);
            loop {
                match parser.next() {
                    Ok(None) => break,
                    Ok(Some(multipart::Event::Data(data))) => seen.extend_from_slice(&data),
                    Ok(Some(event)) => seen.extend_from_slice(format!("{event:?}").as_bytes()),
                    Err(_) => return None,
                }
            }
        }
        parser.finish().ok()?;
        Some(seen)
    };
    assert_eq!(read(bytes.len()), read(3));
    if let Some(Ok(_)) = multipart::Multipart::for_content_type(text(bytes)) {
        assert!(text(bytes).contains("boundary"));
    }
}

/// Packets must be the same wherever the connection splits them.
pub fn daemon_sftp(bytes: &[u8]) {
    let read = |size: usize| {
        let (mut arrived, mut seen) = (bytes::BytesMut::new(), Vec::new());
        for piece in bytes.chunks(size) {
            arrived.extend_from_slice(piece);
            while let Some(packet) = sftp::next_packet(&mut arrived).ok()? {
                seen.push(sftp::parse(packet).ok()?);
            }
        }
        Some(seen)
    };
    assert_eq!(read(1), read(bytes.len().max(1)));
}

pub fn daemon_query(bytes: &[u8]) {
    let _ = percent::percent_decode(text(bytes));
    assert!(percent::parse_query(text(bytes)).len() <= bytes.len());
}

pub fn device(bytes: &[u8]) {
    let device = pairs(bytes);
    let _ = stapes_device::parse("eth0", &device);
    let root = pairs(b"type=disk\npath=/\npool=p");
    let _ = stapes_device::requests(&[("a".to_owned(), device), ("root".to_owned(), root)].into());
}

pub fn image_metadata(bytes: &[u8]) {
    if let Ok(metadata) = ImageMetadata::parse(text(bytes)) {
        let again = ImageMetadata::parse(&metadata.to_yaml()).expect("our own writing is read");
        assert_eq!(again.to_yaml(), metadata.to_yaml());
    }
}

pub fn keys_and_values(bytes: &[u8]) {
    let config = pairs(bytes);
    let _ = keys::validate_profile_config(&config);
    let _ = keys::validate_pool_config("btrfs", &config);
    let host = Host { memory: ByteSize::mib(1000), cpus: vec![0, 1, 2, 3], first_cpu: 1 };
    if keys::validate_instance_config(InstanceType::Container, &config).is_ok() {
        // A good value may still ask for a CPU that this host has not.
        let _ = keys::limits_from_config(&config, &host);
    }
    let all = GROUPS.iter().flat_map(|group| group.keys);
    for value in config.values().map(String::as_str).chain([text(bytes)]) {
        all.clone().for_each(|row| drop(row.kind.check(value)));
    }
}

pub fn model_filter(bytes: &[u8]) {
    if let Ok(filter) = Filter::parse(text(bytes)) {
        let object = serde_json::json!({
            "name": "c1", "status": "Running", "config": { "user.x": "y" }, "created_at": "2024-01-01", "n": [1, null],
        });
        let _ = filter.matches(&object);
    }
}

pub fn network_config(bytes: &[u8]) {
    let network =
        NetworkConfig { name: "br0".parse().expect("a name"), kind: "bridge".to_owned(), config: pairs(bytes) };
    if let Ok(bridge) = Bridge::parse(&network, "host") {
        assert_eq!(stapes_network::validate(&network).map_err(|error| error.to_string()), Ok(()));
        assert!(bridge.subnets().len() <= 2);
    }
}

pub fn network_leases(bytes: &[u8]) {
    for lease in stapes_network::parse_lease_file(text(bytes)) {
        assert!(lease.hostname.len() <= 253 && !lease.hostname.contains(char::is_whitespace));
    }
}

pub fn shim_frames(bytes: &[u8]) {
    // The recorded frames stand beside each other, one a line.
    for frame in bytes.split(|byte| *byte == b'\n').chain([bytes]) {
        if let Ok(request) = decode::<Request>(frame) {
            assert_eq!(decode::<Request>(&encode(&request)).expect("our own writing is read"), request);
        }
        let _ = (decode::<Reply>(frame), decode::<Event>(frame));
        let _ = (decode::<NurseryRequest>(frame), decode::<NurseryReply>(frame));
    }
    let _ = stapes_shim_api::from_hex(text(bytes));
}

pub fn sizes_and_names(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse::<ByteSize>().expect("our own writing is read"), size);
    }
    if let Ok(name) = text.parse::<InstanceName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(id) = text.parse::<InstanceId>() {
        assert_eq!(id.as_str(), text);
    }
    let _ = (text.parse::<NetworkName>(), text.parse::<DeviceName>());
    let _ = (text.parse::<AliasName>(), text.parse::<Fingerprint>());
}
