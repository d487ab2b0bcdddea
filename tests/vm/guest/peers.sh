#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The same workloads over logcache and the kernel's caches, on the same SSD and disk, one cache after the other.
#	$1	MiB that are written at random, all over the disk. Less than half of the SSD
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
	ctl lc drain --wait >/dev/null 2>&1
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
	# Buckets of a size that gives even a small SSD enough of them: it wants more than 512
	make-bcache --writeback -b 64k -w 4k -C $SSD -B $DISK >/dev/null
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
	blockdev --flushbufs $DISK
}

none_down()
{
	:
}

# --- the workloads ---

# random OPTION...: fio with random 4 KiB blocks of the whole disk. The same seed: the same blocks.
random()
{
	fio --name=random --filename=$dev --direct=1 --ioengine=libaio --bs=4k --eta=never --output-format=json \
		--output=/run/fio.json "$@"
}

# measure WORKLOAD read|write OPTION...: requests per second, and what 99 of 100 took at most
measure()
{
	local name=$1 kind=$2
	shift 2
	random --rw="rand$kind" "$@"
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
	# As many as there are, or as many as the disk alone does
	[ $cache = none ] && limit=(--runtime=15) || limit=()
	measure randwrite write --iodepth=16 --io_size="${size}M" --randseed=1 "${limit[@]}"
	measure randread read --iodepth=16 --io_size="${size}M" --randseed=1 --runtime=8
	measure fsync write --iodepth=1 --fdatasync=1 --io_size=2M --randseed=2 --runtime=10
	"${cache}_drain"
	step "drain"
	began=$(date +%s%N)
	random --rw=randwrite --iodepth=16 --io_size="${size}M" --randseed=3
	"${cache}_drain"
	took_ms=$((($(date +%s%N) - began) / 1000000))
	say "result $cache drain per_second $((size * 256 * 1000 / took_ms))"
	step "sustained"
	measure sustained write --iodepth=16 --randseed=4 --time_based --ramp_time=15 --runtime=30
	"${cache}_down"
done
