#!/bin/sh
# Fills an empty root with the container's, before a kernel and a boot loader are installed into it: run by mmdebstrap with
# the root as $1. The archive is $STAPES_BASE.
set -eu
root=$1

tar --directory "$root" --extract --preserve-permissions --numeric-owner --xattrs '--xattrs-include=*' --file "$STAPES_BASE"

# The kernel's package makes the initramfs at once: it needs what finds the root, on any bus that we offer, and no more.
mkdir -p "$root/etc/initramfs-tools/conf.d"
cat > "$root/etc/initramfs-tools/conf.d/stapes" <<'X'
MODULES=list
COMPRESS=zstd
RESUME=none
FSTYPE=ext4
X
cat > "$root/etc/initramfs-tools/modules" <<'X'
# What the root may lie on in a virtual machine.
virtio_pci
virtio_mmio
virtio_blk
virtio_scsi
sd_mod
nvme
ext4
X

# The root grows with its disk: systemd-repart moves the end of the partition, systemd-growfs that of the file system.
cat > "$root/etc/fstab" <<X
UUID=$STAPES_ROOT_UUID / ext4 errors=remount-ro,x-systemd.growfs 0 1
LABEL=ESP /boot/efi vfat umask=0077,noauto 0 0
X
mkdir -p "$root/boot/efi" "$root/boot/grub" "$root/etc/repart.d"
printf '[Partition]\nType=root\n' > "$root/etc/repart.d/50-root.conf"
chmod 644 "$root/etc/fstab" "$root/etc/repart.d/50-root.conf" "$root/etc/initramfs-tools/modules" \
    "$root/etc/initramfs-tools/conf.d/stapes"
