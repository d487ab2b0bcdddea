# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=sh
# Run first in every guest: what the init and the udev of a real system would do. By a static busybox: an emulated CPU takes longer
# to link a program with its libraries than for all of what it does here.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
busybox mkdir -p /dev/shm /dev/pts /dev/disk/by-id
busybox mount -t tmpfs tmpfs /run
busybox mount -t tmpfs tmpfs /dev/shm
busybox mount -t devpts devpts /dev/pts
busybox ip link set lo up
busybox mount -t debugfs debugfs /sys/kernel/debug
for d in /sys/block/vd*; do
	[ -e "$d/serial" ] && busybox ln -s "/dev/${d##*/}" "/dev/disk/by-id/virtio-$(busybox cat "$d/serial")"
done
# A task that is stuck is a finding. The limit is long: an emulated machine on a busy host may stand still.
echo 400 >/proc/sys/kernel/hung_task_timeout_secs
