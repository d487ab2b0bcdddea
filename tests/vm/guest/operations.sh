#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The recipes of docs/operations.md, in its order and as they stand there.
#	$1	folder with NN-HEADING files, one for each block of commands
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
recipes=$1

# As if it were installed
cp "${LOGCACHE%/*}/nbdkit-logcache-plugin.so" "$(nbdkit --dump-config | sed -n 's/^plugindir=//p')"
cp "$LOGCACHECTL" "$VM_GUEST/../../../systemd/logcache-nbd" /usr/local/bin
cd /dev/disk/by-id
ln -s virtio-ssd SSD
ln -s virtio-new-ssd NEW-SSD
ln -s virtio-disk DISK
cd /
mkdir -p /srv/data
mkfs.ext4 -q -b 4096 $DISK

# What is done to the system, and what has to be so, between the recipes: BLOCK_before, BLOCK_after.
attach_at_boot_2_after()
{
	cp -r /usr/share/doc/nbdkit /srv/data/files
	(cd /srv/data/files && find . -type f -exec sha256sum {} +) >/run/sums
}

files_are_there()
{
	(cd /srv/data/files && sha256sum --quiet -c /run/sums)
}

upgrade_1_after()
{
	files_are_there
	old=$(cat /run/logcache.pid)
}

upgrade_2_after()
{
	[ "$(cat /run/logcache.pid)" != "$old" ]
	files_are_there
	dd if=/dev/urandom of=/srv/data/more bs=64k count=20 conv=fsync 2>/dev/null
	if dmesg | grep 'I/O error, dev nbd0'; then
		fail "I/O errors"
	fi
}

the_server_died_2_after()
{
	files_are_there
	# Some files that are dirty when the SSD is replaced
	dd if=/dev/urandom of=/srv/data/dirty bs=64k count=200 conv=fsync 2>/dev/null
	sha256sum /srv/data/dirty >/run/dirty
}

replace_the_ssd_1_after()
{
	files_are_there
	# Not in use any more
	blkdiscard -z /dev/disk/by-id/SSD
	logcachectl -s /run/logcache.ctl drain --wait
	sync
}

lose_the_ssd_2_after()
{
	files_are_there
	sha256sum -c /run/dirty
}

use_the_disk_without_the_cache_1_after()
{
	mount -o ro $DISK /srv/data
	files_are_there
	umount /srv/data
}

move_to_another_machine_1_after()
{
	mount -o ro $DISK /srv/data
	files_are_there
	umount /srv/data
	check_fs ext4 $DISK
}

for path in "$recipes"/*; do
	name=${path##*/}
	name=${name#*-}
	step "$name"
	if declare -F "${name}_before" >/dev/null; then
		"${name}_before"
	fi
	# Not in a process of its own: servers end with who started them
	# shellcheck disable=SC1090
	. "$path"
	if declare -F "${name}_after" >/dev/null; then
		"${name}_after"
	fi
done
step "end"
