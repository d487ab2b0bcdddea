#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# File systems that were made on the disk itself, with smaller blocks than the cache has.
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
mkfs.ext4 -q -b 1024 $DISK
mkfs.xfs -q -s size=512 $DISK-2
mkdir -p /mnt/ext4 /mnt/xfs
mount $DISK /mnt/ext4
mount $DISK-2 /mnt/xfs
for fs in ext4 xfs; do
	dd if=/dev/urandom of=/mnt/$fs/before bs=1000 count=500 2>/dev/null
	(cd /mnt/$fs && sha256sum before >sums)
	umount /mnt/$fs
done

start lc logcache cache=$SSD volume=ext4 backing=$DISK volume=xfs backing=$DISK-2 on-exit=drain
n=0
for fs in ext4 xfs; do
	step $fs
	dev=/dev/nbd$n
	attach ${dev#/dev/} lc $fs
	if mount $dev /mnt/$fs 2>/dev/null; then
		fail "$fs: mounted with sectors of 4096"
	fi
	detach ${dev#/dev/}
	attach ${dev#/dev/} lc $fs -b 512
	mount $dev /mnt/$fs
	(cd /mnt/$fs && sha256sum -c sums)
	"$WITNESS" work /mnt/$fs/files $fs 5 >/run/records.$fs &
	witness=$!
	sleep 6
	kill $witness
	wait $witness || true
	umount /mnt/$fs
	check_fs $fs $dev
	detach ${dev#/dev/}
	n=$((n + 1))
done
stop lc
step "the disks alone"
mount $DISK /mnt/ext4
mount $DISK-2 /mnt/xfs
for fs in ext4 xfs; do
	(cd /mnt/$fs && sha256sum -c sums)
	"$WITNESS" check /mnt/$fs/files /run/records.$fs || fail "durable files are wrong"
	umount /mnt/$fs
done
