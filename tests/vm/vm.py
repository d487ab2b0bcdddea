# SPDX-License-Identifier: BSD-3-Clause
"""A virtual machine: Debian's kernel under qemu, with the root of the host, and disks that outlive it.

The guest sees the host's files, all of them, read-only, through 9p, with a tmpfs over them that takes what it
writes; so it has every program of the host, the build, and the folder of the case under the same path. What
the guest has to tell, it tells through a virtio-serial port ("the port"): lines, of which the last is
"exit STATUS". A line is in the host's hands when the guest's write() returns, so what a guest recorded is known
when its qemu has been killed. The host may send lines, too.

Disks are files. A guest that is killed together with its qemu has lost what was in its memory; what it has
written to a disk, flushed or not, is in the host's page cache and survives. It is a crash of the machine, but not a
loss of the disks' caches: for that the files lie on a recorder (test_replay.py).
"""

import ctypes
import functools
import json
import mmap
import os
import platform
import queue
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

import initramfs

# Emulation is slow, and the machine may be busy with other things.
BOOT_TIMEOUT_S = 180
# What a kernel says if something is wrong with it.
KERNEL_TROUBLE = re.compile(r"(?m)^\[ *\d+\.\d+\] .*(BUG:|Oops|Kernel panic|WARNING: .* at |"
                            r"blocked for more than|nbd\d+: Connection timed out|general protection).*$")

# Programs, and the packages that have them.
PROGRAMS = (("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"),
            ("nbd-client", "nbd-client"), ("mkfs.xfs", "xfsprogs"), ("mkfs.ext4", "e2fsprogs"),
            ("dmsetup", "dmsetup"), ("fio", "fio"))

# The runner sets this: show the guests' consoles.
VERBOSE = False


class Died(Exception):
    """The guest ended without having told its exit status."""


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@functools.lru_cache
def tsc_parameter():
    """For the kernel's command line: how fast the TSC counts, which the emulated CPUs share with the host.

    Left to itself the kernel compares it with an emulated timer. On a busy host that goes wrong, and then the guest's
    clock runs many times too fast: its timers interrupt all the time, and its time limits end early.
    """
    if platform.machine() != "x86_64":
        return ""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("0f31 48c1e220 4809d0 c3"))  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))

    def both():
        """(ns, ticks) of one moment: of several pairs the one that nothing came between."""
        pairs = [(time.monotonic_ns(), rdtsc(), time.monotonic_ns()) for _ in range(20)]
        before, ticks, after = min(pairs, key=lambda p: p[2] - p[0])
        return (before + after) // 2, ticks

    start_ns, start = both()
    time.sleep(0.1)
    end_ns, end = both()
    return f"tsc_early_khz={(end - start) * 1000000 // (end_ns - start_ns)} "


class Disk:
    """A disk of the machine. In the guest it is /dev/disk/by-id/virtio-NAME.

    path      a file
    options   further ones of qemu's virtio-blk device
    recorded  the file is on a recorder, which knows no discard and no locks
    block     what qemu's -blockdev has in place of a file
    """

    def __init__(self, name, path=None, options="", recorded=False, block=None):
        self.name = name
        self.path = path
        self.options = options
        cache = {"direct": recorded, "no-flush": False}
        discard = "ignore" if recorded else "unmap"
        self.block = block or {
            "driver": "raw", "node-name": name, "discard": discard, "cache": cache,
            "file": {"driver": "file", "filename": path, "discard": discard, "cache": cache,
                     "locking": "off"}}

    def arguments(self):
        device = f"virtio-blk-pci,drive={self.name},id=dev-{self.name},serial={self.name}"
        return ["-blockdev", json.dumps({**self.block, "node-name": self.name}), "-device",
                f"{device},{self.options}" if self.options else device]


class Machine:
    """One boot of the machine.

    folder   for its files; the guest finds it under the same path
    command  what runs in the guest, a list of words
    """

    def __init__(self, folder, command, disks=(), memory_mib=1024, cpus=2, environment=None,
                 kernel=None):
        self.kernel = kernel or initramfs.find_kernel()
        self.records = []  # lines from the port, but for the last
        self.record_times_ns = []  # when each of them was here, time.monotonic_ns()
        self._seen = {}    # by wait_record(): pattern -> how many records
        self.status = None
        self.killed = False
        self.console_path = os.path.join(folder, "console.log")
        start = os.path.join(folder, "start")
        self._write_start(start, command, environment or {})
        initrd = os.path.join(folder, "initramfs")
        initramfs.build(self.kernel, initrd)

        self._port, port = socket.socketpair()
        self._monitor, monitor = socket.socketpair()
        qemu = initramfs.find_program("qemu-system-x86_64", "qemu-system-x86")
        arguments = [
            qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            # What newer CPUs have makes an emulated one slower: a vector instruction is a call of a function,
            # "rep movsb" a loop over bytes.
            "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand",
            "-smp", str(cpus), "-m", str(memory_mib),
            "-kernel", self.kernel.image, "-initrd", initrd,
            # A guest that gets no CPU time for a while is not stuck: no watchdogs but that for hung tasks, and
            # no looking whether the timer ticks.
            # Nor does it have to test its cryptography, or to prepare for probes that nobody sets: half a second.
            # The emulated CPUs share the host's TSC. Not trusting it, the kernel reads the time from a device.
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0 tsc=reliable no_timer_check "
                       f"{tsc_parameter()}cryptomgr.notests=1 initcall_blacklist=init_kprobe_trace nowatchdog "
                       f"rcupdate.rcu_cpu_stall_suppress=1 vm.start={start}",
            "-serial", "stdio",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            "-chardev", f"socket,id=port,fd={port.fileno()}", "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=port,name=logcache",
            "-chardev", f"socket,id=monitor,fd={monitor.fileno()}",
            "-mon", "chardev=monitor,mode=control",
            *(a for d in disks for a in d.arguments())]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(port.fileno(), monitor.fileno()), preexec_fn=die_with_parent)
        port.close()
        monitor.close()
        self._lines = queue.Queue()
        self._threads = [threading.Thread(target=f, daemon=True)
                         for f in (self._read_console, self._read_port)]
        for t in self._threads:
            t.start()
        self._monitor_file = self._monitor.makefile("rw", encoding="utf-8")
        self._greeted = False

    @staticmethod
    def _write_start(path, command, environment):
        guest = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")
        with open(path, "w", encoding="utf-8") as f:
            for key, value in environment.items():
                f.write(f"export {key}={shlex.quote(str(value))}\n")
            f.write(f"export VM_GUEST={shlex.quote(guest)}\n"
                    f'. "$VM_GUEST/setup.sh"\n'
                    f"{shlex.join(command)}\n"
                    'echo "exit $?" >&3\n'
                    "busybox poweroff -f\n")

    def _read_console(self):
        with open(self.console_path, "wb") as log:
            while data := self.process.stdout.read1(1 << 16):
                log.write(data)
                log.flush()
                if VERBOSE:
                    sys.stdout.buffer.write(data)
                    sys.stdout.flush()

    def _read_port(self):
        with self._port.makefile("r", encoding="utf-8", errors="replace") as lines:
            try:
                for line in lines:
                    if line.endswith("\n"):  # not half of one, when the machine is killed
                        self._lines.put((time.monotonic_ns(), line[:-1]))
            except ConnectionResetError:
                pass
        self._lines.put(None)

    def _take(self, timeout_s):
        """Move one line, if one comes in time, to the records. False: no line."""
        try:
            line = self._lines.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            return False
        if line is None:
            self._lines.put(None)
            if self.status is None and not self.killed:
                self.process.wait()
                raise Died(f"the machine died, qemu's status {self.process.returncode}")
            return False
        when, text = line
        if text.startswith("exit "):
            self.status = int(text.split()[1])
        else:
            self.records.append(text)
            self.record_times_ns.append(when)
        return True

    def wait_record(self, pattern, timeout_s):
        """The match of the first record that PATTERN matches as a whole, also if it came before; with the same
        PATTERN again, the next one. A guest that ends before is an error."""
        end = time.monotonic() + timeout_s
        while True:
            while self._seen.setdefault(pattern, 0) < len(self.records):
                self._seen[pattern] += 1
                match = re.fullmatch(pattern, self.records[self._seen[pattern] - 1])
                if match:
                    return match
            if self.status is not None:
                raise Died(f"the guest ended with status {self.status} before it said {pattern}")
            if not self._take(end - time.monotonic()) and time.monotonic() >= end:
                raise TimeoutError(f"the guest did not say {pattern} within {timeout_s} s")

    def tell(self, line):
        """Send a line to who reads the port in the guest."""
        self._port.sendall(line.encode() + b"\n")

    def wait(self, timeout_s):
        """The exit status of the guest's command; the machine has ended then."""
        end = time.monotonic() + timeout_s
        while self.status is None:
            if not self._take(end - time.monotonic()) and time.monotonic() >= end:
                self.kill()
                raise TimeoutError(f"the guest did not end within {timeout_s} s")
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
        self._threads[0].join(10)
        return self.status

    def kill(self):
        """The power cut, as far as the host can do it. All that the guest recorded is in records then."""
        self.killed = True
        self.process.kill()
        self.process.wait()
        for t in self._threads:
            t.join(10)
        while self._take(0):
            pass

    def monitor(self, command, **arguments):
        """One command of qemu's machine protocol (QMP); its result."""
        if not self._greeted:
            self._greeted = True
            self._monitor_file.readline()
            self.monitor("qmp_capabilities")
        self._monitor_file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._monitor_file.flush()
        while True:
            answer = json.loads(self._monitor_file.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def console(self):
        with open(self.console_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def kernel_trouble(self):
        """The first line in which the kernel says that something is wrong with it, or None."""
        match = KERNEL_TROUBLE.search(self.console().replace("\r", ""))
        return match and match.group(0)

    def release(self):
        if self.process.poll() is None:
            self.kill()
        self._port.close()
        self._monitor.close()
