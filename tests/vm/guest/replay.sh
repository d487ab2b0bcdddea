#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Check what power cuts leave. The host puts images on the disks, and names a folder with the records that
# hold for them; we start on them, look, and die.
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
mkdir -p /mnt/ext4 /mnt/xfs
while true; do
	say "next"
	records=$(heard)
	[ "$records" != end ] || break
	step "$records"
	for d in $SSD $DISK $DISK-2; do
		blockdev --flushbufs "$d"
	done
	start lc logcache cache=$SSD volume=ext4 backing=$DISK volume=xfs backing=$DISK-2
	grep 'cache /dev' /run/lc.log | tail -n 1
	n=0
	for fs in ext4 xfs; do
		dev=/dev/nbd$n
		n=$((n + 1))
		attach ${dev#/dev/} lc $fs
		mount $dev /mnt/$fs
		"$WITNESS" check /mnt/$fs/0 "$records/$fs" >/run/check.log || {
			cat /run/check.log
			fail "$fs: $(head -n 3 /run/check.log | tr '\n' ';')"
		}
		umount /mnt/$fs
		check_fs $fs $dev
		detach ${dev#/dev/}
	done
	kill9 lc
done
