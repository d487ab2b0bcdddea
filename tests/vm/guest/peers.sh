#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The same workloads over logcache and the kernel's caches, on the same SSD and disk, one cache after the other.
#	$1	MiB that are written at random
#	$2...	which caches
# Records: "result CACHE WORKLOAD METRIC VALUE".
PATIENCE=0 # the disk is slow on purpose
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
size=$1
shift
export DM_DISABLE_UDEV=1
modprobe dm-mod

sectors()
{
	blockdev --getsz "$1"
}

# --- each cache: NAME_up, which sets dev; NAME_drain, all is on the disk afterwards; NAME_down ---

logcache_up()
{
	start lc logcache cache=$SSD backing=$DISK format=force client-timeout=600
	attach nbd0 lc
	dev=/dev/nbd0
}

logcache_drain()
{
	ctl lc drain --wait >/dev/null
}

logcache_down()
{
	detach nbd0
	stop lc
}

writecache_up()
{
	modprobe dm-writecache
	dmsetup create wc --table "0 $(sectors $DISK) writecache s $DISK $SSD 4096 0"
	dev=/dev/mapper/wc
}

writecache_drain()
{
	dmsetup message wc 0 flush
	dmsetup suspend wc
	dmsetup resume wc
}

writecache_down()
{
	dmsetup remove wc
}

# 8 MiB of the SSD are for metadata. 32 KiB is the least block.
dmcache_up()
{
	modprobe dm-cache-smq
	dmsetup create meta --table "0 16384 linear $SSD 0"
	dmsetup create fast --table "0 $(($(sectors $SSD) - 16384)) linear $SSD 16384"
	dd if=/dev/zero of=/dev/mapper/meta bs=1M count=1 conv=fsync 2>/dev/null
	dmsetup create dc --table \
		"0 $(sectors $DISK) cache /dev/mapper/meta /dev/mapper/fast $DISK 64 1 writeback smq 0"
	dev=/dev/mapper/dc
}

dmcache_clean()
{
	# ... METADATA-BLOCK USED/TOTAL BLOCK USED/TOTAL hits hits hits hits demotions promotions DIRTY
	[ "$(dmsetup status dc | awk '{ print $14 }')" -eq 0 ]
}

dmcache_drain()
{
	dmsetup suspend dc
	dmsetup reload dc --table \
		"0 $(sectors $DISK) cache /dev/mapper/meta /dev/mapper/fast $DISK 64 1 writeback cleaner 0"
	dmsetup resume dc
	within 1200 dmcache_clean
}

dmcache_down()
{
	dmsetup remove dc
	dmsetup remove fast
	dmsetup remove meta
}

bcache_up()
{
	modprobe bcache
	# Buckets of a size that gives even a small SSD enough of them
	make-bcache --writeback -b 128k -w 4k -C $SSD -B $DISK >/dev/null
	readlink -f $SSD >/sys/fs/bcache/register
	readlink -f $DISK >/sys/fs/bcache/register
	within 30 test -e /sys/block/bcache0/bcache/state
	echo 0 >/sys/block/bcache0/bcache/sequential_cutoff
	dev=/dev/bcache0
}

bcache_clean()
{
	[ "$(cat /sys/block/bcache0/bcache/state)" = clean ]
}

bcache_drain()
{
	# At once, as fast as it can
	echo 0 >/sys/block/bcache0/bcache/writeback_delay
	echo 0 >/sys/block/bcache0/bcache/writeback_percent
	within 1200 bcache_clean
}

bcache_down()
{
	echo 1 >/sys/block/bcache0/bcache/stop
	for set in /sys/fs/bcache/*-*; do
		echo 1 >"$set/stop"
	done
	within 60 bash -c '! ls -d /sys/fs/bcache/*-* /sys/block/bcache0 2>/dev/null'
}

# none: the disk alone
none_up()
{
	dev=$DISK
}

none_drain()
{
	:
}

none_down()
{
	:
}

# --- the workloads ---

# measure WORKLOAD read|write OPTION...: requests per second, and what 99 of 100 took at most
measure()
{
	local name=$1 kind=$2
	shift 2
	fio --name="$name" --filename=$dev --direct=1 --ioengine=libaio --bs=4k --size="${size}M" --randseed=7 \
		--eta=never --output-format=json --output=/run/fio.json "$@"
	python3 - "$cache" "$name" "$kind" >&3 <<-'END'
		import json, sys
		cache, name, kind = sys.argv[1:]
		job = json.load(open("/run/fio.json"))["jobs"][0][kind]
		print("result", cache, name, "per_second", job["iops"])
		print("result", cache, name, "p99_us", job["clat_ns"]["percentile"]["99.000000"] / 1000)
	END
}

for cache in "$@"; do
	step "$cache"
	wipefs -qa $SSD $DISK || true
	dd if=/dev/zero of=$SSD bs=1M count=16 conv=fsync 2>/dev/null
	dd if=/dev/zero of=$DISK bs=64k count=1 conv=fsync 2>/dev/null
	echo 3 >/proc/sys/vm/drop_caches
	"${cache}_up"
	[ $cache = none ] && limit=(--runtime=10) || limit=()
	measure randwrite write --rw=randwrite --iodepth=16 "${limit[@]}"
	measure fsync write --rw=randwrite --iodepth=1 --fdatasync=1 --number_ios=400 --runtime=10
	measure randread read --rw=randread --iodepth=16 --runtime=8
	began=$(date +%s%N)
	"${cache}_drain"
	say "result $cache drain seconds $((($(date +%s%N) - began) / 1000000))e-3"
	"${cache}_down"
done
