# SPDX-License-Identifier: BSD-3-Clause
"""All workloads, in the order of the table."""

from bench.workloads import disk, flushes, opening, reads, writes

ALL = (
    writes.Depth16, writes.Depth64, writes.TwoConnections,
    flushes.OneFlush, flushes.OneFua, flushes.Flushers, flushes.OverSlowDisk,
    reads.Hits, reads.Scattered1, reads.Scattered4,
    disk.Drain, disk.Sustained,
    opening.Opening,
    writes.Generators,
)
