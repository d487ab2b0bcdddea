#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Little memory, the server on the same machine, and far more dirty data than there is memory.
#	$1	MiB to write
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
mib=$1

# As the systemd unit has it (LimitSTACK, LimitMEMLOCK, OOMScoreAdjust)
ulimit -s 1024
ulimit -l unlimited
echo -1000 >/proc/self/oom_score_adj
start lc --swap logcache cache=$SSD backing=$DISK
attach nbd0 lc "" -C 2
ulimit -s 8192
echo 0 >/proc/self/oom_score_adj
free -m
# PR_SET_IO_FLUSHER is PF_MEMALLOC_NOIO among the flags of a thread, and inherited
for task in /proc/"$(cat /run/lc.pid)"/task/*; do
	flags=$(sed 's/.*) //' "$task/stat" 2>/dev/null | cut -d ' ' -f 7) || continue # it has ended
	[ $((flags & 0x80000)) -ne 0 ] || fail "$(cat "$task/comm") is not marked as an I/O flusher"
done

make_fs ext4 /dev/nbd0
mkdir -p /mnt/fs
mount /dev/nbd0 /mnt/fs
# Let the kernel collect as much as it can
echo 70 >/proc/sys/vm/dirty_ratio
echo 60 >/proc/sys/vm/dirty_background_ratio

step "writing $mib MiB, and at random meanwhile"
fio --name=random --directory=/mnt/fs --size=200M --rw=randwrite --bs=4k --ioengine=psync --time_based \
	--runtime=3000 --fallocate=none --minimal >/run/fio1.log 2>&1 &
random=$!
large()
{
	fio --name=large --directory=/mnt/fs --size="${mib}M" --rw=write --bs=256k --ioengine=psync --fallocate=none \
		--verify=crc32c --verify_state_save=0 --minimal "$@"
}
large --do_verify=0 --end_fsync=1 >/run/fio2.log 2>&1 &
writing=$!
# And somebody else who wants memory
until ended $writing; do
	head -c 20M /dev/zero | tail >/dev/null || true
	sleep 1
done
wait $writing || fail "fio: $(cat /run/fio2.log)"
! ended $random || fail "fio: $(cat /run/fio1.log)"
kill $random
wait $random || true
step "sync"
sync
written=$(awk '$3 == "nbd0" { print int($10 / 2048) }' /proc/diskstats)
step "$written MiB were written"
free -m
[ "$written" -ge "$mib" ] || fail "that is less than was written by fio"

step "verify"
large --verify_only >/run/fio3.log || fail "fio: $(cat /run/fio3.log)"
umount /mnt/fs
check_fs ext4 /dev/nbd0
detach nbd0
stop lc
if dmesg | grep -i 'out of memory.*nbdkit'; then
	fail "the server was killed"
fi
