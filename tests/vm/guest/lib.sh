# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# What the guest's scripts share: the server, the kernel's client, file systems, and the way to the host.
#
# Each server has a name; its files are /run/NAME.sock, .pid, .log. The first command that fails ends the script, and
# is told to the console and to the host.
set -eEuo pipefail
trap 'fail "${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND"' ERR
: "${LOGCACHE:?the module}" "${LOGCACHECTL:?the program}"
export SSD=/dev/disk/by-id/virtio-ssd
export DISK=/dev/disk/by-id/virtio-disk

# What waits and looks, again and again, does it with a static program or within the shell: to link a program with its
# libraries takes an emulated CPU a fifth of a second.
sleep()
{
	busybox sleep "$@"
}

# say WORD...: a record for the host. It has it when this returns.
say()
{
	echo "$*" >&3
}

# heard: wait for a line from the host, and print it.
heard()
{
	local line
	read -r line <&3
	echo "$line"
}

fail()
{
	trap - ERR
	echo "FAILED: $*"
	[ -z "${server-}" ] || tail -n 20 "/run/$server.log"
	say "failed $*"
	exit 1
}

# within SECONDS COMMAND...: repeat COMMAND until it succeeds.
within()
{
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		if [ "$SECONDS" -ge "$end" ]; then
			return 1
		fi
		sleep 0.2
	done
}

# start NAME ARGUMENT...: nbdkit with the module. Options of nbdkit come first, then "logcache", then parameters.
start()
{
	local options=()
	server=$1
	shift
	while [ "$1" != logcache ]; do
		options+=("$1")
		shift
	done
	shift
	rm -f "/run/$server.sock" "/run/$server.pid"
	nbdkit -f -U "/run/$server.sock" -P "/run/$server.pid" "${options[@]}" "$LOGCACHE" \
		control="/run/$server.ctl" "$@" >>"/run/$server.log" 2>&1 3>&- &
	within 60 test -s "/run/$server.pid" || fail "the server did not start"
}

# stop NAME: a clean end. Clients must have disconnected.
stop()
{
	local pid
	pid=$(<"/run/$1.pid")
	kill "$pid"
	within 300 ended "$pid" || fail "the server did not end"
}

kill9()
{
	kill -9 "$(<"/run/$1.pid")"
	within 60 ended "$(<"/run/$1.pid")"
}

# step WORD...: what comes now, on the console, with the time since the boot.
step()
{
	local up
	read -r up _ </proc/uptime
	echo "--- $up s: $*"
}

ended()
{
	local stat
	[ -e "/proc/$1" ] || return 0
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null && [[ ${stat##*) } == Z* ]]
}

# Does each connection answer? A CPU sends its requests through one of them.
answers()
{
	local cpu pid pids=()
	for ((cpu = 0; cpu < $(nproc); cpu++)); do
		taskset -c $cpu dd if="/dev/$1" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		within 30 ended "$pid" || return 1
	done
}

# attach DEVICE SERVER [EXPORT] [OPTION...]. With several connections Linux 6.1 does not read from all of them, if it was short of
# time while they were made: docs/operations.md, "A connection that nobody reads from". Then once more.
attach()
{
	local device=$1 name=$2 export=${3-} tries=5
	shift 2
	[ $# -eq 0 ] || shift
	[ -d /sys/module/nbd ] || modprobe nbd
	while true; do
		nbd-client -unix "/run/$name.sock" "/dev/$device" -b 4096 -C 4 -timeout 600 \
			${export:+-name "$export"} "$@" >/dev/null
		within 60 attached "$device" || fail "/dev/$device has no size"
		if answers "$device"; then
			break
		fi
		echo "/dev/$device does not answer; receivers: $(grep -sc "recv_work.*nbd" /proc/[0-9]*/stack | grep -c ':1$' || true)"
		[ $((tries--)) -gt 0 ] || fail "/dev/$device does not answer"
		detach "$device"
		dmesg -C # errors of the requests that hung
	done
	[ "$PATIENCE" -eq 0 ] || watch_requests "$device" &
}

# show_threads: where the server and the kernel's queues are
show_threads()
{
	local task pid
	pid=$(cat "/run/$server.pid")
	tail -n 20 "/run/$server.log"
	if ended "$pid"; then
		echo "the server has ended"
		return
	fi
	grep . /sys/block/*/inflight /sys/kernel/debug/block/nbd*/hctx*/busy || true
	# Who has not read what it was sent
	modprobe -q unix_diag || true
	ss -xn | awk 'NR == 1 || $3 > 0 || $4 > 0' || true
	# Where the kernel's client is, and everybody who waits for a disk
	for task in /proc/[0-9]*; do
		if grep -q nbd "$task/comm" || grep -q '^State:.D' "$task/status"; then
			echo "$task $(cat "$task/comm")"
			cat "$task/stack"
		fi 2>/dev/null || true
	done
	if command -v gdb >/dev/null; then
		timeout 100 gdb -p "$pid" -batch -ex 'thread apply all bt 12' 2>/dev/null || true
	else
		for task in /proc/"$pid"/task/*; do
			cat "$task/comm" "$task/syscall" "$task/stack" || true
		done
	fi
}

# A request that stays unanswered while nothing else ends is a finding, and who looks for it needs the stacks of
# the server's threads. In the background; PATIENCE is in tens of seconds.
PATIENCE=${PATIENCE-6}
watch_requests()
{
	local device=$1 before='' now same=0 reads writes
	while attached "$device"; do
		sleep 10
		IFS= read -r now <"/sys/block/$device/stat"
		now=${now:0:80}
		read -r reads writes <"/sys/block/$device/inflight"
		same=$((same + 1))
		if [ "$now" != "$before" ] || [ "$reads $writes" = "0 0" ]; then
			same=0
		fi
		before=$now
		if [ $same -ge "$PATIENCE" ]; then
			show_threads
			say "failed /dev/$device has answered nothing for $((PATIENCE * 10)) s"
			return
		fi
	done
}

attached()
{
	[ -e "/sys/block/$1/pid" ] && [ "$(<"/sys/block/$1/size")" -gt 0 ]
}

detach()
{
	nbd-client -d "/dev/$1" >/dev/null
	within 60 detached "$1" || fail "/dev/$1 was not detached"
}

# It is not, and keeps its size, as long as somebody has it open.
detached()
{
	! [ -e "/sys/block/$1/pid" ]
}

# make_fs TYPE DEVICE: as users make them.
make_fs()
{
	case $1 in
	ext4) mkfs.ext4 -q -F "$2" ;;
	xfs) mkfs.xfs -q -f "$2" ;;
	esac
}

# make_small_fs TYPE DEVICE: the same, but for the log of xfs, which mkfs fills with zeros and a mount searches. It is
# 64 MiB otherwise, a lot for an emulated CPU. A smaller one comes round sooner, too.
make_small_fs()
{
	case $1 in
	ext4) make_fs ext4 "$2" ;;
	xfs) mkfs.xfs -q -f --unsupported -l size=16m "$2" >/run/mkfs.log 2>&1 ;;
	esac
}

# check_fs TYPE DEVICE

check_fs()
{
	case $1 in
	ext4) e2fsck -f -n "$2" ;;
	xfs) xfs_repair -n "$2" ;;
	esac >/run/fsck.log 2>&1 || {
		cat /run/fsck.log
		fail "fsck of $1 on $2"
	}
}

# ctl NAME COMMAND...
ctl()
{
	local name=$1
	shift
	"$LOGCACHECTL" -s "/run/$name.ctl" "$@"
}

# A disk that can be made to misbehave: faulty NAME DEVICE makes /dev/mapper/NAME of DEVICE.
faulty()
{
	modprobe dm-mod
	DM_DISABLE_UDEV=1 dmsetup create "$1" --table "0 $(blockdev --getsz "$2") linear $2 0"
}

# fault NAME works|fails|stalls DEVICE
fault()
{
	local sectors
	sectors=$(blockdev --getsz "$3")
	case $2 in
	works) DM_DISABLE_UDEV=1 dmsetup reload "$1" --table "0 $sectors linear $3 0" ;;
	fails) DM_DISABLE_UDEV=1 dmsetup reload "$1" --table "0 $sectors error" ;;
	stalls)
		# What comes waits; what is under way ends.
		DM_DISABLE_UDEV=1 dmsetup suspend --nolockfs "$1"
		return
		;;
	esac
	# --noflush: it may be stalled already
	DM_DISABLE_UDEV=1 dmsetup suspend --nolockfs --noflush "$1"
	DM_DISABLE_UDEV=1 dmsetup resume "$1"
}
