//! Network interfaces: made by the shim in the host's network namespace, finished by the first process inside.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use stapes_shim_api::Link;
use stapes_sys::{
    netlink::{NeighbourSpec, Netlink, VethSpec},
    socket,
};

use crate::step::{Step, StepError};

/// Index of `lo` in every network namespace: the kernel makes it first.
const LOOPBACK: u32 = 1;

/// How long the interfaces of the same instance's run before may take to go.
const LAST_RUN_PATIENCE: Duration = Duration::from_secs(2);

/// Makes each veth pair with its far end in `guest`. On an error the caller ends the container, and the dying namespace
/// takes the pairs with it (deleting one by hand takes 19 ms).
pub fn create(links: &[Link], guest: BorrowedFd<'_>) -> Result<(), StepError> {
    if links.is_empty() {
        return Ok(());
    }
    let mut netlink = Netlink::open().step(|| "failed to open netlink".to_owned())?;
    // Before the first veth: its message would make the kernel choose an id, and a later one is EEXIST.
    netlink.assign_netns_id(guest).step(|| "failed to number the network namespace".to_owned())?;
    for link in links {
        let step = || format!("failed to make interface {} of device {}", link.host_name, link.device);
        let master = match &link.bridge {
            Some(bridge) => Some(
                netlink
                    .link_index(bridge)
                    .step(|| format!("failed to find bridge {bridge} of device {}", link.device))?,
            ),
            None => None,
        };
        let veth = VethSpec {
            host_name: &link.host_name,
            host_mac: None,
            guest_name: &link.guest_name,
            guest_index: (link.guest_index != 0).then_some(link.guest_index),
            guest_mac: link.mac,
            mtu: link.mtu,
            master,
            guest_netns: guest,
        };
        add_veth(&mut netlink, &veth).step(step)?;
        if let Some(index) = master {
            for address in &link.addresses {
                neighbour(&mut netlink, index, *address, link.mac).step(step)?;
            }
        }
    }
    Ok(())
}

/// The name may still be held by the run before: the kernel takes a dead namespace's interfaces away some 40 ms late, and
/// waiting costs nobody anything, while deleting might hit an interface of somebody else's.
fn add_veth(netlink: &mut Netlink, veth: &VethSpec<'_>) -> io::Result<()> {
    let deadline = Instant::now() + LAST_RUN_PATIENCE;
    loop {
        match netlink.add_veth(veth) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

fn neighbour(netlink: &mut Netlink, index: u32, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
    netlink.add_neighbour(&NeighbourSpec { index, address, mac, permanent: true })
}

/// Tells the first process that its interfaces are there.
pub fn announce(channel: BorrowedFd<'_>) -> io::Result<()> {
    socket::send(channel, b"L", &[], true)
}

/// Inside: brings the loopback up, waits for the interfaces, and enters the gateways' addresses for good, so that they
/// take no place in the kernel's one neighbour table. The netlink socket is closed again: it would pin the namespace.
pub fn wait_and_finish(channel: &OwnedFd, links: &[Link]) -> Result<(), StepError> {
    let mut netlink = Netlink::open().step(|| "failed to open netlink inside".to_owned())?;
    netlink.set_up(LOOPBACK).step(|| "failed to bring the loopback up".to_owned())?;
    socket::receive(channel.as_fd(), 16, true)
        .and_then(|message| message.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .step(|| "failed to wait for the interfaces".to_owned())?;
    for link in links {
        let Some(mac) = link.gateway_mac else { continue };
        for address in &link.gateways {
            // Only saves table entries: an instance without it works as well, so a refusal does not stop the start.
            let _ = neighbour(&mut netlink, link.guest_index, *address, mac);
        }
    }
    Ok(())
}
