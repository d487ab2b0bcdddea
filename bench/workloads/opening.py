# SPDX-License-Identifier: BSD-3-Clause
"""Opening a large cache, and what it costs in memory."""

import json
import re
import subprocess

from bench import load
from bench.machine import GIB
from bench.targets import Logcache, Path
from bench.workload import Goal, Metric, Workload, own, ratio

SSD = "SSD"


class Opening(Workload):
    name = "open"
    references = (SSD,)
    warm_up = False
    metrics = (
        Metric("per_second", "segments per second", better="more"),
        Metric("seconds", "seconds", digits=2),
        Metric("reads", "reads of 8 KiB per segment", digits=2),
        Metric("bytes_per_block", "RAM per cached block, bytes (the engine's sum)", digits=1),
        Metric("resident_per_block", "the same, resident memory of the process", digits=1),
    )
    goals = (
        Goal("at least 0.8 × the SSD's own rate for such reads", ratio("per_second", "logcache", SSD),
             at_least=0.8),
        Goal("at most 18 bytes of RAM per cached block", own("bytes_per_block"), at_most=18, digits=1),
    )

    @property
    def title(self):
        return f"Opening a cache of {self.mi_blocks} Mi blocks"

    @property
    def mi_blocks(self):
        return 4 if self.options.quick else 16

    def open(self):
        m = self.machine
        size = 6 * self.mi_blocks * GIB  # of the disk: half as large again as what is cached
        image = m.path("full")
        self.backing = m.sparse_file("disk", size)
        made = subprocess.run([m.program("image/cache-image"), f"--blocks={self.mi_blocks << 20}",
                               f"--backing-size={size}", image], stdout=subprocess.PIPE, check=True)
        self.layout = json.loads(made.stdout)
        self.targets = {"logcache": None, SSD: Path(image)}

    def measure(self, column):
        segments = self.layout["segments"]
        ssd = self.targets[SSD]
        if column == SSD:
            # The summary of one segment and the header of the next are neighbours.
            result = load.nbd_load(self.machine, ssd, "read", block=8192, sequential=True, depth=64,
                                   start=self.layout["first_summary"], stride=self.layout["stride"],
                                   count=segments - 1)
            return {"per_second": result["per_second"], "seconds": result["seconds"], "reads": 1}

        target = Logcache(self.machine, ssd.where, self.backing, "writeback=off")
        try:
            status = target.status()["cache"]
            with open(f"/proc/{target.process.pid}/io", encoding="utf-8") as f:
                read = next(int(line.split()[1]) for line in f if line.startswith("read_bytes:"))
            resident = target.memory_bytes()
            log = target.log_text()
        finally:
            target.stop()
        timer = re.search(r"(?:opened|recovered|scanned|found).* in ([0-9.]+) s", log)
        seconds = float(timer.group(1)) if timer else target.start_seconds
        per_block = re.search(r"([0-9.]+) bytes per cached block", log)
        assert status["cached_blocks"] >= self.mi_blocks << 20, status
        return {"per_second": segments / seconds, "seconds": seconds,
                "reads": read / 8192 / segments,
                "bytes_per_block": float(per_block.group(1)),
                "resident_per_block": resident / status["capacity_blocks"]}
