#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The way of a user: two disks on one cache as /dev/nbd0 and /dev/nbd1, ext4 and xfs, work, fstrim, the end, and then
# each disk alone. $1: a folder to copy.
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
tree=$1

start lc logcache cache=$SSD volume=ext4 backing=$DISK volume=xfs backing=$DISK-2 on-exit=drain
if grep 'libaio\|O_DIRECT' /run/lc.log; then
	fail "not with io_uring, or not with O_DIRECT"
fi

step "who has devices, has them alone"
truncate -s 1M /run/none
# refused ARGUMENT...: a second server is. (It tries for some seconds; so all of them at once.)
refused()
{
	local out
	if out=$(nbdkit -f -U /run/second.$BASHPID.sock "$LOGCACHE" "$@" --run true 2>&1); then
		fail "a second server started with $*"
	fi
	grep -q 'in use' <<<"$out" || fail "refused for another reason: $out"
}
refused cache=$SSD backing=/run/none &
second=($!)
refused backing=$DISK &
second+=($!)
refused cache=$SSD backing=$DISK &
second+=($!)
for pid in "${second[@]}"; do
	wait "$pid"
done
if mkfs.ext4 -q $DISK 2>/run/refused; then
	fail "mkfs took the backing disk"
fi

n=0
for fs in ext4 xfs; do
	dev=/dev/nbd$n
	attach nbd$n lc $fs
	n=$((n + 1))
	[ "$(blockdev --getss $dev)" -eq 4096 ] || fail "sectors of $(blockdev --getss $dev)"
	step "mkfs.$fs, mount"
	make_fs $fs $dev
	mkdir -p /mnt/$fs
	mount $dev /mnt/$fs

	step "fio"
	fio --name=verify --directory=/mnt/$fs --size=4M --rw=randwrite --bs=4k --ioengine=libaio \
		--iodepth=16 --direct=1 --verify=crc32c --randrepeat=0 --minimal >/run/fio.log ||
		fail "fio: $(cat /run/fio.log)"
	step "files"
	cp -r "$tree" /mnt/$fs/tree
	dd if=/dev/zero of=/mnt/$fs/large bs=1M count=80 conv=fsync 2>/dev/null
	rm /mnt/$fs/large
	step "fstrim, umount, fsck, mount"
	sync
	fstrim /mnt/$fs
	umount /mnt/$fs
	check_fs $fs $dev
	mount $dev /mnt/$fs
	diff -r "$tree" /mnt/$fs/tree || fail "$fs: not what was copied"
	umount /mnt/$fs
done
step "drain"
detach nbd0
detach nbd1
stop lc
grep ' closed' /run/lc.log

step "the disks alone"
for fs in ext4 xfs; do
	dev=$DISK
	[ $fs = ext4 ] || dev=$DISK-2
	check_fs $fs $dev
	mount -o ro $dev /mnt/$fs
	diff -r "$tree" /mnt/$fs/tree || fail "$fs: not what was copied"
	umount /mnt/$fs
done
step "end"
