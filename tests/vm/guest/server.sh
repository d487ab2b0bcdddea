#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The server dies and is replaced while a file system on /dev/nbdX works.
#	$1	how often it is killed in the second part
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
kills=$1

# errors_of DEVICE: I/O errors that the kernel has seen of it
errors_of()
{
	dmesg | grep -c "I/O error, dev $1" || true
}

step "attached directly: an end with errors, and nothing durable is lost"
start lc logcache cache=$SSD backing=$DISK
attach nbd0 lc
make_small_fs xfs /dev/nbd0
mkdir -p /mnt/xfs /mnt/ext4
mount /dev/nbd0 /mnt/xfs
"$WITNESS" work /mnt/xfs/files xfs 1 >/run/records 2>/run/witness.log &
witness=$!
within 60 grep -q ready /run/records
sleep 3
kill9 lc
# What is under way waits for the timeout of nbd-client, or for this:
nbd-client -d /dev/nbd0
if wait $witness; then
	fail "the workload did not end"
fi
grep 'Input/output error' /run/witness.log
umount /mnt/xfs
within 60 detached nbd0
start lc logcache cache=$SSD backing=$DISK
attach nbd0 lc
mount /dev/nbd0 /mnt/xfs
"$WITNESS" check /mnt/xfs/files /run/records || fail "durable files are wrong"
umount /mnt/xfs
check_fs xfs /dev/nbd0
detach nbd0
stop lc

step "through a gateway: no error, whatever happens to the server"
serve()
{
	start lc --filter=fua logcache cache=$SSD backing=$DISK fuamode=force
}
serve
nbdkit -f -U /run/gateway.sock -P /run/gateway.pid --filter=retry nbd socket=/run/lc.sock \
	retries=600 retry-delay=1 retry-exponential=no 3>&- &
within 60 test -s /run/gateway.pid
attach nbd1 gateway "" -C 1
make_fs ext4 /dev/nbd1
mount /dev/nbd1 /mnt/ext4
fio --name=verify --directory=/mnt/ext4 --size=6M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 \
	--direct=1 --time_based --runtime=$((kills * 8 + 8)) --verify=crc32c --verify_backlog=64 \
	--verify_fatal=1 --minimal >/run/fio.log 2>&1 &
fio=$!
"$WITNESS" work /mnt/ext4/files ext4 2 >/run/records &
witness=$!
for ((i = 0; i < kills; i++)); do
	sleep 3
	kill9 lc
	sleep 1
	serve
	step "kill $i: serving again"
done

step "SIGTERM: a clean end, and another server, meanwhile"
sleep 2
pid=$(cat /run/lc.pid)
before=$(grep -c ' closed' /run/lc.log) # of the first part
kill "$pid"
# A connection that is idle does not notice: one request for it
dd if=/dev/nbd1 of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null &
within 60 ended "$pid" || fail "the server did not end"
tail -n 1 /run/lc.log
[ "$(grep -c ' closed' /run/lc.log)" -gt "$before" ] || fail "not closed in good order"
serve
step "serving again"
within 120 ended $fio || fail "fio did not end"
wait $fio || fail "fio: $(cat /run/fio.log)"
[ -e /proc/$witness ] || fail "the workload ended"
kill $witness
wait $witness || true
[ "$(errors_of nbd1)" -eq 0 ] || fail "I/O errors"
umount /mnt/ext4
check_fs ext4 /dev/nbd1
mount /dev/nbd1 /mnt/ext4
"$WITNESS" check /mnt/ext4/files /run/records || fail "durable files are wrong"
umount /mnt/ext4
detach nbd1
step "end"
