#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two volumes on one cache; both disks grow. The host grows them when we say so.
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"

serve()
{
	start lc logcache cache=$SSD volume=ext4 backing=$DISK volume=xfs backing=$DISK-2 "$@"
	attach nbd0 lc ext4
	attach nbd1 lc xfs
}

serve writeback=off
n=0
for fs in ext4 xfs; do
	make_fs $fs /dev/nbd$n
	mkdir -p /mnt/$fs
	mount /dev/nbd$n /mnt/$fs
	dd if=/dev/urandom of=/mnt/$fs/file bs=1M count=8 2>/dev/null
	sha256sum /mnt/$fs/file >>/run/sums
	n=$((n + 1))
done
umount /mnt/ext4 /mnt/xfs
detach nbd0
detach nbd1
# There is dirty data, and it is kept.
stop lc
"$LOGCACHECTL" dump $SSD | grep '^dirty .* [1-9][0-9]* blocks' || fail "nothing is dirty"
before=$(blockdev --getsize64 $DISK)
say "grow"
heard
within 60 test "$(blockdev --getsize64 $DISK)" -gt "$before"

serve
[ "$(blockdev --getsize64 /dev/nbd0)" -eq "$(blockdev --getsize64 $DISK)" ]
[ "$(blockdev --getsize64 /dev/nbd1)" -eq "$(blockdev --getsize64 $DISK-2)" ]
mount /dev/nbd0 /mnt/ext4
mount /dev/nbd1 /mnt/xfs
resize2fs /dev/nbd0
xfs_growfs /mnt/xfs
for fs in ext4 xfs; do
	[ "$(df --output=size -BM /mnt/$fs | tail -n 1 | tr -dc 0-9)" -gt 350 ] || fail "$fs did not grow"
	dd if=/dev/urandom of=/mnt/$fs/more bs=1M count=16 conv=fsync 2>/dev/null
done
sha256sum -c /run/sums
umount /mnt/ext4 /mnt/xfs
check_fs ext4 /dev/nbd0
check_fs xfs /dev/nbd1
detach nbd0
detach nbd1
stop lc
