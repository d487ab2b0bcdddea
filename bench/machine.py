# SPDX-License-Identifier: BSD-3-Clause
"""Where things are, and what this machine is."""

import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GIB = 1 << 30
MIB = 1 << 20


class Machine:
    """Two folders that are gone at the end: one on the SSD that is measured, one in memory.

    The slow disk's data is a sparse file in memory, so that it takes nothing from the SSD; its times come from
    bench/spindle.
    """

    def __init__(self, build, module, ssd, memory):
        self.build = os.path.abspath(build)
        self.module = os.path.abspath(module or os.path.join(self.build, "logcache.so"))
        for path in (self.module, self.program("load/nbd-load")):
            if not os.path.exists(path):
                sys.exit(f"{path} does not exist: build first (scripts/build)")
        self.mounted = mount_new(ssd) if ssd and not os.path.isdir(ssd) else None
        self.ssd_folder = tempfile.mkdtemp(prefix="logcache-bench-", dir=self.mounted or ssd)
        self.memory_folder = tempfile.mkdtemp(prefix="logcache-bench-", dir=memory)
        self._numbers = {}

    def close(self):
        shutil.rmtree(self.ssd_folder, ignore_errors=True)
        if self.mounted:
            subprocess.run(["umount", self.mounted], check=True)
            os.rmdir(self.mounted)
        shutil.rmtree(self.memory_folder, ignore_errors=True)

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def settle(self):
        """What one target has left in the page cache shall not be written while the next one is measured."""
        subprocess.run(["sync", "-f", self.ssd_folder], check=True)

    def path(self, name):
        """A path on the SSD that nobody has been given before."""
        return self._unique(self.ssd_folder, name)

    def memory_path(self, name):
        return self._unique(self.memory_folder, name)

    def _unique(self, folder, name):
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        return os.path.join(folder, name if number == 1 else f"{name}-{number}")

    def written_file(self, name, size):
        """A file on the SSD all of which has been written once, as an old cache file has.

        A file that was merely allocated flushes at half the speed. One for each name, made when first asked for.
        """
        path = os.path.join(self.ssd_folder, name)
        if not os.path.exists(path) or os.path.getsize(path) < size:
            subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4M", f"count={size >> 22}",
                            "oflag=direct", "conv=fsync", "status=none"], check=True)
        return path

    def sparse_file(self, name, size):
        """In memory: for what is neither measured nor full."""
        path = self.memory_path(name)
        with open(path, "wb") as f:
            f.truncate(size)
        return path


def mount_new(device):
    """Make an ext4 on the block device, which must be blank, and mount it: targets are about files on ext4."""
    if not stat.S_ISBLK(os.stat(device).st_mode):
        sys.exit(f"--ssd {device}: it must be a folder or a block device")
    if subprocess.run(["blkid", "-p", device], stdout=subprocess.DEVNULL, check=False).returncode != 2:
        sys.exit(f"--ssd {device}: there is something on it. If it may be destroyed: wipefs -a {device}")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", device], check=True)
    folder = tempfile.mkdtemp(prefix="logcache-bench-ssd-")
    subprocess.run(["mount", "-t", "ext4", device, folder], check=True)
    return folder


def first_line(*command):
    try:
        out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return out.stdout.decode(errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return "not installed"


def describe(machine):
    """What a reader has to know to compare figures: (name, value) pairs."""
    cpu = ""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    fs = first_line("findmnt", "-n", "-o", "FSTYPE", "-T", machine.ssd_folder)
    commit = first_line("git", "-C", ROOT, "describe", "--always", "--dirty")
    return [("CPUs", f"{os.cpu_count()} × {cpu}"),
            ("kernel", platform.release()),
            ("file system of the SSD", fs),
            ("nbdkit", first_line("nbdkit", "--version")),
            ("qemu-nbd", first_line("qemu-nbd", "--version")),
            ("fio", first_line("fio", "--version")),
            ("logcache", commit)]
