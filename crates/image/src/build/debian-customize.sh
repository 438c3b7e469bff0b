#!/bin/sh
# Makes a fresh Debian root a system container's: run by mmdebstrap with the root as $1.
set -eu
root=$1

# DHCP and router advertisements on eth0. The client id is the MAC: dnsmasq's static leases know nothing else.
cat > "$root/etc/systemd/network/eth0.network" <<'X'
[Match]
Name=eth0

[Network]
DHCP=ipv4
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes

[IPv6AcceptRA]
UseDomains=yes
X
enable() { chroot "$root" systemctl enable "$@" >/dev/null 2>&1; }
quiet() { "$@" >/dev/null 2>&1 || true; }
enable systemd-networkd.service
enable systemd-resolved.service
# Names come from the DHCP server of the network, whichever that is.
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# What would wait, wake up or fail inside a container.
quiet chroot "$root" systemctl disable systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty@tty1.service
quiet chroot "$root" systemctl mask systemd-networkd-wait-online.service
enable console-getty.service

# A virtual machine's or container's own id, made at its first boot.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/ssh"/ssh_host_* "$root/var/lib/systemd/random-seed"
# Nobody logs in as root; `exec` needs no password.
quiet chroot "$root" passwd -l root

echo localhost > "$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' > "$root/etc/hosts"
chmod 644 "$root/etc/hostname" "$root/etc/hosts" "$root/etc/systemd/network/eth0.network"
echo 'LANG=C.UTF-8' > "$root/etc/default/locale"
chmod 644 "$root/etc/default/locale"

# Manuals were left out of the image to keep it small; what is installed later shall be whole.
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mmdebstrap"
if [ -n "${STAPES_APT_PROXY:-}" ]; then
    printf '%s' "$STAPES_APT_PROXY" > "$root/etc/apt/apt.conf.d/90proxy"
    chmod 644 "$root/etc/apt/apt.conf.d/90proxy"
fi

# Logs of the build, with its times in them.
rm -f "$root/var/log/apt"/* "$root/var/log/dpkg.log" "$root/var/log/alternatives.log" "$root/var/log/bootstrap.log" \
    "$root/var/cache/ldconfig/aux-cache" "$root/var/log/fontconfig.log"
rm -rf "$root/var/log/journal"/*
