#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# One life between two power cuts: attach two volumes, replay journals, check what earlier lives have recorded as
# durable, and work until the host cuts the power.
#
#	$1	"format", "go on", "end" (check, drain, and check the disks alone)
#	$2	folder with the records of earlier lives, FS.LIFE each
#	$3	name of this life
#	$4...	parameters of logcache
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
what=$1 records=$2 life=$3
shift 3

# check_files FS: each life that has records
check_files()
{
	local path
	for path in "$records/$1".*; do
		[ -e "$path" ] || continue
		"$WITNESS" check "/mnt/$1/${path##*.}" "$path" >/run/check.log || {
			cat /run/check.log
			fail "$1, life ${path##*.}: $(head -n 3 /run/check.log | tr '\n' ';')"
		}
		echo "$1, life ${path##*.}: $(busybox tail -n 1 /run/check.log)"
	done
	# The workload's space
	for path in "/mnt/$1"/[0-9]*; do
		[ -e "$path" ] && [ ! -e "$records/$1.${path##*/}" ] && rm -r "$path"
	done
	true
}

step "attach"
start lc logcache cache=$SSD volume=ext4 backing=$DISK volume=xfs backing=$DISK-2 "$@"
grep 'cache /dev' /run/lc.log
n=0
for fs in ext4 xfs; do
	dev=/dev/nbd$n
	n=$((n + 1))
	attach ${dev#/dev/} lc $fs
	mkdir -p /mnt/$fs
	if [ "$what" = format ]; then
		make_small_fs $fs $dev
	else
		step "$fs: journal replay, fsck, files"
		mount $dev /mnt/$fs
		umount /mnt/$fs
		check_fs $fs $dev
	fi
	mount $dev /mnt/$fs
	check_files $fs
done
if [ "$what" != end ]; then
	for fs in ext4 xfs; do
		"$WITNESS" work "/mnt/$fs/$life" $fs "$life" >&3 &
	done
	step "work"
	wait
	fail "the workload ended"
fi

step "drain, and the disks alone"
umount /mnt/ext4 /mnt/xfs
detach nbd0
detach nbd1
stop lc
for fs in ext4 xfs; do
	dev=$DISK
	[ $fs = ext4 ] || dev=$DISK-2
	check_fs $fs $dev
	mount -o ro $dev /mnt/$fs
	check_files $fs
	umount /mnt/$fs
done
