# SPDX-License-Identifier: BSD-3-Clause
"""All workloads, in the order of the table."""

from bench.workloads import disk, flushes, opening, reads, writes

ALL = (
    writes.Depth16, writes.Depth64, writes.TwoConnections,
    flushes.OneFlush, flushes.OneFua, flushes.Flushers, flushes.OverSlowDisk,
    reads.Hits,
    disk.Drain, disk.Sustained,
    opening.Opening,
    writes.Generators,
)
