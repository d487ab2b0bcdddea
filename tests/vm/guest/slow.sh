#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A disk or the SSD stalls or fails while a file system works: what it sees is what the manual page says.
#	$1	seconds of a stall
PATIENCE=30 # stalls are what this is about
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
stall=$1
faulty disk $DISK
faulty ssd $SSD
mkdir -p /mnt/fs
life=0

serve()
{
	start lc logcache cache=/dev/mapper/ssd backing=/dev/mapper/disk dirty-low=0 stall-timeout=10 "$@"
	attach nbd0 lc
	mount /dev/nbd0 /mnt/fs
}

# work: a workload in the background whose records are in $records
work()
{
	life=$((life + 1))
	records=/run/records.$life
	"$WITNESS" work /mnt/fs/$life ext4 $life >$records 2>/run/witness.log &
	witness=$!
	within 120 grep -q ready $records
}

done_so_far()
{
	grep -c ' [apr] ' $records || true
}

# goes_on SECONDS: the workload makes things durable
goes_on()
{
	local before
	before=$(done_so_far)
	sleep "$1"
	[ -e /proc/$witness ] || fail "the workload ended: $(cat /run/witness.log)"
	[ "$(done_so_far)" -gt $((before + 5)) ] || fail "nothing was made durable in $1 s"
}

# ends: the workload gets an error within SECONDS
ends()
{
	within "$1" ended $witness || fail "the workload did not get an error"
	grep -q 'Input/output error\|Read-only' /run/witness.log || fail "$(cat /run/witness.log)"
}

end_work()
{
	kill $witness 2>/dev/null || true
	wait $witness || true
}

check_files()
{
	local i
	for ((i = 1; i <= life; i++)); do
		[ -e /mnt/fs/$i ] || continue
		"$WITNESS" check /mnt/fs/$i /run/records.$i || fail "files of workload $i are wrong"
	done
}

no_errors()
{
	if dmesg | grep 'I/O error, dev nbd'; then
		fail "I/O errors on /dev/nbd0"
	fi
}

start lc logcache cache=/dev/mapper/ssd backing=/dev/mapper/disk
attach nbd0 lc
make_fs ext4 /dev/nbd0
detach nbd0
stop lc

step "the disk stalls for $stall s: writes go on"
serve
work
goes_on 3
fault disk stalls $DISK
goes_on "$stall"
fault disk works $DISK
goes_on 3
end_work
no_errors

step "the disk fails: writes go on, and are written back when it works again"
work
fault disk fails $DISK
goes_on 15
fault disk works $DISK
goes_on 20
end_work
no_errors
sync
umount /mnt/fs
detach nbd0
stop lc
serve on-exit=drain
check_files

step "the SSD stalls for $stall s: all waits, nothing fails"
work
goes_on 3
fault ssd stalls $SSD
before=$(done_so_far)
sleep "$stall"
[ "$(done_so_far)" -le $((before + 8)) ] || fail "flushed to an SSD that does nothing"
fault ssd works $SSD
goes_on 20
end_work
no_errors
umount /mnt/fs
detach nbd0
stop lc
step "the disk alone"
check_fs ext4 $DISK
mount -o ro /dev/mapper/disk /mnt/fs
check_files
umount /mnt/fs

step "the SSD fails: errors at once, and all that was durable is there afterwards"
serve
work
goes_on 3
fault ssd fails $SSD
ends 60
dmesg -C
fault ssd works $SSD
# The server writes again what it could not, and a mount finds a journal to replay
umount /mnt/fs
mount /dev/nbd0 /mnt/fs
check_files
work
goes_on 5
end_work
umount /mnt/fs
check_fs ext4 /dev/nbd0
detach nbd0
stop lc

step "the disk fails for longer than the log has room: errors after stall-timeout, no hang"
serve
work
goes_on 2
fault disk fails $DISK
# Fills the log; the first error ends it
began=$SECONDS
if dd if=/dev/zero of=/mnt/fs/fill bs=1M count=200 oflag=direct 2>/run/dd.log; then
	fail "200 MiB fit in a log of 64"
fi
grep 'Input/output error' /run/dd.log
step "an error after $((SECONDS - began)) s"
ends 120
fault disk works $DISK
umount /mnt/fs
within 60 mount /dev/nbd0 /mnt/fs
check_files
rm -f /mnt/fs/fill
work
goes_on 5
end_work
umount /mnt/fs
check_fs ext4 /dev/nbd0
detach nbd0
stop lc

step "the disk is gone: a start is refused, and says so"
fault disk fails $DISK
if nbdkit -f -U /run/second.sock "$LOGCACHE" cache=/dev/mapper/ssd backing=/dev/mapper/disk \
	--run true 2>/run/refused; then
	fail "it started without its disk"
fi
cat /run/refused
fault disk works $DISK
serve
check_files
umount /mnt/fs
detach nbd0
stop lc
