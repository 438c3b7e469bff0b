//! The wire as Incus writes it, read and written back.

use serde_json::{Value, json};

use crate::*;

#[test]
fn a_stopped_instance_prints_as_incus_prints_it() {
    let full = InstanceFull::new(Instance { name: "c1".to_owned(), ..Instance::default() }, None, None, None);
    let wire = serde_json::to_value(&full).unwrap();
    assert_eq!(wire["state"], Value::Null);
    assert_eq!(wire["snapshots"], Value::Null);
    assert_eq!(wire["config"], json!({}));
    assert_eq!(wire["profiles"], json!([]));
    assert_eq!(wire["created_at"], "0001-01-01T00:00:00Z");
    assert_eq!(wire["type"], "");
    assert!(wire.get("restore").is_none(), "Incus omits an empty `restore`");
    assert!(wire.get("expanded_config").is_none());
}

#[test]
fn null_and_missing_fields_read_as_zero() {
    let post: InstancesPost =
        serde_json::from_str(r#"{"name":null,"config":null,"devices":{"root":null},"source":null}"#).unwrap();
    assert_eq!(post, InstancesPost { devices: [("root".to_owned(), ConfigMap::new())].into(), ..Default::default() });
}

#[test]
fn numbers_and_booleans_in_configuration_become_text() {
    let put: InstancePut = serde_json::from_str(r#"{"config":{"limits.cpu":2,"security.nesting":true}}"#).unwrap();
    assert_eq!(put.config["limits.cpu"], "2");
    assert_eq!(put.config["security.nesting"], "true");
}

#[test]
fn a_time_with_an_offset_is_the_same_moment_in_utc() {
    let time: Timestamp = serde_json::from_str(r#""2021-02-24T19:00:45.452649098-05:00""#).unwrap();
    assert_eq!(time.to_string(), "2021-02-25T00:00:45.452649098Z");
    assert!(!time.is_unset() && Timestamp::default().is_unset() && Timestamp::EPOCH.is_unset());
}

#[test]
fn an_error_envelope_has_every_field() {
    let wire = serde_json::to_string(&Response::<Value>::error(404, "not found".to_owned())).unwrap();
    let wanted = r#"{"type":"error","status":"","status_code":0,"operation":"","error_code":404,"error":"not found","metadata":null}"#;
    assert_eq!(wire, wanted);
}

#[test]
fn an_operation_without_metadata_says_null() {
    let wire = serde_json::to_value(Operation::default()).unwrap();
    assert_eq!(wire["metadata"], Value::Null);
    assert_eq!(wire["resources"], json!({}));
}

#[test]
fn no_extension_is_listed_twice() {
    let mut seen = std::collections::BTreeSet::new();
    assert!(API_EXTENSIONS.iter().all(|name| seen.insert(name)));
}

#[test]
fn lxd_headers_differ_in_their_prefix_only() {
    assert_eq!(lxd_header(FILE_MODE).as_deref(), Some("X-LXD-mode"));
    assert_eq!(lxd_header("Content-Type"), None);
}
