use stapes_model::InstanceId;

/// The host's end of an instance's `number`-th network device: `stp`, the id, the number in hexadecimal; 12 to 15 bytes,
/// which is all that the kernel takes. Whoever cleans up finds all interfaces of an instance by the first eleven.
///
/// The number must stay with its device while others come and go: the engine keeps it in the instance's configuration.
pub fn host_interface_name(id: &InstanceId, number: u16) -> String {
    format!("stp{id}{number:x}")
}
