# SPDX-License-Identifier: BSD-3-Clause
"""Random 4 KiB writes as fast as they go: what the engine costs beside nbdkit's null, memory and file plugins."""

import sys

from bench import load
from bench.machine import GIB
from bench.targets import Logcache, Nbdkit, NbdkitFile
from bench.workload import Goal, Metric, Workload, own, ratio

VOLUME = 1 * GIB


def cache_bytes(options):
    """A log that does not run full in one measurement: at 130 000 writes a second."""
    quarters = int(4 * (0.5 + 0.6 * options.seconds)) + 1
    return quarters * GIB // 4


def start_cache_filter(machine, *disk):
    """nbdkit's cache filter, unbounded: its bounded mode loses data. DISK: a plugin and its parameters."""
    return Nbdkit(machine, "cache-filter", "--filter=cache", *disk, "cache=writeback",
                  "cache-min-block-size=4K")


class RandomWrites(Workload):
    connections = 1
    depth = 1
    external = True
    metrics = (
        Metric("per_second", "writes per second", better="more"),
        Metric("cpu_us", "server CPU, seconds per million", digits=2, better="less"),
        Metric("p99_us", "99 % within, µs"),
        Metric("ssd_ratio", "SSD bytes per client byte", digits=4),
    )

    def open(self):
        m = self.machine
        # Write-back off: it has rows of its own. The log is drained between the measurements.
        self.targets = {
            "logcache": Logcache(m, m.written_file("cache", cache_bytes(self.options)),
                                 m.sparse_file("backing", VOLUME), "format=force", "writeback=off"),
            "null": Nbdkit(m, "null", "null", f"size={VOLUME}"),
            "memory": Nbdkit(m, "memory", "memory", f"size={VOLUME}"),
            "file": NbdkitFile(m, m.written_file("volume", VOLUME)),
            "cache filter": start_cache_filter(m, "file", m.sparse_file("slow", VOLUME)),
        }

    def measure(self, column):
        target = self.targets[column]
        ours = isinstance(target, Logcache)
        if ours:
            target.drain()
            before = target.status()
        result = load.nbd_load(self.machine, target, "write", depth=self.depth, size=VOLUME,
                               connections=self.connections, seconds=self.options.seconds)
        if ours:
            # Also what is still in the open record: it has to reach the SSD.
            target.request("POST", "/v1/flush", {})
            after = target.status()
            if after["cache"]["dirty_share"] > 0.97:
                sys.exit("the log ran full: the figure would be that of write-back. Give fewer --seconds.")
            written = after["log"]["bytes"] - before["log"]["bytes"]
            result["ssd_ratio"] = written / (after["clients"]["write_bytes"] -
                                             before["clients"]["write_bytes"])
        return result


class Depth16(RandomWrites):
    name = "write-16"
    title = "Random 4 KiB writes, one connection, depth 16"
    depth = 16
    goals = (
        Goal("at least 0.90 × null", ratio("per_second", "logcache", "null"), at_least=0.90),
        Goal("CPU at most that of null + 1.5 µs a write",
             lambda r: r["logcache"]["cpu_us"] - r["null"]["cpu_us"], at_most=1.5),
        Goal("at most 1.01 SSD bytes per client byte", own("ssd_ratio"), at_most=1.01, digits=4),
    )


class Depth64(RandomWrites):
    name = "write-64"
    title = "Random 4 KiB writes, one connection, depth 64"
    depth = 64
    goals = (
        Goal("at least 0.90 × null", ratio("per_second", "logcache", "null"), at_least=0.90),
        Goal("CPU at most that of null + 1.5 µs a write",
             lambda r: r["logcache"]["cpu_us"] - r["null"]["cpu_us"], at_most=1.5),
    )


class TwoConnections(RandomWrites):
    name = "write-2x16"
    title = "Random 4 KiB writes, two connections, depth 16 each"
    connections = 2
    depth = 16
    goals = (
        Goal("at least 0.68 × null", ratio("per_second", "logcache", "null"), at_least=0.68),
        Goal("at least memory", ratio("per_second", "logcache", "memory"), at_least=1.0),
    )


class Generators(Workload):
    """Is it the server that is measured, or the client?"""

    name = "generator"
    title = "The load generator itself: random 4 KiB writes to null, depth 16"
    in_quick = False
    metrics = (
        Metric("per_second", "writes per second", better="more"),
        Metric("client_cpu_us", "client CPU, µs per write", digits=2, better="less"),
    )

    def open(self):
        self.null = Nbdkit(self.machine, "null", "null", f"size={VOLUME}")
        self.targets = {"nbd-load": self.null, "fio": self.null}

    def measure(self, column):
        if column == "fio":
            return load.fio_nbd(self.machine, self.null, "--rw=randwrite", "--iodepth=16",
                                f"--size={VOLUME}", seconds=max(1, round(self.options.seconds)))
        return load.nbd_load(self.machine, self.null, "write", depth=16,
                             seconds=self.options.seconds)
