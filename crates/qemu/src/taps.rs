//! Network interfaces of a virtual machine: made in the host's network namespace, handed to QEMU as descriptors, and gone
//! with it.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use stapes_instance::{DriverError, Link};
use stapes_sys::{
    netlink::{NeighbourSpec, Netlink},
    tap,
};

/// How long the interfaces of the same instance's run before may take to go.
const LAST_RUN_PATIENCE: Duration = Duration::from_secs(2);

/// Makes one tap interface a link, in order, and puts it on its bridge.
pub fn make(links: &[Link]) -> Result<Vec<OwnedFd>, DriverError> {
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error: io::Error| DriverError::other("failed to open netlink", error);
    let mut netlink = Netlink::open().map_err(failed)?;
    let make_one = |link: &Link| {
        make_one(&mut netlink, link).map_err(|error| {
            let on = link.bridge.as_ref().map_or_else(String::new, |bridge| format!(" on bridge {bridge}"));
            let (name, device) = (&link.host_name, &link.device);
            DriverError::other(format!("failed to make interface {name} of device {device}{on}"), error)
        })
    };
    links.iter().map(make_one).collect()
}

fn make_one(netlink: &mut Netlink, link: &Link) -> io::Result<OwnedFd> {
    let bridge = link.bridge.as_deref().map(|bridge| netlink.link_index(bridge)).transpose()?;
    let tap = create(&link.host_name)?;
    let index = netlink.link_index(&link.host_name)?;
    if let Some(mtu) = link.mtu {
        netlink.set_mtu(index, mtu)?;
    }
    if bridge.is_some() {
        netlink.set_master(index, bridge)?;
    }
    netlink.set_up(index)?;
    if let Some(bridge) = bridge {
        for address in &link.addresses {
            let neighbour = NeighbourSpec { index: bridge, address: *address, mac: link.mac, permanent: true };
            netlink.add_neighbour(&neighbour)?;
        }
    }
    Ok(tap)
}

/// The name may still be held by the run before.
fn create(name: &str) -> io::Result<OwnedFd> {
    let deadline = Instant::now() + LAST_RUN_PATIENCE;
    loop {
        match tap::create(name) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}
