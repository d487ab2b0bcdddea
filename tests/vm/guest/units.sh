#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What stands in the systemd units, run in their order on a real kernel.
#	$1	folder with server and devices: ExecStart, ExecStop and Environment of the units, for the instance "main"
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
units=$1
server=main # fail() shows its log

# line UNIT KEY: become what the unit has there, with its environment
line()
{
	set -a
	# shellcheck disable=SC1090
	. "$units/$1.Environment"
	# shellcheck disable=SC1090
	. "$units/main.conf"
	set +a
	# LimitSTACK=1M, LimitMEMLOCK=infinity
	ulimit -s 1024
	ulimit -l unlimited
	# What a shell does with the words, systemd does: ${X} is one, $X several
	eval "exec $(cat "$units/$1.$2")"
}

mkdir -p /run/logcache/main /mnt/ext4 /mnt/xfs
start_server()
{
	line server ExecStart >>/run/main.log 2>&1 3>&- &
	echo $! >/run/main.pid
	within 60 test -S /run/logcache/main/nbd.sock || fail "the server did not start"
}

start_server
step "devices"
(line devices ExecStart)
attached nbd0
attached nbd1
[ "$(blockdev --getss /dev/nbd0)" -eq 4096 ]
make_fs ext4 /dev/nbd0
make_fs xfs /dev/nbd1
mount /dev/nbd0 /mnt/ext4
mount /dev/nbd1 /mnt/xfs
for fs in ext4 xfs; do
	cp -r /usr/share/doc/nbdkit /mnt/$fs/files
done
"$LOGCACHECTL" -s /run/logcache/main/control.sock status
umount /mnt/ext4 /mnt/xfs

step "the end, in order: devices, server"
(line devices ExecStop)
detached nbd0
detached nbd1
stop main
grep ' closed' /run/main.log

step "a server that dies below its devices"
rm -rf /run/logcache/main # RuntimeDirectory=
mkdir -p /run/logcache/main
start_server
(line devices ExecStart)
mount /dev/nbd0 /mnt/ext4
touch /mnt/ext4/file
sync
kill9 main
# BindsTo=: the devices go, too
(line devices ExecStop)
umount /mnt/ext4
within 60 detached nbd0
within 60 detached nbd1
rm -rf /run/logcache/main
mkdir -p /run/logcache/main
start_server
(line devices ExecStart)
mount /dev/nbd0 /mnt/ext4
[ -e /mnt/ext4/file ]
umount /mnt/ext4
check_fs ext4 /dev/nbd0
check_fs xfs /dev/nbd1
(line devices ExecStop)
stop main
step "end"
