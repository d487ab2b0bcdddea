# SPDX-License-Identifier: BSD-3-Clause
"""Reads that the SSD has to answer."""

from bench import load
from bench.machine import GIB, MIB
from bench.targets import Logcache, NbdkitFile, Path, Plain, QemuNbd
from bench.workload import Goal, Metric, Workload, ratio

READ = 1 * GIB
# What the log has in its buffers in RAM (64 MiB) shall not be what is read: so much more is written behind it.
BEHIND = 256 * MIB
DIRECT = "fio O_DIRECT"
OWN_DIRECT = "nbd-load O_DIRECT"
# The same read of each block, made by an nbdkit plugin that does nothing else.
PLAIN = "plain plugin"


class Hits(Workload):
    name = "read-16"
    title = "Random 4 KiB reads from the SSD, depth 16"
    external = True
    references = (DIRECT, OWN_DIRECT, PLAIN)
    metrics = (
        Metric("per_second", "reads per second", better="more"),
        Metric("cpu_us", "server CPU, seconds per million", digits=2, better="less"),
        Metric("p99_us", "99 % within, µs"),
        Metric("buffer_share", "share of blocks found in RAM buffers", digits=3),
    )
    goals = (
        Goal("at least qemu-nbd --cache=none --aio=io_uring on the same SSD",
             ratio("per_second", "logcache", "qemu-nbd"), at_least=1.0),
        Goal("at least 0.7 × fio's own O_DIRECT reads at that depth",
             ratio("per_second", "logcache", DIRECT), at_least=0.7),
        Goal("at least 0.9 × the same system call in a plugin that does nothing else",
             ratio("per_second", "logcache", PLAIN), at_least=0.9),
    )

    def open(self):
        m = self.machine
        bare = m.written_file("volume", READ)
        ours = Logcache(m, m.written_file("cache", 2 * GIB), m.sparse_file("backing", READ + BEHIND),
                        "format=force", "writeback=off")
        load.nbd_load(m, ours, "write", count=(READ + BEHIND) // MIB, block=MIB, sequential=True, depth=4)
        ours.drain()
        self.targets = {
            "logcache": ours,
            "qemu-nbd": QemuNbd(m, bare),
            DIRECT: Path(bare),
            OWN_DIRECT: Path(bare),
            PLAIN: Plain(m, bare),
            "file": NbdkitFile(m, bare, "fadvise=random", "cache=none"),
        }

    def measure(self, column):
        target = self.targets[column]
        if column == DIRECT:
            return load.fio_direct(self.machine, target.where, "--rw=randread", "--iodepth=16",
                                   f"--size={READ}", seconds=max(1, round(self.options.seconds)))
        before = target.status() if isinstance(target, Logcache) else None
        result = load.nbd_load(self.machine, target, "read", depth=16, size=READ,
                               seconds=self.options.seconds)
        if before:
            result["buffer_share"] = buffer_share(before, target.status())
        return result


# What a request of 128 KiB is made of here.
BLOCKS = 32
SCATTERED = f"fio O_DIRECT, {BLOCKS} × 4 KiB"


class Scattered(Workload):
    """The normal case in a log: written at random, read in order. The blocks of a request lie all over the SSD."""
    depth = 1
    external = True
    references = (SCATTERED,)
    metrics = (
        Metric("per_second", "reads of 128 KiB per second", better="more"),
        Metric("cpu_us", "server CPU, seconds per million", digits=2, better="less"),
        Metric("p99_us", "99 % within, µs"),
        Metric("buffer_share", "share of blocks found in RAM buffers", digits=3),
    )
    goals = (
        Goal("at least 0.5 × so many scattered reads of 4 KiB by fio",
             ratio("per_second", "logcache", SCATTERED), at_least=0.5),
    )

    def open(self):
        m = self.machine
        volume = READ // 2
        bare = m.written_file("volume", READ)
        ours = Logcache(m, m.written_file("cache", 2 * GIB), m.sparse_file("backing", volume + BEHIND),
                        "format=force", "writeback=off")
        load.nbd_load(m, ours, "write", count=volume // (4 << 10), distinct=True, depth=16, size=volume)
        load.nbd_load(m, ours, "write", count=BEHIND // MIB, block=MIB, sequential=True, depth=4,
                      start=volume, size=volume + BEHIND)
        self.targets = {
            "logcache": ours,
            # Theirs lies in order.
            "qemu-nbd": QemuNbd(m, bare),
            "file": NbdkitFile(m, bare, "fadvise=random", "cache=none"),
            SCATTERED: Path(bare),
        }

    def measure(self, column):
        target = self.targets[column]
        if column == SCATTERED:
            result = load.fio_direct(self.machine, target.where, "--rw=randread",
                                     f"--iodepth={BLOCKS * self.depth}", f"--size={READ}",
                                     seconds=max(1, round(self.options.seconds)))
            result["per_second"] /= BLOCKS
            return result
        before = target.status() if isinstance(target, Logcache) else None
        result = load.nbd_load(self.machine, target, "read", depth=self.depth, size=READ // 2,
                               block=BLOCKS * 4096, sequential=True, seconds=self.options.seconds)
        if before:
            result["buffer_share"] = buffer_share(before, target.status())
        return result


class Scattered1(Scattered):
    name = "read-scattered-1"
    title = "Sequential 128 KiB reads of what was written at random, depth 1"


class Scattered4(Scattered):
    name = "read-scattered-4"
    title = "Sequential 128 KiB reads of what was written at random, depth 4"
    depth = 4
    in_quick = False


def buffer_share(before, after):
    def found(status):
        hit = status["blocks"]["read"]["hit"]
        return sum(hit["buffer"].values()), sum(hit["other"].values())

    (b0, o0), (b1, o1) = found(before), found(after)
    return (b1 - b0) / max(1, b1 - b0 + o1 - o0)
