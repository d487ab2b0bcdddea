# SPDX-License-Identifier: BSD-3-Clause
"""What tests/vm/peers has measured in a virtual machine (--json), as rows and columns of the table.

They are rows of their own: the figures of an emulated machine are no figures of this one, so nothing of a row comes from
here and from there. Its columns are logcache, as /dev/nbd0, and the kernel's caches.
"""

import json

from bench import running
from bench.workload import Metric, Workload

METRICS = {
    "per_second": Metric("per_second", "per second", better="more"),
    "p99_us": Metric("p99_us", "99 % within, µs", better="less"),
}
TITLES = {
    "randwrite": "random 4 KiB writes that fit into the cache, depth 16",
    "randread": "random 4 KiB reads of what was written, depth 16",
    "fsync": "one random 4 KiB write and fdatasync at a time",
    "drain": "random 4 KiB writes that fit into the cache, until all is on the disk",
    "sustained": "random 4 KiB writes into a full cache, depth 16",
}


def load(path):
    """Results, and the names of the columns besides logcache's."""
    try:
        with open(path, encoding="utf-8") as f:
            measured = json.load(f)
        rounds, disk = measured["rounds"], measured["disk"]
        caches, workloads = list(rounds[0]), rounds[0]["logcache"]
    except (OSError, ValueError, LookupError) as e:
        raise SystemExit(f"{path}: {e!r}: tests/vm/peers --json FILE makes such a file, with logcache in it") from e
    results = []
    for name, metrics in workloads.items():
        kind = Workload(None, None)
        kind.name = f"vm-{name}"
        kind.title = f"In a virtual machine, {TITLES[name]} ({disk})"
        kind.metrics = [METRICS[m] for m in metrics]
        kind.targets = dict.fromkeys(caches)
        kind.references = ("disk alone",)
        result = running.Result(kind)
        result.rounds = [{c: r[c][name] for c in r if name in r[c]} for r in rounds]
        results.append(result)
    return results, [c for c in caches if c != "logcache"]
