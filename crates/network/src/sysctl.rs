use std::{fs, path::PathBuf};

use crate::{Bridge, NetworkError};

/// Writes `/proc/sys/net/<path>` unless it says so already: an unchanged value costs a read, not RTNL.
fn set(bridge: &Bridge, path: &str, value: &str) -> Result<(), NetworkError> {
    let path = PathBuf::from(format!("/proc/sys/net/{path}"));
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| NetworkError::Sysctl { network: bridge.name.clone(), path, source })
}

/// What the bridge's own interface needs before it comes up.
pub(crate) fn prepare_bridge(bridge: &Bridge) -> Result<(), NetworkError> {
    let interface = bridge.interface();
    if !crate::ipv6_available() {
        return Ok(());
    }
    let conf = |key: &str| format!("ipv6/conf/{interface}/{key}");
    if bridge.ipv6.is_none() {
        // No address of its own, no neighbour discovery: each port joins faster too.
        return set(bridge, &conf("disable_ipv6"), "1");
    }
    set(bridge, &conf("disable_ipv6"), "0")?;
    // The host is the router here; it takes neither routes nor addresses from its guests, and nobody disputes its own.
    for key in ["accept_ra", "autoconf", "accept_dad", "accept_redirects"] {
        set(bridge, &conf(key), "0")?;
    }
    Ok(())
}

/// Forwarding for the whole host, where the network asks for it. Never switched off again: others may rely on it.
pub(crate) fn enable_forwarding(bridge: &Bridge) -> Result<(), NetworkError> {
    if bridge.ipv4.as_ref().is_some_and(|family| family.routing) {
        set(bridge, "ipv4/ip_forward", "1")?;
    }
    if bridge.ipv6.as_ref().is_some_and(|family| family.routing) {
        keep_uplinks_listening(bridge);
        set(bridge, "ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// A forwarding host ignores router advertisements where `accept_ra` is 1: an uplink that has its address and default
/// route from them would lose both in minutes. 2 means "also when forwarding".
fn keep_uplinks_listening(bridge: &Bridge) {
    let Ok(interfaces) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for interface in interfaces.flatten() {
        let name = interface.file_name();
        let Some(name) = name.to_str().filter(|name| !matches!(*name, "all" | "default" | "lo")) else { continue };
        let path = format!("ipv6/conf/{name}/accept_ra");
        if fs::read_to_string(format!("/proc/sys/net/{path}")).is_ok_and(|value| value.trim() == "1")
            && let Err(error) = set(bridge, &path, "2")
        {
            // It may have vanished in between; a lost uplink is worth a line, not a failed network.
            tracing::warn!(interface = name, %error, "failed to keep router advertisements accepted");
        }
    }
}
