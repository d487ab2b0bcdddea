# SPDX-License-Identifier: BSD-3-Clause
"""The recorder's log, and the images that a power cut leaves.

The model (docs/testing.md, design 9.1): a write is durable if it had ended before a flush of the same file began
that ended before the cut. Of all other writes that had begun, any subset survives, in any order, and of each
any subset of its sectors. The two files fail independently.
"""

import os
import struct
import subprocess
import time

from oracle import SECTOR

ENTRY = struct.Struct("<IBcHIiQQQ")
MAGIC = 0x6c637265


class Entry:
    __slots__ = ("file", "op", "offset", "begin", "end", "data")

    def __init__(self, file, op, offset, begin, end, data):
        self.file = file
        self.op = op
        self.offset = offset
        self.begin = begin
        self.end = end
        self.data = data


def read_log(path):
    entries = []
    with open(path, "rb") as f:
        while head := f.read(ENTRY.size):
            magic, file, op, _, length, error, offset, begin, end = ENTRY.unpack(head)
            assert magic == MAGIC and not error, "the recorder's log is broken"
            data = f.read(length) if op == b"W" else None
            entries.append(Entry(file, op, offset, begin, end, data))
    return entries


class Recorder:
    """A mounted recorder, over the files FILES (name -> path)."""

    def __init__(self, program, folder, files, max_delay_us, seed):
        self.mountpoint = os.path.join(folder, "recorded")
        self.log = os.path.join(folder, "log")
        os.mkdir(self.mountpoint)
        self.process = subprocess.Popen(
            [program, self.mountpoint, self.log, str(max_delay_us), str(seed),
             *(f"{name}={path}" for name, path in files.items())],
            stdin=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not os.path.ismount(self.mountpoint):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError("the recorder did not mount")
            time.sleep(0.005)

    def path(self, name):
        return os.path.join(self.mountpoint, name)

    def stop(self):
        """Its files must be closed. Returns what it recorded."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if os.path.ismount(self.mountpoint):
            subprocess.run(["umount", "-l", self.mountpoint], check=False)
        return read_log(self.log) if os.path.exists(self.log) else []


class Disk:
    """One file's content as far as it is durable; time only goes on."""

    def __init__(self, content, entries, number):
        self.durable = bytearray(content)
        mine = [e for e in entries if e.file == number]
        self.waiting = [e for e in mine if e.op == b"W"]  # in the order of their ends
        self.flushes = [e for e in mine if e.op == b"F"]

    def power_cut(self, cut, rng):
        """What is on the disk after a power cut at the time CUT."""
        covered = max((f.begin for f in self.flushes if f.end <= cut), default=0)
        nr = 0
        for e in self.waiting:
            if e.end >= covered:
                break
            self.durable[e.offset:e.offset + len(e.data)] = e.data
            nr += 1
        del self.waiting[:nr]
        lost = [e for e in self.waiting if e.begin <= cut]
        image = bytearray(self.durable)
        survive = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        tear = rng.choice((0.0, 0.3, 1.0))
        grain = rng.choice((SECTOR, SECTOR, 8 * SECTOR))
        if rng.random() < 0.7:
            rng.shuffle(lost)
        for e in lost:
            if rng.random() >= survive:
                continue
            if rng.random() >= tear:
                image[e.offset:e.offset + len(e.data)] = e.data
                continue
            part = rng.choice((0.1, 0.5, 0.9))
            for at in range(0, len(e.data), grain):
                if rng.random() < part:
                    data = e.data[at:at + grain]
                    image[e.offset + at:e.offset + at + len(data)] = data
        return image
