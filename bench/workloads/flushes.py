# SPDX-License-Identifier: BSD-3-Clause
"""Durability: one write and its flush, FUA, many who flush, and a slow disk below."""

from bench import load
from bench.machine import GIB, MIB
from bench.targets import Logcache, Nbdkit, NbdkitFile, Path, Plain
from bench.workload import Goal, Metric, Workload, own, ratio
from bench.workloads.writes import cache_bytes, start_cache_filter

VOLUME = 1 * GIB
LOOP = "write + fdatasync"
# The same two system calls for each flush, made by an nbdkit plugin that does nothing else.
PLAIN = "plain plugin"


class Flushing(Workload):
    external = True

    def start_logcache(self, backing, *parameters):
        return Logcache(self.machine, self.machine.written_file("cache", cache_bytes(self.options)),
                        backing, "format=force", "writeback=off", *parameters)

    def open(self):
        m = self.machine
        self.targets = {
            "logcache": self.start_logcache(m.sparse_file("backing", VOLUME)),
            # What the SSD itself can do: as many bytes as a record with one block has.
            LOOP: Path(m.written_file("scratch", 512 * MIB)),
            PLAIN: Plain(m, m.written_file("plain", VOLUME)),
            "file": NbdkitFile(m, m.written_file("volume", VOLUME)),
        }

    def ssd_ratio(self, target, before):
        after = target.status()
        return ((after["log"]["bytes"] - before["log"]["bytes"]) /
                (after["clients"]["write_bytes"] - before["clients"]["write_bytes"]))

    def load(self, column, **how):
        target = self.targets[column]
        if column == LOOP:
            return load.nbd_load(self.machine, target, "write", block=8192, sequential=True,
                                 flush_every=1, seconds=self.options.seconds)
        ours = isinstance(target, Logcache)
        if ours:
            target.drain()
            before = target.status()
        result = load.nbd_load(self.machine, target, "write", size=VOLUME,
                               seconds=self.options.seconds, **how)
        if ours:
            result["ssd_ratio"] = self.ssd_ratio(target, before)
        return result


class OneFlush(Flushing):
    name = "flush"
    title = "One random 4 KiB write and a flush, depth 1"
    references = (LOOP, PLAIN)
    metrics = (
        Metric("per_second", "writes and flushes per second", better="more"),
        Metric("cpu_us", "server CPU, seconds per million", digits=2, better="less"),
        Metric("ssd_ratio", "SSD bytes per client byte", digits=3),
    )
    goals = (
        Goal("at least 0.7 × a bare loop of 8 KiB write + fdatasync",
             ratio("per_second", "logcache", LOOP), at_least=0.7),
        Goal("at least 0.9 × the same system calls in a plugin that does nothing else",
             ratio("per_second", "logcache", PLAIN), at_least=0.9),
        Goal("at most 2.02 SSD bytes per client byte", own("ssd_ratio"), at_most=2.02, digits=3),
    )

    def measure(self, column):
        return self.load(column, flush_every=1)


class OneFua(Flushing):
    name = "fua"
    title = "One random 4 KiB write with FUA, depth 1"
    references = (LOOP, PLAIN)
    metrics = (
        Metric("per_second", "writes per second", better="more"),
        Metric("cpu_us", "server CPU, seconds per million", digits=2, better="less"),
    )
    goals = (
        Goal("at least 0.75 × a bare loop of 8 KiB write + fdatasync",
             ratio("per_second", "logcache", LOOP), at_least=0.75),
        Goal("at least 0.9 × the same system calls in a plugin that does nothing else",
             ratio("per_second", "logcache", PLAIN), at_least=0.9),
    )

    def measure(self, column):
        return self.load(column, fua=True)


class Flushers(Flushing):
    name = "flushers"
    title = "16 who write 4 KiB and flush, against one"
    metrics = (
        Metric("per_second", "writes and flushes per second, 16 of them", better="more"),
        Metric("one", "the same, one alone", better="more"),
        Metric("cpu_us", "server CPU, seconds per million, 16", digits=2, better="less"),
    )
    references = ("null", PLAIN)
    goals = (
        Goal("16 are at least 8 × as fast as one",
             lambda r: r["logcache"]["per_second"] / r["logcache"]["one"], at_least=8, digits=1),
        # Here a flush costs nothing, and what is left is how nbdkit, the client and the cores scale.
        Goal("16 against one: at least 0.9 × what null gives",
             lambda r: (r["logcache"]["per_second"] / r["logcache"]["one"]) /
             (r["null"]["per_second"] / r["null"]["one"]), at_least=0.9),
    )

    def open(self):
        super().open()
        self.targets.pop(LOOP).stop()
        self.targets["null"] = Nbdkit(self.machine, "null", "null", f"size={VOLUME}")

    def measure(self, column):
        one = self.load(column, flush_every=1)
        result = self.load(column, flush_every=1, depth=16)
        result["one"] = one["per_second"]
        return result


class OverSlowDisk(Flushing):
    """The cache filter hands each flush on to the disk, and all dirty blocks before it."""

    name = "flush-slow"
    title = "One write and a flush at a time, over a disk with 8 ms per operation"
    metrics = (
        Metric("per_second", "writes and flushes per second", better="more"),
        Metric("cpu_us", "server CPU, seconds per million", digits=2, better="less"),
    )
    goals = (
        Goal("at least 40 × the cache filter", ratio("per_second", "logcache", "cache filter"),
             at_least=40, digits=0),
    )
    external = False

    slow = ("memory", f"size={VOLUME}", "rdelay=8ms", "wdelay=8ms")

    def open(self):
        m = self.machine
        self.disk = Nbdkit(m, "delay", "--filter=delay", *self.slow)
        self.targets = {
            "logcache": self.start_logcache(self.disk.where, "backing-fence=0"),
            "cache filter": start_cache_filter(m, "--filter=delay", *self.slow),
        }

    def close(self):
        super().close()
        self.disk.stop()

    def load(self, column, **how):
        # not drained: over this disk it takes too long, and the log has room enough
        return load.nbd_load(self.machine, self.targets[column], "write", size=VOLUME,
                             seconds=self.options.seconds, **how)

    def measure(self, column):
        return self.load(column, flush_every=1)
