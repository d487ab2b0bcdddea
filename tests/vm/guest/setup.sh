# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=sh
# Run first in every guest: what the init and the udev of a real system would do.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mkdir -p /dev/shm /dev/pts /dev/disk/by-id
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
ip link set lo up
mount -t debugfs debugfs /sys/kernel/debug
for d in /sys/block/vd*; do
	[ -e "$d/serial" ] && ln -s "/dev/${d##*/}" "/dev/disk/by-id/virtio-$(cat "$d/serial")"
done
# A task that is stuck is a finding. The limit is long: an emulated machine on a busy host may stand still.
echo 400 >/proc/sys/kernel/hung_task_timeout_secs
