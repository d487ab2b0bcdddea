# SPDX-License-Identifier: BSD-3-Clause
"""Write-back onto a slow disk: bench/spindle, whose clock runs options.speed times as fast as ours.

All figures are in the disk's time: "per second" is per second of a real disk, and so are latencies.
"""

from bench import load, plot
from bench.machine import GIB, MIB
from bench.targets import Logcache, Spindle
from bench.workload import Goal, Metric, Workload, ratio

DISK = 64 * GIB
IDEAL = "ideal sweep"
SMALL = "sweeps of 4 Ki"
DRIVE = "disk alone"
SWEPT = "sweep by nbd-load"
BLOCK = 4096


class OverSpindle(Workload):
    warm_up = False

    blocks = 0  # dirty ones: enough for the size of the sweep to matter

    def cache_bytes(self, share):
        """A cache of which `blocks` are so much, on whole segments."""
        return int(self.blocks * BLOCK / share) // (4 * MIB) * 4 * MIB

    def start(self, cache_bytes, *parameters):
        m = self.machine
        disk = Spindle(m, self.options.speed, DISK)
        cache = m.written_file(f"cache-{cache_bytes >> 20}M", cache_bytes)
        # No fence at the start: no earlier server can have writes under way to this disk.
        return disk, Logcache(m, cache, disk.where, "format=force", "backing-fence=0", *parameters)

    def disk_rate(self, requests, seconds):
        return requests / (seconds * self.options.speed)


class Drain(OverSpindle):
    name = "drain"
    title = "Drain of random dirty 4 KiB blocks to a disk of 64 GiB"
    references = (IDEAL, SMALL, SWEPT)
    once = (SWEPT,)
    metrics = (
        Metric("per_second", "blocks per second of the disk", better="more"),
        Metric("busy", "share of the time that the disk was busy", digits=2),
        Metric("queue", "requests that the head could choose from", digits=1),
    )
    goals = (
        Goal("at least 0.9 × one ideal sorted sweep at depth 32 on the same model",
             ratio("per_second", "logcache", IDEAL), at_least=0.9),
        Goal("at least 2 × the same in sweeps of 4 Ki blocks",
             ratio("per_second", "logcache", SMALL), at_least=2.0),
    )

    def open(self):
        self.blocks = (64 if self.options.quick else 256) << 10
        if self.options.quick:
            # Of 64 Ki blocks even the ideal sweep is not so much better.
            self.goals = type(self).goals[:1]
        self.title = f"{type(self).title} ({self.blocks >> 10} Ki of them)"
        self.targets = dict.fromkeys(("logcache", IDEAL, SMALL, DRIVE, SWEPT))

    def measure(self, column):
        seed = 1 + self.round
        simulated = {IDEAL: ("sweep", self.blocks), SMALL: ("sweeps", self.blocks, 4096),
                     DRIVE: ("--write-cache", "random", self.blocks // 8)}
        if column in simulated:
            return {"per_second": load.simulated(self.machine, "--seed", seed, *simulated[column])}

        if column == SWEPT:
            return self.swept(seed)

        # 0.8: the log has other blocks than data, and write-back must not begin by itself
        disk, target = self.start(self.cache_bytes(0.8), "writeback=off")
        try:
            load.nbd_load(self.machine, target, "write", count=self.blocks, distinct=True, seed=seed,
                          depth=64)
            seconds = target.drain()
            dirty = target.status()["cache"]["dirty_blocks"]
            assert dirty == 0, dirty
        finally:
            target.stop()
            disk.stop()
        return self.rate_and_disk(seconds, disk)

    def rate_and_disk(self, seconds, disk):
        """What is not the drain is next to nothing: opening the cache reads 64 blocks, filling it none."""
        did = disk.stats()
        return {"per_second": self.disk_rate(self.blocks, seconds), "queue": did["mean_queue"],
                "busy": min(1, did["busy_s"] / (seconds * self.options.speed))}

    def extra(self, result):
        sizes = [1 << n for n in range(12, 21)]
        lines = {f"ideal sweep, depth {depth}": [
            (n, load.simulated(self.machine, "--depth", depth, "sweep", n)) for n in sizes]
            for depth in (32, 1)}
        return plot.sweeps(lines, [("logcache", self.blocks, result.cell("logcache", "per_second")[0])])

    def swept(self, seed):
        """The ideal sweep in real time, over NBD: what it lacks is what this machine loses at this speed."""
        disk = Spindle(self.machine, self.options.speed, DISK)
        try:
            result = load.nbd_load(self.machine, disk, "write", count=self.blocks, sorted=True, depth=32,
                                   seed=seed)
        finally:
            disk.stop()
        return self.rate_and_disk(result["seconds"], disk)


class Sustained(OverSpindle):
    name = "sustained"
    title = "Random 4 KiB writes into a full cache, depth 16"
    metrics = (
        Metric("per_second", "writes per second of the disk", better="more"),
        Metric("drain", "and then the drain of the full cache, blocks per second"),
        Metric("mean_ms", "latency in the disk's time: mean, ms", digits=2),
        Metric("p999_ms", "99.9 % within, ms", digits=1),
        Metric("max_ms", "the slowest, ms", digits=0),
    )
    goals = (
        Goal("at least 0.85 × the drain rate",
             lambda r: r["logcache"]["per_second"] / r["logcache"]["drain"], at_least=0.85),
        Goal("99.9 % within 10 × the mean",
             lambda r: r["logcache"]["p999_ms"] / r["logcache"]["mean_ms"], at_most=10, digits=1),
        Goal("no write over 1 s at real disk speed (ms)", lambda r: r["logcache"]["max_ms"],
             at_most=1000, digits=0),
    )

    def open(self):
        self.blocks = (32 if self.options.quick else 256) << 10
        self.title = f"{type(self).title} (cache: {self.blocks >> 10} Ki blocks)"
        self.targets = dict.fromkeys(("logcache", DRIVE))

    def metrics_of(self, result):
        ms = self.options.speed / 1000
        return {"per_second": self.disk_rate(result["count"], result["seconds"]),
                "mean_ms": result["mean_us"] * ms, "p999_ms": result["p999_us"] * ms,
                "max_ms": result["max_us"] * ms}

    def measure(self, column):
        seed = 100 + self.round
        if column == DRIVE:
            disk = Spindle(self.machine, self.options.speed, DISK, write_cache=True)
            try:
                # first its own cache of 64 MiB
                load.nbd_load(self.machine, disk, "write", count=20000, depth=16, seed=seed)
                return self.metrics_of(load.nbd_load(self.machine, disk, "write", count=10000, depth=16,
                                                     seed=seed + 1000))
            finally:
                disk.stop()

        disk, target = self.start(self.cache_bytes(1.0))
        try:
            # Until it is full, and two laps of the log more: then it is no burst any more, but a state.
            load.nbd_load(self.machine, target, "write", count=self.blocks * 3, depth=16, seed=seed)
            result = self.metrics_of(load.nbd_load(self.machine, target, "write", count=self.blocks // 2,
                                                   depth=16, seed=seed + 1000))
            dirty = target.status()["cache"]["dirty_blocks"]
            result["drain"] = self.disk_rate(dirty, target.drain())
        finally:
            target.stop()
            disk.stop()
        return result
