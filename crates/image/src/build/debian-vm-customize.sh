#!/bin/sh
# Makes a container's root with a kernel a virtual machine's: run by mmdebstrap with the root as $1.
set -eu
root=$1
quiet() { "$@" >/dev/null 2>&1 || true; }

# /vmlinuz and /initrd.img are links that the kernel's packages keep on the newest one; GRUB's menu names only them.
for link in vmlinuz initrd.img; do
    [ -e "$root/$link" ] || ln -sf "boot/$(basename "$(ls "$root"/boot/$link-* | sort -V | tail -n 1)")" "$root/$link"
    [ -L "$root/$link.old" ] || cp -P "$root/$link" "$root/$link.old"
done

# Interfaces have the names of their slots here. The client id is the MAC, as in a container.
mv "$root/etc/systemd/network/eth0.network" "$root/etc/systemd/network/lan.network"
sed -i 's/^Name=eth0$/Name=e*/' "$root/etc/systemd/network/lan.network"

# What a container has no use for, and a machine has.
quiet chroot "$root" systemctl disable console-getty.service
quiet chroot "$root" systemctl enable getty@tty1.service fstrim.timer
# The name comes from the network or the host's agent; where there is neither it is `localhost`.
rm -f "$root/etc/hostname"
mkdir -p "$root/etc/default"

# Made at the first boot, by each machine for itself.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed" "$root/etc/ssh"/ssh_host_*

rm -f "$root/var/log/apt"/* "$root/var/log/dpkg.log" "$root/var/log/alternatives.log" "$root/var/log/bootstrap.log" \
    "$root/var/cache/ldconfig/aux-cache" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mmdebstrap"
