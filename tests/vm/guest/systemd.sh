#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The systemd units as they are built, under a systemd, with a file system above: what comes before what, also when the disk
# comes late, and when the server dies.
#
# systemd is the first process of a PID namespace, as in a container. It finds our units, and of its own only what these cannot
# do without. It knows no devices (there is no udev), as always where /sys is read-only.
#	$1	"inside": run in the namespaces of systemd
# shellcheck source=tests/vm/guest/lib.sh
. "$VM_GUEST/lib.sh"
server=main # fail() shows its log
units=/run/units

if [ "${1-}" != inside ]; then
	# As if it were installed
	cp "${LOGCACHE%/*}/nbdkit-logcache-plugin.so" "$(nbdkit --dump-config | sed -n 's/^plugindir=//p')"
	mkdir -p $units/service.d /etc/logcache /srv/data
	cp "${LOGCACHE%/*}"/systemd/logcache*@.service /lib/systemd/system/{basic,shutdown,sysinit}.target $units
	install -D "$VM_GUEST/../../../systemd/logcache-nbd" \
		"$(sed -n 's/^ExecStart=\([^ ]*\) attach .*/\1/p' $units/logcache-nbd@.service)"
	# One connection: nobody reads from some of several, if the machine is as slow as this one (docs/operations.md), and what is
	# done about that takes half a minute each time
	cat >/etc/logcache/main.conf <<-END
		PARAMETERS="cache=$SSD backing=/dev/disk/by-id/late on-exit=drain"
		NBD=/dev/nbd0
		NBD_CONNECTIONS=1
	END
	# What a line in fstab with x-systemd.requires= becomes
	cat >$units/srv-data.mount <<-END
		[Unit]
		Requires=logcache-nbd@main.service
		After=logcache-nbd@main.service
		[Mount]
		What=/dev/nbd0
		Where=/srv/data
		Type=ext4
	END
	# systemd forgets a unit that has stopped, with its times, unless one that is there names it
	cat >$units/memory.target <<-END
		[Unit]
		Wants=srv-data.mount logcache-nbd@main.service logcache@main.service
	END
	cat >$units/service.d/log.conf <<-END
		[Service]
		StandardOutput=append:/run/main.log
		StandardError=append:/run/main.log
	END
	mkfs.ext4 -q -b 4096 "$DISK"
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	SYSTEMD_UNIT_PATH=$units SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_LOG_COLOR=0 container=guest \
		unshare --mount --pid --fork --mount-proc sh -c \
		'mount -o remount,bind,ro /sys && exec /lib/systemd/systemd --system --unit=basic.target --log-target=console' 3>&- &
	within 60 test -S /run/systemd/private || fail "systemd did not start"
	manager=$(pgrep -P $!)
	# Here, where the kernel's threads are to be seen
	while sleep 5; do
		if pgrep -x nbdkit >/run/main.pid; then
			watch_requests nbd0
		fi
	done &
	exec nsenter --target "$manager" --mount --pid bash "$0" inside
fi

# From the ground up
stack=(logcache@main logcache-nbd@main srv-data.mount)

# in_order EVENT UNIT...: that was their order
in_order()
{
	local event=$1 unit
	shift
	for unit; do
		systemctl show --property="${event}TimestampMonotonic" --value "$unit"
	done | sort -c -n -u
}

# is STATE UNIT...: each of them
is()
{
	local state=$1 unit
	shift
	for unit; do
		[ "$(systemctl show --property=ActiveState --value "$unit")" = "$state" ] || return 1
	done
}

started()
{
	systemctl start srv-data.mount
	is active "${stack[@]}"
	in_order ActiveEnter "${stack[@]}"
	attached nbd0
	mountpoint -q /srv/data
}

stopped()
{
	dmesg -C
	systemctl stop logcache@main
	is inactive "${stack[@]}"
	in_order InactiveEnter srv-data.mount logcache-nbd@main logcache@main
	detached nbd0
	tail -n 1 /run/main.log | grep ' closed'
	if dmesg | grep 'error, dev nbd0'; then
		fail "I/O errors"
	fi
}

files_are_there()
{
	(cd /srv/data/files && sha256sum --quiet -c /run/sums)
}

main_pid()
{
	systemctl show --property=MainPID --value logcache@main
}

under_way()
{
	! grep -q '^ *0 *0$' /sys/block/nbd0/inflight
}

# By a new process: until systemd has noticed that the old one died, the unit is active, too; then its process is 0.
serves_again()
{
	local pid
	pid=$(main_pid)
	[ "$pid" != 0 ] && [ "$pid" != "$died" ] && is active logcache@main
}

within 60 is active basic.target
systemctl start --job-mode=ignore-dependencies memory.target
step "start; the disk comes late"
(
	within 60 grep -q "waiting for /dev/disk/by-id/late" /run/main.log
	ln -s virtio-disk /dev/disk/by-id/late
) &
started
grep "waiting for /dev/disk/by-id/late" /run/main.log
cp -r /usr/share/doc/nbdkit /srv/data/files
(cd /srv/data/files && find . -type f -exec sha256sum {} +) >/run/sums

step "stop of the server"
stopped

step "the server dies below a writer"
started
files_are_there
dd if=/dev/urandom of=/srv/data/files/more bs=64k count=20 conv=fsync 2>/dev/null
(cd /srv/data/files && sha256sum more) >>/run/sums
died=$(main_pid)
kill -STOP "$died"
systemd-run --quiet --unit=writer --property=Requires=srv-data.mount --property=After=srv-data.mount \
	dd if=/dev/zero of=/srv/data/busy bs=64k oflag=direct
within 60 under_way
sync & # the umount waits for it
kill -9 "$died"
within 60 serves_again || fail "the server was not started again"
is inactive logcache-nbd@main srv-data.mount
detached nbd0
if mountpoint -q /srv/data; then
	fail "still mounted"
fi

step "restart of the mount"
systemctl restart srv-data.mount
is active "${stack[@]}"
files_are_there
stopped
check_fs ext4 "$DISK"
step "end"
